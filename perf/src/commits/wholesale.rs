//! Changes of all NICs there are: what it takes to plan, compile and draw them, and to go back.

use std::fmt::Write;
use std::time::{Duration, Instant};

use control::commit::Committer;
use control::config::Config;
use control::document::{Limits, parse_policy};
use control::model::Policy;
use engine::Generation;

/// How long each change took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// All NICs come, to an empty appliance.
    pub apply: Duration,
    /// All of them go.
    pub delete: Duration,
    /// That is taken back: each is who it was.
    pub rollback: Duration,
    /// Each gets another address.
    pub readdress: Duration,
    /// That is taken back.
    pub rollback_addresses: Duration,
}

/// A clock around each change.
struct Timed(Committer);

impl Timed {
    fn commit(&mut self, policy: &Policy) -> Duration {
        let (policy, begin) = (policy.clone(), Instant::now());
        let made = self.0.commit(policy, 0);
        assert!(matches!(made, Ok(Some(_))), "a change that is admitted");
        begin.elapsed()
    }

    fn back_to(&mut self, to: u32) -> Duration {
        let begin = Instant::now();
        let made = self.0.rollback(Generation(to), 0);
        assert!(matches!(made, Ok(Some(_))), "a rollback that is admitted");
        begin.elapsed()
    }
}

/// Tries it with so many NICs.
pub fn run(nics: u32) -> Outcome {
    let (first, second) = (policy(nics, 10), policy(nics, 11));
    let mut timed = Timed(Committer::new(Config::default()));
    let (apply, delete) = (timed.commit(&first), timed.commit(&Policy::default()));
    let rollback = timed.back_to(1);
    let readdress = timed.commit(&second);
    let rollback_addresses = timed.back_to(3);
    // What leads further back than the last change may be more than the history keeps.
    Outcome { apply, delete, rollback, readdress, rollback_addresses }
}

fn policy(nics: u32, first: u32) -> Policy {
    let mut text = "vpcs: [{ name: prod, segment: { untagged: true } }]\nsecurity_groups: [{ name: a, rules: [{ direction: inbound, protocol: tcp, \
                    ports: 22 }] }]\nnics:\n"
        .to_owned();
    for n in 0..nics {
        let address = std::net::Ipv4Addr::from((first << 24) + n);
        let _ = writeln!(text, "- {{ name: n{n}, vpc: prod, addresses: [{address}], security_groups: [a] }}");
    }
    let parsed = parse_policy(&text, "wholesale", &Limits::default());
    parsed.unwrap_or_else(|error| panic!("{error}")).policy
}
