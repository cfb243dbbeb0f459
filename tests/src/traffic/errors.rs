//! ICMP errors about packets of flows: right ones, and wrong in one way.

use std::net::IpAddr;

use engine::Side;

use super::Place;
use crate::frame::icmp_error;
use crate::rng::Rng;

/// An error about one of these packets.
pub(super) fn about(
    rng: &mut Rng,
    place: &Place,
    remote: IpAddr,
    sent: &[(Side, Vec<u8>)],
) -> (Side, Vec<u8>, String) {
    // About the latest one more often than about others: it may be the one that matters.
    let at = if rng.one_in(3) { sent.len() - 1 } else { rng.below(sent.len()) };
    let (sender, packet) = &sent[at];
    // What the NIC sent is answered from outside, and the other way round; now and then wrongly.
    let side = if rng.one_in(8) { *sender } else { sender.other() };
    let v6 = place.local.is_ipv6();
    let router: IpAddr = if v6 { "2001:db8:ee::1" } else { "192.0.2.254" }.parse().expect("an address");
    let (src, dst) = match side {
        Side::Outside => (rng.pick(&[remote, router]), place.local),
        Side::Inside => (place.local, rng.pick(&[remote, router])),
    };
    let kind = if rng.one_in(8) {
        if v6 { rng.pick(&[0, 5, 100]) } else { rng.pick(&[4, 5]) }
    } else if v6 {
        rng.pick(&[1, 2, 3, 4])
    } else {
        rng.pick(&[3, 11, 12])
    };
    let mut quote = packet.clone();
    let header = if v6 { 40 } else { 20 };
    let mut how = "";
    if rng.one_in(6) && quote.len() > 5 {
        // As gateways leave the length that they have altered or swapped.
        let length = if v6 { 4 } else { 2 };
        quote[length..length + 2].copy_from_slice(&rng.pick(&[
            [0, 0],
            [0, 20],
            [0, 27],
            [0xff, 0xff],
            [84, 0],
        ]));
    }
    match rng.below(10) {
        0 => {
            how = ", cut";
            quote.truncate(rng.pick(&[0, header, header + 7, header + 8, header + 4]));
        }
        1 => {
            how = ", of another remote";
            let at = if v6 {
                39 - 16 * usize::from(side == Side::Inside)
            } else {
                19 - 4 * usize::from(side == Side::Inside)
            };
            quote[at] ^= 1;
        }
        2 => {
            how = ", of another port or identifier";
            if let Some(byte) = quote.get_mut(header + rng.pick(&[1, 3, 5])) {
                *byte ^= 1;
            }
        }
        3 => {
            how = ", of a far sequence number";
            if let Some(byte) = quote.get_mut(header + 4) {
                *byte ^= 0x40;
            }
        }
        4 => {
            // As routers quote: the IP header and 8 bytes.
            quote.truncate(header + 8);
        }
        5 => {
            how = ", an error itself";
            quote = icmp_error(dst, src, kind, 0, packet).packet();
        }
        _ => {}
    }
    let code = rng.pick(&[0, 1, 4]);
    let error = icmp_error(src, dst, kind, code, &quote);
    (
        side,
        place.frame(rng, side, error),
        format!("icmp error {kind} {src} > {dst} about what {sender:?} sent{how}"),
    )
}
