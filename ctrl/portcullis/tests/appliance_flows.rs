//! Flow logs of the running appliance, read by others' programs: what they decode is what was sent through.

mod appliance;

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use appliance::*;
use serde_json::Value;
use testkit::frame::*;
use testkit::pcap::{self, Format};

const CLIENT: &str = "198.51.100.9";
/// So many of each kind of connection and refusal.
const EACH: u16 = 400;

const RULES: &str = r#"
vpcs: [{ name: prod, segment: { untagged: true } }]
security_groups:
  - name: web
    rules:
      - { direction: inbound, protocol: tcp, ports: 22 }
      - { direction: inbound, protocol: udp, ports: 53, action: deny, priority: 1 }
      - { direction: outbound }
nics:
  - { name: web-1, vpc: prod, addresses: [10.5.6.7, "2001:db8::7"], security_groups: [web] }
"#;

/// Connections of IPv4 and IPv6, refused by no rule and by one; and a talk in both directions.
fn traffic() -> [Vec<Vec<u8>>; 2] {
    let mut outside = Vec::new();
    for port in 1000..1000 + EACH {
        let (four, six) = (format!("{CLIENT}:{port}"), format!("[2001:db8::9]:{port}"));
        outside.push(tcp(four.as_str(), "10.5.6.7:22").syn().seq(1).frame());
        outside.push(tcp(six.as_str(), "[2001:db8::7]:22").syn().seq(1).frame());
        outside.push(tcp(four.as_str(), "10.5.6.7:80").syn().seq(1).frame());
        outside.push(tcp(six.as_str(), "[2001:db8::7]:80").syn().seq(1).frame());
        for _ in 0..2 {
            outside.push(udp(four.as_str(), "10.5.6.7:53").payload([7; 20]).frame());
        }
    }
    let inside = vec![udp("10.5.6.7:500", "198.51.100.9:53").payload([1; 10]).frame(); 5];
    [inside, outside]
}

/// Two devices that read what is to be sent, with these flow logs.
fn setup(logs: &str) -> Setup {
    let setup = Setup::new("net_pcap0,rx_pcap=IN,tx_pcap=OUT", "net_pcap1,rx_pcap=IN,tx_pcap=OUT");
    for (name, frames) in ["inside", "outside"].into_iter().zip(traffic()) {
        pcap::write(setup.path(&format!("{name}.pcap")), Format::MICRO, &pcap::records(0, frames)).unwrap();
    }
    let logs = logs.replace("DIRECTORY", setup.path("").to_str().unwrap().trim_end_matches('/'));
    setup.fill("inside", "outside").more(&logs)
}

/// Everything has come through, and what is due by intervals has been told.
fn forwarded(appliance: &Appliance) -> Value {
    let all = traffic().iter().map(Vec::len).sum::<usize>() as u64;
    let counters = appliance.wait_for_counters("all frames", |c| c["packets"]["in"] == all);
    assert_adds_up(&counters);
    let passed = 5 + 2 * u64::from(EACH);
    assert_eq!(
        (&counters["packets"]["pass"], &counters["packets"]["drop"]),
        (&passed.into(), &(all - passed).into())
    );
    counters
}

/// Where something listens, and nobody else does.
fn listening() -> (UdpSocket, u16) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}

/// A port where nobody listens.
fn free_port() -> u16 {
    listening().1
}

/// nfcapd, ended when dropped.
struct Nfcapd(Child);

impl Nfcapd {
    fn start(setup: &Setup, port: u16) -> Nfcapd {
        let directory = setup.path("nf");
        std::fs::create_dir(&directory).unwrap();
        let child = Command::new("nfcapd")
            .args(["-b", "127.0.0.1", "-p", &port.to_string(), "-t", "3600", "-w"])
            .arg(&directory)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let child = child.unwrap_or_else(|error| panic!("nfcapd: {error}; scripts/setup installs it"));
        // It says nothing when it listens.
        wait_for("nfcapd", || UdpSocket::bind(("127.0.0.1", port)).is_err().then_some(()));
        Nfcapd(child)
    }

    /// Ends it; what it said.
    fn end(mut self) -> String {
        std::thread::sleep(Duration::from_millis(300));
        rustix::process::kill_process(
            rustix::process::Pid::from_child(&self.0),
            rustix::process::Signal::TERM,
        )
        .unwrap();
        let said = |pipe: Option<&mut dyn std::io::Read>| {
            let mut text = String::new();
            pipe.map(|pipe| pipe.read_to_string(&mut text));
            text
        };
        let out = said(self.0.stdout.as_mut().map(|pipe| pipe as &mut dyn std::io::Read));
        out + &said(self.0.stderr.as_mut().map(|pipe| pipe as &mut dyn std::io::Read))
    }
}

impl Drop for Nfcapd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// By event and rule: records with packets, packets, bytes.
type Sums = BTreeMap<(String, String), [u64; 3]>;

fn add(sums: &mut Sums, event: &str, rule: &str, packets: u64, bytes: u64) {
    let sum = sums.entry((event.to_owned(), rule.to_owned())).or_default();
    let more = [u64::from(packets > 0), packets, bytes];
    *sum = [0, 1, 2].map(|n| sum[n] + more[n]);
}

/// Rules by their places.
fn rule_ids(appliance: &Appliance) -> Vec<String> {
    let groups = appliance.show("groups");
    let web = groups.as_array().unwrap().iter().find(|group| group["group"] == "web").unwrap();
    web["rules"].as_array().unwrap().iter().map(|rule| rule["rule_id"].as_str().unwrap().to_owned()).collect()
}

/// What was sent, as far as `rule` names rules: accepted, denied by a rule, refused by none.
fn truth(rule: impl Fn(usize) -> String) -> Sums {
    let each = u64::from(EACH);
    let mut sums = Sums::new();
    let mut put = |event: &str, rule: String, sum: [u64; 3]| {
        sums.insert((event.to_owned(), rule), sum);
    };
    put("accepted", rule(0), [2 * each, 2 * each, each * (54 + 74)]);
    put("accepted", rule(2), [1, 5, 5 * 52]);
    put("denied", rule(1), [each, 2 * each, 2 * each * 62]);
    put("denied", rule(usize::MAX), [2 * each, 2 * each, each * (54 + 74)]);
    sums
}

#[test]
fn nfdump_and_tshark_decode_what_was_sent_and_its_sums_are_the_truth() {
    let (ipfix, ipfix_port) = listening();
    let netflow_port = free_port();
    let logs = format!(
        "[[flow_log]]\nkind = \"netflow9\"\ncollector = \"127.0.0.1:{netflow_port}\"\ninterval = 1\n\
         [[flow_log]]\nkind = \"ipfix\"\ncollector = \"127.0.0.1:{ipfix_port}\"\ninterval = 2\n\
         [[flow_log]]\nkind = \"aws\"\npath = \"DIRECTORY/flow.log\"\ninterval = 1\n\
         [[flow_log]]\nkind = \"json\"\npath = \"DIRECTORY/refused.json\"\nwhat = \"refused\"\ninterval = 1\n\
         [timeouts]\ntcp_syn = 1\none_way = 1\n"
    );
    let reader = std::thread::spawn(move || {
        let (mut datagrams, mut room) = (Vec::new(), [0; 2048]);
        let mut silent = 0;
        // The last comes as the appliance ends.
        while silent < 30 {
            match ipfix.recv(&mut room) {
                Ok(len) => (datagrams.push(room[..len].to_vec()), silent = 0).1,
                Err(_) => silent += 1,
            }
        }
        datagrams
    });
    let setup = setup(&logs);
    let nfcapd = Nfcapd::start(&setup, netflow_port);
    let appliance = setup.start(RULES);
    forwarded(&appliance);
    let ids = rule_ids(&appliance);
    std::thread::sleep(Duration::from_millis(2700));
    let shown = appliance.show("health");
    assert_eq!(shown["status"], "ok", "{shown}");
    let (_, setup) = appliance.end();
    let said = nfcapd.end();
    assert!(said.contains("Bad Packets: 0") && !said.contains("Sequence Errors: 1"), "{said}");

    let nfdump =
        Command::new("nfdump").arg("-R").arg(setup.path("nf")).args(["-o", "json"]).output().unwrap();
    let flows: Vec<Value> = serde_json::from_slice(&nfdump.stdout).unwrap();
    let mut found = Sums::new();
    for flow in &flows {
        let number = |key: &str| flow[key].as_u64().unwrap();
        let event = if flow["event_id"] == "3" { "denied" } else { "accepted" };
        let acl = ["ingress_acl", "egress_acl"]
            .map(|key| flow[key].as_str().unwrap())
            .into_iter()
            .find(|acl| *acl != "0x0/0x0/0x0");
        let (packets, bytes) =
            (number("in_packets") + number("out_packets"), number("in_bytes") + number("out_bytes"));
        add(&mut found, event, acl.unwrap_or("-"), packets, bytes);
    }
    // Eight digits of the id, the other two, the generation.
    let as_acl = |rule: usize| match ids.get(rule) {
        Some(id) => {
            let [high, low] = [&id[2..10], &id[10..]].map(|digits| u32::from_str_radix(digits, 16).unwrap());
            format!("{high:#x}/{low:#x}/0x1")
        }
        None => "-".to_owned(),
    };
    assert_eq!(found, truth(as_acl));

    // IPFIX, through a capture.
    let datagrams = reader.join().unwrap();
    assert!(datagrams.iter().all(|datagram| datagram.len() <= 1232));
    let frames =
        datagrams.iter().map(|datagram| udp("127.0.0.1:9", "127.0.0.1:4739").payload(datagram).frame());
    let capture = setup.path("ipfix.pcap");
    pcap::write(&capture, Format::MICRO, &pcap::records(0, frames)).unwrap();
    let tshark = |options: &[&str]| {
        let output = Command::new("tshark").arg("-r").arg(&capture).args(options).output();
        let output = output.unwrap_or_else(|error| panic!("tshark: {error}; scripts/setup installs it"));
        String::from_utf8(output.stdout).unwrap()
    };
    let decode = ["-d", "udp.port==4739,cflow"];
    let wrong = tshark(&[&decode[..], &["-Y", "_ws.malformed || _ws.expert.severity >= warn"]].concat());
    assert_eq!(wrong, "");
    let fields =
        ["firewall_event", "initiator_packets", "responder_packets", "initiator_octets", "responder_octets"];
    let mut options = decode.to_vec();
    options.extend(["-T", "fields", "-E", "occurrence=a"]);
    let names = fields.map(|field| format!("cflow.{field}"));
    names.iter().for_each(|name| options.extend(["-e", name.as_str()]));
    let mut sums: BTreeMap<&str, [u64; 2]> = BTreeMap::new();
    let mut records = 0;
    for line in tshark(&options).lines() {
        let columns: Vec<Vec<u64>> = line
            .split('\t')
            .map(|column| column.split(',').filter_map(|number| number.parse().ok()).collect())
            .collect();
        for (n, event) in columns[0].iter().enumerate() {
            let sum = sums.entry(if *event == 3 { "denied" } else { "accepted" }).or_default();
            *sum = [sum[0] + columns[1][n] + columns[2][n], sum[1] + columns[3][n] + columns[4][n]];
            records += 1;
        }
    }
    let each = u64::from(EACH);
    assert_eq!(sums["accepted"], [2 * each + 5, each * (54 + 74) + 5 * 52], "{records} records");
    assert_eq!(sums["denied"], [4 * each, each * (54 + 74) + 2 * each * 62]);

    // AWS' lines.
    let text = std::fs::read_to_string(setup.path("flow.log")).unwrap();
    let mut found = Sums::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        assert_eq!((fields.len(), fields[0], fields[1], fields[2]), (18, "2", "default", "web-1"), "{line}");
        let number = |at: usize| fields[at].parse::<u64>().unwrap();
        assert!(number(10) <= number(11), "{line}");
        let event = if fields[12] == "REJECT" { "denied" } else { "accepted" };
        add(&mut found, event, fields[16], number(8), number(9));
    }
    assert_eq!(found, truth(|rule| if rule < 3 { format!("web#{rule}") } else { "-".to_owned() }));
    let refused = std::fs::read_to_string(setup.path("refused.json")).unwrap();
    let refused: Vec<Value> = refused.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(refused.iter().all(|line| line["action"] == "REJECT"));
    assert_eq!(
        refused.iter().map(|line| line["packets"]["inbound"].as_u64().unwrap()).sum::<u64>(),
        4 * each
    );
}

#[test]
fn without_a_collector_nothing_else_is_lost_and_what_is_lost_is_told() {
    let logs = format!(
        "[[flow_log]]\nkind = \"netflow9\"\ncollector = \"127.0.0.1:{}\"\ninterval = 1\n\
         [[flow_log]]\nkind = \"json\"\npath = \"DIRECTORY/missing/flow.json\"\ninterval = 1\n",
        free_port()
    );
    let appliance = setup(&logs).start(RULES);
    forwarded(&appliance);
    let problems = wait_for("both problems", || {
        let health = appliance.show("health");
        let problems = health["problems"].as_array()?.clone();
        (problems.iter().filter(|problem| problem["ended"].is_null()).count() >= 4).then_some(problems)
    });
    let told = |what: &str| {
        problems.iter().any(|problem| {
            problem["what"].as_str().unwrap().starts_with(what)
                && problem["problem"].as_str().unwrap().contains("lost")
        })
    };
    assert!(told("flow log netflow9:127.0.0.1:") && told("flow log json:"), "{problems:?}");
    // A directory that is made mends the one.
    std::fs::create_dir(appliance.setup.path("missing")).unwrap();
    appliance.end();
}

#[test]
fn connections_show_what_they_have_carried() {
    let setup = Setup::new("net_pcap0,rx_pcap=IN,tx_pcap=OUT", "net_pcap1,rx_pcap=IN,tx_pcap=OUT");
    for (name, frames) in ["inside", "outside"].into_iter().zip(traffic()) {
        pcap::write(setup.path(&format!("{name}.pcap")), Format::MICRO, &pcap::records(0, frames)).unwrap();
    }
    let setup = setup.fill("inside", "outside").more("[conntrack]\ncount = true\n");
    let appliance = setup.start(RULES);
    forwarded(&appliance);
    let shown = appliance.text(["connections", "list", "--local-port", "500", "-o", "json"]);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown[0]["packets"], serde_json::json!({ "inbound": 0, "outbound": 5 }));
    assert_eq!(shown[0]["bytes"], serde_json::json!({ "inbound": 0, "outbound": 260 }));
    let table = appliance.text(["connections", "list", "--local-port", "500"]);
    assert!(table.contains("packets in") && table.contains("260"), "{table}");
    appliance.end();
}
