//! Advice on policies and traffic of the tests' own: no worker is met.

use std::cell::RefCell;

use engine::classify::Query;
use engine::packet::{PacketKind, PacketMeta, flags};
use engine::trace::Record;
use engine::verdict::Verdict;
use engine::{Direction, Generation, Reason, Side, addr_bits};

use super::*;
use crate::config::Config;
use crate::document::{Limits, parse_policy};

/// When it is, and since when everything is counted.
const NOW: f64 = 1_000_000.0;
const SINCE: u64 = 500_000;

/// A policy with what was seen of it.
struct Scene {
    committer: Committer,
    seen: ObservedOpenings,
    told: crate::api::types::Seen,
    told_by: HashMap<RuleId, u64>,
    held_by: HashSet<RuleId>,
    did: RefCell<HashMap<RuleId, RuleUse>>,
}

impl Scene {
    /// Two NICs: `one` has groups a and b, `two` has a alone.
    fn new(a: &str, b: &str) -> Scene {
        Scene::of(&format!(
            "vpcs: [{{ name: v, segment: {{ untagged: true }} }}]
security_groups: [{{ name: a, rules: [{a}] }}, {{ name: b, rules: [{b}] }}]
nics:
- {{ name: one, vpc: v, addresses: [10.0.0.1, '2001:db8::1'], security_groups: [a, b] }}
- {{ name: two, vpc: v, addresses: [10.0.0.2], security_groups: [a] }}"
        ))
    }

    fn of(text: &str) -> Scene {
        let mut committer = Committer::new(Config::default());
        committer.commit(parse_policy(text, "test", &Limits::default()).unwrap().policy, 0).unwrap();
        let told = crate::api::types::Seen { since: SINCE as f64, most: 9, ..Default::default() };
        Scene {
            committer,
            seen: ObservedOpenings::default(),
            told,
            told_by: HashMap::new(),
            held_by: HashSet::new(),
            did: RefCell::default(),
        }
    }

    fn number(&self, rule: &str) -> RuleId {
        let (group, at) = rule.split_once('#').unwrap();
        let key = Key::parse(group).unwrap();
        let rule = &self.committer.policy().security_groups[&key].rules[at.parse::<usize>().unwrap()];
        self.committer.compiler().numbers().of(&key, &rule.meaning()).unwrap()
    }

    /// A packet from a remote to a NIC with this verdict, which the rule is counted for.
    fn packet(&mut self, nic: &str, remote: &str, pkt: PacketMeta, reason: Reason, rule: Option<&str>) {
        let (src, v6) = addr_bits(remote.parse().unwrap());
        let pkt = PacketMeta { src, v6, side: Side::Outside, ..pkt };
        let nic = self.committer.nic_slot(&Key::in_default(nic)).unwrap();
        let record = Record::new(&pkt, &Verdict::of(reason, nic), Generation(1));
        self.seen.tell(nic, &record);
        if let Some(rule) = rule.map(|rule| self.number(rule)) {
            let mut did = self.did.borrow_mut();
            let did = did.entry(rule).or_default();
            if reason == Reason::New {
                did.opened += 1;
                *self.told_by.entry(rule).or_default() += 1;
            } else {
                did.denied += 1;
            }
        }
    }

    /// A SYN that opened a connection by this rule.
    fn opened(&mut self, nic: &str, remote: &str, port: u16, rule: &str) {
        let pkt = PacketMeta {
            kind: PacketKind::Tcp,
            proto: 6,
            flags: flags::SYN,
            dport: port,
            ..PacketMeta::default()
        };
        self.packet(nic, remote, pkt, Reason::New, Some(rule));
    }

    fn advise(self) -> Advice {
        self.advise_as(&AdviceRequest {
            groups: Vec::new(),
            watched_since: NOW - 3600.0,
            limit: 100,
            document: false,
        })
    }

    fn advise_as(self, asked: &AdviceRequest) -> Advice {
        let Scene { committer, seen, told, told_by, held_by, did } = self;
        let numbers = committer.compiler().numbers();
        let number = |key: &Key, meaning: &Meaning| numbers.of(key, meaning);
        let did = |rule: RuleId| {
            let did = did.borrow().get(&rule).copied().unwrap_or_default();
            RuleUse { since: did.since.or(Some(SINCE)), ..did }
        };
        let evidence = Evidence { seen, told, number: &number, did: &did, told_by, held_by };
        advise(&committer, evidence, asked, NOW)
    }
}

/// Kinds and rules.
fn kinds(advice: &Advice) -> Vec<(Advised, &str)> {
    let of = |suggestion: &'_ Suggestion| suggestion.rule.clone();
    assert!(advice.suggestions.iter().all(|s| s.safe == (s.replayed.would_deny == 0)), "{advice:#?}");
    assert!(advice.suggestions.iter().all(|s| of(s).is_some() || s.kind == Advised::NoMembers));
    advice.suggestions.iter().map(|s| (s.kind, s.rule.as_deref().unwrap_or(&s.group))).collect()
}

fn narrow_of<'a>(advice: &'a Advice, rule: &str) -> Vec<&'a str> {
    let found = advice.suggestions.iter().find(|s| s.rule.as_deref() == Some(rule));
    found.map_or(Vec::new(), |found| found.narrow.iter().map(String::as_str).collect())
}

#[test]
fn a_rule_that_did_nothing_is_named_and_one_that_did_is_not() {
    let rules = "{ direction: inbound, protocol: tcp, ports: 22, remote: 192.0.2.7 },
        { direction: inbound, protocol: tcp, ports: 23, remote: 192.0.2.7 },
        { direction: inbound, protocol: tcp, ports: 24, action: deny },
        { direction: inbound, protocol: tcp, ports: 25, action: deny },
        { direction: inbound, protocol: tcp, ports: 26, staged: true }";
    let mut scene = Scene::new(rules, "");
    scene.opened("one", "192.0.2.7", 22, "a#0");
    let refused =
        PacketMeta { kind: PacketKind::Tcp, proto: 6, flags: flags::SYN, dport: 24, ..PacketMeta::default() };
    scene.packet("one", "192.0.2.9", refused, Reason::Denied, Some("a#2"));
    let advice = scene.advise();
    let idle = [(Advised::NeverHit, "a#1"), (Advised::NeverHit, "a#3"), (Advised::NeverHit, "a#4")];
    assert_eq!(kinds(&advice), idle);
    let [allows, denies, staged] = &advice.suggestions[..] else { panic!() };
    assert_eq!(allows.why, "it has let no connection open in the 500000 s for which it is counted");
    assert!(!allows.loosens && denies.loosens && !staged.loosens);
    assert_eq!(allows.command, format!("portcullis rule delete 'a#{}'", allows.rule_id.as_ref().unwrap()));
    assert_eq!((allows.trial.len(), denies.trial.len(), staged.trial.len()), (1, 0, 0));
    assert_eq!((allows.flushes, staged.flushes), (2, 0), "a staged rule flushes nobody");
    assert_eq!(allows.replayed, Replayed { opened: 1, ..Replayed::default() });
}

#[test]
fn a_rule_that_a_live_connection_has_or_that_would_take_what_was_seen_is_in_use() {
    let rules = "{ direction: inbound, protocol: tcp, ports: 22, remote: 192.0.2.7 },
        { direction: outbound, protocol: tcp, ports: 23, remote: 192.0.2.7 }";
    let mut scene = Scene::new(rules, "");
    // Opened by a rule that is gone; this one would let it open today.
    let pkt =
        PacketMeta { kind: PacketKind::Tcp, proto: 6, flags: flags::SYN, dport: 22, ..PacketMeta::default() };
    scene.packet("two", "192.0.2.7", pkt, Reason::New, None);
    let other = scene.number("a#1");
    scene.held_by.insert(other);
    assert_eq!(kinds(&scene.advise()), []);
}

#[test]
fn what_is_watched_for_too_short_is_counted_and_not_named() {
    let rules =
        "{ direction: inbound, protocol: tcp, ports: 22 }, { direction: inbound, protocol: tcp, ports: 23 }";
    let mut scene = Scene::new(rules, "");
    scene.opened("one", "192.0.2.7", 22, "a#0");
    let asked = AdviceRequest { groups: Vec::new(), watched_since: 499_999.0, limit: 100, document: false };
    let advice = scene.advise_as(&asked);
    assert_eq!((kinds(&advice), advice.too_young, advice.too_briefly_seen), (vec![], 1, 1));
}

#[test]
fn of_more_connections_than_the_history_has_what_it_goes_back_to_counts() {
    let rules = "{ direction: inbound, protocol: tcp, ports: 22 }";
    let asked =
        AdviceRequest { groups: Vec::new(), watched_since: NOW - 3600.0, limit: 100, document: false };
    for (since, named) in [(NOW - 3599.0, 0), (NOW - 3601.0, 1)] {
        let mut scene = Scene::new(rules, "");
        scene.opened("one", "192.0.2.7", 22, "a#0");
        let rule = scene.number("a#0");
        scene.did.borrow_mut().get_mut(&rule).unwrap().opened = 2;
        scene.told.since = since;
        let advice = scene.advise_as(&asked);
        assert_eq!((advice.suggestions.len(), advice.too_briefly_seen), (named, 1 - named), "{since}");
    }
}

#[test]
fn a_rule_is_shadowed_only_if_it_is_for_every_nic_that_has_it() {
    // a#0 stands before b#0 for the NIC that has both; a#1 is behind b's deny there, and not for the other NIC.
    let a = "{ direction: inbound, protocol: tcp, ports: 20-30 }, { direction: inbound, protocol: udp, ports: 53 }";
    let b = "{ direction: inbound, protocol: tcp, ports: 22, remote: 192.0.2.0/24 },
        { direction: inbound, protocol: udp, action: deny, priority: 50 }";
    let mut scene = Scene::new(a, b);
    scene.opened("one", "198.51.100.1", 22, "a#0");
    scene.opened("two", "203.0.113.1", 30, "a#0");
    let udp = PacketMeta { kind: PacketKind::WithPorts, proto: 17, dport: 53, ..PacketMeta::default() };
    scene.packet("one", "192.0.2.1", udp.clone(), Reason::Denied, Some("b#1"));
    scene.packet("two", "192.0.2.1", udp, Reason::New, Some("a#1"));
    let advice = scene.advise();
    let shadowed: Vec<_> = advice.suggestions.iter().filter(|s| s.kind == Advised::Shadowed).collect();
    assert_eq!(shadowed.len(), 1, "{advice:#?}");
    assert_eq!(shadowed[0].rule.as_deref(), Some("b#0"));
    assert_eq!(shadowed[0].by.iter().map(|by| &*by.rule).collect::<Vec<_>>(), ["a#0"]);
    assert!(shadowed[0].trial.is_empty() && shadowed[0].safe);
}

#[test]
fn among_allowing_rules_a_wider_one_behind_makes_one_superfluous_unless_a_deny_stands_between() {
    let narrow = "{ direction: inbound, protocol: tcp, ports: 22, remote: 192.0.2.0/24, priority: 10 }";
    let wide = "{ direction: inbound, protocol: tcp, ports: 1-1000 }";
    let deny = |ports: &str| {
        format!("{{ direction: inbound, protocol: tcp, ports: {ports}, action: deny, priority: 20 }}")
    };
    for (between, is_superfluous) in [(String::new(), true), (deny("23"), true), (deny("22-23"), false)] {
        let rules = if between.is_empty() {
            format!("{narrow}, {wide}")
        } else {
            format!("{narrow}, {between}, {wide}")
        };
        let mut scene = Scene::new(&rules, "");
        scene.opened("two", "192.0.2.1", 22, "a#0");
        let advice = scene.advise();
        let named = kinds(&advice).contains(&(Advised::Redundant, "a#0"));
        assert_eq!(named, is_superfluous, "{rules}");
    }
}

#[test]
fn a_staged_rule_is_superfluous_only_before_a_rule_that_would_tell_in_its_place() {
    let kinds_of = |rules: &str| {
        let advice = Scene::new(rules, "").advise();
        let kinds = kinds(&advice);
        let of_rules =
            |kind| kinds.iter().filter(|k| k.0 == kind).map(|k| k.1.to_owned()).collect::<Vec<_>>();
        [of_rules(Advised::Shadowed), of_rules(Advised::Redundant)]
    };
    let rule = |ports: &str, staged: bool| {
        let staged = if staged { ", staged: true" } else { "" };
        format!("{{ direction: inbound, protocol: tcp{ports}{staged} }}")
    };
    let (narrow, wide) = (", ports: 22", "");
    let of = |first: (&str, bool), second: (&str, bool)| {
        kinds_of(&format!("{}, {}", rule(first.0, first.1), rule(second.0, second.1)))
    };
    let [none, first, second] = [vec![], vec!["a#0".to_owned()], vec!["a#1".to_owned()]];
    // Enforced ones: a wider one behind does the same; a staged one does nothing.
    assert_eq!(of((narrow, false), (wide, false)), [none.clone(), first]);
    assert_eq!(of((narrow, false), (wide, true)), [none.clone(), none.clone()]);
    // Staged ones: what is told would be another's; behind a wider one, of either kind, it never tells.
    assert_eq!(of((narrow, true), (wide, true)), [none.clone(), none.clone()]);
    assert_eq!(of((narrow, true), (wide, false)), [none.clone(), none.clone()]);
    assert_eq!(of((wide, true), (narrow, true)), [second.clone(), none.clone()]);
    assert_eq!(of((wide, false), (narrow, true)), [second, none.clone()]);
    assert_eq!(of((wide, true), (narrow, false)), [none.clone(), none]);
}

#[test]
fn of_two_rules_that_stand_in_for_each_other_one_is_named() {
    let rule = "{ direction: inbound, protocol: tcp, ports: 22, remote: 192.0.2.7 }";
    let text = format!(
        "vpcs: [{{ name: v, segment: {{ untagged: true }} }}]
security_groups: [{{ name: a, rules: [{rule}] }}, {{ name: b, rules: [{rule}] }}]
nics: [{{ name: one, vpc: v, addresses: [10.0.0.1], security_groups: [a, b] }}]"
    );
    let mut scene = Scene::of(&text);
    scene.opened("one", "192.0.2.7", 22, "a#0");
    let advice = scene.advise();
    assert_eq!(kinds(&advice), [(Advised::Redundant, "a#0")]);
    assert_eq!(advice.together, Replayed { opened: 1, ..Replayed::default() });
}

#[test]
fn ports_of_several_rules_together_cover_one() {
    let rules = |high: u16| {
        format!(
            "{{ direction: inbound, protocol: tcp, ports: 1-50 }}, {{ direction: inbound, protocol: tcp, ports: 51-{high} }},
            {{ direction: inbound, protocol: tcp, ports: 40-60, remote: 192.0.2.0/24 }}"
        )
    };
    for (high, is_shadowed) in [(60, true), (59, false)] {
        let advice = Scene::new(&rules(high), "").advise();
        assert_eq!(kinds(&advice).contains(&(Advised::Shadowed, "a#2")), is_shadowed, "{high}");
    }
}

#[test]
fn the_narrowest_form_has_what_was_seen_and_no_more() {
    let mut scene = Scene::new("{ direction: inbound }", "");
    for (remote, port) in [("192.0.2.4", 22), ("192.0.2.5", 22), ("2001:db8::7", 443), ("2001:db8::8", 444)] {
        scene.opened("one", remote, port, "a#0");
    }
    let ping = PacketMeta { kind: PacketKind::IcmpRequest, proto: 1, dport: 8 << 8, ..PacketMeta::default() };
    scene.packet("two", "198.51.100.1", ping, Reason::New, Some("a#0"));
    let ping =
        PacketMeta { kind: PacketKind::IcmpRequest, proto: 58, dport: 128 << 8, ..PacketMeta::default() };
    scene.packet("one", "2001:db8::7", ping, Reason::New, Some("a#0"));
    let udp = PacketMeta { kind: PacketKind::WithPorts, proto: 17, dport: 53, ..PacketMeta::default() };
    scene.packet("two", "203.0.113.200", udp, Reason::New, Some("a#0"));
    let advice = scene.advise();
    assert_eq!(
        narrow_of(&advice, "a#0"),
        [
            "allow inbound icmp type 8 from 198.51.100.1/32",
            "allow inbound tcp 22 from 192.0.2.4/31",
            "allow inbound tcp 443-444 from 2001:db8::/124",
            "allow inbound udp 53 from 203.0.113.200/32",
            "allow inbound icmpv6 type 128 from 2001:db8::7/128",
        ]
    );
    let [suggestion] = &advice.suggestions[..] else { panic!("{advice:#?}") };
    assert!(suggestion.safe && suggestion.replayed.opened == 7);
    assert!(suggestion.command.starts_with("printf %s '{\"name\":\"a\",\"rules\":["));
    assert_eq!(suggestion.trial.len(), 6, "five at priority 99, and one that denies the rest");
    assert!(suggestion.trial[0].contains("\"priority\":99,\"staged\":true"));
    assert!(suggestion.trial[5].contains("\"action\":\"deny\",\"staged\":true"));
}

#[test]
fn what_a_public_server_is_asked_for_from_everywhere_is_not_too_broad() {
    let mut scene = Scene::new("{ direction: inbound, protocol: tcp, ports: 443, ethertype: IPv4 }", "");
    for n in 1..=200u32 {
        let remote = std::net::Ipv4Addr::from(n.wrapping_mul(0x9E37_79B9));
        scene.opened("two", &remote.to_string(), 443, "a#0");
    }
    assert_eq!(kinds(&scene.advise()), []);
}

#[test]
fn port_0_is_kept_where_it_was_seen_and_groups_stay_groups() {
    let rules = "{ direction: inbound, protocol: udp, remote_group: a }, { direction: inbound, protocol: tcp, remote_group: a }";
    let mut scene = Scene::new(rules, "");
    let udp = PacketMeta { kind: PacketKind::WithPorts, proto: 17, dport: 0, ..PacketMeta::default() };
    scene.packet("one", "10.0.0.2", udp, Reason::New, Some("a#0"));
    scene.opened("one", "10.0.0.2", 22, "a#1");
    let advice = scene.advise();
    assert_eq!(narrow_of(&advice, "a#0"), [""; 0]);
    assert_eq!(narrow_of(&advice, "a#1"), ["allow inbound tcp 22 from group a (IPv4)"]);
    assert!(advice.suggestions[0].command.starts_with("portcullis rule set 'a#r-"));
}

#[test]
fn a_segment_amid_a_stream_is_judged_as_it_was() {
    // The server's answer to a client of before the start: by the inbound rule, though it leaves.
    let mut scene = Scene::new("{ direction: inbound, protocol: tcp, ports: 22, remote: 192.0.2.7 }", "");
    let (dst, _) = addr_bits("192.0.2.7".parse().unwrap());
    let pkt = PacketMeta {
        dst,
        kind: PacketKind::Tcp,
        proto: 6,
        flags: flags::ACK,
        sport: 22,
        dport: 40_000,
        side: Side::Inside,
        ..PacketMeta::default()
    };
    let nic = scene.committer.nic_slot(&Key::in_default("one")).unwrap();
    scene.seen.tell(nic, &Record::new(&pkt, &Verdict::of(Reason::New, nic), Generation(1)));
    assert_eq!(kinds(&scene.advise()), [], "it is not idle");
}

#[test]
fn what_would_deny_a_seen_connection_is_not_safe() {
    let mut scene = Scene::new("{ direction: inbound, protocol: tcp, ports: 22 }", "");
    scene.opened("one", "192.0.2.7", 22, "a#0");
    scene.opened("two", "192.0.2.8", 22, "a#0");
    let present = candidate(&scene.committer, scene.committer.policy().clone()).unwrap();
    let openings = std::mem::take(&mut scene.seen).openings();
    let bench = Evaluator::new(openings, &present.snapshot);
    let policy = parse_policy(
        "vpcs: [{ name: v, segment: { untagged: true } }]
security_groups: [{ name: a, rules: [{ direction: inbound, protocol: tcp, ports: 22, remote: 192.0.2.7 }] }, { name: b }]
nics:
- { name: one, vpc: v, addresses: [10.0.0.1, '2001:db8::1'], security_groups: [a, b] }
- { name: two, vpc: v, addresses: [10.0.0.2], security_groups: [a] }",
        "test",
        &Limits::default(),
    );
    let then = candidate(&scene.committer, policy.unwrap().policy).unwrap();
    let replayed = bench.replay(&then.snapshot, bench.nics());
    assert_eq!(replayed, Replayed { opened: 2, live: 0, would_deny: 1, would_pass: 0 });
}

#[test]
fn what_there_was_no_room_to_look_at_leaves_nothing_safe() {
    let mut scene = Scene::new("{ direction: inbound, protocol: tcp, ports: 22 }", "");
    scene.opened("one", "192.0.2.7", 22, "a#0");
    scene.seen.left_out = 1;
    let advice = scene.advise();
    assert_eq!(advice.suggestions.iter().map(|s| s.safe).collect::<Vec<_>>(), [false]);
    assert_eq!(advice.seen.left_out, 1);
}

#[test]
fn a_group_that_nobody_is_in_and_no_rule_names_could_go() {
    let advice = Scene::of(
        "vpcs: [{ name: v, segment: { untagged: true } }]
security_groups:
- { name: named, rules: [{ direction: inbound, protocol: tcp, ports: 22 }] }
- { name: left, rules: [{ direction: inbound, protocol: tcp, ports: 22, remote_group: left }] }
- { name: a, rules: [{ direction: inbound, protocol: tcp, ports: 22, remote_group: named }] }
nics: [{ name: one, vpc: v, addresses: [10.0.0.1], security_groups: [a] }]",
    )
    .advise();
    assert_eq!(kinds(&advice), [(Advised::NoMembers, "left"), (Advised::NeverHit, "a#0")]);
    assert_eq!(advice.suggestions[0].command, "portcullis group delete left");
    assert_eq!(advice.suggestions[0].document, None);
}

#[test]
fn so_many_suggestions_are_made_and_of_the_groups_that_are_asked_about() {
    let rules =
        "{ direction: inbound, protocol: tcp, ports: 22 }, { direction: inbound, protocol: tcp, ports: 23 }";
    let asked = |groups, limit| AdviceRequest { groups, watched_since: NOW, limit, document: false };
    let advice = Scene::new(rules, rules).advise_as(&asked(vec![Key::in_default("b")], 100));
    assert!(!advice.more && advice.suggestions.iter().all(|s| s.group == "b"), "{advice:#?}");
    let advice = Scene::new(rules, rules).advise_as(&asked(Vec::new(), 1));
    assert_eq!((advice.suggestions.len(), advice.more), (1, true));
}

#[test]
fn prefixes_are_parted_where_addresses_have_least_in_common() {
    let addresses = ["10.0.0.1", "10.0.0.2", "10.0.9.1", "172.16.0.1", "192.168.7.7"];
    let bits: BTreeSet<u128> = addresses.iter().map(|a| addr_bits(a.parse().unwrap()).0).collect();
    let of = |most| narrow::prefixes(&bits, false, most).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(of(1), ["0.0.0.0/0"]);
    assert_eq!(of(2), ["10.0.0.0/20", "128.0.0.0/1"]);
    assert_eq!(of(3), ["10.0.0.0/20", "172.16.0.1/32", "192.168.7.7/32"]);
    assert_eq!(of(8), ["10.0.0.1/32", "10.0.0.2/32", "10.0.9.1/32", "172.16.0.1/32", "192.168.7.7/32"]);
    assert!(narrow::prefixes(&BTreeSet::new(), true, 3).is_empty());
}

#[test]
fn queries_of_both_directions_are_told_apart() {
    let mut seen = ObservedOpenings::default();
    for side in [Side::Outside, Side::Inside] {
        let pkt = PacketMeta {
            src: 1,
            dst: 1,
            kind: PacketKind::WithPorts,
            proto: 17,
            sport: 7,
            dport: 9,
            side,
            ..PacketMeta::default()
        };
        seen.tell(NicSlot(1), &Record::new(&pkt, &Verdict::of(Reason::New, NicSlot(1)), Generation(1)));
    }
    let query = |direction| Query { direction, v6: false, protocol: 17, port: 9, remote: 1 };
    let mut found: Vec<_> = seen.openings().all.iter().map(|opening| opening.query).collect();
    found.sort_by_key(|query| query.direction == Direction::Outbound);
    assert_eq!(found, [query(Direction::Inbound), query(Direction::Outbound)]);
}
