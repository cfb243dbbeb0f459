//! The builders against another implementation of the formats (etherparse), and against captures of
//! known bytes.

use etherparse::{NetSlice, SlicedPacket, TransportSlice};

use super::*;

fn sliced(frame: &[u8]) -> SlicedPacket<'_> {
    SlicedPacket::from_ethernet(frame).unwrap_or_else(|error| panic!("{error}: {frame:02x?}"))
}

const PAIRS: [(&str, &str); 2] =
    [("198.51.100.9:40000", "10.5.6.7:22"), ("[2001:db8::30]:40000", "[2001:db8::7]:22")];

#[test]
fn tcp_segments_are_what_another_parser_reads() {
    for (src, dst) in PAIRS {
        let frame = tcp(src, dst)
            .syn()
            .ack(77)
            .seq(0xdead_beef)
            .window(512)
            .mss(1460)
            .sack_permitted()
            .wscale(7)
            .payload("hello")
            .vlan(100)
            .frame();
        let packet = sliced(&frame);
        assert_eq!(packet.vlan_ids().first().map(|id| id.value()), Some(100));
        let Some(TransportSlice::Tcp(tcp)) = &packet.transport else { panic!("{packet:?}") };
        assert_eq!((tcp.source_port(), tcp.destination_port()), (40000, 22));
        assert_eq!((tcp.sequence_number(), tcp.acknowledgment_number()), (0xdead_beef, 77));
        assert_eq!((tcp.syn(), tcp.ack(), tcp.fin(), tcp.window_size()), (true, true, false, 512));
        assert_eq!((tcp.payload(), tcp.options().len()), (&b"hello"[..], 12));
        let sum = match &packet.net {
            Some(NetSlice::Ipv4(v4)) => {
                tcp.calc_checksum_ipv4(v4.header().source(), v4.header().destination())
            }
            Some(NetSlice::Ipv6(v6)) => {
                tcp.calc_checksum_ipv6(v6.header().source(), v6.header().destination())
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(sum.unwrap(), tcp.checksum());
    }
}

#[test]
fn udp_datagrams_have_the_checksum_of_another_implementation() {
    for (src, dst) in PAIRS {
        for payload in [&b""[..], b"odd", b"even"] {
            let frame = udp(src, dst).payload(payload).frame();
            let packet = sliced(&frame);
            let Some(TransportSlice::Udp(udp)) = &packet.transport else { panic!("{packet:?}") };
            let header = udp.to_header();
            let sum = match &packet.net {
                Some(NetSlice::Ipv4(v4)) => header.calc_checksum_ipv4(&v4.header().to_header(), payload),
                Some(NetSlice::Ipv6(v6)) => header.calc_checksum_ipv6(&v6.header().to_header(), payload),
                other => panic!("{other:?}"),
            };
            assert_eq!((sum.unwrap(), udp.payload()), (header.checksum, payload));
        }
    }
}

#[test]
fn ipv4_headers_carry_their_options_and_a_checksum_that_holds() {
    let frame =
        tcp("198.51.100.9:1", "10.5.6.7:2").syn().options(&[7, 3, 4]).ttl(9).id(5).dont_fragment().frame();
    let packet = sliced(&frame);
    let Some(NetSlice::Ipv4(v4)) = &packet.net else { panic!("{packet:?}") };
    let header = v4.header().to_header();
    assert_eq!((header.options.as_slice(), header.time_to_live), (&[7, 3, 4, 0][..], 9));
    assert_eq!((header.identification, header.dont_fragment), (5, true));
    assert_eq!(header.calc_header_checksum(), header.header_checksum);
}

#[test]
fn fragments_put_together_are_the_datagram() {
    for (src, dst) in PAIRS {
        let whole = udp(src, dst).payload(vec![0xab; 3000]).id(42);
        let datagram = whole.transport.bytes(whole.src(), whole.dst());
        let mut together: Vec<u8> = Vec::new();
        let fragments = whole.fragments(1001);
        for (number, frame) in fragments.iter().enumerate() {
            let packet = sliced(frame);
            let payload = packet.ip_payload().unwrap();
            assert!(payload.fragmented && payload.payload.len() <= 1000);
            let (offset, more) = match &packet.net {
                Some(NetSlice::Ipv4(v4)) => {
                    (v4.header().fragments_offset().value(), v4.header().more_fragments())
                }
                Some(NetSlice::Ipv6(_)) => {
                    // By hand: etherparse 0.18 takes the wrong bits for offset and "more".
                    assert_eq!(frame[58..62], 42u32.to_be_bytes());
                    let field = u16::from_be_bytes([frame[56], frame[57]]);
                    (field >> 3, field & 1 == 1)
                }
                other => panic!("{other:?}"),
            };
            assert_eq!(usize::from(offset) * 8, together.len());
            assert_eq!(more, number + 1 < fragments.len());
            together.extend(payload.payload);
        }
        assert_eq!(together, datagram);
    }
}

#[test]
fn chains_of_extension_headers_lead_to_the_transport() {
    let frame = tcp("[2001:db8::30]:1", "[2001:db8::7]:22")
        .syn()
        .ext(Ext::hop_by_hop())
        .ext(Ext::destination_options())
        .ext(Ext::routing(4, 1))
        .ext(Ext::Authentication(1, 2, vec![3; 12]))
        .ext(Ext::Fragment(0, false, 9))
        .frame();
    let packet = sliced(&frame);
    let Some(TransportSlice::Tcp(tcp)) = &packet.transport else { panic!("{packet:?}") };
    assert_eq!(tcp.destination_port(), 22);
    let Some(NetSlice::Ipv6(v6)) = &packet.net else { panic!("{packet:?}") };
    let chain: Vec<u8> = v6
        .extensions()
        .clone()
        .into_iter()
        .map(|ext| {
            use etherparse::Ipv6ExtensionSlice as E;
            match ext {
                E::HopByHop(_) => 0,
                E::DestinationOptions(_) => 60,
                E::Routing(_) => 43,
                E::Authentication(_) => 51,
                E::Fragment(_) => 44,
            }
        })
        .collect();
    assert_eq!(chain, [0, 60, 43, 51, 44]);
}

#[test]
fn icmp_errors_quote_and_sum_up() {
    let quoted = tcp("10.5.6.7:22", "198.51.100.9:40000").ack(1).packet();
    let frame = icmp_error("10.5.6.1", "10.5.6.7", 3, 1, &quoted).frame();
    assert_eq!(&frame[42..], quoted);
    assert_eq!(checksum(&[&frame[34..]]), 0, "a sum over a right checksum is 0");
    let frame = echo_request("2001:db8::30", "2001:db8::7", 7, 1).payload("abc").frame();
    let packet = sliced(&frame);
    let (Some(TransportSlice::Icmpv6(icmp)), Some(NetSlice::Ipv6(v6))) = (&packet.transport, &packet.net)
    else {
        panic!("{packet:?}")
    };
    assert!(icmp.is_checksum_valid(v6.header().source(), v6.header().destination()));
}

#[test]
fn knobs_lie_exactly_where_they_say() {
    let honest = tcp("198.51.100.9:1", "10.5.6.7:2").syn();
    let differ = |frame: Vec<u8>| -> Vec<usize> {
        let honest = honest.frame();
        (0..honest.len()).filter(|&at| frame[at] != honest[at]).collect()
    };
    // A lie in the IPv4 header changes its checksum too, which knows nothing of lies.
    assert_eq!(differ(honest.clone().lie_ip_length(4).frame()), [17, 25]);
    assert_eq!(differ(honest.clone().lie_version(5).lie_ip_checksum(0).frame()), [14, 24, 25]);
    assert_eq!(differ(honest.clone().lie_header_words(4).frame()), [14, 24]);
    assert_eq!(differ(honest.clone().lie_data_offset(15).frame()), [46, 50, 51]);
    assert_eq!(honest.clone().cut(20).frame(), honest.frame()[..20]);
    assert_eq!(honest.clone().lie_ethertype(0x88cc).frame()[12..14], [0x88, 0xcc]);
}

#[test]
fn groups_get_their_macs_and_arp_goes_to_everyone() {
    assert_eq!(igmp_report("10.5.6.7", "239.129.2.3").frame()[..6], [1, 0, 0x5e, 1, 2, 3]);
    assert_eq!(router_solicitation("fe80::1").frame()[..6], [0x33, 0x33, 0, 0, 0, 2]);
    let arp = arp_request("02:00:00:00:00:01", "10.5.6.7", "10.5.6.30").frame();
    assert_eq!((arp.len(), &arp[..6], &arp[6..12]), (42, &[0xff; 6][..], &[2, 0, 0, 0, 0, 1][..]));
    let solicitation = neighbor_solicitation("02:00:00:00:00:01", "2001:db8::7", "2001:db8::30").frame();
    assert_eq!(solicitation[..6], [0x33, 0x33, 0xff, 0, 0, 0x30]);
}

#[test]
fn tunnels_hold_the_inner_frame_unaltered() {
    let inner = tcp("10.5.6.7:22", "10.5.6.30:9").syn().frame();
    let outer = vxlan("192.0.2.1", "192.0.2.2", 5001, &inner).frame();
    assert_eq!((&outer[36..38], &outer[42..50]), (&[0x12, 0xb5][..], &[8, 0, 0, 0, 0, 0x13, 0x89, 0][..]));
    assert_eq!(outer[50..], inner);
    let outer = geneve("2001:db8::1", "2001:db8::2", 5001, &inner).frame();
    assert_eq!(
        (&outer[56..58], &outer[62..70]),
        (&[0x17, 0xc1][..], &[0, 0, 0x65, 0x58, 0, 0x13, 0x89, 0][..])
    );
    assert_eq!(outer[70..], inner);
}
