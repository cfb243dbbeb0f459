//! Builders of frames, of sound ones and of lying ones.
//!
//! Independent of the engine on purpose: what the engine parses must not come from the engine's own
//! idea of a header. Every builder makes correct lengths and checksums unless told to lie, and ends
//! in [`Build::frame`]:
//!
//! ```
//! use testkit::frame::*;
//! let syn = tcp("198.51.100.9:40000", "10.5.6.7:22").syn().seq(1).wscale(7).vlan(100).frame();
//! let gone = icmp_error("10.5.6.1", "10.5.6.7", 3, 1, &tcp("10.5.6.7:22", "198.51.100.9:40000").ack(2).packet()).frame();
//! let ping = echo_request("2001:db8::30", "2001:db8::7", 7, 1).ext(Ext::hop_by_hop()).frame();
//! let cut = udp("10.5.6.30:53", "10.5.6.7:53").lie_length(4).cut(40).frame();
//! # assert_eq!((&syn[12..14], cut.len()), (&[0x81, 0][..], 40));
//! # assert!(gone.len() > 70 && ping.len() == 70);
//! ```
//!
//! | family | builders |
//! | --- | --- |
//! | link | [`ethernet`], [`arp_request`], [`arp_reply`] |
//! | TCP, UDP and their like | [`tcp`], [`udp`], [`udp_lite`], [`sctp`], [`dccp`] |
//! | ICMP | [`icmp`], [`echo_request`], [`echo_reply`], [`icmp_error`] |
//! | neighbours | [`router_solicitation`], [`router_advertisement`], [`neighbor_solicitation`], [`neighbor_advertisement`], [`redirect`] |
//! | configuration, groups | [`dhcp_client`], [`dhcp_server`], [`dhcpv6_client`], [`dhcpv6_server`], [`igmp_report`], [`mld_report`] |
//! | other protocols | [`ip`], [`gre`], [`esp`], [`ah`] |
//! | tunnels | [`vxlan`], [`geneve`] |

mod icmp;
mod ip;
mod link;
mod other;
mod tcp;
mod udp;

#[cfg(test)]
mod tests;

pub use icmp::{
    Icmp, echo_reply, echo_request, icmp, icmp_error, mld_report, neighbor_advertisement,
    neighbor_solicitation, redirect, router_advertisement, router_solicitation,
};
pub use ip::{Address, Endpoint, Ext, Packet, Transport, checksum};
pub use link::{Arp, Build, Ethernet, Link, Mac, arp_reply, arp_request, ethernet};
pub use other::{Raw, Sctp, ah, dccp, esp, gre, igmp_report, ip, sctp};
pub use tcp::{ACK, CWR, ECE, FIN, PSH, RST, SYN, Tcp, URG, tcp};
pub use udp::{
    Udp, dhcp_client, dhcp_server, dhcpv6_client, dhcpv6_server, geneve, geneve_header, udp, udp_lite, vxlan,
    vxlan_header,
};
