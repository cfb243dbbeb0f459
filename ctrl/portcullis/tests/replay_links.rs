//! Captures without Ethernet headers, compressed ones, pipes, both directions in one file, and outputs that are no files.

mod replay;

use std::fs;
use std::io::Write;
use std::process::Stdio;

use replay::*;
use testkit::frame::*;
use testkit::pcap::{self, Format};

const START: u64 = 1_700_000_000_000_000_000;

/// A policy whose NIC bears a MAC, so that a check of MACs would be noticed.
const STRICT: &str = r#"
vpcs: [{ name: lab, segment: { untagged: true } }]
security_groups:
  - name: open
    rules:
      - { direction: inbound, protocol: udp, ports: 53 }
      - { direction: outbound, protocol: udp }
nics:
  - { name: server, vpc: lab, mac: "02:00:00:00:00:01", addresses: [10.5.6.7, "2001:db8::7"], security_groups: [open] }
"#;

/// What stands in front of a frame's IP packet.
type Before<'a> = &'a dyn Fn(&[u8]) -> Vec<u8>;

fn strict() -> Setup {
    let setup = Setup::new();
    setup.write("policy.yaml", STRICT);
    setup
}

/// The frames as a capture of this link type: `before` stands in front of each IP packet.
fn capture(link_type: u8, before: Before, frames: &[Vec<u8>]) -> Vec<u8> {
    let frames = frames.iter().map(|frame| [&before(frame)[..], &frame[14..]].concat());
    with_link_type(link_type, pcap::encode(Format::MICRO, &pcap::records(START, frames)))
}

fn with_link_type(link_type: u8, mut file: Vec<u8>) -> Vec<u8> {
    file[20..22].copy_from_slice(&match link_type {
        20 => 276u16.to_le_bytes(),
        other => u16::from(other).to_le_bytes(),
    });
    file
}

/// Of cooked version 2, since 276 is no byte.
const COOKED2: u8 = 20;

fn question6() -> Vec<u8> {
    udp("[2001:db8::9]:4000", "[2001:db8::7]:53").payload([7; 20]).frame()
}

fn answer6() -> Vec<u8> {
    udp("[2001:db8::7]:53", "[2001:db8::9]:4000").payload([7; 20]).frame()
}

fn family(frame: &[u8], v6: u32) -> u32 {
    if frame[12] == 0x86 { v6 } else { 2 }
}

#[test]
fn each_link_type_is_judged_like_ethernet_and_without_a_look_at_macs() {
    let setup = strict();
    let cooked = |frame: &[u8]| [&[0, 0, 0, 1, 0, 6, 2, 0, 0, 0, 0, 99, 0, 0][..], &frame[12..14]].concat();
    let cooked2 = |frame: &[u8]| {
        [&frame[12..14], &[0, 0, 0, 0, 0, 2, 0, 1, 0, 6, 2, 0, 0, 0, 0, 99, 0, 0][..]].concat()
    };
    let none = |_: &[u8]| Vec::new();
    let cases: &[(u8, Before)] = &[
        (0, &|frame| family(frame, 24).to_le_bytes().to_vec()),
        (0, &|frame| family(frame, 30).to_be_bytes().to_vec()),
        (108, &|frame| family(frame, 28).to_be_bytes().to_vec()),
        (12, &none),
        (14, &none),
        (101, &none),
        (113, &cooked),
        (COOKED2, &cooked2),
    ];
    for (link_type, before) in cases {
        setup.write("o.pcap", capture(*link_type, before, &[question(), question6()]));
        setup.write("i.pcap", capture(*link_type, before, &[answer(), answer6()]));
        let passed = ["--pass-inside", "pi.pcap", "--pass-outside", "po.pcap"];
        let verdicts =
            setup.verdicts(&[&["--inside", "i.pcap", "--outside", "o.pcap"][..], &passed].concat());
        // Equal stamps: inside first.
        let reasons: Vec<_> = verdicts.iter().map(|line| line.split(' ').next_back().unwrap()).collect();
        assert_eq!(reasons, ["new", "established", "new", "established"], "link type {link_type}");
        for (passed, read) in [("pi.pcap", "o.pcap"), ("po.pcap", "i.pcap")] {
            let (passed, read) = (fs::read(setup.path(passed)).unwrap(), fs::read(setup.path(read)).unwrap());
            assert_eq!(passed[20..24], read[20..24], "the link type stays");
            let frames = |file| pcap::decode(&with_link_type(1, file)).unwrap().1.into_iter().map(|r| r.data);
            assert!(frames(passed).eq(frames(read)), "link type {link_type}: frames are unaltered");
        }
    }
    for (link_type, frames) in [(228, [question(), question()]), (229, [question6(), question6()])] {
        setup.write("o.pcap", capture(link_type, &none, &frames));
        let reasons = setup.verdicts(&["--outside", "o.pcap"]);
        assert!(
            reasons[0].ends_with("new") && reasons[1].ends_with("established"),
            "{link_type}: {reasons:?}"
        );
    }
}

#[test]
fn a_link_header_that_is_cut_is_malformed_and_an_unknown_family_not_ip() {
    let setup = strict();
    for (link_type, frame, reason) in [
        (0u8, &[2u8, 0, 0][..], "malformed"),
        (0, &[7, 0, 0, 0, 1, 2, 3], "not-ip"),
        (101, &[], "malformed"),
        (101, &[0x45, 0], "malformed"),
        (113, &[0; 15], "malformed"),
        (113, &[0, 0, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0, 0x88, 0xCC], "not-ip"),
        (COOKED2, &[0; 19], "malformed"),
    ] {
        let records = pcap::records(START, [frame.to_vec()]);
        setup.write("o.pcap", with_link_type(link_type, pcap::encode(Format::MICRO, &records)));
        let verdicts = setup.verdicts(&["--outside", "o.pcap"]);
        assert!(verdicts[0].ends_with(reason), "{link_type} {frame:?}: {verdicts:?}");
    }
}

#[test]
fn a_described_interface_without_packets_harms_nothing_and_several_link_types_stand_in_one_capture() {
    let setup = strict();
    let file = Pcapng::new(false).interface(105, &[]).interface(101, &[]).ethernet(6);
    let file = file.packet(1, 1, &question()[14..]).packet(2, 2, &question()).bytes;
    setup.write("o.pcapng", file);
    let verdicts = setup.verdicts(&["--outside", "o.pcapng"]);
    assert!(verdicts[0].ends_with("new") && verdicts[1].ends_with("established"), "{verdicts:?}");
    let refusal = setup.refusal(&["--outside", "o.pcapng", "--pass-inside", "p.pcap"]);
    assert!(refusal.starts_with("p.pcap: packet 1 has link type 1, those before it 101"), "{refusal}");
    assert_eq!(setup.others(&["policy.yaml", "o.pcapng"]), Vec::<String>::new());
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn compressed_captures_and_standard_input_are_read_as_plain_files_are() {
    let setup = Setup::new();
    let plain = pcap::encode(Format::MICRO, &pcap::records(START, [question(), question()]));
    setup.write("plain.pcap", &plain);
    let expected = setup.verdicts(&["--outside", "plain.pcap"]);
    // In two members, as concatenated files are.
    setup.write("o.pcap.gz", [gzip(&plain[..50]), gzip(&plain[50..])].concat());
    assert_eq!(setup.verdicts(&["--outside", "o.pcap.gz"]), expected);
    for input in [plain.clone(), gzip(&plain)] {
        let mut command = setup.command(&["--outside", "-", "--verdicts", "v.jsonl"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(&input).unwrap();
        assert!(child.wait().unwrap().success());
        assert_eq!(fs::read_to_string(setup.path("v.jsonl")).unwrap().lines().count(), 2);
    }
    let short = gzip(&plain);
    setup.write("short.gz", &short[..short.len() - 12]);
    let refusal = setup.refusal(&["--outside", "short.gz"]);
    assert!(refusal.starts_with("short.gz: at byte ") && refusal.contains("truncated"), "{refusal}");
    setup.write("bad.gz", [&short[..12], &[0xFF; 40]].concat());
    let refusal = setup.refusal(&["--outside", "bad.gz"]);
    assert!(refusal.starts_with("bad.gz: at byte "), "{refusal}");
    setup.write("cut.gz", gzip(&plain[..plain.len() - 1]));
    let refusal = setup.refusal(&["--outside", "cut.gz"]);
    assert!(refusal.starts_with("cut.gz (decompressed): at byte "), "{refusal}");
}

#[test]
fn one_capture_of_both_directions_is_told_apart_by_addresses_then_macs_then_cooked_headers() {
    let setup = strict();
    let probe = arp_probe();
    let elsewhere = udp("10.5.6.99:1", "192.0.2.9:2").frame();
    let frames = [question(), own(answer()), question6(), own(answer6()), probe, elsewhere];
    setup.write("both.pcap", pcap::encode(Format::MICRO, &pcap::records(START, frames)));
    let verdicts = setup.verdicts(&["--both", "both.pcap"]);
    let told: Vec<_> =
        verdicts.iter().map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(told, ["outside 0", "inside 1", "outside 2", "inside 3", "inside 4", "outside 5"]);
    assert!(verdicts[1].ends_with("established") && verdicts[4].ends_with("control"), "{verdicts:?}");

    // What the host sent is from inside, whoever's address it bears.
    let sent = |frame: &[u8]| [&[0, 4, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], &frame[12..14]].concat();
    setup.write("sent.pcap", capture(113, &sent, &[udp("10.5.6.99:1", "192.0.2.9:2").frame()]));
    assert!(setup.verdicts(&["--both", "sent.pcap"])[0].starts_with("inside 0 "));
    assert_eq!(setup.run(&["--both", "sent.pcap", "--inside", "both.pcap"]).status.code(), Some(2));
}

/// The frame with the NIC's MAC as source.
fn own(mut frame: Vec<u8>) -> Vec<u8> {
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    frame
}

/// An ARP probe of the NIC's for its own address: only its MAC tells whose it is.
fn arp_probe() -> Vec<u8> {
    let mac = [2, 0, 0, 0, 0, 1];
    let ethernet = [&[0xFF; 6][..], &mac, &[8, 6]].concat();
    [&ethernet[..], &[0, 1, 8, 0, 6, 4, 0, 1], &mac, &[0; 4], &[0; 6], &[10, 5, 6, 7]].concat()
}

#[test]
fn an_ip_length_of_0_is_the_frames_rest() {
    let setup = strict();
    let mut v4 = question();
    v4[16..18].fill(0);
    let mut v6 = question6();
    v6[18..20].fill(0);
    let tagged = |frame: &[u8]| [&frame[..12], &[0x81, 0, 0, 0], &frame[12..]].concat();
    let frames = [v4.clone(), v6.clone(), tagged(&v4), tagged(&v6)];
    setup.write("o.pcap", pcap::encode(Format::MICRO, &pcap::records(START, frames.clone())));
    let verdicts = setup.verdicts(&["--outside", "o.pcap", "--pass-inside", "p.pcap"]);
    let reasons: Vec<_> = verdicts.iter().map(|line| line.split(' ').next_back().unwrap()).collect();
    assert_eq!(reasons, ["new", "new", "established", "established"]);
    let (_, passed) = pcap::read(setup.path("p.pcap")).unwrap();
    assert_eq!(passed.into_iter().map(|record| record.data).collect::<Vec<_>>(), frames, "unaltered");
    setup.write("raw.pcap", capture(101, &|_| Vec::new(), &[v4, v6]));
    assert!(setup.verdicts(&["--outside", "raw.pcap"]).iter().all(|line| line.ends_with("new")));
}

#[test]
fn outputs_go_to_devices_and_pipes_and_leave_them_what_they_are() {
    let setup = Setup::new();
    setup.write("o.pcap", pcap::encode(Format::MICRO, &pcap::records(START, [question()])));
    let all =
        ["--outside", "o.pcap", "--pass-inside", "/dev/null", "--pass-outside", "/dev/null", "--verdicts"];
    assert!(setup.run(&[&all[..], &["/dev/null"]].concat()).status.success());
    assert!(!fs::metadata("/dev/null").unwrap().is_file());
    let line = setup.stdout(&[&all[..], &["/dev/stdout"]].concat());
    assert!(line.contains("\"reason\":\"new\""), "{line}");
    // A link stays a link.
    setup.write("real.jsonl", "");
    std::os::unix::fs::symlink("real.jsonl", setup.path("link.jsonl")).unwrap();
    setup.stdout(&["--outside", "o.pcap", "--verdicts", "link.jsonl"]);
    assert!(fs::symlink_metadata(setup.path("link.jsonl")).unwrap().is_symlink());
    assert_eq!(fs::read_to_string(setup.path("real.jsonl")).unwrap().lines().count(), 1);
}

#[test]
fn one_file_in_two_roles_is_refused_before_anything_is_done() {
    let setup = Setup::new();
    let capture = pcap::encode(Format::MICRO, &pcap::records(START, [question()]));
    setup.write("a.pcap", &capture);
    fs::hard_link(setup.path("a.pcap"), setup.path("b.pcap")).unwrap();
    let hint = "a capture of both directions goes by --both";
    let two = setup.refusal(&["--inside", "a.pcap", "--outside", "a.pcap"]);
    assert!(
        two.starts_with("--inside and --outside name the same file, a.pcap") && two.contains(hint),
        "{two}"
    );
    assert!(setup.refusal(&["--inside", "a.pcap", "--outside", "b.pcap"]).contains(hint));
    assert!(setup.refusal(&["--inside", "-", "--outside", "-"]).contains(hint));
    let input = setup.refusal(&["--outside", "a.pcap", "--pass-inside", "b.pcap"]);
    assert!(input.starts_with("--outside and --pass-inside name the same file, b.pcap"), "{input}");
    let out = setup.refusal(&["--outside", "a.pcap", "--pass-inside", "new", "--verdicts", "./new"]);
    assert!(out.contains("name the same file"), "{out}");
    assert_eq!(fs::read(setup.path("a.pcap")).unwrap(), capture);
    assert_eq!(setup.others(&["policy.yaml", "a.pcap", "b.pcap"]), Vec::<String>::new());
}

#[test]
fn explain_takes_a_packet_of_any_link_type() {
    let setup = strict();
    setup.write("i.pcap", capture(101, &|_| Vec::new(), &[answer()]));
    let binary = env!("CARGO_BIN_EXE_portcullis");
    let explain = std::process::Command::new(binary)
        .current_dir(setup.path("."))
        .args(["explain", "--policy", "policy.yaml", "--pcap", "i.pcap", "--from", "inside", "-o", "json"])
        .output()
        .unwrap();
    let told: serde_json::Value = serde_json::from_slice(&explain.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&explain.stderr)));
    assert_eq!((told["verdict"].as_str(), told["nic"].as_str()), (Some("pass"), Some("server")), "{told}");
}
