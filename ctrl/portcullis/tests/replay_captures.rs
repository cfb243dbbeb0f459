//! Captures as `replay` reads them: formats, resolutions, what is cut or refused, and where.

mod replay;

use std::fs;

use replay::*;
use testkit::frame::*;
use testkit::pcap::{self, Format, Record};

const SECOND: u64 = 1_000_000_000;
const START: u64 = 1_700_000_000 * SECOND;

#[test]
fn stamps_are_printed_with_the_captures_own_digits() {
    let setup = Setup::new();
    let records = [Record::new(START + 1_000, question()), Record::new(START + 999_999_000, question())];
    for (nanoseconds, big_endian) in [(false, false), (false, true), (true, false), (true, true)] {
        setup.write("o.pcap", pcap::encode(Format { nanoseconds, big_endian }, &records));
        let lines = setup.lines(&["--outside", "o.pcap"]);
        let zeros = if nanoseconds { "000" } else { "" };
        assert_eq!(
            lines,
            [
                format!(
                    r#"{{"from":"outside","index":0,"time":1700000000.000001{zeros},"nic":"server","direction":"inbound","verdict":"pass","reason":"new","rule":"open#0","rule_id":"r-542115d42c"}}"#
                ),
                format!(
                    r#"{{"from":"outside","index":1,"time":1700000000.999999{zeros},"nic":"server","direction":"inbound","verdict":"pass","reason":"established","rule":null,"rule_id":null}}"#
                ),
            ]
        );
    }
    for (resolution, units, time) in [
        (0, 1_700_000_000, "1700000000"),
        (3, 1_700_000_000_007, "1700000000.007"),
        (6, 1_700_000_000_000_007, "1700000000.000007"),
        (9, 1_700_000_000_000_000_007, "1700000000.000000007"),
        (10, 17_000_000_000_000_000_007, "1700000000.0000000007"),
        (0x80 | 10, 1_700_000_000 << 10 | 512, "1700000000.500000000"),
    ] {
        for big_endian in [false, true] {
            let capture = Pcapng::new(big_endian).ethernet(resolution).packet(0, units, &question());
            setup.write("o.pcapng", capture.bytes);
            let line = setup.lines(&["--outside", "o.pcapng"]).remove(0);
            assert!(line.contains(&format!("\"time\":{time},")), "{line}: {time}");
        }
    }
}

#[test]
fn an_interface_without_options_counts_microseconds_and_an_offset_is_added() {
    let setup = Setup::new();
    for big_endian in [false, true] {
        let offset = |seconds: i64| if big_endian { seconds.to_be_bytes() } else { seconds.to_le_bytes() };
        let capture = Pcapng::new(big_endian)
            .interface(1, &[])
            .interface(1, &[(9, &[9]), (14, &offset(5))])
            .interface(1, &[(14, &offset(-5))])
            .packet(0, 7_000_001, &question())
            .packet(1, 3 * SECOND, &question())
            .packet(2, 14_000_000, &question());
        setup.write("o.pcapng", capture.bytes);
        assert_eq!(
            setup.verdicts(&["--outside", "o.pcapng"]),
            ["outside 0 7.000001 new", "outside 1 8.0 established", "outside 2 9.0 established"]
        );
    }
}

#[test]
fn sections_begin_anew_and_blocks_without_packets_are_passed_over() {
    let setup = Setup::new();
    let capture = Pcapng::new(false)
        .ethernet(9)
        .block(4, &[0; 4])
        .block(5, &[0; 12])
        .block(0x0BAD, b"\0\0\0\0custom data")
        .block(0x7777_7777, b"unknown!")
        .packet(0, SECOND, &question())
        .section(true)
        .ethernet(6)
        .packet(0, 2_000_000, &question())
        .packet_with(0, 3_000_000, &question(), &[(1, b"a comment")]);
    setup.write("o.pcapng", capture.bytes);
    let verdicts = setup.verdicts(&["--outside", "o.pcapng"]);
    assert_eq!(verdicts, ["outside 0 1.0 new", "outside 1 2.0 established", "outside 2 3.0 established"]);
}

#[test]
fn blocks_with_options_say_the_same_as_plain_ones() {
    let setup = Setup::new();
    for big_endian in [false, true] {
        // Every length modulo 4.
        let frames: Vec<Vec<u8>> =
            (0..8).map(|len| udp("192.0.2.9:4000", "10.5.6.7:53").payload(vec![1; len]).frame()).collect();
        let capture = |options: &[(u16, &[u8])]| {
            frames.iter().enumerate().fold(Pcapng::new(big_endian).ethernet(9), |capture, (at, frame)| {
                capture.packet_with(0, START + at as u64, frame, options)
            })
        };
        setup.write("plain.pcapng", capture(&[]).bytes);
        setup.write("flags.pcapng", capture(&[(2, &[0, 0, 0, 0]), (1, b"abc")]).bytes);
        let of = |name: &str| {
            let lines = setup.lines(&["--outside", name, "--pass-inside", "passed.pcap"]);
            (lines, fs::read(setup.path("passed.pcap")).unwrap())
        };
        let plain = of("plain.pcapng");
        assert_eq!(plain.0.len(), 8);
        assert_eq!(plain, of("flags.pcapng"));
    }
}

#[test]
fn the_variant_with_longer_record_headers_is_read() {
    let setup = Setup::new();
    let mut file = pcap::encode(Format::MICRO, &[]);
    file[..4].copy_from_slice(&0xA1B2_CD34u32.to_le_bytes());
    for second in [1u32, 2] {
        let length = question().len() as u32;
        for word in [second, 5, length, length, 0xDEAD, 0xBEEF] {
            file.extend(word.to_le_bytes());
        }
        file.extend(question());
    }
    setup.write("o.pcap", &file);
    let verdicts = setup.verdicts(&["--outside", "o.pcap"]);
    assert_eq!(verdicts, ["outside 0 1.000005 new", "outside 1 2.000005 established"]);
    setup.write("o.pcap", &file[..file.len() - 1]);
    let told = setup.refusal(&["--outside", "o.pcap"]);
    assert_eq!(told, format!("o.pcap: at byte {}: truncated: packet 1 is not whole\n", 24 + 24 + 62));
}

#[test]
fn a_fraction_of_more_than_a_second_is_carried() {
    let setup = Setup::new();
    let mut file = pcap::encode(Format::MICRO, &[Record::new(START, question())]);
    file[28..32].copy_from_slice(&2_500_000u32.to_le_bytes());
    setup.write("o.pcap", file);
    // JSON numbers: the text is looked at, not the value.
    assert!(setup.lines(&["--outside", "o.pcap"])[0].contains("\"time\":1700000002.500000,"));
}

/// Cut at every byte: at the end of a record it is a shorter capture, anywhere else it names the record that is not whole.
#[test]
fn a_truncated_capture_is_refused_with_its_offset() {
    let setup = Setup::new();
    let pcap = pcap::encode(Format::NANO, &pcap::records(START, [question(), answer()]));
    let pcapng =
        Pcapng::new(false).ethernet(9).packet(0, START, &question()).packet(0, START, &answer()).bytes;
    let record = 16 + question().len();
    // The blocks' beginnings: section, interface, packets.
    let (first, second) = (28 + 32, 28 + 32 + 32 + 64);
    for (name, file, starts) in
        [("t.pcap", pcap, vec![0, 24, 24 + record]), ("t.pcapng", pcapng, vec![0, 28, first, second])]
    {
        for length in (0..file.len()).filter(|length| length % 3 == 0 || starts.contains(length)) {
            setup.write(name, &file[..length]);
            if starts[1..].contains(&length) {
                assert!(setup.run(&["--outside", name]).status.success(), "{name} of {length} bytes");
                continue;
            }
            let told = setup.refusal(&["--outside", name]);
            let at = starts.iter().rev().find(|start| **start <= length).unwrap();
            assert!(told.starts_with(&format!("{name}: at byte {at}: truncated")), "{length} bytes: {told}");
        }
    }
}

#[test]
fn what_cannot_be_read_is_refused_with_its_place() {
    let setup = Setup::new();
    let refused = |name: &str, bytes: &[u8], told: &str| {
        setup.write(name, bytes);
        for side in ["--inside", "--outside"] {
            let refusal = setup.refusal(&[side, name]);
            assert!(refusal.starts_with(&format!("{name}: ")) && refusal.contains(told), "{refusal}");
        }
    };
    let mut raw = pcap::encode(Format::MICRO, &[]);
    raw[20] = 105;
    refused("wifi.pcap", &raw, "at byte 20: link type 105 found; allowed: 1 (Ethernet), 0 (null)");
    let mut raw = pcap::encode(Format { big_endian: true, ..Format::MICRO }, &[]);
    raw[23] = 105;
    refused("wifi.pcap", &raw, "at byte 20: link type 105 found; allowed: 1 (Ethernet), 0 (null)");
    refused("text.pcap", b"no capture at all", "at byte 0: neither pcap nor pcapng");
    refused("empty.pcap", b"", "at byte 0: truncated");

    let begin = || Pcapng::new(false).ethernet(6);
    let packet = begin().bytes.len();
    let other = begin().interface(105, &[]);
    let at = other.bytes.len();
    let other = other.packet(1, 1, &question()).bytes;
    refused("x.pcapng", &other, &format!("at byte {at}: packet 0: link type 105 found"));
    let simple = begin().packet(0, 1, &question()).block(3, &[0; 64]).bytes;
    refused(
        "x.pcapng",
        &simple,
        &format!("at byte {}: a simple packet block, which has no timestamp", packet + 96),
    );
    let obsolete = begin().block(2, &[0; 64]).bytes;
    refused("x.pcapng", &obsolete, &format!("at byte {packet}: a packet block of the obsolete kind"));
    let nobodys = begin().packet(1, 1, &question()).bytes;
    refused("x.pcapng", &nobodys, &format!("at byte {packet}: packet 0 is of no described interface"));
    let forgotten = begin().section(false).packet(0, 1, &question()).bytes;
    refused("x.pcapng", &forgotten, "packet 0 is of no described interface");
    let fine = Pcapng::new(false).ethernet(20).bytes;
    refused("x.pcapng", &fine, "at byte 28: time resolution finer than 64 bits can count");
    // A block whose two lengths differ, one that claims more than it has, one whose packet claims more.
    let mut lying = begin().packet(0, 1, &question()).bytes;
    let end = lying.len();
    lying[end - 4] ^= 4;
    refused("x.pcapng", &lying, &format!("at byte {packet}: truncated"));
    // Blocks of a kind that nobody knows that are shorter than any block, in either byte order.
    for big_endian in [false, true] {
        for length in 0..12u32 {
            let mut short = Pcapng::new(big_endian).ethernet(6).bytes;
            let words = [0x8000_0001, length, 0];
            let in_order = if big_endian { u32::to_be_bytes } else { u32::to_le_bytes };
            short.extend(words.into_iter().flat_map(in_order));
            refused(
                "x.pcapng",
                &short,
                &format!("at byte {packet}: the block behind packet 0 says that it has {length} bytes"),
            );
        }
    }
    let mut lying = begin().packet(0, 1, &question()).bytes;
    lying[packet + 4] += 4;
    refused("x.pcapng", &lying, &format!("at byte {packet}: truncated"));
    let mut lying = begin().packet(0, 1, &question()).bytes;
    lying[packet + 20] += 40;
    refused("x.pcapng", &lying, &format!("at byte {packet}: truncated"));

    let missing = setup.refusal(&["--outside", "missing.pcap"]);
    assert!(missing.starts_with("missing.pcap: cannot read it: "), "{missing}");
    let both = setup.run(&[]);
    assert_eq!(both.status.code(), Some(2), "neither --inside nor --outside");
}

#[test]
fn a_frame_that_the_capture_cut_is_judged_by_what_is_there() {
    let setup = Setup::new();
    let whole = question();
    let cut =
        |length: usize| Record { time: START, original: whole.len() as u32, data: whole[..length].to_vec() };
    setup.write("o.pcap", pcap::encode(Format::MICRO, &[cut(42), cut(41), cut(20), cut(13), cut(0)]));
    let verdicts = setup.verdicts(&["--outside", "o.pcap", "--pass-inside", "passed.pcap"]);
    let reasons: Vec<_> = verdicts.iter().map(|verdict| verdict.split(' ').next_back().unwrap()).collect();
    assert_eq!(reasons, ["new", "malformed", "malformed", "malformed", "malformed"]);
    let (format, passed) = pcap::read(setup.path("passed.pcap")).unwrap();
    assert_eq!((format, passed), (Format::NANO, vec![cut(42)]), "lengths as read, stamps of nanoseconds");
}
