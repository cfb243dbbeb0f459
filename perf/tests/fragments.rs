//! Fragments of a stranger's choice cost what random ones do, with room for a machine that is never
//! quiet: the table compares eight places whatever the keys. Figures are `perf-fragments`'.

use perf::fragments::costs;

#[test]
fn chosen_fragments_cost_no_more_than_twice_as_much_as_random_ones() {
    let costs = costs(15);
    let random = costs[0].router;
    for cost in &costs {
        assert!(
            cost.router <= 2.0 * random,
            "{}: {:.0} cycles, random {random:.0}",
            cost.choice,
            cost.router
        );
    }
}
