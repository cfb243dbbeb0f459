//! A generator of hostile frames: everything that the builders make, told to lie, and then damaged.
//!
//! ```
//! let seed = 7;
//! for (index, frame) in testkit::hostile::frames(seed, 1000).enumerate() {
//!     // Give it to the thing under test. A failure says `seed` and `index`; `hostile::frame(seed, index)` makes that frame alone.
//!     assert_eq!(frame, testkit::hostile::frame(seed, index as u64));
//! }
//! ```
//!
//! The addresses are mostly those of the lab ([`INSIDE`], [`OUTSIDE`]), so that a policy with these
//! NICs sees its NICs attacked, not only strangers. About one frame in eight is left as it was
//! built, so that what follows meets live connections.

use std::net::IpAddr;

use crate::{frame::*, rng::Rng};

/// Addresses for the protected side, IPv4 first.
pub const INSIDE: [&str; 2] = ["10.5.6.7", "2001:db8::7"];
/// Addresses for the other side, in the same order.
pub const OUTSIDE: [&str; 2] = ["10.5.6.30", "2001:db8::30"];

/// Longest frame made: a giant even where jumbo frames are usual.
pub const LONGEST: usize = 16_384;

/// `n` hostile frames: the same for the same seed, for ever.
pub fn frames(seed: u64, n: u64) -> impl Iterator<Item = Vec<u8>> {
    (0..n).map(move |index| frame(seed, index))
}

/// One frame of the sequence of `seed`, so that a failure can be made again alone.
pub fn frame(seed: u64, index: u64) -> Vec<u8> {
    // One generator a frame: mixing the seed first keeps the sequences of two seeds apart.
    let rng = &mut Rng::new(Rng::new(seed).next_u64() ^ index);
    let mut frame = whole(rng, 1);
    match rng.below(8) {
        0 => {}
        1 => frame.truncate(rng.below(frame.len() + 1)),
        2 => {
            for _ in 0..=rng.below(8) {
                flip_bit(rng, &mut frame);
            }
        }
        // The headers are where it hurts.
        3 => {
            for _ in 0..=rng.below(4) {
                let (at, value) = (rng.below(frame.len().min(96)), rng.u8());
                if let Some(byte) = frame.get_mut(at) {
                    *byte = rng.pick(&[0, 1, 0x7f, 0x80, 0xff, value]);
                }
            }
        }
        4 => {
            let most = if rng.one_in(16) { LONGEST } else { 128 };
            let longer = rng.below(most);
            frame.extend(rng.bytes(longer));
        }
        5 => {
            // Bytes lost or doubled in the middle: every field behind them is another.
            let at = rng.below(frame.len() + 1);
            let few = rng.below(9).min(frame.len() - at);
            if rng.one_in(2) {
                frame.drain(at..at + few);
            } else {
                let doubled = frame[at..at + few].to_vec();
                frame.splice(at..at, doubled);
            }
        }
        6 => {
            flip_bit(rng, &mut frame);
            frame.truncate(rng.below(frame.len() + 1));
        }
        _ => {
            // A runt, or nothing but noise behind an honest ethertype.
            let length = if rng.one_in(2) { rng.below(15) } else { rng.below(200) };
            frame.truncate(14);
            frame.extend(rng.bytes(length));
            frame.truncate(length.max(rng.below(30)));
        }
    }
    frame.truncate(LONGEST);
    frame
}

fn flip_bit(rng: &mut Rng, frame: &mut [u8]) {
    // Half of them in the headers.
    let within = if rng.one_in(2) { frame.len().min(64) } else { frame.len() };
    let (at, bit) = (rng.below(within), rng.below(8));
    if let Some(byte) = frame.get_mut(at) {
        *byte ^= 1 << bit;
    }
}

/// Who talks to whom.
struct Pair {
    src: IpAddr,
    dst: IpAddr,
}

impl Pair {
    fn new(rng: &mut Rng) -> Pair {
        let family = rng.below(2);
        let (mut src, mut dst) = (OUTSIDE[family], INSIDE[family]);
        if rng.one_in(2) {
            (src, dst) = (dst, src);
        }
        let odd: &[&str] = match family {
            0 => &["0.0.0.0", "255.255.255.255", "224.0.0.1", "127.0.0.1", "192.0.2.1", "10.5.6.7"],
            _ => &["::", "::1", "fe80::1", "ff02::1", "::ffff:10.5.6.7", "2001:db8::7"],
        };
        if rng.one_in(8) {
            src = rng.pick(odd);
        }
        if rng.one_in(8) {
            dst = rng.pick(odd);
        }
        Pair { src: src.parse().expect("an address"), dst: dst.parse().expect("an address") }
    }

    fn ends(&self, rng: &mut Rng) -> (Endpoint, Endpoint) {
        ((self.src, port(rng)).into(), (self.dst, port(rng)).into())
    }
}

fn port(rng: &mut Rng) -> u16 {
    let any = rng.u16();
    rng.pick(&[0, 22, 22, 80, 40000, 40001, 40002, 67, 68, 546, 547, 4789, 6081, u16::MAX, any])
}

/// A frame as built, lies included, before it is damaged. `depth` is how many tunnels or quotes it
/// may still hold.
fn whole(rng: &mut Rng, depth: usize) -> Vec<u8> {
    let pair = Pair::new(rng);
    let (src, dst) = pair.ends(rng);
    match rng.below(20) {
        0..=5 => {
            let segment = segment(rng, src, dst);
            network(rng, segment)
        }
        6 | 7 => {
            let length = rng.below(64);
            let mut datagram = udp(src, dst).payload(rng.bytes(length));
            if rng.one_in(3) {
                datagram = datagram.lie_length(odd_length(rng));
            }
            network(rng, datagram)
        }
        8 | 9 => {
            let (kind, code) = (icmp_kind(rng, pair.src), rng.pick(&[0, 0, 0, 1, 4, 255]));
            let length = rng.below(40);
            let message =
                icmp(pair.src, pair.dst, kind, code).id_seq(rng.u16(), 1).payload(rng.bytes(length));
            network(rng, message)
        }
        10 | 11 if depth > 0 => {
            // An error that quotes some packet, cut somewhere.
            let mut quoted = whole(rng, depth - 1).split_off(14.min(rng.below(40)));
            quoted.truncate(rng.below(quoted.len() + 1));
            let kind = if pair.src.is_ipv6() {
                rng.pick(&[1, 2, 3, 4, 0, 100])
            } else {
                rng.pick(&[3, 4, 5, 11, 12])
            };
            let error = icmp_error(pair.src, pair.dst, kind, rng.u8() & 7, &quoted);
            network(rng, error)
        }
        12 if depth > 0 => {
            let inner = whole(rng, depth - 1);
            let vni = rng.pick(&[0, 5001, 5002, 0xff_ffff]);
            let tunnel = if rng.one_in(2) {
                vxlan(pair.src, pair.dst, vni, &inner)
            } else {
                geneve(pair.src, pair.dst, vni, &inner)
            };
            if rng.one_in(4) {
                let options = rng.below(300);
                let mut header = geneve_header(rng.u16(), vni, &rng.bytes(options));
                header[0] = rng.u8();
                let lying = tunnel.payload([header, inner].concat());
                return network(rng, lying);
            }
            network(rng, tunnel)
        }
        13 => neighbours(rng),
        14 => dhcp_and_groups(rng),
        15 => {
            let association = sctp(src, dst).init(rng.u32());
            network(rng, association)
        }
        16 => match rng.below(5) {
            0 => {
                let datagram = udp_lite(src, dst).payload([0; 8]).lie_length(odd_length(rng));
                network(rng, datagram)
            }
            1 => network(rng, dccp(src, dst)),
            2 => {
                let inner = udp(src, dst).packet();
                let ethertype = rng.pick(&[0x0800, 0x86dd, 0x6558]);
                network(rng, gre(pair.src, pair.dst, ethertype, &inner))
            }
            3 => {
                let next = rng.pick(&[6, 17, 50, 51]);
                let inner = tcp(src, dst).syn().transport.bytes(pair.src, pair.dst);
                network(rng, ah(pair.src, pair.dst, 1, next, &inner))
            }
            _ => network(rng, esp(pair.src, pair.dst, 7, 1)),
        },
        17 => {
            let length = rng.below(64);
            let any = ip(pair.src, pair.dst, rng.u8()).payload(rng.bytes(length));
            network(rng, any)
        }
        18 => arp(rng),
        _ => {
            let length = rng.below(100);
            let ethertype = rng.u16();
            let ethertype = rng.pick(&[0x0800, 0x86dd, 0x0806, 0x88cc, 0x8863, 0x0026, 0, ethertype]);
            let payload = rng.bytes(length);
            link(rng, ethernet(ethertype, &payload)).frame()
        }
    }
}

fn segment(rng: &mut Rng, src: Endpoint, dst: Endpoint) -> Packet<Tcp> {
    let any = rng.u8();
    let flags = [
        SYN,
        SYN,
        SYN | ACK,
        ACK,
        ACK | PSH,
        FIN | ACK,
        RST,
        RST | ACK,
        // Impossible ones: null, Christmas tree, and the pairs that never go together.
        0,
        FIN | PSH | URG,
        SYN | FIN,
        SYN | RST,
        FIN | RST,
        FIN,
        0xff,
        any,
    ];
    let any = rng.u32();
    let mut segment = tcp(src, dst)
        .flags(rng.pick(&flags))
        .seq(rng.pick(&[0, 1, 2, 1000, u32::MAX, 0x8000_0000, any]))
        .window(rng.pick(&[0, 1, 1024, u16::MAX]));
    segment = match rng.below(3) {
        0 => segment.ack(rng.pick(&[0, 1, 2, 1000, u32::MAX, any])).flags(rng.pick(&flags)),
        1 => segment.mss(1460).wscale(rng.pick(&[0, 7, 14, 15, 255])),
        _ => segment,
    };
    if rng.one_in(4) {
        // Options that end nowhere, have length 0 or 1, or reach past the header.
        let broken: [&[u8]; 6] = [&[3], &[3, 0], &[2, 1, 0, 0], &[3, 200, 7], &[8, 10, 0, 0], &[253; 40]];
        segment = segment.option(rng.pick(&broken));
    }
    if rng.one_in(3) {
        segment = segment.lie_data_offset(rng.pick(&[0, 1, 4, 5, 6, 14, 15]));
    }
    let length = rng.below(32);
    segment.payload(rng.bytes(length))
}

fn icmp_kind(rng: &mut Rng, family: IpAddr) -> u8 {
    let any = rng.u8();
    if family.is_ipv6() {
        rng.pick(&[1, 2, 3, 4, 128, 129, 130, 131, 133, 134, 135, 136, 137, 143, any])
    } else {
        rng.pick(&[0, 3, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, any])
    }
}

/// The IP layer's own lies, then the link's.
fn network<T: Transport>(rng: &mut Rng, mut packet: Packet<T>) -> Vec<u8> {
    let v6 = packet.src().is_ipv6();
    for _ in 0..2 {
        let any = rng.u16();
        packet = match rng.below(12) {
            0 => packet.lie_ip_length(odd_length(rng)),
            1 => packet.lie_version(rng.pick(&[0, 4, 5, 6, 15])),
            2 if !v6 => packet.lie_header_words(rng.pick(&[0, 1, 4, 5, 6, 15])),
            2 => chain(rng, packet),
            3 if !v6 => {
                let length = rng.below(11) * 4;
                let options = rng.bytes(length);
                packet.options(&options)
            }
            3 => chain(rng, packet),
            4 => {
                // First, middle, last and single fragments; overlaps, and ends past 65,535.
                let offset = rng.pick(&[0, 0, 0, 1, 2, 3, 185, 0x1fff, any & 0x1fff]);
                let more = rng.one_in(2);
                let keep = rng.below(48);
                packet.id(rng.below(4) as u32).fragment(offset, more).slice(0..keep)
            }
            5 => packet.ttl(rng.pick(&[0, 1, 254, 255])),
            6 => {
                let protocol = rng.u8();
                packet.lie_protocol(rng.pick(&[0, 1, 4, 6, 17, 41, 43, 44, 58, 59, 60, 132, protocol]))
            }
            _ => packet,
        };
    }
    link(rng, packet).frame()
}

/// Extension headers: long chains, repeated ones, fragments within, lengths past the end.
fn chain<T: Transport>(rng: &mut Rng, mut packet: Packet<T>) -> Packet<T> {
    for _ in 0..=rng.below(12) {
        packet = match rng.below(10) {
            0 | 1 => packet.ext(Ext::hop_by_hop()),
            2 | 3 => packet.ext(Ext::destination_options()),
            4 => packet.ext(Ext::routing(rng.pick(&[0, 2, 3, 4]), rng.u8() & 3)),
            5 => {
                let (offset, more) = (rng.pick(&[0, 0, 1, 5, 0x1fff]), rng.one_in(2));
                packet.ext(Ext::Fragment(offset, more, rng.below(4) as u32))
            }
            6 => packet.ext(Ext::Authentication(1, 1, vec![0; rng.below(16)])),
            7 => {
                // Says up to 2,048 bytes, has 8.
                let length = rng.u8();
                packet.ext(Ext::Raw(rng.pick(&[0, 43, 60]), vec![length, 0, 0, 0, 0, 0, 0]))
            }
            8 => {
                let (number, length) = (rng.u8(), rng.below(16));
                packet.ext(Ext::Raw(number, rng.bytes(length)))
            }
            _ => packet.ext(Ext::DestinationOptions(rng.bytes(6))),
        };
    }
    packet
}

/// Tags, MACs, trailers.
fn link<B: Build>(rng: &mut Rng, mut frame: B) -> B {
    let any = rng.u16();
    for _ in 0..rng.pick(&[0, 0, 0, 0, 0, 1, 1, 2, 3, 12]) {
        frame = frame
            .tag(rng.pick(&[0x8100, 0x8100, 0x8100, 0x88a8, 0x9100]), rng.pick(&[0, 100, 200, 4095, any]));
    }
    if rng.one_in(3) {
        let group: Mac = rng.pick(&["01:80:c2:00:00:00", "01:80:c2:00:00:0e", "ff:ff:ff:ff:ff:ff"]).into();
        frame = frame.dst_mac(rng.pick(&[Mac([2, 0, 0, 0, 0, 1]), Mac([0; 6]), group]));
    }
    if rng.one_in(3) {
        frame =
            frame.src_mac(rng.pick(&[Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 0x30]), Mac::BROADCAST]));
    }
    if rng.one_in(16) {
        frame = frame.lie_ethertype(rng.pick(&[0x0800, 0x86dd, 0x0806, 0x8100, 0x05ff, any]));
    }
    if rng.one_in(8) {
        let length = rng.below(46);
        let trailer = rng.bytes(length);
        frame = frame.trailer(&trailer);
    }
    frame
}

fn odd_length(rng: &mut Rng) -> u16 {
    let any = rng.u16();
    rng.pick(&[0, 1, 4, 7, 8, 9, 19, 20, 21, 28, 40, 41, 1500, 0x7fff, 0x8000, u16::MAX, any])
}

fn neighbours(rng: &mut Rng) -> Vec<u8> {
    let mac = rng.pick(&[Mac([2, 0, 0, 0, 0, 1]), Mac::SOURCE]);
    let src = rng.pick(&["::", "fe80::1", INSIDE[1], OUTSIDE[1]]);
    let target = rng.pick(&["::", "fe80::1", "ff02::1", INSIDE[1], OUTSIDE[1]]);
    let mut message = match rng.below(5) {
        0 => router_solicitation(src),
        1 => router_advertisement(src, "ff02::1"),
        2 => neighbor_solicitation(mac, src, target),
        3 => neighbor_advertisement(mac, src, OUTSIDE[1], target),
        _ => redirect(src, INSIDE[1], target, "2001:db8:1::1"),
    };
    if rng.one_in(3) {
        message = message.ttl(rng.pick(&[0, 1, 64, 254]));
    }
    if rng.one_in(3) {
        // An option of length 0 sends a careless parser round for ever.
        let option = rng.pick(&[[1, 0, 0, 0, 0, 0, 0, 0], [2, 255, 0, 0, 0, 0, 0, 0]]);
        message = message.payload(option.repeat(1 + rng.below(4)));
    }
    if rng.one_in(3) { network(rng, message) } else { message.frame() }
}

fn dhcp_and_groups(rng: &mut Rng) -> Vec<u8> {
    let mac = Mac([2, 0, 0, 0, 0, 1]);
    match rng.below(6) {
        0 => network(rng, dhcp_client(mac)),
        1 => network(rng, dhcp_server(OUTSIDE[0], INSIDE[0], mac)),
        2 => network(rng, dhcpv6_client("fe80::1")),
        3 => network(rng, dhcpv6_server(OUTSIDE[1], INSIDE[1])),
        4 => network(rng, igmp_report(INSIDE[0], "239.1.2.3")),
        _ => {
            let kind = rng.pick(&[130, 131, 132, 143]);
            network(rng, mld_report("fe80::1", "ff05::1:3").kind(kind))
        }
    }
}

fn arp(rng: &mut Rng) -> Vec<u8> {
    let mac = rng.pick(&[Mac([2, 0, 0, 0, 0, 1]), Mac::SOURCE]);
    let (sender, target) =
        (rng.pick(&["0.0.0.0", INSIDE[0], OUTSIDE[0]]), rng.pick(&[INSIDE[0], OUTSIDE[0]]));
    let mut packet = match rng.below(3) {
        0 => arp_reply(mac, sender, Mac::DESTINATION, target),
        _ => arp_request(mac, sender, target),
    };
    if rng.one_in(3) {
        packet = packet.operation(rng.u16() & 7);
    }
    if rng.one_in(4) {
        packet = packet.lie_hardware(rng.pick(&[1, 6, 0]), rng.pick(&[0, 6, 8, 255]));
    }
    if rng.one_in(4) {
        packet = packet.lie_protocol(rng.pick(&[0x0800, 0x86dd]), rng.pick(&[0, 4, 16, 255]));
    }
    link(rng, packet).frame()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_seed_gives_the_same_frames_for_ever() {
        let sum = |seed| {
            frames(seed, 10_000)
                .flatten()
                .fold(0u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()))
        };
        assert_eq!(sum(1), sum(1));
        assert_ne!(sum(1), sum(2));
        assert_eq!(
            sum(1),
            SUM_OF_SEED_1,
            "the generator changed: seeds in old bug reports mean other frames now"
        );
    }

    const SUM_OF_SEED_1: u64 = 18_292_672_688_359_506_666;

    #[test]
    fn every_kind_of_trouble_is_there() {
        let all: Vec<Vec<u8>> = frames(3, 50_000).collect();
        let ethertypes: HashSet<&[u8]> = all.iter().filter_map(|frame| frame.get(12..14)).collect();
        for known in [[0x08, 0x00], [0x86, 0xdd], [0x08, 0x06], [0x81, 0x00], [0x88, 0xa8]] {
            assert!(ethertypes.contains(&known[..]), "no frame of ethertype {known:02x?}");
        }
        let v4 = |frame: &&Vec<u8>| frame.get(12..14) == Some(&[8, 0][..]) && frame.len() >= 34;
        let protocols: HashSet<u8> = all.iter().filter(v4).map(|frame| frame[23]).collect();
        assert!(protocols.len() > 100, "only {} protocols", protocols.len());
        assert!(all.iter().any(|frame| frame.is_empty()), "no empty frame");
        assert!(all.iter().any(|frame| (1..14).contains(&frame.len())), "no runt");
        assert!(all.iter().any(|frame| frame.len() > 9_000), "no giant");
        assert!(all.iter().all(|frame| frame.len() <= LONGEST));
        let different: HashSet<&Vec<u8>> = all.iter().collect();
        assert!(different.len() > 45_000, "only {} different frames", different.len());
    }
}
