//! Policy documents and events of any text: refused with a place, or a policy that its own export
//! says again and that can be put in force.

use std::path::Path;

use control::commit::Committer;
use control::config::Config;
use control::document::{Limits, check_policy, parse_events};
use control::export::export;
use testkit::traffic::Traffic;

const EXAMPLE: &str = include_str!("../../ctrl/control/tests/data/example.yaml");

/// Reads it.
pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let limits = Limits::default();
    // Documents that it names are files: a fuzzer names none that is there.
    if !text.contains("policy:") || !text.contains('/') {
        let _ = parse_events(text, "events", Path::new("/nonexistent"), &limits);
    }
    let parsed = match check_policy(text, "policy", &limits) {
        Ok(parsed) => parsed,
        Err(faults) => {
            assert!(!faults.is_empty());
            for fault in faults {
                assert!(fault.to_string().starts_with("policy:"), "{fault}");
            }
            return;
        }
    };
    let exported = export(&parsed.policy);
    let again =
        check_policy(&exported, "export", &limits).unwrap_or_else(|told| panic!("{told:?}\n{exported}"));
    assert_eq!(again.policy, parsed.policy, "{exported}");
    let mut committer = Committer::new(Config::default());
    if let Ok(Some(_)) = committer.commit(parsed.policy, 0) {
        assert!(committer.commit(again.policy, 1).expect("it has its places").is_none(), "{exported}");
    }
}

/// The example, as JSON, and policies of the generator.
pub fn seeds() -> Vec<Vec<u8>> {
    let example = check_policy(EXAMPLE, "example", &Limits::default()).expect("the example is right");
    let mut seeds = vec![EXAMPLE.as_bytes().to_vec(), export(&example.policy).into_bytes()];
    seeds.push(br#"{"vpcs":[{"name":"a","segment":{"vlan":7}}],"nics":[{"name":"n","vpc":"a","addresses":["10.0.0.1"]}]}"#.to_vec());
    seeds.extend((0..24).map(|seed| Traffic::new(seed).policy().into_bytes()));
    seeds
}
