//! `explain`: packets described, given as bytes and taken out of captures get the verdict of the data path, and say why.

use std::fs;
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::frame::*;
use testkit::pcap::{self, Format, Record};

const POLICY: &str = r#"
vpcs:
  - { name: prod, segment: { vlan: 100 } }
  - { name: flat, segment: { untagged: true } }
address_groups:
  - { name: office, addresses: [203.0.113.0/24] }
security_groups:
  - name: web
    rules:
      - { direction: inbound, protocol: any, remote_group: web }
      - { direction: inbound, protocol: tcp, ports: 22, remote: 192.0.2.0/24 }
      - { direction: inbound, protocol: tcp, ports: 8000-8099, remote_address_group: office }
      - { direction: inbound, protocol: icmp, icmp_type: 8, icmp_code: 0 }
      - { direction: inbound, protocol: udp, ports: 53, ethertype: IPv6 }
      - { direction: inbound, protocol: gre, remote: 192.0.2.0/24 }
      - { direction: outbound }
  - name: careful
    rules:
      - { direction: inbound, protocol: tcp, ports: 22, action: deny, priority: 10 }
      - { direction: inbound, protocol: tcp, ports: 22 }
nics:
  - { name: web-1, vpc: prod, mac: "02:00:00:00:00:01", addresses: [10.5.6.7, "2001:db8::7"], security_groups: [web] }
  - { name: flat-1, vpc: flat, addresses: [10.5.6.8], security_groups: [careful] }
  - { name: bare, project: lab, vpc: flat, addresses: [10.5.6.9], security_groups: [] }
"#;

const SSH: &str = "inbound tcp 192.0.2.9:40000 > 10.5.6.7:22";

/// A directory with the policy.
struct Setup(TempDir);

impl Setup {
    fn new() -> Setup {
        let setup = Setup(TempDir::new().unwrap());
        setup.write("policy.yaml", POLICY.as_bytes());
        setup
    }

    fn write(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.0.path().join(name);
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
        command.arg("explain").arg("--policy").arg(self.0.path().join("policy.yaml")).args(arguments);
        command.output().unwrap()
    }

    fn text(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let all: Vec<&str> = ["-o", "json"].iter().chain(arguments).copied().collect();
        serde_json::from_str(&self.text(&all)).unwrap()
    }

    fn described(&self, nic: &str, text: &str) -> Value {
        self.json(&["--nic", nic, text])
    }

    fn frame(&self, from: &str, frame: &impl Build) -> Value {
        self.json(&["--from", from, "--packet", &hex(&frame.frame())])
    }

    /// The one line of a refusal.
    fn refusal(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
        assert!(output.stdout.is_empty(), "{arguments:?} prints a verdict, and refuses");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        stderr.strip_prefix("portcullis: ").unwrap_or_else(|| panic!("{stderr}")).to_owned()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn verdict(value: &Value) -> String {
    let text = |key: &str| value[key].as_str().unwrap_or("-");
    format!("{} {} {} {} {}", text("verdict"), text("reason"), text("rule"), text("nic"), text("direction"))
}

fn nearest(value: &Value) -> Vec<String> {
    let list = value["nearest"].as_array().unwrap();
    list.iter().map(|near| format!("{} {}", near["rule"].as_str().unwrap(), near["mismatch"])).collect()
}

#[test]
fn a_described_packet_gets_the_rule_that_decides() {
    let setup = Setup::new();
    for (nic, text, expected) in [
        ("web-1", SSH, "pass new web#1 web-1 inbound"),
        ("web-1", "outbound tcp 10.5.6.7:1 > 198.51.100.9:443", "pass new web#6 web-1 outbound"),
        ("web-1", "inbound udp [2001:db8::9]:5000 > [2001:db8::7]:53", "pass new web#4 web-1 inbound"),
        ("web-1", "inbound icmp 198.51.100.9 > 10.5.6.7", "pass new web#3 web-1 inbound"),
        ("web-1", "inbound icmp 198.51.100.9 > 10.5.6.7 type 8 code 0", "pass new web#3 web-1 inbound"),
        ("web-1", "inbound gre 192.0.2.1 > 10.5.6.7", "pass new web#5 web-1 inbound"),
        ("web-1", "inbound 47 192.0.2.1 > 10.5.6.7", "pass new web#5 web-1 inbound"),
        ("web-1", "outbound sctp 10.5.6.7:1 > 198.51.100.9:5000", "pass new web#6 web-1 outbound"),
        ("web-1", "outbound 253 10.5.6.7 > 198.51.100.9", "pass new web#6 web-1 outbound"),
        ("web-1", "outbound icmpv6 2001:db8::7 > 2001:db8::9", "pass new web#6 web-1 outbound"),
        ("flat-1", "inbound tcp 192.0.2.9 > 10.5.6.8:22", "drop denied careful#0 flat-1 inbound"),
        ("lab/bare", "outbound udp 10.5.6.9:1 > 192.0.2.9:53", "drop no-rule - lab/bare outbound"),
        // As on the wire: no rule is asked about these.
        ("web-1", "inbound icmp 198.51.100.9 > 10.5.6.7 type 0", "drop invalid - web-1 inbound"),
        ("web-1", "outbound udp 10.5.6.7:68 > 255.255.255.255:67", "pass control - web-1 outbound"),
        ("web-1", "outbound icmpv6 2001:db8::7 > ff02::1 type 134", "drop rogue - web-1 outbound"),
        ("web-1", "inbound tcp 10.5.6.7:5 > 10.5.6.7:22", "drop spoofed - web-1 inbound"),
    ] {
        assert_eq!(verdict(&setup.described(nic, text)), expected, "{text}");
    }
}

#[test]
fn a_drop_names_the_nearest_rules_and_what_in_them_does_not_fit() {
    let setup = Setup::new();
    let far = setup.described("web-1", "inbound tcp 198.51.100.9:40000 > 10.5.6.7:22");
    assert_eq!(verdict(&far), "drop no-rule - web-1 inbound");
    assert_eq!(nearest(&far)[..2], [r#"web#0 ["remote"]"#, r#"web#1 ["remote"]"#]);
    let found = &far["nearest"][1]["found"];
    assert_eq!(*found, json!([{ "field": "remote", "rule": "192.0.2.0/24", "packet": "198.51.100.9" }]));

    let port = setup.described("web-1", "inbound tcp 203.0.113.5:1 > 10.5.6.7:8100");
    assert!(nearest(&port).contains(&r#"web#2 ["ports"]"#.to_owned()), "{port}");
    let both = setup.described("web-1", "inbound tcp 198.51.100.9:1 > 10.5.6.7:8100");
    assert!(nearest(&both).contains(&r#"web#1 ["ports","remote"]"#.to_owned()), "{both}");
    let code = setup.described("web-1", "inbound icmp 198.51.100.9 > 10.5.6.7 type 8 code 3");
    assert!(nearest(&code).contains(&r#"web#3 ["icmp_code"]"#.to_owned()), "{code}");
    let kind = setup.described("web-1", "inbound icmp 198.51.100.9 > 10.5.6.7 type 13");
    assert!(nearest(&kind).contains(&r#"web#3 ["icmp_type"]"#.to_owned()), "{kind}");
    let family = setup.described("web-1", "inbound udp 198.51.100.9:1 > 10.5.6.7:53");
    assert!(nearest(&family).contains(&r#"web#4 ["ethertype"]"#.to_owned()), "{family}");
    let protocol = setup.described("web-1", "inbound esp 192.0.2.1 > 10.5.6.7");
    assert!(nearest(&protocol).contains(&r#"web#5 ["protocol"]"#.to_owned()), "{protocol}");
    let denied = setup.described("flat-1", "inbound tcp 192.0.2.9:1 > 10.5.6.8:22");
    assert_eq!(nearest(&denied), [r#"careful#1 ["priority"]"#]);
    assert_eq!(nearest(&setup.described("lab/bare", "inbound udp 1.1.1.1:1 > 10.5.6.9:53")), [""; 0]);
    assert_eq!(nearest(&setup.described("web-1", SSH)), [""; 0]);
}

#[test]
fn a_frame_finds_its_own_nic_and_gets_the_verdict_of_its_description() {
    let setup = Setup::new();
    let syn = tcp("192.0.2.9:40000", "10.5.6.7:22").syn().seq(1).vlan(100);
    let value = setup.frame("outside", &syn);
    assert_eq!(verdict(&value), "pass new web#1 web-1 inbound");
    assert_eq!(value["from"], "outside");
    assert_eq!(value["packet"], "VLAN 100, tcp 192.0.2.9:40000 > 10.5.6.7:22, SYN, 58 bytes");
    let spaced: String = syn.frame().iter().map(|byte| format!("{byte:02X}: ")).collect();
    let again = setup.json(&["--from", "outside", "--nic", "web-1", "--packet", &spaced]);
    assert_eq!(again, value);

    let mut described = setup.described("web-1", SSH);
    described["packet"] = value["packet"].clone();
    assert_eq!(described, value);
}

#[test]
fn a_frame_that_opens_nothing_says_so() {
    let setup = Setup::new();
    let inside = |frame: &dyn Fn() -> Vec<u8>| setup.json(&["--from", "inside", "--packet", &hex(&frame())]);
    let why = |value: &Value| value["why"].as_str().unwrap().to_owned();

    let segment = tcp("192.0.2.9:40000", "10.5.6.7:22").ack(1).payload("x").vlan(100);
    let value = setup.frame("outside", &segment);
    assert_eq!(verdict(&value), "drop invalid - web-1 inbound");
    assert_eq!(why(&value), "no connection, and not an opening SYN");
    let xmas = tcp("192.0.2.9:40000", "10.5.6.7:22").syn().fin().vlan(100);
    assert!(why(&setup.frame("outside", &xmas)).contains("no TCP sends"));
    let reply = setup.frame("outside", &echo_reply("192.0.2.9", "10.5.6.7", 1, 1).vlan(100));
    assert_eq!(
        (verdict(&reply), why(&reply).contains("a reply opens none")),
        ("drop invalid - web-1 inbound".into(), true)
    );
    let quoted = tcp("10.5.6.7:22", "192.0.2.9:40000").ack(1).packet();
    let error = setup.frame("outside", &icmp_error("192.0.2.9", "10.5.6.7", 3, 1, &quoted).vlan(100));
    assert_eq!(
        (verdict(&error), why(&error).contains("quotes")),
        ("drop invalid - web-1 inbound".into(), true)
    );
    let later = udp("192.0.2.9:1", "10.5.6.7:53").payload([0; 64]).fragment(8, false).vlan(100);
    let value = setup.frame("outside", &later);
    assert_eq!(verdict(&value), "drop fragment-no-first - web-1 inbound");
    assert!(value["packet"].as_str().unwrap().contains("fragment from byte 64 on"), "{value}");

    let cut = setup.frame("outside", &segment.clone().cut(30));
    assert_eq!(verdict(&cut), "drop malformed - - -");
    let tagged = setup.frame("outside", &tcp("192.0.2.9:1", "10.5.6.7:22").syn().vlan(101));
    assert_eq!(
        (verdict(&tagged), why(&tagged)),
        ("drop unknown-segment - - -".into(), "no VPC has the segment VLAN 101".into())
    );
    let nobody = setup.frame("outside", &tcp("192.0.2.9:1", "10.5.6.77:22").syn().vlan(100));
    assert_eq!(verdict(&nobody), "drop unknown-destination - - -");
    assert_eq!(why(&nobody), "no NIC of VPC prod has the destination address 10.5.6.77");
    let nobody = inside(&|| tcp("10.5.6.77:22", "192.0.2.9:1").syn().frame());
    assert_eq!(verdict(&nobody), "drop unknown-source - - -");
    let spoofed = inside(&|| tcp("10.5.6.7:1", "192.0.2.9:1").syn().vlan(100).frame());
    assert_eq!(verdict(&spoofed), "drop spoofed - web-1 outbound");
    let lldp = setup.frame("outside", &ethernet(0x88cc, &[0; 46]));
    assert_eq!((verdict(&lldp), why(&lldp).contains("0x88cc")), ("drop not-ip - - -".into(), true));
    let arp = setup.frame("outside", &arp_request("02:00:00:00:00:30", "10.5.6.30", "10.5.6.7").vlan(100));
    assert_eq!(verdict(&arp), "pass control - web-1 inbound");
}

#[test]
fn a_frame_is_taken_out_of_any_capture_that_replay_reads() {
    let setup = Setup::new();
    let syn = tcp("192.0.2.9:40000", "10.5.6.7:22").syn().seq(1).vlan(100).frame();
    let ack = tcp("192.0.2.9:40000", "10.5.6.7:22").ack(1).vlan(100).frame();
    let cut = Record { time: 0, original: 1514, data: syn.clone() };
    let records = [Record::new(0, ack), Record::new(1, syn), cut];
    for (name, big_endian) in [("little.pcap", false), ("big.pcap", true)] {
        let bytes = pcap::encode(Format { big_endian, ..Format::MICRO }, &records);
        let path = setup.write(name, &bytes);
        let of = |index: &str| setup.json(&["--from", "outside", "--pcap", &path, "--index", index]);
        assert_eq!(verdict(&of("0")), "drop invalid - web-1 inbound");
        assert_eq!(verdict(&of("1")), "pass new web#1 web-1 inbound");
        assert!(of("2")["packet"].as_str().unwrap().ends_with("1514 bytes, 58 captured"));
        assert_eq!(setup.json(&["--from", "outside", "--pcap", &path]), of("0"));
        let refusal = setup.refusal(&["--from", "outside", "--pcap", &path, "--index", "3"]);
        assert!(refusal.contains(name) && refusal.contains("no packet 3; it has 3"), "{refusal}");
    }
    let cut = pcap::encode(Format::MICRO, &records);
    let path = setup.write("cut.pcap", &cut[..cut.len() - 1]);
    let refusal = setup.refusal(&["--from", "outside", "--pcap", &path, "--index", "2"]);
    assert!(refusal.contains("cut.pcap: at byte 172: truncated: packet 2"), "{refusal}");
    assert!(setup.refusal(&["--from", "outside", "--pcap", "/nowhere.pcap"]).contains("/nowhere.pcap"));
}

#[test]
fn another_nic_than_the_packets_own_is_an_error() {
    let setup = Setup::new();
    let syn = hex(&tcp("192.0.2.9:40000", "10.5.6.7:22").syn().vlan(100).frame());
    let told = setup.refusal(&["--from", "outside", "--nic", "flat-1", "--packet", &syn]);
    assert_eq!(told, "--nic flat-1: the packet is judged as web-1's, not flat-1's\n");
    let nobody = hex(&tcp("192.0.2.9:40000", "10.5.6.77:22").syn().vlan(100).frame());
    let told = setup.refusal(&["--from", "outside", "--nic", "web-1", "--packet", &nobody]);
    assert!(told.contains("no NIC's: unknown-destination: no NIC of VPC prod"), "{told}");
    assert!(setup.refusal(&["--nic", "web-2", SSH]).contains("no NIC \"web-2\"; near names: "));
    let told = setup.refusal(&["--nic", "flat-1", SSH]);
    assert_eq!(told, "10.5.6.7 is no address of flat-1; it has: 10.5.6.8\n");
}

#[test]
fn bad_usage_has_status_2() {
    let setup = Setup::new();
    assert!(setup.refusal(&["--from", "outside", "--packet", "02zz"]).contains("'z' at character 3"));
    assert!(setup.refusal(&["--nic", "web-1", "inbound tcp 1.1.1.1 > 10.5.6.7"]).contains("allowed: "));
    for arguments in [
        &["--nic", "web-1"][..],
        &[SSH],
        &["--packet", "0200"],
        &["--pcap", "x.pcap"],
        &["--from", "inside", "--nic", "web-1"],
        &["--from", "above", "--packet", "0200"],
        &["--from", "inside", "--packet", "0200", "--pcap", "x.pcap"],
        &["--nic", "web-1", "--from", "inside", SSH],
        &["--from", "inside", "--packet", "0200", "--index", "1"],
    ] {
        let output = setup.run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn the_configuration_counts() {
    let setup = Setup::new();
    let config = setup
        .write("portcullis.toml", b"[conntrack]\ntcp_pickup = \"loose\"\n[policy]\nmode = \"observe\"\n");
    let with = |arguments: &[&str]| setup.json(&[&["--config", &config], arguments].concat());
    let ack = hex(&tcp("192.0.2.9:40000", "10.5.6.7:22").ack(1).vlan(100).frame());
    assert_eq!(verdict(&with(&["--from", "outside", "--packet", &ack])), "pass new web#1 web-1 inbound");
    let observed = with(&["--nic", "web-1", "inbound udp 192.0.2.9:1 > 10.5.6.7:1"]);
    assert_eq!(verdict(&observed), "pass no-rule - web-1 inbound");
    assert_eq!(observed["observed"], true);
    assert!(!nearest(&observed).is_empty());
}

#[test]
fn described_packets_travel_as_their_vpc_does() {
    let setup = Setup::new();
    let policy = r#"
vpcs: [{ name: tunnel, segment: { vni: 5001 } }]
security_groups:
  - { name: g, rules: [{ direction: inbound, protocol: tcp, ports: 22 }] }
nics:
  - { name: a, vpc: tunnel, mac: "02:00:00:00:00:0a", addresses: [10.0.0.1], allowed_addresses: [10.0.0.9], security_groups: [] }
  - { name: b, vpc: tunnel, mac: "02:00:00:00:00:0b", addresses: [10.0.0.2], allowed_addresses: [10.0.0.9], security_groups: [g] }
"#;
    setup.write("policy.yaml", policy.as_bytes());
    let value = setup.described("b", "inbound tcp 192.0.2.9:1 > 10.0.0.2:22");
    assert_eq!(verdict(&value), "pass new g#0 b inbound");
    assert!(value["packet"].as_str().unwrap().starts_with("VNI 5001, tcp 192.0.2.9:1 > 10.0.0.2:22, SYN, "));
    // A shared address: the MAC tells whose packet it is.
    assert_eq!(
        verdict(&setup.described("b", "inbound tcp 192.0.2.9:1 > 10.0.0.9:22")),
        "pass new g#0 b inbound"
    );
    assert_eq!(
        verdict(&setup.described("a", "inbound tcp 192.0.2.9:1 > 10.0.0.9:22")),
        "drop no-rule - a inbound"
    );
    assert_eq!(
        verdict(&setup.described("b", "outbound tcp 10.0.0.9:1 > 192.0.2.9:22")),
        "drop no-rule - b outbound"
    );
}

/// The text without ` (r-0123456789)`.
fn without_identities(text: &str) -> String {
    let mut parts = text.split(" (r-");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.split_once(')').map_or(part, |(_, rest)| rest))
}

#[test]
fn people_read_the_whole_way() {
    let setup = Setup::new();
    let text = setup.text(&["--nic", "web-1", "inbound tcp 203.0.113.5:40000 > 10.5.6.7:22"]);
    let rules = text.matches("nearest:").count();
    assert_eq!(text.matches(" (r-").count(), rules, "each rule with its identity: {text}");
    let text = without_identities(&text);
    let expected = "\
packet:    from outside: VLAN 100, tcp 203.0.113.5:40000 > 10.5.6.7:22, SYN, 58 bytes
nic:       web-1
direction: inbound
verdict:   drop
reason:    no-rule: no inbound rule of web-1's groups matches it
rule:      none
nearest:   web#0: allow inbound any from group web: does not fit in remote (rule: group web, packet: 203.0.113.5)
nearest:   web#1: allow inbound tcp 22 from 192.0.2.0/24: does not fit in remote (rule: 192.0.2.0/24, packet: 203.0.113.5)
nearest:   web#2: allow inbound tcp 8000-8099 from address group office: does not fit in ports (rule: 8000-8099, packet: 22)
";
    assert!(text.starts_with(expected), "{text}");
    let text = without_identities(&setup.text(&["--nic", "web-1", SSH]));
    assert!(text.contains("\nrule:      web#1: allow inbound tcp 22 from 192.0.2.0/24\n"), "{text}");
    let text = setup.text(&["--nic", "lab/bare", "inbound udp 192.0.2.9:1 > 10.5.6.9:53"]);
    assert!(text.contains("nearest:   none: no inbound rule"), "{text}");
}
