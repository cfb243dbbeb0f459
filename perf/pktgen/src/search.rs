//! The highest rate that is forwarded with no more loss than allowed, by halving (RFC 2544, section
//! 26.1).

use serde::Serialize;

/// What is searched, and how finely.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Search {
    /// The lowest rate tried, in packets a second.
    pub min_pps: f64,
    /// The highest rate tried, in packets a second.
    pub max_pps: f64,
    /// The search ends when the rate is known to this share of the highest one.
    pub resolution: f64,
    /// The loss allowed for the non-drop rate: 0.
    pub ndr_loss: f64,
    /// The loss allowed for the partial drop rate: 0.005 by custom.
    pub pdr_loss: f64,
}

/// What a trial showed.
#[derive(Clone, Copy, Debug, Serialize, PartialEq)]
pub struct Trial {
    /// Packets a second asked for.
    pub pps: f64,
    /// Packets a second that were sent.
    pub sent_pps: f64,
    /// Packets that were to pass: sent, and those that the ports did not take in time.
    pub offered: u64,
    /// Of those, the ones that did not arrive.
    pub lost: u64,
    /// `lost` of `offered`.
    pub loss: f64,
    /// Packets that were never built since the generator did not get its core: with many of them
    /// the rate was lower than asked.
    pub skipped_late: u64,
}

/// A rate found, or none.
#[derive(Clone, Copy, Debug, Serialize, PartialEq)]
pub struct Found {
    /// The loss that was allowed, as a share.
    pub allowed_loss: f64,
    /// The highest rate of a trial that kept to it, in packets a second; `None` if even the lowest
    /// did not.
    pub pps: Option<f64>,
    /// What was sent in that trial, in packets a second: what the generator managed of `pps`.
    pub sent_pps: Option<f64>,
    /// True if the highest rate tried kept to it: what is tested may be faster.
    pub at_maximum: bool,
    /// True if the search ended at the lowest rate that it may try: the rate found is that one, or
    /// none kept to the loss. What is tested may forward less, or a lower rate is to be allowed.
    pub at_minimum: bool,
}

/// The result of a search.
#[derive(Clone, Debug, Serialize, PartialEq)]
pub struct SearchReport {
    /// Without loss; `None` if it was not asked for.
    pub ndr: Option<Found>,
    /// With little loss; `None` if it was not asked for.
    pub pdr: Option<Found>,
    /// Every trial, in order.
    pub trials: Vec<Trial>,
}

/// Searches; `trial` measures at a rate, or says `None` to end the search where it is. Trials serve
/// both searches.
pub fn search(
    search: &Search,
    ndr: bool,
    pdr: bool,
    mut trial: impl FnMut(f64) -> Option<Trial>,
) -> SearchReport {
    let mut trials = Vec::new();
    let mut find =
        |wanted: bool, allowed: f64| wanted.then(|| halve(search, allowed, &mut trials, &mut trial));
    let ndr = find(ndr, search.ndr_loss);
    let pdr = find(pdr, search.pdr_loss);
    SearchReport { ndr, pdr, trials }
}

fn halve(
    search: &Search,
    allowed: f64,
    trials: &mut Vec<Trial>,
    trial: &mut impl FnMut(f64) -> Option<Trial>,
) -> Found {
    let mut at = |pps: f64| {
        if let Some(done) = trials.iter().find(|done| done.pps == pps) {
            return Some(*done);
        }
        let done = trial(pps)?;
        trials.push(done);
        Some(done)
    };
    let found = |best: Option<Trial>, at_maximum| Found {
        allowed_loss: allowed,
        pps: best.map(|best| best.pps),
        sent_pps: best.map(|best| best.sent_pps),
        at_maximum,
        at_minimum: !at_maximum && best.is_some_and(|best| best.pps <= search.min_pps),
    };
    let keeps = |done: &Trial| done.loss <= allowed;
    let (mut low, mut high) = (search.min_pps, search.max_pps);
    match at(high) {
        Some(done) if keeps(&done) => return found(Some(done), true),
        Some(_) => {}
        None => return found(None, false),
    }
    let mut best = match at(low) {
        Some(done) if keeps(&done) => Some(done),
        Some(_) => return Found { at_minimum: true, ..found(None, false) },
        None => return found(None, false),
    };
    while high - low > search.resolution * search.max_pps {
        let middle = low + (high - low) / 2.0;
        match at(middle) {
            Some(done) if keeps(&done) => (low, best) = (middle, Some(done)),
            Some(_) => high = middle,
            None => break,
        }
    }
    found(best, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEARCH: Search =
        Search { min_pps: 1e4, max_pps: 1e6, resolution: 0.01, ndr_loss: 0.0, pdr_loss: 0.005 };

    /// Forwards so many packets a second and no more.
    fn device(capacity: f64) -> impl FnMut(f64) -> Option<Trial> {
        move |pps| {
            let lost = (pps - capacity).max(0.0) as u64;
            Some(Trial {
                pps,
                sent_pps: pps,
                offered: pps as u64,
                lost,
                loss: lost as f64 / pps,
                skipped_late: 0,
            })
        }
    }

    #[test]
    fn both_rates_are_found_to_the_resolution() {
        let report = search(&SEARCH, true, true, device(333_333.0));
        let (ndr, pdr) = (report.ndr.unwrap(), report.pdr.unwrap());
        let (ndr, pdr) = (ndr.pps.unwrap(), pdr.pps.unwrap());
        assert!((323_333.0..=333_333.0).contains(&ndr), "{ndr}");
        assert!((325_000.0..=335_009.0).contains(&pdr) && pdr >= ndr, "{pdr}");
        // Those of the first search serve the second.
        let mut rates: Vec<f64> = report.trials.iter().map(|trial| trial.pps).collect();
        assert!(rates.len() <= 13, "{rates:?}");
        rates.sort_by(f64::total_cmp);
        rates.dedup();
        assert_eq!(rates.len(), report.trials.len(), "none twice");
    }

    #[test]
    fn one_that_is_fast_enough_needs_one_trial_and_one_that_is_too_slow_two() {
        let fast = search(&SEARCH, true, true, device(2e6));
        assert_eq!(
            (fast.trials.len(), fast.ndr.unwrap().at_maximum, fast.ndr.unwrap().pps),
            (1, true, Some(1e6))
        );
        let slow = search(&SEARCH, true, false, device(9e3));
        assert_eq!((slow.trials.len(), slow.ndr.unwrap().pps, slow.pdr), (2, None, None));
        // It ended at its minimum, as does one that forwards the lowest rate and hardly more.
        assert!(slow.ndr.unwrap().at_minimum && !fast.ndr.unwrap().at_minimum);
        let barely = search(&SEARCH, true, false, device(1.2e4)).ndr.unwrap();
        assert_eq!((barely.pps, barely.at_minimum, barely.at_maximum), (Some(1e4), true, false));
        let between = search(&SEARCH, true, false, device(5e5)).ndr.unwrap();
        assert!(!between.at_minimum && !between.at_maximum);
    }

    #[test]
    fn an_interrupted_search_tells_what_it_knows() {
        let mut left = 3;
        let mut device = device(5e5);
        let report = search(&SEARCH, true, true, |pps| {
            left -= 1;
            if left < 0 { None } else { device(pps) }
        });
        assert_eq!((report.trials.len(), report.ndr.unwrap().pps), (3, Some(1e4)));
    }
}
