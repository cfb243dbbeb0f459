//! The classifier: a NIC's rules as bit vectors, so that the cost does not grow with the rules.
//!
//! All rules of one direction and family of one ordered list of groups are sorted by (priority,
//! deny first, group, position), and each is a bit. One search over the remote address yields the
//! rules whose remote fits, one over the port (of ICMP: type and code) those whose protocol and
//! port fit; the first bit set in both is the verdict (semantics 3.3). After Lakshman and
//! Stiliadis, "High-speed policy-based packet forwarding using efficient multi-dimensional range
//! matching", 1998. Groups named as remotes are bits per group, asked of the holders of the remote
//! address: a change of members touches no policy.

mod pool;
mod ports;
mod rows;
mod search;
mod staged;
mod table;

use std::sync::Arc;

pub use pool::InternPool;

use crate::cpu::{Baseline, Isa, Simd, Work, simd};
use crate::groups::Groups;
use crate::{Direction, GroupId, RuleId, VpcId};
pub use staged::Staged;
use table::{MatchRows, Table};

/// Whom a rule is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Remote {
    /// Everyone.
    Any,
    /// Addresses from … to, of IPv6 or not; each bound included.
    Ranges(Arc<[(u128, u128, bool)]>),
    /// Members of a group.
    Group(GroupId),
}

/// One rule, ready to be compiled.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// Its name in verdicts.
    pub id: RuleId,
    /// Whose packets it is about.
    pub direction: Direction,
    /// It holds for IPv4, for IPv6.
    pub families: [bool; 2],
    /// IP protocol; `None` for any.
    pub protocol: Option<u8>,
    /// Destination ports, or ICMP type × 256 + code, from … to; 0–65535 where it names none.
    pub ports: (u16, u16),
    /// Whom it is about.
    pub remote: Remote,
    /// It refuses what it matches.
    pub deny: bool,
    /// 1 the highest.
    pub priority: u8,
    /// On trial: it decides nothing, and what it would decide is told.
    pub staged: bool,
}

/// What the rules are asked: an opening packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// Its direction.
    pub direction: Direction,
    /// IPv6.
    pub v6: bool,
    /// IP protocol.
    pub protocol: u8,
    /// Destination port, or ICMP type × 256 + code; 0 where the protocol has neither.
    pub port: u16,
    /// The other side's address.
    pub remote: u128,
}

/// What the rules answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleVerdict {
    /// The winning rule allows it.
    Allow(RuleId),
    /// The winning rule refuses it.
    Deny(RuleId),
    /// No rule matches.
    NoRule,
}

/// A field of a rule that a packet may fail to match, for `explain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// The protocol.
    Protocol,
    /// The port, or the ICMP type and code.
    Ports,
    /// The remote.
    Remote,
}

impl Remote {
    fn group(&self) -> Option<GroupId> {
        match self {
            Remote::Group(group) => Some(*group),
            _ => None,
        }
    }

    fn ranges(&self, v6: bool) -> impl Iterator<Item = &(u128, u128, bool)> {
        let all: &[_] = match self {
            Remote::Ranges(ranges) => ranges,
            _ => &[],
        };
        all.iter().filter(move |(_, _, family)| *family == v6)
    }
}

/// The rules of one ordered list of groups, compiled: shared by every NIC with that list.
#[derive(PartialEq, Eq)]
pub struct Policy {
    /// By direction.
    v4: [Table<u32>; 2],
    v6: [Table<u128>; 2],
    /// The instructions to judge by, noted here so that who judges has nothing to look up.
    simd: Simd,
    /// The same rules with the staged ones among them, where there are any.
    staged: Option<Box<Staged>>,
}

impl Policy {
    /// From the rules in the order of groups and positions.
    pub fn compile<'r>(rules: impl IntoIterator<Item = &'r Rule>) -> Policy {
        let rules: Vec<&Rule> = rules.into_iter().collect();
        let live = rules.iter().copied().filter(|rule| !rule.staged);
        Policy { staged: Staged::compile(&rules), ..Policy::enforcing(live) }
    }

    /// From rules that are all enforced, whatever they say of that.
    fn enforcing<'r>(rules: impl Iterator<Item = &'r Rule>) -> Policy {
        let mut split: [[Vec<&Rule>; 2]; 2] = Default::default();
        for rule in rules {
            for (family, rules) in split.iter_mut().enumerate() {
                if rule.families[family] {
                    rules[rule.direction as usize].push(rule);
                }
            }
        }
        let [v4, v6] = split;
        Policy { v4: v4.map(Table::compile), v6: v6.map(Table::compile), simd: simd(), staged: None }
    }

    /// Takes parts that other policies have, too, from the pool.
    pub fn share(&mut self, pool: &mut InternPool) {
        self.v4.iter_mut().for_each(|table| table.share(pool));
        self.v6.iter_mut().for_each(|table| table.share(pool));
        if let Some(staged) = &mut self.staged {
            staged.all.share(pool);
        }
    }

    /// The same rules with the staged ones enforced; `None` where none is staged.
    #[inline]
    pub fn staged(&self) -> Option<&Staged> {
        self.staged.as_deref()
    }

    /// The verdict for an opening packet of a NIC in VPC `own`.
    #[inline(always)]
    pub fn judge(&self, groups: &Groups, own: VpcId, query: &Query) -> RuleVerdict {
        self.judge_with(self.simd, groups, own, query)
    }

    #[inline(always)]
    fn judge_with(&self, simd: Simd, groups: &Groups, own: VpcId, query: &Query) -> RuleVerdict {
        match simd {
            Simd::Baseline => self.judge_baseline(groups, own, query),
            _ => simd.run_widest(JudgeOne { policy: self, groups, own, query }),
        }
    }

    #[inline(never)]
    fn judge_baseline(&self, groups: &Groups, own: VpcId, query: &Query) -> RuleVerdict {
        self.judge_by(Baseline, groups, own, query)
    }

    #[inline(always)]
    fn judge_by(&self, isa: impl Isa, groups: &Groups, own: VpcId, query: &Query) -> RuleVerdict {
        self.find(isa, query).judge(isa, groups, own, query)
    }

    /// The first half of [`Policy::judge`].
    #[inline(always)]
    fn find(&self, isa: impl Isa, query: &Query) -> MatchRows<'_> {
        let direction = query.direction as usize;
        if query.v6 { self.v6[direction].find(isa, query) } else { self.v4[direction].find(isa, query) }
    }

    /// Every rule of that direction and family in the order in which they would win, whether it
    /// denies, and the fields in which it does not fit.
    pub fn mismatches(&self, groups: &Groups, own: VpcId, query: &Query) -> Vec<(RuleId, bool, Vec<Field>)> {
        let direction = query.direction as usize;
        if query.v6 {
            self.v6[direction].mismatches(groups, own, query)
        } else {
            self.v4[direction].mismatches(groups, own, query)
        }
    }
}

/// An opening packet, and whose rules it is asked of.
#[derive(Clone, Copy)]
pub struct RuleQuery<'p> {
    /// The rules.
    pub policy: &'p Policy,
    /// The VPC of the NIC that has them.
    pub own: VpcId,
    /// The packet.
    pub query: Query,
}

/// What [`Policy::judge`] says of each of a burst's packets, all at once: `tell` is told each with
/// whatever stands beside the packet. There is no way in and out between them and hardly a branch
/// that could be foreseen wrongly, so that the processor looks up the next ones while it waits for
/// what one of them needs from memory.
#[inline]
pub fn judge_all<'p, T>(
    groups: &Groups,
    asks: impl Iterator<Item = (T, RuleQuery<'p>)>,
    tell: impl FnMut(T, RuleVerdict),
) {
    simd().run_widest(JudgeAll { groups, asks, tell });
}

/// [`Policy::judge`], for each instruction set.
struct JudgeOne<'a> {
    policy: &'a Policy,
    groups: &'a Groups,
    own: VpcId,
    query: &'a Query,
}

impl Work for JudgeOne<'_> {
    type Output = RuleVerdict;

    #[inline(always)]
    fn run(self, isa: impl Isa) -> RuleVerdict {
        self.policy.judge_by(isa, self.groups, self.own, self.query)
    }
}

/// [`judge_all`], for each instruction set.
struct JudgeAll<'s, I, F> {
    groups: &'s Groups,
    asks: I,
    tell: F,
}

impl<'p, T, I: Iterator<Item = (T, RuleQuery<'p>)>, F: FnMut(T, RuleVerdict)> Work for JudgeAll<'_, I, F> {
    type Output = ();

    #[inline(always)]
    fn run(self, isa: impl Isa) {
        let JudgeAll { groups, asks, mut tell } = self;
        for (whose, RuleQuery { policy, own, query }) in asks {
            tell(whose, policy.judge_by(isa, groups, own, &query));
        }
    }
}

#[cfg(test)]
mod tests;
