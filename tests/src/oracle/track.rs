//! Connections as packets meet, open and end them (semantics 4, 5.2, 5.4, 6.2).

use control::config::TcpPickup;
use control::model::Nic;
use engine::Side;

use super::connection::{self, Connection, Kind, Message, Tuple};
use super::generation::Fate;
use super::read::{Fragment, Ip};
use super::rules::{self, Opening, Say};
use super::tcp::{Segment, Step, Tcp, Who};
use super::{Oracle, Outcome};

impl Oracle {
    /// From "impossible TCP flags" on (2.1).
    pub(super) fn track(&mut self, side: Side, nic: &Nic, ip: &Ip<'_>) -> Outcome {
        let segment = connection::segment(ip);
        if segment.is_some_and(|segment| segment.is_impossible()) {
            return Outcome::of("invalid", Some(nic));
        }
        let message = ip.is_icmp().then(|| connection::message(ip.v6, ip.l4.data[0]));
        if message == Some(Message::Error) {
            return self.error(side, nic, ip);
        }
        // "Any ICMP that is neither request, nor a reply that was asked for, nor an error:
        // `invalid`" (4.1).
        let Some(tuple) = connection::tuple(&self.eras[self.era], &nic.key, side, ip) else {
            return Outcome::of("invalid", Some(nic));
        };
        if self.is_there(nic, &tuple) {
            return self.meet(side, nic, ip, tuple, segment);
        }
        match segment {
            Some(segment) if segment.opens() => {
                let opening = connection::opening(side, ip);
                self.open(nic, tuple, opening, Kind::Tcp(Tcp::open(&segment)))
            }
            Some(segment) if segment.is_mid_stream() && self.is_loose() => {
                self.pick_up(side, nic, ip, tuple, &segment)
            }
            // "A TCP packet with no connection that is no opening SYN: `invalid`" (4.3).
            Some(_) => Outcome::of("invalid", Some(nic)),
            None if matches!(message, Some(Message::Reply(_))) => Outcome::of("invalid", Some(nic)),
            None => {
                let opening = connection::opening(side, ip);
                self.open(nic, tuple, opening, Kind::opened_by(side, ip))
            }
        }
    }

    /// "`pickup_grace = SECONDS` is loose for that long after a start that found no earlier state"
    /// (4.3).
    fn is_loose(&self) -> bool {
        self.config.conntrack.tcp_pickup == TcpPickup::Loose || self.now < self.grace_end()
    }

    /// Whether a connection or tombstone has this key now; one that is due is judged again first
    /// (5.4).
    fn is_there(&mut self, nic: &Nic, tuple: &Tuple) -> bool {
        let now = self.now;
        let Some(connection) = self.connections.get_mut(tuple).filter(|c| now < c.deadline) else {
            return false;
        };
        self.stray |= connection.worker != self.worker;
        connection.follow(&self.eras, self.era, &tuple.nic);
        if connection.fate.rejudge && !connection.is_tombstone() {
            connection.fate.rejudge = false;
            if !matches!(rules::say(&self.policy, nic, &connection.opening), Say::Allowed(_)) {
                connection.fate.cut.insert(self.era as u32);
            }
        }
        true
    }

    /// A packet with the key of a connection or tombstone.
    fn meet(
        &mut self,
        side: Side,
        nic: &Nic,
        ip: &Ip<'_>,
        tuple: Tuple,
        segment: Option<Segment>,
    ) -> Outcome {
        let check = self.config.conntrack.tcp_window_check;
        let Some(connection) = self.connections.get_mut(&tuple) else { unreachable!("it is there") };
        let inbound = connection.is_inbound();
        let about = |reason| Outcome { of: Some(tuple.clone()), inbound, ..Outcome::of(reason, Some(nic)) };
        // "Its packets of BOTH directions drop … neither SYN nor RST ends it sooner" (5.2).
        if connection.is_tombstone() {
            return about("tombstone");
        }
        let who = connection.who(side);
        let mut moves = true;
        match (&mut connection.kind, segment) {
            (Kind::Tcp(tcp), Some(segment)) => match tcp.step(who, &segment, check) {
                Step::Pass => {}
                Step::PassUnmoved => moves = false,
                Step::PassHastened => {
                    let at_most = self.now + self.config.timeouts.tcp_reset.as_nanos() as u64;
                    connection.deadline = connection.deadline.min(at_most);
                    moves = false;
                }
                Step::Invalid => return about("invalid"),
                Step::End => {
                    // "Passes and ends the connection: the entry is gone."
                    let outcome = about("established");
                    self.connections.remove(&tuple);
                    return outcome;
                }
                Step::Reopen => {
                    let opening = connection::opening(side, ip);
                    return self.open(nic, tuple, opening, Kind::Tcp(Tcp::open(&segment)));
                }
                Step::Restart(_) => {
                    // The rules judge the SYN, which went the other way. The SYN+ACK is what opens:
                    // it says `new`.
                    let opening = connection::reverse(side, ip);
                    let Some(tcp) = tcp.restarted(&segment, check) else { unreachable!("a SYN passed") };
                    return self.open(nic, tuple, opening, Kind::Tcp(tcp));
                }
            },
            (Kind::Plain { inside, .. }, _) if side == Side::Inside => *inside = true,
            (Kind::Plain { outside, .. }, _) => *outside = true,
            (Kind::Icmp { answered }, _) => *answered |= who == Who::Responder,
            (Kind::Tcp(_), None) => {}
        }
        if moves {
            // "Every accepted packet … sets the connection's deadline to now + the timeout of its
            // state after that" (4.2).
            connection.deadline = self.now + connection.kind.timeout(&self.config.timeouts).as_nanos() as u64;
        }
        about("established")
    }

    /// The same as [`Oracle::open_as`], with what staged rules would decide: they are asked of what
    /// the rules have decided (3.9).
    fn open(&mut self, nic: &Nic, tuple: Tuple, opening: Opening, kind: Kind) -> Outcome {
        let would_say = rules::would_say(&self.policy, nic, &opening);
        let staged = would_say.filter(|(.., staged)| *staged).map(|(name, allows, _)| (name, allows));
        self.open_as(nic, tuple, opening, kind, staged)
    }

    /// Rules, `max_connections`, and a new connection in whatever stood there.
    fn open_as(
        &mut self,
        nic: &Nic,
        tuple: Tuple,
        opening: Opening,
        kind: Kind,
        staged: Option<(String, bool)>,
    ) -> Outcome {
        let refused = |reason, rule| Outcome { rule, ..Outcome::of(reason, Some(nic)) };
        let by_rules = |reason, rule| Outcome { staged: staged.clone(), ..refused(reason, rule) };
        let rule = match rules::say(&self.policy, nic, &opening) {
            Say::NoRule => return by_rules("no-rule", None),
            Say::Denied(rule) => return by_rules("denied", Some(rule)),
            Say::Allowed(rule) => rule,
        };
        if let Some(reason) = self.no_room(nic, &tuple) {
            return refused(reason, None);
        }
        let deadline = self.now + kind.timeout(&self.config.timeouts).as_nanos() as u64;
        let fate = Fate::born(self.era as u32);
        let connection = Connection { opening, deadline, fate, worker: self.worker, kind };
        let inbound = connection.is_inbound();
        self.connections.insert(tuple.clone(), connection);
        Outcome { of: Some(tuple), inbound, ..by_rules("new", Some(rule)) }
    }

    /// "Counts live connections and tombstones, and is checked after the rules" (6.2); then table
    /// space. What opens "in the old entry's place" (4.3) is not one more.
    fn no_room(&self, nic: &Nic, new: &Tuple) -> Option<&'static str> {
        if self.connections.get(new).is_some_and(|old| self.now < old.deadline) {
            return None;
        }
        // Of a NIC that is the same to both, and as its worker knows its addresses.
        let counts = |tuple: &Tuple, worker: usize| {
            let theirs = &self.eras[self.workers[worker]];
            tuple.nic == nic.key
                && theirs.has_same(&self.eras[self.era], &nic.key)
                && theirs.holds(tuple.place)
        };
        let live = self
            .connections
            .iter()
            .filter(|(tuple, connection)| self.now < connection.deadline && counts(tuple, connection.worker))
            .count();
        let others = self.unfound.iter().filter(|(_, worker)| *worker != self.worker);
        let unfound = others.filter(|(tuple, worker)| counts(tuple, *worker)).count();
        let reaches = |count: usize| nic.max_connections.is_some_and(|most| count as u64 >= u64::from(most));
        if reaches(live) || self.refusal == Some("nic-limit") && reaches(live + unfound) {
            return Some("nic-limit");
        }
        self.refusal.filter(|reason| *reason == "table-full")
    }

    /// `tcp_pickup = "loose"` (4.3).
    fn pick_up(&mut self, side: Side, nic: &Nic, ip: &Ip<'_>, tuple: Tuple, segment: &Segment) -> Outcome {
        let opening = connection::opening(side, ip);
        let staged = self.would_pick_up(side, nic, ip, &opening);
        if side == Side::Inside {
            // "As an inbound connection if the inbound rules allow its reverse."
            let reverse = connection::reverse(side, ip);
            if matches!(rules::say(&self.policy, nic, &reverse), Say::Allowed(_)) {
                let kind = Kind::Tcp(Tcp::pick_up(Who::Responder, segment));
                return self.open_as(nic, tuple, reverse, kind, staged);
            }
        }
        // "Else as an outbound one if the outbound rules do"; from outside by the inbound rules.
        let kind = Kind::Tcp(Tcp::pick_up(Who::Opener, segment));
        self.open_as(nic, tuple, opening, kind, staged)
    }

    /// The staged rule that would decide whether a segment amid a stream opens a connection: of the
    /// direction that it would open in; or the one that keeps it from opening the other way, where
    /// nothing lets it open at all.
    fn would_pick_up(&self, side: Side, nic: &Nic, ip: &Ip<'_>, opening: &Opening) -> Option<(String, bool)> {
        let own = rules::would_say(&self.policy, nic, opening);
        let mut decides = own.clone();
        if side == Side::Inside {
            let other = rules::would_say(&self.policy, nic, &connection::reverse(side, ip));
            let is_allowed = |say: &Option<(String, bool, bool)>| matches!(say, Some((_, true, _)));
            let denies_staged = matches!(other, Some((_, false, true)));
            if is_allowed(&other) || denies_staged && !is_allowed(&own) {
                decides = other;
            }
        }
        decides.filter(|(.., staged)| *staged).map(|(name, allows, _)| (name, allows))
    }

    /// An ICMP error (4.5).
    fn error(&mut self, side: Side, nic: &Nic, ip: &Ip<'_>) -> Outcome {
        match self.quoted(side, nic, ip) {
            Some(tuple) => {
                let inbound = self.connections[&tuple].is_inbound();
                Outcome { of: Some(tuple), inbound, ..Outcome::of("related", Some(nic)) }
            }
            None => Outcome::of("invalid", Some(nic)),
        }
    }

    /// The live connection of the packet that an error quotes, if all that 4.5 asks for holds.
    fn quoted(&mut self, side: Side, nic: &Nic, ip: &Ip<'_>) -> Option<Tuple> {
        let quote = Ip::read_quoted(ip.v6, ip.l4.from(8)).ok()?;
        if matches!(quote.fragment, Fragment::Later(_)) {
            return None;
        }
        // "Was sent by the NIC's side (error from outside) or to it (error from inside), its
        // address of the NIC is the error's destination (from outside) or source (from inside)."
        let (sender, fits) = match side {
            Side::Outside => (Side::Inside, quote.src == ip.dst),
            Side::Inside => (Side::Outside, quote.dst == ip.src),
        };
        // "At least 8 bytes of its L4 header are quoted (none needed for protocols without ports,
        // ICMP aside)."
        let needed = if quote.is_icmp() || connection::has_ports(quote.protocol) { 8 } else { 0 };
        if !fits || !quote.l4.holds(needed) {
            return None;
        }
        let tuple = connection::tuple(&self.eras[self.era], &nic.key, sender, &quote)?;
        // "Re-judging (5.4) comes first if due." "A tombstone's … `invalid`."
        let live = self.is_there(nic, &tuple);
        let connection = self.connections.get(&tuple).filter(|c| live && !c.is_tombstone())?;
        if let Kind::Tcp(tcp) = &connection.kind {
            let check = self.config.conntrack.tcp_window_check;
            if !tcp.may_have_sent(connection.who(sender), quote.l4.u32(4), check) {
                return None;
            }
        }
        Some(tuple)
    }
}
