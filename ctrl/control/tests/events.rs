//! Events files.

use control::document::{Event, Limits, parse_events};
use control::source::Diagnostic;
use std::path::Path;

fn events_in(dir: &Path, text: &str) -> Result<Vec<Event>, Diagnostic> {
    parse_events(text, "e.yaml", dir, &Limits::default())
}

fn events(text: &str) -> Result<Vec<Event>, Diagnostic> {
    events_in(Path::new("/nonexistent"), text)
}

#[test]
fn times_keep_every_nanosecond_and_may_repeat() {
    let text = "- { at: 0, policy: {} }
- { at: 1700000000, policy: {} }
- { at: 1700000000.000001, policy: {} }
- { at: 1700000000.000001, policy: {} }
- { at: 1700000000.000001001, policy: {} }
- { at: 1.7000000011e9, policy: {} }
";
    let times: Vec<u64> = events(text).expect("good events").iter().map(|e| e.at_ns).collect();
    let expected = [
        0,
        1_700_000_000_000_000_000,
        1_700_000_000_000_001_000,
        1_700_000_000_000_001_000,
        1_700_000_000_000_001_001,
        1_700_000_001_100_000_000,
    ];
    assert_eq!(times, expected);
}

#[test]
fn an_empty_file_has_no_events_and_an_empty_policy_is_marked() {
    assert_eq!(events(""), Ok(vec![]));
    assert_eq!(events("[]"), Ok(vec![]));
    let read = events(
        r#"[{"at": 1, "policy": {}}, {"at": 2, "policy": {"vpcs": [{"name": "v", "segment": {"vlan": 1}}]}}]"#,
    );
    assert_eq!(read.expect("good events").iter().map(|e| e.empty).collect::<Vec<_>>(), [true, false]);
}

#[test]
fn files_are_found_beside_the_events_file_and_refused_by_their_own_name() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("good.yaml"), include_str!("data/example.yaml")).expect("written");
    std::fs::write(dir.path().join("bad.yaml"), "vpcs: []\nnic: []\n").expect("written");
    let read = events_in(dir.path(), "- { at: 1, file: good.yaml }").expect("good events");
    assert_eq!(read[0].policy.nics.len(), 1);
    let told = events_in(dir.path(), "- { at: 1, file: bad.yaml }").expect_err("a bad document");
    assert_eq!(told.file, dir.path().join("bad.yaml").display().to_string());
    assert_eq!((told.line, told.column), (2, 1));
}

#[test]
fn the_limits_hold_in_embedded_documents() {
    let text = "- { at: 1, policy: { security_groups: [{ name: g, rules: [{ direction: inbound }, { direction: outbound }] }] } }";
    let limits = Limits { rules_per_group: 1, groups_per_nic: 1 };
    assert!(parse_events(text, "e", Path::new("."), &limits).is_err());
    assert!(events(text).is_ok());
}

#[test]
fn bad_events_are_refused_with_place_finding_and_what_is_allowed() {
    for (text, expected) in [
        ("{}", "1:1: a mapping is no list; allowed: a list of events, [] for none"),
        ("- at: 1", "1:3: [0]: neither policy nor file is given; allowed: one of the two"),
        ("- { policy: {} }", "1:3: [0]: the key at is missing; it is required"),
        ("- { at: 1, policy: {}, file: x }", "1:30: [0].file: file beside policy; allowed: one of the two"),
        (
            "- { at: -1, policy: {} }",
            "1:9: [0].at: -1 is no time; allowed: Unix seconds, a number from 0 to 18446744073",
        ),
        (
            "- { at: \"1\", policy: {} }",
            "1:9: [0].at: \"1\" is no time; allowed: Unix seconds, a number from 0 to 18446744073",
        ),
        (
            "- { at: .inf, policy: {} }",
            "1:9: [0].at: inf is no time; allowed: Unix seconds, a number from 0 to 18446744073",
        ),
        (
            "- { at: 2, policy: {} }\n- { at: 1.999999999, policy: {} }",
            "2:9: [1].at: 1.999999999 is before the event above; allowed: 2.000000000 or later",
        ),
        ("- { at: 2, when: 3, policy: {} }", "1:12: [0]: \"when\" is no key here; allowed: at, policy, file"),
        (
            "- { at: 1, policy: { vpcs: [{ name: v, segment: { vlan: 0 } }] } }",
            "1:57: [0].policy.vpcs[0].segment.vlan: 0 is no VLAN id; allowed: 1-4094",
        ),
        (
            "- { at: 1, policy: }",
            "1:18: [0].policy: null is no mapping; allowed: a mapping with the keys vpcs, address_groups, \
             security_groups, nics",
        ),
        (
            "- { at: 1, file: nowhere.yaml }",
            "1:18: [0].file: /nonexistent/nowhere.yaml: No such file or directory (os error 2); allowed: a readable file",
        ),
    ] {
        let told = events(text).expect_err(text).to_string();
        assert_eq!(told, format!("e.yaml:{expected}"), "{text}");
    }
}
