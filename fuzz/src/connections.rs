//! Sequences of what befalls connections, against the oracle: each byte is a choice of the
//! generator of traffic, which knows handshakes, streams, resets, errors, fragments, pauses, and
//! changes of the policy. So a byte that is changed is another story, not noise.

use control::config::parse_config;
use testkit::rng::Rng;
use testkit::traffic::{Event, Traffic};

use crate::pair::Pair;

/// Events of one run, for bytes that choose little.
const MOST: usize = 300;

/// Lets it happen.
pub fn run(bytes: &[u8]) {
    let mut traffic = Traffic::of(Rng::led_by(bytes));
    let config = parse_config(&traffic.config(), "config").expect("its own configuration");
    let mut pair = Pair::new(config);
    if !pair.apply(&traffic.policy()) {
        return;
    }
    for _ in 0..MOST {
        if traffic.left() == 0 {
            break;
        }
        match traffic.event() {
            Event::Policy(document, _) => {
                if !pair.apply(&document) {
                    traffic.refuse();
                }
            }
            Event::Frame(arrival) => pair.frame(arrival, 1),
        }
    }
    pair.end();
}

/// Random choices.
pub fn seeds() -> Vec<Vec<u8>> {
    (0..32).map(|seed| Rng::new(seed).bytes(if seed % 4 == 0 { 4000 } else { 1000 })).collect()
}
