//! The captures' clock, the merged order, changes on the way, and what is written where.

mod replay;

use std::fs;

use replay::*;
use testkit::frame::*;
use testkit::pcap::{self, Format, Record};

const SECOND: u64 = 1_000_000_000;

/// A capture of one frame at these milliseconds.
fn capture(frame: &[u8], milliseconds: &[u64]) -> Vec<u8> {
    let records: Vec<_> =
        milliseconds.iter().map(|time| Record::new(time * 1_000_000, frame.to_vec())).collect();
    pcap::encode(Format::MICRO, &records)
}

#[test]
fn equal_stamps_go_inside_first_and_then_in_file_order() {
    let setup = Setup::new();
    setup.write("i.pcap", capture(&answer(), &[1000, 1000, 2000]));
    setup.write("o.pcap", capture(&question(), &[999, 1000, 1000, 3000]));
    assert_eq!(
        setup.verdicts(&["--inside", "i.pcap", "--outside", "o.pcap"]),
        [
            "outside 0 0.999 new",
            "inside 0 1.0 established",
            "inside 1 1.0 established",
            "outside 1 1.0 established",
            "outside 2 1.0 established",
            "inside 2 2.0 established",
            "outside 3 3.0 established",
        ]
    );
}

#[test]
fn a_stamp_that_runs_back_is_judged_at_its_predecessors_time_and_told_as_it_is() {
    let setup = Setup::new();
    // The second is judged at 40 s: the first one's 30 s begin again there, and end at 70 s.
    setup.write("o.pcap", capture(&question(), &[40_000, 10_000, 69_000, 60_000, 99_500]));
    assert_eq!(
        setup.verdicts(&["--outside", "o.pcap"]),
        [
            "outside 0 40.0 new",
            "outside 1 10.0 established",
            "outside 2 69.0 established",
            "outside 3 60.0 established",
            "outside 4 99.5 new",
        ]
    );
    // The merge goes by the time of judgement: what runs back waits for its file, and holds the other up to no time of its own.
    setup.write("i.pcap", capture(&answer(), &[41_000, 5_000, 80_000]));
    setup.write("o.pcap", capture(&question(), &[40_000, 42_000]));
    assert_eq!(
        setup.verdicts(&["--inside", "i.pcap", "--outside", "o.pcap"]),
        [
            "outside 0 40.0 new",
            "inside 0 41.0 established",
            "inside 1 5.0 established",
            "outside 1 42.0 established",
            "inside 2 80.0 established",
        ]
    );
}

#[test]
fn the_grace_for_older_connections_ends_at_its_time_however_close_the_packets_lie_in_the_file() {
    let setup = Setup::new();
    setup.write("policy.yaml", POLICY.replace("protocol: udp, ports: 53", "protocol: tcp, ports: 53"));
    setup.write("grace.toml", "[conntrack]\npickup_grace = 10\n");
    let frames = (0u16..).zip([0, 9_900, 10_000, 100_000]).map(|(n, milliseconds)| {
        let segment = tcp(("192.0.2.9", 4000 + n), "10.5.6.7:53").seq(1).ack(1).frame();
        Record::new(milliseconds * 1_000_000, segment)
    });
    setup.write("o.pcap", pcap::encode(Format::MICRO, &frames.collect::<Vec<_>>()));
    assert_eq!(
        setup.verdicts(&["--config", "grace.toml", "--outside", "o.pcap"]),
        ["outside 0 0.0 new", "outside 1 9.9 new", "outside 2 10.0 invalid", "outside 3 100.0 invalid"]
    );
}

/// The policy with another port.
fn closed() -> String {
    POLICY.replace("ports: 53", "ports: 54")
}

/// A list of events.
fn events(list: &[(&str, &str)]) -> String {
    list.iter()
        .map(|(at, policy)| {
            let indented = policy.replace('\n', "\n    ");
            format!("- at: {at}\n  policy:\n    {indented}\n")
        })
        .collect()
}

#[test]
fn an_event_holds_from_the_first_packet_at_its_moment_on() {
    let setup = Setup::new();
    setup.write("o.pcap", capture(&question(), &[1000, 2000, 2000, 3000]));
    setup.write("events.yaml", events(&[("2", &closed()), ("2.5", POLICY), ("1000", &closed())]));
    // The flush makes a tombstone of the connection; both rules being back does not end it.
    assert_eq!(
        setup.verdicts(&["--outside", "o.pcap", "--events", "events.yaml"]),
        [
            "outside 0 1.0 new",
            "outside 1 2.0 tombstone",
            "outside 2 2.0 tombstone",
            "outside 3 3.0 tombstone"
        ]
    );
    // A microsecond behind the packet is too late for it.
    setup.write("closed.yaml", closed());
    setup.write("events.yaml", "[{ at: 2.000001, file: closed.yaml }]");
    assert_eq!(
        setup.verdicts(&["--outside", "o.pcap", "--events", "events.yaml"]),
        [
            "outside 0 1.0 new",
            "outside 1 2.0 established",
            "outside 2 2.0 established",
            "outside 3 3.0 tombstone"
        ]
    );
}

#[test]
fn an_event_in_the_middle_of_a_burst_divides_it() {
    let setup = Setup::new();
    let times: Vec<u64> = (0..100).collect();
    setup.write("o.pcap", capture(&question(), &times));
    setup.write("events.yaml", events(&[("0.05", &closed())]));
    let verdicts = setup.verdicts(&["--outside", "o.pcap", "--events", "events.yaml"]);
    let passed = verdicts.iter().take_while(|verdict| !verdict.ends_with("tombstone")).count();
    assert_eq!((verdicts.len(), passed), (100, 50));
    assert!(verdicts[50..].iter().all(|verdict| verdict.ends_with("tombstone")));
}

#[test]
fn a_refused_event_or_capture_leaves_nothing_behind() {
    let setup = Setup::new();
    setup.write("o.pcap", capture(&question(), &[1000, 2000]));
    setup.write("bad.yaml", "vpcs: [{ name: lab, segment: { vlan: 5000 } }]\n");
    let known = ["policy.yaml", "o.pcap", "bad.yaml", "events.yaml", "cut.pcap", "old.jsonl"];
    let outputs = ["--verdicts", "v.jsonl", "--pass-inside", "in.pcap", "--pass-outside", "out.pcap"];
    for (list, told) in [
        ("[{ at: 5, policy: { vpcs: [{ name: x }] } }]", "events.yaml:1:"),
        ("[{ at: 5, file: bad.yaml }]", "bad.yaml:1:"),
        ("[{ at: 5, file: missing.yaml }]", "missing.yaml"),
        ("[{ at: 5, file: policy.yaml }, { at: 4, file: policy.yaml }]", "events.yaml:1:"),
        ("[{ file: policy.yaml }]", "events.yaml:1:"),
    ] {
        setup.write("events.yaml", list);
        let all = [&["--outside", "o.pcap", "--events", "events.yaml"], &outputs[..]].concat();
        let refusal = setup.refusal(&all);
        assert!(refusal.contains(told), "{list}: {refusal}");
        assert_eq!(setup.others(&known), [""; 0], "{list}");
    }
    // Found out only behind the first packet.
    let whole = capture(&question(), &[1000, 2000]);
    setup.write("cut.pcap", &whole[..whole.len() - 1]);
    setup.write("old.jsonl", "as it was");
    let refusal = setup.refusal(&[&["--outside", "cut.pcap"], &outputs[..]].concat());
    assert!(refusal.contains("cut.pcap: at byte 102: truncated: packet 1"), "{refusal}");
    setup.refusal(&["--outside", "cut.pcap", "--verdicts", "old.jsonl"]);
    assert_eq!(fs::read_to_string(setup.path("old.jsonl")).unwrap(), "as it was");
    assert_eq!(setup.others(&known), [""; 0]);
}

/// The program ran and failed, so the status is 1; which of several files it was about is said.
#[test]
fn an_output_that_cannot_be_written_is_named() {
    let setup = Setup::new();
    setup.write("o.pcap", capture(&question(), &[1000]));
    fs::create_dir(setup.path("taken")).unwrap();
    for (option, file) in
        [("--verdicts", "gone/v.jsonl"), ("--pass-inside", "gone/in.pcap"), ("--pass-outside", "taken")]
    {
        let output = setup.run(&["--outside", "o.pcap", option, file]);
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.starts_with(&format!("portcullis: {file}: cannot write it: ")), "{told}");
    }
    assert_eq!(setup.others(&["policy.yaml", "o.pcap", "taken"]), [""; 0]);
}

/// Not only when it is opened or put in its place: here the limit is met in the middle of the replay.
#[test]
fn an_output_that_grows_too_large_is_named() {
    let setup = Setup::new();
    setup.write("o.pcap", capture(&question(), &vec![1000; 10_000]));
    for option in ["--verdicts", "--pass-inside"] {
        let replay = setup.command(&["--outside", "o.pcap", option, "out"]);
        let output = std::process::Command::new("sh")
            .args(["-c", "trap '' XFSZ; ulimit -f 1; exec \"$@\"", "sh"])
            .arg(replay.get_program())
            .args(replay.get_args())
            .current_dir(setup.path(""))
            .output()
            .unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.starts_with("portcullis: out: cannot write it: "), "{told}");
        assert_eq!(setup.others(&["policy.yaml", "o.pcap"]), [""; 0]);
    }
}

#[test]
fn the_summary_goes_where_the_verdicts_do_not() {
    let setup = Setup::new();
    let refused = udp("192.0.2.9:4000", "10.5.6.7:99").frame();
    let records: Vec<_> = [question(), question(), refused].map(|frame| Record::new(SECOND, frame)).into();
    setup.write("o.pcap", pcap::encode(Format::MICRO, &records));
    let text = setup.stdout(&["--outside", "o.pcap"]);
    let lines: Vec<Vec<&str>> = text.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines, [["established", "1"], ["new", "1"], ["no-rule", "1"]]);
    let json = r#"{"packets":{"drop":1,"in":3,"pass":2},"reasons":{"established":1,"new":1,"no-rule":1}}"#;
    assert_eq!(setup.stdout(&["--outside", "o.pcap", "-o", "json", "--verdicts", "v.jsonl"]).trim(), json);
    assert_eq!(fs::read_to_string(setup.path("v.jsonl")).unwrap().lines().count(), 3);

    let output = setup.run(&["--outside", "o.pcap", "-o", "json", "--verdicts", "-"]);
    assert_eq!(String::from_utf8(output.stderr).unwrap().trim(), json);
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 3);
}

#[test]
fn what_has_no_nic_has_no_direction_and_what_is_observed_says_so() {
    let setup = Setup::new();
    let frames = [
        udp("192.0.2.9:4000", "10.5.6.77:53").frame(),
        udp("192.0.2.9:4000", "10.5.6.7:99").frame(),
        arp_request("02:00:00:00:00:30", "10.5.6.30", "10.5.6.7").frame(),
    ];
    let records: Vec<_> = frames.into_iter().map(|frame| Record::new(SECOND, frame)).collect();
    setup.write("o.pcap", pcap::encode(Format::MICRO, &records));
    setup.write("observe.toml", "[policy]\nmode = \"observe\"\n");
    let tails = |arguments: &[&str]| -> Vec<String> {
        let lines = setup.lines(&[&["--outside", "o.pcap"], arguments].concat());
        lines.iter().map(|line| line.split_once("\"nic\":").unwrap().1.to_owned()).collect()
    };
    assert_eq!(
        tails(&[]),
        [
            r#"null,"direction":null,"verdict":"drop","reason":"unknown-destination","rule":null,"rule_id":null}"#,
            r#""server","direction":"inbound","verdict":"drop","reason":"no-rule","rule":null,"rule_id":null}"#,
            r#""server","direction":"inbound","verdict":"pass","reason":"control","rule":null,"rule_id":null}"#,
        ]
    );
    assert_eq!(
        tails(&["--config", "observe.toml"]),
        [
            r#"null,"direction":null,"verdict":"pass","reason":"unknown-destination","rule":null,"rule_id":null,"observed":true}"#,
            r#""server","direction":"inbound","verdict":"pass","reason":"no-rule","rule":null,"rule_id":null,"observed":true}"#,
            r#""server","direction":"inbound","verdict":"pass","reason":"control","rule":null,"rule_id":null}"#,
        ]
    );
}
