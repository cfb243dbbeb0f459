//! Semantics §3.9: rules on trial.

use std::collections::BTreeMap;
use std::sync::Arc;

use control::config::parse_config;
use control::document::{Limits, parse_policy};
use control::model::{Key, Policy, Rule, SecurityGroup};
use engine::Side;
use testkit::frame::*;
use testkit::oracle::{FrameView, Oracle, Verdict};
use testkit::scenario::{Scenario, one, policy, rule::*};
use testkit::traffic::{Event, Traffic};

const C: &str = "198.51.100.9:40000";
const D: &str = "10.0.0.1:53";
const STAGED_DNS: &str = "{direction: inbound, protocol: udp, ports: 53, staged: true}";
const STAGED_BAN: &str =
    "{direction: inbound, protocol: udp, remote: 198.51.100.0/24, action: deny, priority: 1, staged: true}";

/// The NIC `a` in the group `web` with these rules, and in `trial`, which is staged or not, with those.
fn with_trial(rules: &[&str], staged: bool, trial: &[&str]) -> String {
    let text = policy(&[("web", rules), ("trial", trial)], &[("a", "10.0.0.1", &["web", "trial"])]);
    text.replace("{name: trial,", &format!("{{name: trial, staged: {staged},"))
}

#[test]
fn staged_3_9_a_rule_decides_nothing_and_tells_what_it_would() {
    let mut s = Scenario::new(&one(&[STAGED_DNS]));
    assert_eq!(s.outside(udp(C, D)), "no-rule (staged: pass by web#0)");
    assert!(!s.passed());
    assert_eq!(s.outside(udp(C, "10.0.0.1:54")), "no-rule");
    assert_eq!(s.inside(udp(D, C)), "no-rule", "no connection has come of it");
    assert_eq!(s.staged("web", 0), [1, 1, 0, 0]);

    let mut s = Scenario::new(&one(&[DNS, STAGED_BAN]));
    assert_eq!(s.outside(udp(C, D)), "new by web#0 (staged: drop by web#1)");
    assert_eq!(s.outside(udp("192.0.2.9:4", D)), "new by web#0");
    assert_eq!(s.staged("web", 1), [0, 0, 1, 1]);
}

#[test]
fn staged_3_9_a_group_is_staged_with_all_of_its_rules() {
    let mut s = Scenario::new(&with_trial(&[], true, &[DNS, PING]));
    assert_eq!(s.outside(udp(C, D)), "no-rule (staged: pass by trial#0)");
    assert_eq!(
        s.outside(echo_request("198.51.100.9", "10.0.0.1", 1, 1)),
        "no-rule (staged: pass by trial#1)"
    );
    let refused = with_trial(&[], true, &["{direction: inbound, staged: false}"]);
    let refused = parse_policy(&refused, "policy", &Limits::default()).map(|_| ()).unwrap_err().to_string();
    assert!(refused.contains("false in a group that is staged; allowed: true, or left out"), "{refused}");
    let spelled = with_trial(&[], true, &["{direction: inbound, staged: true}"]);
    assert!(parse_policy(&spelled, "policy", &Limits::default()).is_ok());
}

#[test]
fn staged_3_9_a_nic_with_nothing_else_lets_nothing_through() {
    let mut s = Scenario::new(&one(&[STAGED_DNS, "{direction: outbound, staged: true}"]));
    assert_eq!(s.outside(udp(C, D)), "no-rule (staged: pass by web#0)");
    assert_eq!(s.inside(udp("10.0.0.1:9", C)), "no-rule (staged: pass by web#1)");
}

#[test]
fn staged_3_9_they_would_win_in_their_places() {
    let would = |rules: &[&str]| {
        let mut s = Scenario::new(&one(rules));
        s.outside(udp(C, D))
    };
    let staged = |more: &str| format!("{{direction: inbound, protocol: udp, staged: true{more}}}");
    // An enforced one that comes first wins as ever, and nothing is told.
    assert_eq!(would(&[DNS, &staged("")]), "new by web#0");
    assert_eq!(would(&[&staged(""), DNS]), "new by web#1 (staged: pass by web#0, too)");
    assert_eq!(would(&[DNS, &staged(", priority: 99")]), "new by web#0 (staged: pass by web#1, too)");
    // Deny before allow of the same number, by number else.
    assert_eq!(would(&[DNS, &staged(", action: deny")]), "new by web#0 (staged: drop by web#1)");
    assert_eq!(would(&[&staged(", action: deny"), &staged("")]), "no-rule (staged: drop by web#0, too)");
    let ban = "{direction: inbound, action: deny, priority: 50}";
    assert_eq!(would(&[ban, &staged(", priority: 51")]), "denied by web#0");
    assert_eq!(would(&[ban, &staged(", priority: 49")]), "denied by web#0 (staged: pass by web#1)");
    assert_eq!(
        would(&[ban, &staged(", action: deny, priority: 49")]),
        "denied by web#0 (staged: drop by web#1, too)"
    );
}

#[test]
fn staged_3_9_what_agrees_is_counted_and_what_differs_apart() {
    let mut s = Scenario::new(&one(&[
        "{direction: inbound, protocol: udp, staged: true, priority: 99}",
        "{direction: inbound, protocol: udp, ports: 53}",
    ]));
    for port in [53, 54, 54, 53, 54] {
        s.outside(udp("198.51.100.9:1", ("10.0.0.1", port)));
    }
    // The second one to 53 is of the connection.
    assert_eq!(s.staged("web", 0), [4, 3, 0, 0]);
    assert_eq!(s.firewall().counters().rules.opened(engine::RuleId(1)), 1);
}

#[test]
fn staged_3_9_only_what_the_rules_decide_is_asked_about() {
    let staged = "{direction: inbound, staged: true, priority: 99}";
    let mut s = Scenario::new(&one(&[SSH, DNS, OUT, staged]));
    s.connect(C, "10.0.0.1:22");
    let of_handshake = s.staged("web", 3);
    assert_eq!(of_handshake, [1, 0, 0, 0], "the SYN alone");
    assert_eq!(s.outside(tcp(C, "10.0.0.1:22").seq(1001).ack(5001)), "established");
    assert_eq!(s.outside(tcp("198.51.100.9:1", "10.0.0.1:22").ack(1)), "invalid");
    assert_eq!(s.outside(udp(C, "10.0.0.9:53")), "unknown-destination");
    assert_eq!(s.staged("web", 3), of_handshake);
    // Disconnected connections are judged no more, whatever a staged rule says.
    s.apply(&one(&[SSH, OUT, staged]));
    assert_eq!(s.outside(tcp(C, "10.0.0.1:22").seq(1001).ack(5001)), "tombstone");
    assert_eq!(s.staged("web", 2), of_handshake);

    // What finds no room is not the rules' decision.
    let limited = one(&[DNS, staged]).replace("{name: a,", "{name: a, max_connections: 1,");
    let mut s = Scenario::new(&limited);
    assert_eq!(s.outside(udp(C, D)), "new by web#0 (staged: pass by web#1, too)");
    assert_eq!(s.outside(udp("198.51.100.9:2", D)), "nic-limit");
    assert_eq!(s.staged("web", 1), [1, 0, 0, 0]);
}

#[test]
fn staged_3_9_fragments_follow_their_first_which_alone_is_asked_about() {
    // Of any port: what follows the first bears none.
    let mut s = Scenario::new(&one(&["{direction: inbound, protocol: udp, staged: true}"]));
    let [first, later] = {
        let mut fragments = udp(C, D).payload([7; 64]).fragments(24).into_iter();
        [fragments.next().unwrap(), fragments.next().unwrap()]
    };
    assert_eq!(s.bytes(Side::Outside, first), "no-rule (staged: pass by web#0)");
    assert_eq!(s.bytes(Side::Outside, later), "no-rule");
    assert_eq!(s.staged("web", 0), [1, 1, 0, 0]);
}

#[test]
fn staged_3_9_observed_drops_are_drops() {
    let mut s = Scenario::with("[policy]\nmode = \"observe\"", &one(&[STAGED_DNS]));
    assert_eq!(s.outside(udp(C, D)), "no-rule (observed) (staged: pass by web#0)");
    assert_eq!(s.staged("web", 0), [1, 1, 0, 0]);
}

#[test]
fn staged_3_9_groups_mean_the_same_as_to_other_rules() {
    let trial = "{direction: inbound, remote_group: peers, staged: true}";
    let text = |member: &str| {
        let nics: &[(&str, &str, &[&str])] =
            &[("a", "10.0.0.1", &["web"]), ("b", "10.0.0.2", if member == "b" { &["peers"] } else { &[] })];
        policy(&[("web", &[trial]), ("peers", &[])], nics)
    };
    let mut s = Scenario::new(&text("b"));
    assert_eq!(s.outside(udp("10.0.0.2:9", D)), "no-rule (staged: pass by web#0)");
    assert_eq!(s.outside(udp("10.0.0.3:9", D)), "no-rule");
    s.apply(&text("nobody"));
    assert_eq!(s.outside(udp("10.0.0.2:9", D)), "no-rule");
}

#[test]
fn staged_3_9_a_segment_amid_a_stream_is_asked_about_both_ways() {
    let loose = "[conntrack]\ntcp_pickup = \"loose\"";
    let answer = || tcp("10.0.0.1:22", C).ack(1).seq(1);
    let staged_ssh = "{direction: inbound, protocol: tcp, ports: 22, staged: true}";
    let mut s = Scenario::with(loose, &one(&[OUT, staged_ssh]));
    assert_eq!(s.inside(answer()), "new by web#0 (staged: pass by web#1, too)");
    let mut s = Scenario::with(loose, &one(&[staged_ssh]));
    assert_eq!(s.inside(answer()), "no-rule (staged: pass by web#0)");
    let ban = "{direction: inbound, protocol: tcp, action: deny, priority: 1, staged: true}";
    let mut s = Scenario::with(loose, &one(&[SSH, ban]));
    assert_eq!(s.inside(answer()), "new by web#0 (staged: drop by web#1)");
    let mut s = Scenario::with(loose, &one(&[SSH, OUT, ban]));
    assert_eq!(s.inside(answer()), "new by web#0", "it would go out as the server's own");
}

/// Whether a change of the rules of `web` or of what `a` is in disconnects an inbound connection.
fn cuts(before: &str, after: &str) -> bool {
    let mut s = Scenario::new(before);
    s.connect(C, "10.0.0.1:22");
    let generation = s.generation();
    let (flushed, rejudged) = s.apply(after);
    assert_eq!(s.generation(), generation + 1, "a change all the same");
    let verdict = s.outside(tcp(C, "10.0.0.1:22").seq(1001).ack(5001));
    assert_eq!((verdict == "tombstone", rejudged), (!flushed.is_empty(), vec![]));
    verdict == "tombstone"
}

#[test]
fn staged_3_9_what_comes_and_goes_staged_disconnects_nobody() {
    let base = one(&[SSH, OUT]);
    assert!(!cuts(&base, &one(&[SSH, OUT, STAGED_DNS])), "added");
    assert!(!cuts(&one(&[SSH, OUT, STAGED_DNS]), &one(&[SSH, OUT, STAGED_BAN])), "changed");
    assert!(!cuts(&one(&[SSH, OUT, STAGED_DNS]), &base), "taken away");
    assert!(!cuts(&base, &with_trial(&[SSH, OUT], true, &[DNS, PING])), "a group joined");
    assert!(!cuts(&with_trial(&[SSH, OUT], true, &[DNS, PING]), &base), "a group left");
    assert!(cuts(&base, &with_trial(&[SSH, OUT], false, &[DNS])), "one that is enforced");
    let joined = "[policy]\nflush_scope = \"joined\"";
    let mut s = Scenario::with(joined, &base);
    assert_eq!(s.apply(&with_trial(&[SSH, OUT], true, &[DNS])).0, Vec::<String>::new());
}

#[test]
fn staged_3_9_what_a_staged_rule_rests_on_has_nobody_judged_again() {
    let trial = "{direction: inbound, protocol: udp, remote_group: peers, staged: true}";
    let text = |members: &[&str]| {
        policy(
            &[("web", &[SSH, OUT, trial]), ("peers", &[])],
            &[("a", "10.0.0.1", &["web"]), ("b", "10.0.0.2", members)],
        )
    };
    let mut s = Scenario::new(&text(&[]));
    assert_eq!(s.apply(&text(&["peers"])).1, Vec::<String>::new());
    let enforced = text(&[]).replace(", staged: true", "");
    let mut s = Scenario::new(&enforced);
    assert_eq!(s.apply(&text(&["peers"]).replace(", staged: true", "")).1, ["a"]);
}

#[test]
fn staged_3_9_to_promote_a_rule_and_to_stage_one_is_a_change_of_rules() {
    assert!(cuts(&one(&[SSH, OUT, STAGED_DNS]), &one(&[SSH, OUT, DNS])), "promoted");
    assert!(cuts(&one(&[SSH, OUT, DNS]), &one(&[SSH, OUT, STAGED_DNS])), "staged");
    let [trial, promoted] = [true, false].map(|staged| with_trial(&[SSH, OUT], staged, &[DNS]));
    assert!(cuts(&trial, &promoted));
    assert!(cuts(&promoted, &trial));
    let mut s = Scenario::new(&trial);
    assert_eq!(s.outside(udp(C, D)), "no-rule (staged: pass by trial#0)");
    s.apply(&promoted);
    assert_eq!(s.outside(udp(C, D)), "new by trial#0");
}

#[test]
fn staged_3_9_a_promoted_rule_is_another_with_counters_of_its_own() {
    let mut s = Scenario::new(&one(&[STAGED_DNS]));
    s.outside(udp(C, D));
    s.apply(&one(&[DNS]));
    s.outside(udp(C, D));
    s.outside(udp("198.51.100.9:7", D));
    s.apply(&one(&[DNS, STAGED_DNS]));
    assert_eq!(s.staged("web", 1), [1, 1, 0, 0]);
    assert_eq!(s.staged("web", 0)[0], 2);
}

#[test]
fn staged_3_9_quotas_count_them() {
    let rules: Vec<String> = (1..=51)
        .map(|port| format!("{{direction: inbound, protocol: udp, ports: {port}, staged: true}}"))
        .collect();
    let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
    assert!(parse_policy(&one(&rules[..50]), "policy", &Limits::default()).is_ok());
    assert!(parse_policy(&one(&rules), "policy", &Limits::default()).is_err());
}

/// The policy without its staged rules.
fn without_staged(policy: &Policy) -> Policy {
    change(policy, |group| group.rules.retain(|rule| !rule.staged))
}

/// The policy with its staged rules enforced.
fn promoted(policy: &Policy) -> Policy {
    change(policy, |group| {
        group.staged = false;
        group.rules.iter_mut().for_each(|rule| rule.staged = false);
    })
}

fn change(policy: &Policy, change: impl Fn(&mut SecurityGroup)) -> Policy {
    let mut policy = policy.clone();
    let groups = policy.security_groups.iter().map(|(key, group)| {
        let mut group = group.clone();
        change(Arc::make_mut(&mut group));
        (key.clone(), group)
    });
    policy.security_groups = groups.collect();
    policy
}

/// The rule of a name.
fn rule_of<'p>(policy: &'p Policy, name: &str) -> &'p Rule {
    let (group, at) = name.rsplit_once('#').unwrap();
    &policy.security_groups[&Key::parse(group).unwrap()].rules[at.parse::<usize>().unwrap()]
}

fn sight<'f>(frame: &'f [u8], side: Side, len: usize, time_ns: u64) -> FrameView<'f> {
    FrameView {
        worker: 0,
        time_ns,
        side,
        frame,
        original_len: len,
        refusal: None,
        holds: None,
        in_vain: false,
    }
}

/// Random policies with staged rules under random traffic, by the oracle (which the engine is held to elsewhere): verdicts are those of
/// the policy without them, and what they would decide about a packet that opens a connection is what the policy with all of them
/// enforced says of it.
#[test]
fn staged_3_9_verdicts_are_those_without_them_and_what_they_would_decide_is_what_they_do_once_promoted() {
    const START_NS: u64 = 1_700_000_000_000_000_000;
    let mut met: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in 1000..1240 {
        let mut traffic = Traffic::new(seed);
        let config = parse_config(&traffic.config(), "config").unwrap();
        let limits = config.policy.limits;
        let Ok(parsed) = parse_policy(&traffic.policy(), "policy", &limits) else { continue };
        let mut policy = parsed.policy;
        let mut oracles = [Oracle::new(&config, START_NS, 1), Oracle::new(&config, START_NS, 1)];
        let mut now_ns = START_NS;
        let commit = |oracles: &mut [Oracle; 2], policy: &Policy, ns: u64| {
            for (oracle, policy) in oracles.iter_mut().zip([policy.clone(), without_staged(policy)]) {
                if let Some(generation) = oracle.commit(&policy, ns) {
                    oracle.adopt(0, generation);
                }
            }
        };
        commit(&mut oracles, &policy, now_ns);
        for _ in 0..300 {
            let arrival = match traffic.event() {
                Event::Policy(text, _) => {
                    match parse_policy(&text, "policy", &limits) {
                        Ok(parsed) => {
                            policy = parsed.policy;
                            commit(&mut oracles, &policy, now_ns);
                        }
                        Err(_) => traffic.refuse(),
                    }
                    continue;
                }
                Event::Frame(arrival) => arrival,
            };
            now_ns = oracles[0].clear_of_deadlines(now_ns + arrival.wait_ns);
            now_ns = oracles[1].clear_of_deadlines(now_ns);
            let (frame, len) = (&arrival.frame, arrival.original_len);
            let [told, expected] =
                oracles.each_mut().map(|oracle| oracle.judge(&sight(frame, arrival.side, len, now_ns)));
            let staged = told.staged.clone();
            let meaning = |policy: &Policy, rule: &Option<String>| {
                rule.as_ref().map(|name| rule_of(policy, name).meaning())
            };
            let rules = [meaning(&policy, &told.rule), meaning(&without_staged(&policy), &expected.rule)];
            assert_eq!(rules[0], rules[1], "seed {seed}");
            let told = Verdict { staged: None, rule: None, ..told };
            assert_eq!(told, Verdict { rule: None, ..expected.clone() }, "seed {seed}");
            // What the rules decide of the packet alone, as the first of a connection.
            let mut fresh = Oracle::new(&config, START_NS, 1);
            if let Some(generation) = fresh.commit(&promoted(&policy), now_ns) {
                fresh.adopt(0, generation);
            }
            let fresh = fresh.judge(&sight(frame, arrival.side, len, now_ns));
            let is_of_rules = |verdict: &Verdict| matches!(verdict.reason, "new" | "no-rule" | "denied");
            // A later fragment says its first one's reason, and the answer to a SYN is of a connection.
            if !is_of_rules(&expected) || !is_of_rules(&fresh) {
                *met.entry(if staged.is_some() { "staged, of a connection" } else { "not of rules" })
                    .or_default() += 1;
                continue;
            }
            let by_staged = fresh.rule.filter(|rule| rule_of(&policy, rule).staged);
            let would = by_staged.map(|rule| (rule, fresh.reason == "new"));
            assert_eq!(staged, would, "seed {seed}");
            let kind = match staged {
                Some((_, allows)) if allows != (expected.reason == "new") => "differs",
                Some(_) => "agrees",
                None => "none",
            };
            *met.entry(kind).or_default() += 1;
        }
    }
    println!("{met:?}");
    assert!(met["differs"] > 200 && met["agrees"] > 100 && met["none"] > 1000, "{met:?}");
}
