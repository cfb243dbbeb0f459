//! What is nobody's flow: neighbours, DHCP, groups, forgeries, strangers, and damage.

use std::net::IpAddr;

use engine::Side;

use super::Place;
use super::policy::{PolicyModel, STRANGERS, VIRTUAL_MACS, Wrap};
use crate::frame::*;
use crate::hostile;
use crate::rng::Rng;

/// A frame of noise.
pub(super) fn frame(
    rng: &mut Rng,
    draft: &PolicyModel,
    recent: &[(Side, Vec<u8>)],
) -> (Side, Vec<u8>, String) {
    let side = rng.pick(&[Side::Inside, Side::Outside]);
    let place = draft.place(rng);
    match (rng.below(12), place) {
        (0 | 1, _) if !recent.is_empty() => {
            let (side, mut frame) = recent[rng.below(recent.len())].clone();
            for _ in 0..=rng.below(3) {
                let within = if rng.one_in(2) { frame.len().min(70) } else { frame.len() };
                let (at, value) = (rng.below(within), rng.u8());
                if let Some(byte) = frame.get_mut(at) {
                    *byte = rng.pick(&[*byte ^ 1 << (value & 7), value, 0, 0xff]);
                }
            }
            (side, frame, "a recent frame, damaged".to_owned())
        }
        (2, _) if !recent.is_empty() => {
            // From or to the other side, or under another tag.
            let (side, mut frame) = recent[rng.below(recent.len())].clone();
            if rng.one_in(2) || frame.len() < 14 {
                return (side.other(), frame, "a recent frame, from the other side".to_owned());
            }
            let tpid = rng.pick(&[[0x81, 0x00], [0x88, 0xa8]]);
            let tag = [tpid, rng.pick(&[[0, 0], [0, 100], [0x20, 101], [0x0f, 0xff]])].concat();
            frame.splice(12..12, tag);
            (side, frame, "a recent frame, tagged once more".to_owned())
        }
        (3 | 4, _) | (_, None) => {
            let (seed, index) = (rng.next_u64(), 0);
            (side, hostile::frame(seed, index), format!("hostile {seed}"))
        }
        (_, Some(place)) => about(rng, draft, &place, side),
    }
}

fn about(rng: &mut Rng, draft: &PolicyModel, place: &Place, side: Side) -> (Side, Vec<u8>, String) {
    // Right or wrong: another NIC's MAC, a stranger's.
    let other = draft.place(rng).map_or(place.mac, |other| other.mac);
    let mac = rng.pick(&[place.mac, place.mac, place.mac, other, VIRTUAL_MACS[0], Mac([2, 9, 9, 9, 9, 9])]);
    let v6 = place.local.is_ipv6();
    let stranger: IpAddr = rng.pick(&STRANGERS[usize::from(v6)]).parse().expect("an address");
    let owned = draft.remote(rng, v6);
    let address = rng.pick(&[place.local, place.local, stranger, owned]);
    let (frame, what) = match (rng.below(4), v6) {
        (0, false) => arp(rng, place, mac, address, stranger),
        (0, true) => neighbours(rng, place, mac, address, stranger),
        (1, false) => dhcp_v4(rng, place, mac, address, stranger),
        (1, true) => dhcp_v6(rng, place, mac, address, stranger),
        (2, _) => strangers(rng, place, mac, side, address, stranger),
        (_, false) => {
            let source = rng.pick(&[address, "0.0.0.0".parse().expect("an address")]);
            let group = rng.pick(&["239.1.2.3", "224.0.0.18"]);
            let packet = igmp_report(source, group);
            let what = format!("igmp {source} > {group}");
            if rng.one_in(3) {
                (place.wrapped(rng, ip(source, group, 112).src_mac(mac)), what + " (vrrp)")
            } else {
                (place.wrapped(rng, packet.src_mac(mac)), what)
            }
        }
        (_, true) => {
            let source = rng.pick(&[
                address,
                "::".parse().expect("an address"),
                "fe80::1".parse().expect("an address"),
            ]);
            let kind = rng.pick(&[130, 131, 132, 143]);
            let packet = mld_report(source, "ff05::1:3").kind(kind).src_mac(mac);
            (place.wrapped(rng, packet), format!("mld {kind} {source}"))
        }
    };
    (side, frame, format!("{what} mac {mac:?}"))
}

fn arp(rng: &mut Rng, place: &Place, mac: Mac, address: IpAddr, stranger: IpAddr) -> (Vec<u8>, String) {
    let (sender, target) = match rng.below(4) {
        0 => ("0.0.0.0".to_owned(), address.to_string()),
        1 => (address.to_string(), place.local.to_string()),
        2 => (stranger.to_string(), place.local.to_string()),
        _ => (address.to_string(), stranger.to_string()),
    };
    let mut packet = if rng.one_in(2) {
        arp_request(mac, &sender, &target)
    } else {
        arp_reply(mac, &sender, place.mac, &target)
    };
    if rng.one_in(8) {
        packet = packet.src_mac(rng.pick(&[place.mac, Mac([2, 9, 9, 9, 9, 8])]));
    }
    if rng.one_in(10) {
        packet = packet.lie_hardware(rng.pick(&[1, 6]), rng.pick(&[6, 8]));
    }
    (place.wrapped(rng, packet), format!("arp {sender} asks for {target}"))
}

fn neighbours(
    rng: &mut Rng,
    place: &Place,
    mac: Mac,
    address: IpAddr,
    stranger: IpAddr,
) -> (Vec<u8>, String) {
    let any = |text: &str| text.parse::<IpAddr>().expect("an address");
    let source = rng.pick(&[address, address, any("::"), any("fe80::1"), stranger]);
    let target = rng.pick(&[place.local, place.local, any("fe80::1"), stranger]);
    let to = rng.pick(&[place.local, any("ff02::1")]);
    let mut packet = match rng.below(8) {
        0 => router_solicitation(source),
        1 => router_advertisement(source, to),
        2..=4 => neighbor_advertisement(mac, source, to, target),
        5 => redirect(source, to, target, stranger),
        _ => neighbor_solicitation(mac, source, target),
    };
    if rng.one_in(10) {
        packet = packet.ttl(64);
    }
    if rng.one_in(12) {
        packet = packet.fragment(0, rng.one_in(2));
    }
    if rng.one_in(12) {
        packet = packet.payload(vec![0; rng.below(24)]);
    }
    let what = format!("nd {source} > {to} about {target}");
    (place.wrapped(rng, packet.src_mac(mac)), what)
}

fn dhcp_v4(rng: &mut Rng, place: &Place, mac: Mac, address: IpAddr, stranger: IpAddr) -> (Vec<u8>, String) {
    if rng.one_in(2) {
        let packet = dhcp_server(stranger, address, mac).src_mac(mac).dst_mac(mac);
        return (place.wrapped(rng, packet), format!("dhcp server to {address}"));
    }
    let source: IpAddr = rng.pick(&[address, "0.0.0.0".parse().expect("an address")]);
    let to: IpAddr = rng.pick(&[stranger, "255.255.255.255".parse().expect("an address")]);
    let packet = udp((source, 68), (to, 67)).payload([1; 40]).src_mac(mac);
    (place.wrapped(rng, packet), format!("dhcp client {source}"))
}

fn dhcp_v6(rng: &mut Rng, place: &Place, mac: Mac, address: IpAddr, stranger: IpAddr) -> (Vec<u8>, String) {
    if rng.one_in(2) {
        let packet = dhcpv6_server(stranger, address).src_mac(mac).dst_mac(mac);
        return (place.wrapped(rng, packet), format!("dhcpv6 server to {address}"));
    }
    let source: IpAddr = rng.pick(&[address, "fe80::1".parse().expect("an address")]);
    (place.wrapped(rng, dhcpv6_client(source).src_mac(mac)), format!("dhcpv6 client {source}"))
}

/// Wrong source, wrong MAC, nobody's address, nobody's segment, no IP.
fn strangers(
    rng: &mut Rng,
    place: &Place,
    mac: Mac,
    side: Side,
    address: IpAddr,
    stranger: IpAddr,
) -> (Vec<u8>, String) {
    match rng.below(5) {
        0 => {
            let (src, dst) = if side == Side::Inside { (address, stranger) } else { (stranger, address) };
            let packet = udp((src, 5000), (dst, 22)).src_mac(mac).dst_mac(mac);
            (place.wrapped(rng, packet), format!("udp {src} > {dst}"))
        }
        1 => {
            let packet = udp((place.local, 5000), (place.local, 22)).src_mac(mac).dst_mac(mac);
            (place.wrapped(rng, packet), format!("udp {0} > {0}", place.local))
        }
        2 => {
            let wrap = rng.pick(&[Wrap::Untagged, Wrap::Vlan(999), Wrap::Vlan(4095), Wrap::Vni(77)]);
            let lost = Place { wrap, ..*place };
            let packet = udp((place.local, 5000), (stranger, 22)).src_mac(mac);
            (lost.wrapped(rng, packet), format!("udp in {wrap:?}"))
        }
        3 => {
            let ethertype = rng.pick(&[0x88cc, 0x8863, 0x0026, 0x9100]);
            (
                place.wrapped(rng, ethernet(ethertype, &[0; 46]).src_mac(mac)),
                format!("ethertype {ethertype:04x}"),
            )
        }
        _ => {
            let group = Mac([1, 0x80, 0xc2, 0, 0, rng.pick(&[0, 0x0e, 0x10])]);
            (
                place.wrapped(rng, ethernet(0x88cc, &[0; 46]).src_mac(mac).dst_mac(group)),
                "link-local".to_owned(),
            )
        }
    }
}
