//! The cases by name, as `perf-cycles` takes them.

use serde_json::{Map, Value, json};

use super::{self as cases, Figure, Runs, round};
use crate::world::{Shape, World};

/// Every case, with the number it is measured with.
pub const ALL: &[&str] = &[
    "established:1",
    "established:10000",
    "established:100000",
    "established:1000000",
    "established:10000000",
    "cold:1",
    "hot:10000",
    "udp:10000",
    "v6:10000",
    "one-client:60000",
    "one-client-v6:60000",
    "vlan:10000",
    "vxlan:10000",
    "nics:1",
    "nics:10000",
    "fragments:4000",
    "denied:50",
    "denied:250",
    "denied:1000",
    "new:1000000",
    "flood:1000000",
    "full:1000000",
    "flush:1000000",
];

/// What a case came to.
pub struct Named {
    /// The figure.
    pub figure: Figure,
    /// Other figures of the same case, in cycles.
    pub beside: Vec<(&'static str, f64)>,
}

impl Named {
    /// As JSON.
    pub fn json(&self) -> Value {
        let mut json = self.figure.json();
        let beside: Map<_, _> =
            self.beside.iter().map(|(name, cycles)| ((*name).to_owned(), round(*cycles))).collect();
        if !beside.is_empty() {
            json["beside"] = json!(beside);
        }
        json
    }
}

/// Runs the case `NAME:NUMBER`; what is said of every frame of it is checked, and a panic if it
/// does not hold. `frames` a side and run, more where there are more flows.
pub fn run_named(name: &str, runs: Runs) -> Result<Named, String> {
    let unknown = || format!("{name}: no such case; a case is NAME:NUMBER as in {}", ALL.join(", "));
    let (case, number) = name.split_once(':').ok_or_else(unknown)?;
    let n: u32 = number.parse().map_err(|_| unknown())?;
    let long = Runs { frames: runs.frames.max(n as usize), ..runs };
    let usual = World::USUAL;
    let figure = match case {
        "established" => cases::established(&usual, n, n > 1, long),
        "cold" => cases::established(&usual, n, true, long),
        "hot" => cases::established(&usual, n, false, long),
        "udp" => cases::datagrams(&usual, n, true, long),
        "v6" => cases::established(&World { shape: Shape::V6, ..usual }, n, true, long),
        "one-client" => cases::established(&World { nics: 1, one_client: true, ..usual }, n, true, long),
        "one-client-v6" => {
            let world = World { nics: 1, one_client: true, shape: Shape::V6, ..usual };
            cases::established(&world, n, true, long)
        }
        "vlan" => cases::established(&World { shape: Shape::Vlan, ..usual }, n, true, long),
        "vxlan" => cases::established(&World { shape: Shape::Vxlan, ..usual }, n, true, long),
        "nics" => cases::established(&World { nics: n, ..usual }, 10_000, true, runs),
        "fragments" => cases::fragments(&usual, n, runs),
        "denied" => cases::denied(&World { rules: n, ..usual }, runs),
        "new" => cases::new_connections(&usual, n, runs.runs),
        "flood" => cases::syn_flood(&usual, n, runs),
        "full" => cases::table_full(&usual, n, runs),
        "flush" => {
            let flush = cases::flush(&usual, n, runs);
            let beside = vec![("before", flush.before), ("right_after", flush.right_after)];
            return Ok(Named { figure: flush.after, beside });
        }
        _ => return Err(unknown()),
    };
    Ok(Named { figure, beside: Vec::new() })
}
