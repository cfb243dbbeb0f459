//! Datagrams, pings, protocols without ports, and anything in fragments.

use std::net::IpAddr;

use engine::Side;

use super::policy::PORTS;
use super::{Place, Sent};
use crate::frame::{
    ACK, Ext, Packet, SYN, Transport, dccp, echo_reply, echo_request, esp, gre, icmp, ip, sctp, tcp, udp,
    udp_lite,
};
use crate::rng::Rng;

/// What a flow of datagrams is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Udp,
    UdpLite,
    Sctp,
    Dccp,
    Gre,
    Esp,
    Other(u8),
    Ping,
    /// IPv4's other requests: timestamp, information, mask; and extended echo of both.
    Question(u8),
}

/// A flow without streams.
pub(super) struct Datagrams {
    kind: Kind,
    ports: (u16, u16),
    local_opens: bool,
    id: u16,
    began: bool,
}

impl Datagrams {
    pub fn new(rng: &mut Rng, ports: (u16, u16), local_opens: bool) -> Datagrams {
        let kind = match rng.below(12) {
            0..=3 => Kind::Udp,
            4..=6 => Kind::Ping,
            7 => Kind::Question(rng.pick(&[13, 15, 17, 42, 42])),
            8 => rng.pick(&[Kind::UdpLite, Kind::Dccp]),
            9 => Kind::Sctp,
            10 => rng.pick(&[Kind::Gre, Kind::Esp]),
            _ => Kind::Other(rng.pick(&[99, 1, 58, 59, 2, 112])),
        };
        let ports = if rng.one_in(16) { (ports.0, 0) } else { ports };
        Datagrams { kind, ports, local_opens, id: rng.below(3) as u16, began: false }
    }

    /// The next packet.
    pub fn next(&mut self, rng: &mut Rng, place: &Place, remote: IpAddr) -> Sent {
        // The opener first; then anybody.
        let opener = if self.local_opens { Side::Inside } else { Side::Outside };
        let side = if self.began && rng.one_in(2) { opener.other() } else { opener };
        self.began = true;
        let (src, dst) = place.ends(side, remote);
        let ports = if side == Side::Inside { self.ports } else { (self.ports.1, self.ports.0) };
        let (from, to) = ((src, ports.0), (dst, ports.1));
        let len = rng.below(40);
        let data = vec![0xd5; len];
        match self.kind {
            Kind::Udp => sent(rng, place, side, udp(from, to).payload(data), format!("udp {ports:?}")),
            Kind::UdpLite => {
                sent(rng, place, side, udp_lite(from, to).payload(data), format!("udp-lite {ports:?}"))
            }
            Kind::Sctp => sent(rng, place, side, sctp(from, to).init(1), format!("sctp {ports:?}")),
            Kind::Dccp => sent(rng, place, side, dccp(from, to), format!("dccp {ports:?}")),
            Kind::Gre => sent(rng, place, side, gre(src, dst, 0x0800, &data), "gre".to_owned()),
            Kind::Esp => sent(rng, place, side, esp(src, dst, 7, 1), "esp".to_owned()),
            Kind::Other(number) => {
                let packet = ip(src, dst, number).payload(data);
                sent(rng, place, side, packet, format!("protocol {number}"))
            }
            Kind::Ping | Kind::Question(_) => self.ping(rng, place, side, src, dst, side == opener),
        }
    }

    fn ping(&self, rng: &mut Rng, place: &Place, side: Side, src: IpAddr, dst: IpAddr, asks: bool) -> Sent {
        let asks = if rng.one_in(8) { !asks } else { asks };
        let id = if rng.one_in(10) { self.id ^ 1 } else { self.id };
        let kind = match self.kind {
            Kind::Question(kind) if src.is_ipv4() => kind + u8::from(!asks),
            Kind::Question(42) => 160 + u8::from(!asks),
            _ if rng.one_in(20) => rng.pick(&[4, 5, 9, 10, 100, 138, 144]),
            _ if asks => {
                if src.is_ipv4() {
                    8
                } else {
                    128
                }
            }
            _ => {
                if src.is_ipv4() {
                    0
                } else {
                    129
                }
            }
        };
        let code = if rng.one_in(8) { 1 } else { 0 };
        let packet = icmp(src, dst, kind, code).id_seq(id, rng.u16()).payload([1; 8]);
        sent(rng, place, side, packet, format!("icmp type {kind} code {code} id {id}"))
    }
}

fn sent<T: Transport>(rng: &mut Rng, place: &Place, side: Side, mut packet: Packet<T>, what: String) -> Sent {
    if packet.src().is_ipv6() && rng.one_in(10) {
        packet = packet.ext(if rng.one_in(2) { Ext::hop_by_hop() } else { Ext::destination_options() });
    }
    if packet.src().is_ipv4() && rng.one_in(12) {
        packet = packet.options(rng.pick(&OPTIONS));
    }
    let what = format!("{what} {} > {}", packet.src(), packet.dst());
    let bytes = packet.packet();
    Sent { side, frame: place.frame(rng, side, packet), packet: bytes, what }
}

/// IPv4 options: padding, a recorded route, source routes of either kind in front, behind others
/// and behind the end, and lengths that lie.
const OPTIONS: [&[u8]; 10] = [
    &[1, 1, 1, 0],
    &[7, 7, 4, 0, 0, 0, 0],
    &[131, 7, 4, 10, 0, 0, 1],
    &[137, 7, 4, 10, 0, 0, 1],
    &[1, 7, 3, 4, 131, 3, 4],
    &[0, 131, 3, 4],
    &[7, 0, 137, 3],
    &[7, 9, 137, 3],
    &[7, 4, 131, 137],
    &[1, 1, 1, 137],
];

/// A datagram in fragments: in order or not, with repetitions, holes, and pieces that reach back
/// into the headers.
pub(super) fn fragments(rng: &mut Rng, place: &Place, remote: IpAddr) -> Vec<(Side, Vec<u8>, String)> {
    let side = rng.pick(&[Side::Inside, Side::Outside]);
    let (src, dst) = place.ends(side, remote);
    let port = rng.pick(&PORTS);
    let ports = if side == Side::Inside { (40_000, port) } else { (port, 40_000) };
    let ports = if rng.one_in(2) { ports } else { (ports.1, ports.0) };
    let (from, to) = ((src, ports.0), (dst, ports.1));
    let data = vec![0xf7; 64 + rng.below(64)];
    match rng.below(8) {
        0..=2 => cut(rng, place, side, &udp(from, to).payload(data), "udp"),
        3 => cut(rng, place, side, &echo_request(src, dst, 1, 1).payload(data), "ping"),
        4 => cut(rng, place, side, &echo_reply(src, dst, 1, 1).payload(data), "pong"),
        5 => cut(rng, place, side, &ip(src, dst, 99).payload(data), "protocol 99"),
        6 => {
            // Of a stream that may be there, or a SYN of one that is not; without data the header
            // is all of it.
            let any = rng.u32();
            let flags = rng.pick(&[ACK, ACK, SYN]);
            let data = if flags == SYN { vec![] } else { data };
            let segment = tcp(from, to).seq(any).ack(any).flags(flags).payload(data);
            cut(rng, place, side, &segment.option(&[1; 12]), "tcp")
        }
        _ => {
            let (client, server) = if src.is_ipv4() { (68, 67) } else { (546, 547) };
            let ports = if rng.one_in(2) { (client, server) } else { (server, client) };
            let datagram = udp((src, ports.0), (dst, ports.1)).payload(data);
            cut(rng, place, side, &datagram, "dhcp")
        }
    }
}

/// Many later fragments at once, of one datagram or of as many as there are, and now and then the
/// first that one of them waits for.
pub(super) fn flood(rng: &mut Rng, place: &Place, remote: IpAddr) -> Vec<(Side, Vec<u8>, String)> {
    let side = rng.pick(&[Side::Inside, Side::Outside]);
    let (src, dst) = place.ends(side, remote);
    let port = rng.pick(&PORTS);
    let whole = udp((src, 40_000), (dst, port)).payload([0xf1; 88]);
    let (count, is_one) = (20 + rng.below(80), rng.one_in(2));
    let mut pieces: Vec<_> = (0..count as u32)
        .map(|n| {
            let id = if is_one { 1000 } else { 1000 + n };
            let fragment = whole.clone().id(id).fragment(8, rng.one_in(2)).slice(64..96);
            (
                side,
                place.frame(rng, side, fragment),
                format!("fragment {id} of {count} at once {src} > {dst}"),
            )
        })
        .collect();
    if !rng.one_in(3) {
        let first = whole.id(1000).fragment(0, true).slice(0..64);
        let frame = place.frame(rng, side, first);
        let at = rng.below(pieces.len() + 1);
        pieces.insert(at, (side, frame, format!("the first of {count} at once {src} > {dst}")));
    }
    pieces
}

fn cut<T: Transport>(
    rng: &mut Rng,
    place: &Place,
    side: Side,
    packet: &Packet<T>,
    name: &str,
) -> Vec<(Side, Vec<u8>, String)> {
    let id = 1 + rng.below(3) as u32;
    let mut pieces = vec![(0, 32), (32, 64), (64, 96)];
    if rng.one_in(4) {
        // The first too short for some header, or another one that reaches back.
        pieces = vec![(0, rng.pick(&[8, 16, 24])), (rng.pick(&[8, 16, 24]), 64), (64, 96)];
    }
    if rng.one_in(4) {
        let (a, b) = (rng.below(pieces.len()), rng.below(pieces.len()));
        pieces.swap(a, b);
    }
    match rng.below(6) {
        0 => pieces.reverse(),
        1 => pieces.rotate_left(1),
        _ => {}
    }
    if rng.one_in(4) {
        pieces.remove(rng.below(pieces.len()));
    }
    if rng.one_in(6) {
        pieces.push((rng.pick(&[8, 16, 64]), 80));
    }
    // Extension headers behind the fragment header, in IPv6.
    let behind = packet.src().is_ipv6() && rng.one_in(4);
    pieces
        .into_iter()
        .map(|(start, end)| {
            let more = end < 96;
            let mut fragment = packet.clone().id(id).fragment((start / 8) as u16, more);
            if behind {
                fragment = fragment.ext(Ext::destination_options());
            }
            let fragment = fragment.slice(start..end);
            let what = format!("{name} fragment {id} [{start}..{end}] {} > {}", packet.src(), packet.dst());
            (side, place.frame(rng, side, fragment), what)
        })
        .collect()
}
