//! A burst at a time and a packet at a time, by every set of instructions, the rules say what a
//! slow reader of them says.

use super::*;
use crate::SegmentKey;
use crate::groups::Membership;
use crate::io::BURST;
use crate::snapshot::{AddressKey, Snapshot, SnapshotBuilder};
use crate::{Generation, proto};

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Rng(u64);

impl Rng {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        ((u128::from(z) * u128::from(end)) >> 64) as u64
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    /// In few places, so that rules overlap and packets hit them; in every third place of all there
    /// are.
    fn address(&mut self, v6: bool) -> u128 {
        let low = u128::from(self.below(1 << 10));
        match (v6, self.below(3)) {
            (false, 0) => u128::from(self.below(1 << 32)),
            (false, 1) => 10 << 24 | low << 6,
            (false, _) => 192 << 24 | 168 << 16 | low,
            (true, 0) => u128::from(self.below(u64::MAX)) << 64 | u128::from(self.below(u64::MAX)),
            (true, _) => 0x2001_0db8 << 96 | low << 60 | u128::from(self.below(4)),
        }
    }

    fn protocol(&mut self) -> u8 {
        let named = [proto::TCP, proto::TCP, proto::UDP, proto::ICMP, proto::ICMPV6, proto::SCTP, 47];
        if self.one_in(8) { self.below(256) as u8 } else { self.pick(&named) }
    }

    fn port(&mut self) -> u16 {
        let some = [0, 1, 22, 53, 80, 255, 256, 443, 0x0800, 8080, u16::MAX - 1, u16::MAX];
        if self.one_in(3) { self.below(1 << 16) as u16 } else { self.pick(&some) }
    }

    fn remote(&mut self) -> Remote {
        let kind = self.below(8);
        if kind < 2 {
            return Remote::Any;
        }
        if kind == 2 {
            return Remote::Group(GroupId(self.below(5) as u32));
        }
        let range = |rng: &mut Rng| {
            let v6 = rng.one_in(3);
            let bits = if v6 { 128 } else { 32 };
            let host = rng.below(bits + 1) as u32;
            // A prefix of any length, or any range.
            if rng.one_in(4) {
                let (one, other) = (rng.address(v6), rng.address(v6));
                return (one.min(other), one.max(other), v6);
            }
            let free = if host == 128 { u128::MAX } else { (1 << host) - 1 };
            let first = rng.address(v6) & !free;
            (first, first | free, v6)
        };
        Remote::Ranges((0..1 + self.below(3)).map(|_| range(self)).collect())
    }

    fn rule(&mut self, id: u32, has_groups: bool) -> Rule {
        let protocol = (!self.one_in(6)).then(|| self.protocol());
        let (one, other) = (self.port(), self.port());
        let ports = if self.one_in(3) { (0, u16::MAX) } else { (one.min(other), one.max(other)) };
        let mut remote = self.remote();
        while remote.group().is_some() && !has_groups {
            remote = self.remote();
        }
        let families = self.pick(&[[true, true], [true, false], [false, true]]);
        let direction = self.pick(&[Direction::Inbound, Direction::Inbound, Direction::Outbound]);
        let priority = 1 + self.below(4) as u8;
        let id = RuleId(id);
        let deny = self.one_in(4);
        Rule { id, direction, families, protocol, ports, remote, deny, priority, staged: false }
    }

    fn query(&mut self) -> Query {
        let v6 = self.one_in(3);
        let direction = self.pick(&[Direction::Inbound, Direction::Inbound, Direction::Outbound]);
        Query { direction, v6, protocol: self.protocol(), port: self.port(), remote: self.address(v6) }
    }
}

/// VPC 1 reaches 2 and not 3; groups 0 to 4 have members in all of them, at addresses that packets
/// come from.
fn world(rng: &mut Rng) -> Snapshot {
    let mut draft = SnapshotBuilder::new(Default::default(), AddressKey::PUBLIC);
    let vpc = |id: u32, reach| (VpcId(id), SegmentKey::vlan(id as u16 + 1), reach);
    draft.vpcs([vpc(0, vec![]), vpc(1, vec![VpcId(2)]), vpc(2, vec![VpcId(1)]), vpc(3, vec![])]);
    for _ in 0..3000 {
        let v6 = rng.one_in(2);
        let groups = (0..1 + rng.below(2)).map(|_| GroupId(rng.below(6) as u32)).collect();
        let membership = Membership { vpc: VpcId(1 + rng.below(3) as u32), groups };
        draft.members().add(rng.address(v6), v6, membership);
    }
    draft.build(Generation(1), Generation(0), Vec::new)
}

/// What the rules say, read one by one (semantics 3.3).
fn slowly(rules: &[Rule], snapshot: &Snapshot, own: VpcId, query: &Query) -> RuleVerdict {
    let is_member = |group: &GroupId| {
        let members = snapshot.groups.members.of(query.remote, query.v6);
        members.iter().any(|m| snapshot.groups.reaches(own, m.vpc) && m.groups.contains(group))
    };
    let fits = |rule: &&Rule| {
        rule.direction == query.direction
            && rule.families[usize::from(query.v6)]
            && rule.protocol.is_none_or(|protocol| protocol == query.protocol)
            && (rule.ports.0..=rule.ports.1).contains(&query.port)
            && match &rule.remote {
                Remote::Any => true,
                Remote::Ranges(ranges) => ranges
                    .iter()
                    .any(|(first, last, v6)| *v6 == query.v6 && (first..=last).contains(&&query.remote)),
                Remote::Group(group) => is_member(group),
            }
    };
    match rules.iter().filter(fits).min_by_key(|rule| (rule.priority, !rule.deny)) {
        Some(rule) if rule.deny => RuleVerdict::Deny(rule.id),
        Some(rule) => RuleVerdict::Allow(rule.id),
        None => RuleVerdict::NoRule,
    }
}

#[test]
fn a_burst_at_a_time_the_rules_say_what_they_say_a_packet_at_a_time_and_read_slowly() {
    let mut rng = Rng(20);
    let snapshot = world(&mut rng);
    let mut policies = Vec::new();
    for count in [0, 1, 2, 5, 30, 63, 64, 65, 200, 255, 256, 257, 400, 700, 1023, 1024, 1500] {
        for has_groups in [false, true] {
            let rules: Vec<Rule> = (0..count).map(|id| rng.rule(id, has_groups)).collect();
            policies.push((Policy::compile(&rules), rules));
        }
    }
    let mut seen = [0; 3];
    for round in 0..6 {
        for size in 0..=BURST {
            let ask: Vec<usize> = (0..size).map(|_| rng.below(policies.len() as u64) as usize).collect();
            let asks: Vec<RuleQuery<'_>> = ask
                .iter()
                .map(|policy| RuleQuery {
                    policy: &policies[*policy].0,
                    own: VpcId(1 + rng.below(3) as u32),
                    query: rng.query(),
                })
                .collect();
            let expected: Vec<RuleVerdict> = asks
                .iter()
                .zip(&ask)
                .map(|(RuleQuery { own, query, .. }, policy)| {
                    slowly(&policies[*policy].1, &snapshot, *own, query)
                })
                .collect();
            for judgement in &expected {
                seen[usize::from(matches!(judgement, RuleVerdict::Deny(_)))
                    + 2 * usize::from(*judgement == RuleVerdict::NoRule)] += 1;
            }
            for level in simd().levels() {
                let mut said = vec![RuleVerdict::NoRule; size];
                let asks_by_number = asks.iter().copied().enumerate();
                level.run_widest(JudgeAll {
                    groups: &snapshot.groups,
                    asks: asks_by_number,
                    tell: |n: usize, judgement| said[n] = judgement,
                });
                assert_eq!(said, expected, "round {round}, {size} at once, {level:?}");
                let one_by_one: Vec<RuleVerdict> = asks
                    .iter()
                    .map(|RuleQuery { policy, own, query }| {
                        policy.judge_with(level, &snapshot.groups, *own, query)
                    })
                    .collect();
                assert_eq!(one_by_one, expected, "round {round}, {size} one by one, {level:?}");
            }
        }
    }
    assert!(seen.iter().all(|times| *times > 500), "allowed, denied, nothing said: {seen:?}");
}

#[test]
fn fields_that_do_not_fit_are_told_of_every_rule_in_the_order_of_winning() {
    let mut rng = Rng(21);
    let snapshot = world(&mut rng);
    let rules: Vec<Rule> = (0..300).map(|id| rng.rule(id, true)).collect();
    let policy = Policy::compile(&rules);
    for _ in 0..300 {
        let query = rng.query();
        let told = policy.mismatches(&snapshot.groups, VpcId(1), &query);
        let first = told.iter().find(|(_, _, fields)| fields.is_empty());
        let winner = match first {
            Some((id, true, _)) => RuleVerdict::Deny(*id),
            Some((id, false, _)) => RuleVerdict::Allow(*id),
            None => RuleVerdict::NoRule,
        };
        assert_eq!(winner, slowly(&rules, &snapshot, VpcId(1), &query), "{query:?}");
        let of_table =
            |rule: &&Rule| rule.direction == query.direction && rule.families[usize::from(query.v6)];
        assert_eq!(told.len(), rules.iter().filter(of_table).count());
    }
}
