//! No input makes a parser panic, hang or answer without a place.

use control::config::parse_config;
use control::document::{Limits, parse_events, parse_policy};
use control::init::templates;
use proptest::prelude::*;
use std::path::Path;

const POLICY: &str = include_str!("data/example.yaml");
const CONFIG: &str = include_str!("data/example.toml");

/// A step that makes a good text a bad one, most of the time.
#[derive(Clone, Debug)]
enum Mutation {
    Delete { at: usize, len: usize },
    Insert { at: usize, text: String },
    Copy { from: usize, len: usize, to: usize },
    DropLine { at: usize },
    RepeatLine { at: usize },
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let place = 0usize..4000;
    let snippets = prop_oneof![
        "[\\[\\]{}:,&*!|>'\"%@`#?~ \n\t-]{1,3}",
        prop::sample::select(vec![
            "null",
            "[]",
            "{}",
            "0",
            "-1",
            "1e99",
            "0.0.0.0/0",
            "::",
            "true",
            "*a",
            "&a ",
            "<<: ",
            "---\n",
            "!!int ",
            "\u{0}",
            "\u{feff}",
            "\r",
            "\r\n",
            "\u{85}",
            "\u{2028}",
            "|\n",
            ">-\r",
            "é",
            "default",
            "9".repeat(40).leak(),
            "[".repeat(200).leak(),
            "- ".repeat(200).leak(),
        ])
        .prop_map(str::to_owned),
        any::<char>().prop_map(String::from),
    ];
    prop_oneof![
        (place.clone(), 1usize..30).prop_map(|(at, len)| Mutation::Delete { at, len }),
        (place.clone(), snippets).prop_map(|(at, text)| Mutation::Insert { at, text }),
        (place.clone(), 1usize..200, place.clone()).prop_map(|(from, len, to)| Mutation::Copy {
            from,
            len,
            to
        }),
        place.clone().prop_map(|at| Mutation::DropLine { at }),
        place.prop_map(|at| Mutation::RepeatLine { at }),
    ]
}

fn mutated(text: &str, mutations: &[Mutation]) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    for mutation in mutations {
        let len = chars.len().max(1);
        let clamp = |at: usize| (at % len).min(chars.len());
        match mutation {
            Mutation::Delete { at, len } => {
                let at = clamp(*at);
                chars.drain(at..(at + len).min(chars.len()));
            }
            Mutation::Insert { at, text } => {
                let at = clamp(*at);
                chars.splice(at..at, text.chars());
            }
            Mutation::Copy { from, len, to } => {
                let (from, to) = (clamp(*from), clamp(*to));
                let piece = chars[from..(from + len).min(chars.len())].to_vec();
                chars.splice(to..to, piece);
            }
            Mutation::DropLine { at } | Mutation::RepeatLine { at } => {
                let text: String = chars.iter().collect();
                let mut lines: Vec<&str> = text.lines().collect();
                let at = at % lines.len().max(1);
                match mutation {
                    _ if lines.is_empty() => {}
                    Mutation::DropLine { .. } => drop(lines.remove(at)),
                    _ => lines.insert(at, lines[at]),
                }
                chars = lines.join("\n").chars().collect();
            }
        }
    }
    chars.into_iter().collect()
}

/// How many lines YAML sees in the text: a carriage return ends one, alone as before a line feed (YAML 1.2.2 §5.4).
fn lines(text: &str) -> usize {
    text.replace("\r\n", "\n").split(['\n', '\r']).count()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn a_mutated_policy_is_read_or_refused_with_a_place(steps in prop::collection::vec(mutation(), 1..6)) {
        let text = mutated(POLICY, &steps);
        if let Err(told) = parse_policy(&text, "p.yaml", &Limits::default()) {
            prop_assert!(told.line >= 1 && told.column >= 1, "{told}");
            prop_assert!(told.line as usize <= lines(&text) + 1, "{told}");
            prop_assert!(!told.message.is_empty() && !told.message.contains('\n'), "{told}");
        }
    }

    #[test]
    fn mutated_events_are_read_or_refused_with_a_place(steps in prop::collection::vec(mutation(), 1..6)) {
        let indented = POLICY.replace('\n', "\n    ");
        let events = format!("- at: 1700000000.5\n  policy:\n    {indented}\n- at: 1700000001\n  policy: {{}}\n");
        let text = mutated(&events, &steps);
        if let Err(told) = parse_events(&text, "e.yaml", Path::new("/nonexistent"), &Limits::default()) {
            prop_assert!(told.line >= 1 && told.column >= 1, "{told}");
        }
    }

    #[test]
    fn a_mutated_configuration_is_read_or_refused_with_a_place(steps in prop::collection::vec(mutation(), 1..6)) {
        let text = mutated(CONFIG, &steps);
        if let Err(told) = parse_config(&text, "c.toml") {
            prop_assert!(told.line >= 1 && told.column >= 1, "{told}");
            prop_assert!(!told.message.contains('\n'), "{told}");
        }
    }

    #[test]
    fn any_text_at_all_is_read_or_refused(text in any::<String>()) {
        let _ = parse_policy(&text, "p", &Limits::default());
        let _ = parse_config(&text, "c");
        let _ = parse_events(&text, "e", Path::new("/nonexistent"), &Limits::default());
        let _ = templates(&text, "eth1");
    }
}

#[test]
fn a_lone_carriage_return_ends_a_line() {
    let told = parse_policy("# one\r# two\r# three\rvpcs: [\r", "p", &Limits::default());
    assert_eq!(told.expect_err("a list without end").line, 4);
    let told = parse_policy("# one\r# two\r\nvpcs: >here\r", "p", &Limits::default());
    assert_eq!(told.expect_err("no header of a block").line, 3);
}

#[test]
fn deep_nesting_is_refused_and_does_not_reach_the_end_of_the_stack() {
    let stairs: String = (0..5_000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    let flow = ["[", "{a: ", "- ", "? ", "[{", "!!seq [", "&a [", "[? "].map(|step| step.repeat(100_000));
    for text in flow.into_iter().chain([stairs]) {
        let start: String = text.chars().take(20).collect();
        let told = parse_policy(&text, "p", &Limits::default());
        assert!(told.is_err(), "{start}");
        assert!(parse_config(&format!("a = {text}"), "c").is_err(), "{start}");
    }
    assert!(parse_config(&format!("{}a = 1", "a.".repeat(100_000)), "c").is_err());
}

#[test]
fn aliases_cannot_blow_a_small_document_up() {
    let mut text = String::from("a: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
    for level in 1..12 {
        let alias = format!("*a{}", level - 1);
        text += &format!("b{level}: &a{level} [{}]\n", [&*alias; 10].join(","));
    }
    let started = std::time::Instant::now();
    assert!(parse_policy(&text, "p", &Limits::default()).is_err());
    assert!(started.elapsed().as_secs() < 20);
}
