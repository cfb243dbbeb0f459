//! What is remembered of first fragments, for those behind them (semantics 4.6).

use std::net::IpAddr;

use control::model::{Key, Nic};
use engine::Side;

use super::change::means_the_same;
use super::generation::GenerationModel;
use super::read::{Fragment, Ip};
use super::{FrameView, Oracle, Outcome, Verdict};

/// "Held, up to 1 s" (4.6).
const HOLD_NS: u64 = 1_000_000_000;
/// "Within a bound of frames (per datagram, per NIC and in all)" (4.6): ours are these, of each
/// worker. The last is left to its own tests.
const HELD_OF_DATAGRAM: usize = 64;
const HELD_OF_NIC: usize = 256;

/// A later fragment ahead of its first.
pub(super) struct Waiting {
    key: FragmentKey,
    nic: Key,
    /// Whoever asks knows it by this.
    id: usize,
    pub until: u64,
    side: Side,
    frame: Vec<u8>,
    original_len: usize,
}

/// "Remembered by (NIC, direction, source, destination, protocol, id)" (4.6).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct FragmentKey {
    place: u32,
    inside: bool,
    src: IpAddr,
    dst: IpAddr,
    protocol: u8,
    id: u32,
    /// Who judged the first. Of two datagrams that have all of this in common at once, each worker
    /// may know its own.
    worker: usize,
}

/// The verdict on a first fragment.
#[derive(Clone, Debug)]
pub(super) struct Remembered {
    outcome: Outcome,
    pub until: u64,
    /// Where the L4 header ends, counted from behind the fragment header.
    headers: usize,
    /// Whether a flush forgets it.
    flushable: bool,
    /// The generation it was judged under.
    era: usize,
}

impl Oracle {
    /// "Its verdict is remembered … for 5 s from then" (4.6).
    pub(super) fn remember(&mut self, side: Side, ip: &Ip<'_>, outcome: &Outcome) {
        if ip.fragment != Fragment::First {
            return;
        }
        let key = outcome.nic.as_ref().and_then(|nic| self.fragment_key(nic, side, ip));
        let Some(key) = key else { return };
        let until = self.now + self.config.timeouts.fragment.as_nanos() as u64;
        let headers = ip.headers_behind_fragment();
        // "A flush forgets the fragments of inbound connections and of drops" (4.6).
        let flushable = outcome.inbound || !outcome.passes();
        let first = Remembered { outcome: outcome.clone(), until, headers, flushable, era: self.era };
        self.fragments.insert(key.clone(), first);
        // "And follows its first when that comes."
        let follows = |waiting: &Waiting| waiting.key == key && self.now < waiting.until;
        let (followers, others) = std::mem::take(&mut self.waiting).into_iter().partition(follows);
        self.waiting = others;
        let followers: Vec<Waiting> = followers;
        self.released.extend(followers.into_iter().map(|waiting| (waiting, false)));
    }

    /// True while something waits for a first fragment.
    pub fn is_holding(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Those whose time is over wait no more.
    pub(super) fn end_waits(&mut self) {
        let now = self.now;
        let (over, others) =
            std::mem::take(&mut self.waiting).into_iter().partition(|waiting| waiting.until <= now);
        self.waiting = others;
        let over: Vec<Waiting> = over;
        self.released.extend(over.into_iter().map(|waiting| (waiting, true)));
    }

    /// The verdicts on frames that were held and are not any more, by the numbers under which they
    /// were shown.
    pub fn settled(&mut self, ns: u64) -> Vec<(usize, Verdict)> {
        self.at(ns);
        self.end_waits();
        let released = std::mem::take(&mut self.released);
        let judge = |(waiting, is_over): (Waiting, bool)| {
            let sight = FrameView {
                worker: waiting.key.worker,
                time_ns: ns,
                side: waiting.side,
                frame: &waiting.frame,
                original_len: waiting.original_len,
                refusal: None,
                holds: None,
                // Whatever has become known since came for another: an address that came back is
                // one (5.5).
                in_vain: is_over,
            };
            (waiting.id, self.judge(&sight))
        };
        released.into_iter().map(judge).collect()
    }

    /// The last verdict is that the frame is held under this number; what it waits for.
    fn hold(&mut self, key: FragmentKey, nic: Key, side: Side, id: usize) {
        let (frame, original_len) = self.shown.clone();
        let until = self.now + HOLD_NS;
        self.waiting.push(Waiting { key, nic, id, until, side, frame, original_len });
        self.held = true;
    }

    /// "Later fragments follow it" (4.6).
    pub(super) fn follow(&mut self, side: Side, nic: &Nic, ip: &Ip<'_>, offset: usize) -> Outcome {
        let unknown = Outcome::of("fragment-no-first", Some(nic));
        let Some(key) = self.fragment_key(&nic.key, side, ip) else { return unknown };
        if self.in_vain {
            return unknown;
        }
        if let Some(id) = self.holds
            && self.known(nic, &key).is_none()
        {
            let of_datagram = self.waiting.iter().filter(|waiting| waiting.key == key).count();
            let of_nic = self.waiting.iter().filter(|waiting| waiting.nic == nic.key).count();
            if of_datagram < HELD_OF_DATAGRAM && of_nic < HELD_OF_NIC {
                self.hold(key, nic.key.clone(), side, id);
            }
            return unknown;
        }
        let first = match self.known(nic, &key) {
            Some(first) => first,
            None => {
                let others = (0..self.workers.len()).filter(|worker| *worker != key.worker);
                let keys = others.map(|worker| FragmentKey { worker, ..key.clone() }).collect::<Vec<_>>();
                let known = keys.iter().filter_map(|key| self.known(nic, key));
                let Some(newest) = known.max_by_key(|first| first.until) else { return unknown };
                if self.refusal == Some("fragment-no-first") {
                    self.forgotten = true;
                    return unknown;
                }
                newest
            }
        };
        match first {
            // The rule of a denied first is the one that denies what follows.
            first if !first.outcome.passes() => {
                let rule = first.outcome.rule.as_ref().map(|rule| self.called_now(rule, first.era));
                // Staged rules are asked of what opens alone (3.9).
                Outcome { rule, staged: None, ..first.outcome }
            }
            first if offset < first.headers => Outcome::of("malformed", Some(nic)),
            _ => Outcome::of("fragment", Some(nic)),
        }
    }

    /// A rule is named by where it stands; one that is gone, by where it last stood.
    fn called_now(&self, name: &str, since: usize) -> String {
        let place = |name: &str| {
            let (group, position) = name.rsplit_once('#')?;
            Some((Key::parse(group)?, position.parse::<usize>().ok()?))
        };
        let Some((group, position)) = place(name) else { return name.to_owned() };
        let rules = |era: usize| self.eras[era].policy.security_groups.get(&group).map(|group| &group.rules);
        let Some(rule) = rules(since).and_then(|rules| rules.get(position)) else { return name.to_owned() };
        let now = (since + 1..=self.era)
            .rev()
            .find_map(|era| rules(era)?.iter().position(|other| means_the_same(rule, other)));
        now.map_or_else(|| name.to_owned(), |now| format!("{group}#{now}"))
    }

    /// What is remembered under a key and not forgotten.
    fn known(&mut self, nic: &Nic, key: &FragmentKey) -> Option<Remembered> {
        let first = self.fragments.get(key)?;
        let mut since = self.eras[..=self.era].iter().skip(first.era + 1);
        let forgets = |era: &GenerationModel| {
            era.forgets(&nic.key) || self.refusal == Some("fragment-no-first") && era.may_forget()
        };
        if self.now >= first.until || first.flushable && since.any(forgets) {
            return None;
        }
        if let Some(tuple) = &first.outcome.of
            && let Some(connection) = self.connections.get_mut(tuple)
        {
            connection.follow(&self.eras, self.era, &tuple.nic);
            // "A tombstone and the NIC's end forget theirs" (4.6): what has passed of it.
            if connection.is_tombstone() && first.outcome.passes() {
                return None;
            }
        }
        Some(first.clone())
    }

    fn fragment_key(&self, nic: &Key, side: Side, ip: &Ip<'_>) -> Option<FragmentKey> {
        let place = self.eras[self.era].place(nic, if side == Side::Inside { ip.src } else { ip.dst })?;
        // "For IPv6 without the protocol (RFC 8200 4.5)".
        let protocol = if ip.v6 { 0 } else { ip.protocol };
        let (inside, worker) = (side == Side::Inside, self.worker);
        Some(FragmentKey { place, inside, src: ip.src, dst: ip.dst, protocol, id: ip.id, worker })
    }
}
