//! Seeded traffic that knows flows, over a random policy that changes: handshakes, streams, resets,
//! pings, one-way datagrams, errors, fragments, neighbours, forgeries, damage, waits; and edits of
//! every kind between them.
//!
//! ```
//! let mut traffic = testkit::traffic::Traffic::new(7);
//! let (config, policy) = (traffic.config(), traffic.policy());
//! assert!(policy.contains("security_groups"));
//! let event = traffic.event();
//! # let _ = (config, event);
//! ```

mod datagrams;
mod errors;
mod noise;
mod policy;
mod tcp;

use std::net::IpAddr;

use engine::Side;

use crate::frame::{Build, Mac, Packet, Transport, geneve, vxlan};
use crate::rng::Rng;
use datagrams::Datagrams;
use policy::{PORTS, PolicyModel, Wrap};
use tcp::Stream;

/// What happens next.
#[derive(Clone, Debug)]
pub enum Event {
    /// A frame comes in, this long after what was before.
    Frame(Arrival),
    /// A policy document is to be applied, if it is valid; what it edits.
    Policy(String, &'static str),
}

/// A frame on its way in.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Nanoseconds since the event before.
    pub wait_ns: u64,
    /// Where it comes in.
    pub side: Side,
    /// The bytes captured.
    pub frame: Vec<u8>,
    /// The bytes there were.
    pub original_len: usize,
    /// The flow it is of; 0 for noise.
    pub flow: u32,
    /// For people.
    pub what: String,
}

/// One address of a NIC, and what frames to and from it look like.
#[derive(Clone, Copy, Debug)]
struct Place {
    wrap: Wrap,
    mac: Mac,
    local: IpAddr,
}

impl Place {
    fn frame<T: Transport>(&self, rng: &mut Rng, side: Side, packet: Packet<T>) -> Vec<u8> {
        let packet = match side {
            Side::Inside => packet.src_mac(self.mac),
            Side::Outside => packet.dst_mac(self.mac),
        };
        self.wrapped(rng, packet)
    }

    fn wrapped(&self, rng: &mut Rng, frame: impl Build) -> Vec<u8> {
        match self.wrap {
            Wrap::Untagged if rng.one_in(8) => frame.vlan(0).frame(),
            Wrap::Untagged => frame.frame(),
            Wrap::Vlan(id) => frame.vlan(id).frame(),
            Wrap::Vni(id) if rng.one_in(2) => vxlan("172.16.0.1", "172.16.0.2", id, &frame.frame()).frame(),
            Wrap::Vni(id) => geneve("2001:db8:aa::1", "2001:db8:aa::2", id, &frame.frame()).frame(),
        }
    }

    /// Source and destination of what `side` sends to or for a remote address.
    fn ends(&self, side: Side, remote: IpAddr) -> (IpAddr, IpAddr) {
        if side == Side::Inside { (self.local, remote) } else { (remote, self.local) }
    }
}

/// A packet that a flow sends.
struct Sent {
    side: Side,
    frame: Vec<u8>,
    /// The IP packet alone, for errors to quote.
    packet: Vec<u8>,
    what: String,
}

enum Flow {
    Tcp(Box<Stream>),
    Datagrams(Datagrams),
}

struct Running {
    id: u32,
    place: Place,
    remote: IpAddr,
    flow: Flow,
    /// The packets of late, with their side.
    sent: Vec<(Side, Vec<u8>)>,
}

/// A generator of events: the same for the same seed, for ever.
pub struct Traffic {
    rng: Rng,
    draft: PolicyModel,
    before: PolicyModel,
    flows: Vec<Running>,
    flows_made: u32,
    /// What is to come as one piece: the rest of a datagram's fragments.
    queued: Vec<Arrival>,
    recent: Vec<(Side, Vec<u8>)>,
}

/// Flows that run beside each other.
const FLOWS: usize = 10;

impl Traffic {
    /// The traffic of a seed.
    pub fn new(seed: u64) -> Traffic {
        Traffic::of(Rng::new(seed))
    }

    /// The traffic that these numbers make.
    pub fn of(mut rng: Rng) -> Traffic {
        let draft = PolicyModel::new(&mut rng);
        let before = draft.clone();
        Traffic { rng, draft, before, flows: vec![], flows_made: 0, queued: vec![], recent: vec![] }
    }

    /// A configuration for it: the defaults half of the time.
    pub fn config(&mut self) -> String {
        let rng = &mut self.rng;
        let mut text = "[conntrack]\ncapacity = 4096\nunconfirmed_share = 1.0\n".to_owned();
        if rng.one_in(2) {
            return text;
        }
        let mut rarely = |line: &str, n: usize| {
            if rng.one_in(n) {
                text.push_str(line);
            }
        };
        rarely("tcp_window_check = false\n", 6);
        rarely("tcp_pickup = \"loose\"\n", 6);
        rarely(
            "[timeouts]\ntcp_syn = 7\ntcp_established = 40\ntcp_half_closed = 16\ntcp_reset = 4\nicmp = 3\n",
            3,
        );
        rarely("[policy]\n", 1);
        rarely("inbound_flush = \"inbound-rules\"\n", 4);
        rarely("flush_scope = \"joined\"\n", 4);
        rarely("on_flush = \"rejudge\"\n", 5);
        rarely("mode = \"observe\"\n", 8);
        rarely("unknown_segment = \"pass\"\n", 8);
        rarely("unknown_nic = \"pass\"\n", 8);
        rarely("pass_link_local = true\n", 6);
        rarely("pass_ethertypes = [0x88cc]\n", 6);
        rarely("pass_multicast = [\"224.0.0.18/32\", \"ff02::12/128\"]\n", 6);
        text
    }

    /// The policy of now.
    pub fn policy(&self) -> String {
        self.draft.yaml()
    }

    /// Takes back the last edit: its document was refused.
    pub fn refuse(&mut self) {
        self.draft = self.before.clone();
    }

    /// How many bytes of a fuzzer's are left: see [`Rng::led_by`].
    pub fn left(&self) -> usize {
        self.rng.left()
    }

    /// The next event.
    pub fn event(&mut self) -> Event {
        // Edits come between a datagram's fragments more often than elsewhere: a flush forgets some
        // of them.
        if self.rng.one_in(if self.queued.is_empty() { 20 } else { 6 }) {
            self.before = self.draft.clone();
            let what = self.draft.edit(&mut self.rng);
            return Event::Policy(self.draft.yaml(), what);
        }
        if let Some(arrival) = self.queued.pop() {
            return Event::Frame(arrival);
        }
        let wait_ns = self.wait();
        let (side, mut frame, flow, what) = match self.rng.below(16) {
            0 | 1 => {
                let (side, frame, what) = noise::frame(&mut self.rng, &self.draft, &self.recent);
                (side, frame, 0, what)
            }
            2 => self.error(),
            3 => self.fragments(),
            _ => self.flow_packet(),
        };
        self.recent.push((side, frame.clone()));
        if self.recent.len() > 40 {
            self.recent.remove(0);
        }
        let mut original_len = frame.len();
        let mut what = what;
        if self.rng.one_in(100) {
            let keep = self.rng.below(frame.len() + 1);
            frame.truncate(keep);
            if self.rng.one_in(4) {
                original_len = keep;
            }
            what += &format!(", captured to {keep} of {original_len}");
        }
        Event::Frame(Arrival { wait_ns, side, frame, original_len, flow, what })
    }

    /// Mostly bursts; now and then a pause that some timeout does not outlive, or just does.
    fn wait(&mut self) -> u64 {
        let rng = &mut self.rng;
        let ms = match rng.below(200) {
            0..=99 => return rng.below(3) as u64,
            100..=181 => rng.below(300),
            182..=186 => rng.pick(&[1_000, 2_900, 3_600, 4_900, 5_600, 9_900, 10_600]),
            // Half a timeout, twice in a row: was the deadline moved in between?
            187..=193 => rng.pick(&[1_700, 4_000, 11_000, 16_000, 22_000]),
            194..=197 => rng.pick(&[6_900, 7_600, 29_900, 30_600, 39_900, 40_600]),
            198 => rng.pick(&[29_900, 30_600, 100_000, 179_900, 180_600, 350_000]),
            _ => rng.pick(&[30_600, 180_600, 599_900, 600_600]),
        };
        ms as u64 * 1_000_000 + rng.below(1_000_000) as u64
    }

    fn flow_packet(&mut self) -> (Side, Vec<u8>, u32, String) {
        if self.flows.len() < FLOWS || self.rng.one_in(25) {
            self.begin();
        }
        if self.flows.is_empty() {
            let (side, frame, what) = noise::frame(&mut self.rng, &self.draft, &self.recent);
            return (side, frame, 0, what);
        }
        // The youngest more often than the others, so that stories get told.
        let at = if self.rng.one_in(2) { self.flows.len() - 1 } else { self.rng.below(self.flows.len()) };
        let running = &mut self.flows[at];
        let sent = match &mut running.flow {
            Flow::Tcp(stream) => stream.next(&mut self.rng, &running.place, running.remote),
            Flow::Datagrams(datagrams) => datagrams.next(&mut self.rng, &running.place, running.remote),
        };
        running.sent.push((sent.side, sent.packet));
        if running.sent.len() > 12 {
            running.sent.remove(0);
        }
        (sent.side, sent.frame, running.id, sent.what)
    }

    fn begin(&mut self) {
        let Some(place) = self.draft.place(&mut self.rng) else { return };
        let remote = self.draft.remote(&mut self.rng, place.local.is_ipv6());
        let any = self.rng.u16();
        // Few ports, so that tuples meet again.
        let local_opens = self.rng.one_in(2);
        let service = if self.rng.one_in(8) { any } else { self.rng.pick(&PORTS) };
        let client = 40_000 + self.rng.below(4) as u16;
        let ports = if local_opens { (client, service) } else { (service, client) };
        let flow = if self.rng.one_in(3) {
            Flow::Datagrams(Datagrams::new(&mut self.rng, ports, local_opens))
        } else {
            Flow::Tcp(Box::new(Stream::new(&mut self.rng, ports, local_opens)))
        };
        self.flows_made += 1;
        self.flows.push(Running { id: self.flows_made, place, remote, flow, sent: vec![] });
        if self.flows.len() > FLOWS {
            self.flows.remove(0);
        }
    }

    /// An ICMP error about a packet of some flow, right or wrong.
    fn error(&mut self) -> (Side, Vec<u8>, u32, String) {
        let known: Vec<usize> = (0..self.flows.len()).filter(|at| !self.flows[*at].sent.is_empty()).collect();
        if known.is_empty() {
            return self.flow_packet();
        }
        let running = &self.flows[self.rng.pick(&known)];
        let (side, frame, what) = errors::about(&mut self.rng, &running.place, running.remote, &running.sent);
        (side, frame, running.id, what)
    }

    /// A datagram in fragments, some of them out of order, twice, never, or reaching back.
    fn fragments(&mut self) -> (Side, Vec<u8>, u32, String) {
        let Some(place) = self.draft.place(&mut self.rng) else { return self.flow_packet() };
        let remote = self.draft.remote(&mut self.rng, place.local.is_ipv6());
        let is_flood = self.rng.one_in(12);
        let make = if is_flood { datagrams::flood } else { datagrams::fragments };
        let mut pieces = make(&mut self.rng, &place, remote);
        let (side, frame, what) = pieces.remove(0);
        for (side, frame, what) in pieces.into_iter().rev() {
            let wait_ns = if is_flood { self.rng.below(1_000) as u64 } else { self.wait() };
            let original_len = frame.len();
            self.queued.push(Arrival { wait_ns, side, frame, original_len, flow: 0, what });
        }
        (side, frame, 0, what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_events_for_ever() {
        let tell = |seed| {
            let mut traffic = Traffic::new(seed);
            let config = traffic.config();
            let events: Vec<String> = (0..500).map(|_| format!("{:?}", traffic.event())).collect();
            (config, events)
        };
        assert_eq!(tell(3), tell(3));
        assert_ne!(tell(3).1, tell(4).1);
    }

    #[test]
    fn every_kind_of_edit_comes_and_most_documents_are_valid() {
        let limits = control::document::Limits::default();
        let (mut edits, mut valid, mut all) = (std::collections::BTreeSet::new(), 0, 0);
        for seed in 0..100 {
            let mut traffic = Traffic::new(seed);
            for _ in 0..400 {
                let Event::Policy(document, what) = traffic.event() else { continue };
                edits.insert(what);
                all += 1;
                match control::document::parse_policy(&document, "policy", &limits) {
                    Ok(_) => valid += 1,
                    Err(_) => traffic.refuse(),
                }
            }
        }
        assert_eq!(edits.len(), 18, "{edits:?}");
        assert!(valid * 4 > all * 3, "only {valid} of {all} documents are valid");
    }
}
