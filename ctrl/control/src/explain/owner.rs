//! Whose a frame is by its IP addresses alone: for captures that lack Ethernet addresses, or do not tell sides.

use engine::packet::{PacketKind, PacketMeta};
use engine::snapshot::{Binding, Snapshot};

/// No NIC has it: among the holders of a shared address it names none.
const NOBODYS_MAC: u64 = 0;

/// ARP's sender: Ethernet address, then IPv4 address.
const ARP_SENDER: usize = 8;
/// The target of a neighbour advertisement, and its type.
const ND_TARGET: usize = 8;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;

/// The NIC that has the source address of a frame read as `pkt`; of a neighbour advertisement from
/// a link-local address, the one that has its target. `bytes` are the frame's.
pub fn sender<'s>(
    snapshot: &'s Snapshot,
    pkt: &PacketMeta,
    bytes: impl Fn(usize) -> Option<u8>,
) -> Option<&'s Binding> {
    let vpc = snapshot.vpc_of(pkt.segment)?;
    let holder = |address: u128, v6: bool| snapshot.binding_for(vpc, address, v6, NOBODYS_MAC);
    let number = |at: usize, length: usize| {
        (at..at + length).try_fold(0u128, |number, at| Some(number << 8 | u128::from(bytes(at)?)))
    };
    if pkt.kind == PacketKind::Arp {
        return holder(number(pkt.l3 as usize + ARP_SENDER + 6, 4)?, false);
    }
    let found = holder(pkt.src, pkt.v6);
    let l4 = pkt.l4 as usize;
    if found.is_none() && pkt.kind == PacketKind::Nd && bytes(l4)? == NEIGHBOUR_ADVERTISEMENT {
        return holder(number(l4 + ND_TARGET, 16)?, true);
    }
    found
}

/// The Ethernet source that a frame without Ethernet addresses is given, so that no check of MACs
/// refuses it: that of its sender's NIC, of ARP the one that it states itself. `None`: any will do.
pub fn source_mac(
    snapshot: &Snapshot,
    pkt: &PacketMeta,
    bytes: impl Fn(usize) -> Option<u8>,
) -> Option<[u8; 6]> {
    if pkt.kind == PacketKind::Arp {
        let first = pkt.l3 as usize + ARP_SENDER;
        let mut mac = [0; 6];
        for (n, byte) in mac.iter_mut().enumerate() {
            *byte = bytes(first + n)?;
        }
        return Some(mac);
    }
    let binding = sender(snapshot, pkt, bytes)?;
    let [_, _, mac @ ..] = binding.mac.to_be_bytes();
    Some(mac)
}
