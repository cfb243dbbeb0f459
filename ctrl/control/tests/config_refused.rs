//! Every way to get a configuration wrong, and what the operator is told.

use control::config::parse_config;

/// Configurations and the diagnostics that refuse them, behind the file's name.
#[rustfmt::skip]
const REFUSED: &[(&str, &str)] = &[
    (
        "[eal",
        "1:5: no TOML: unclosed table, expected `]`",
    ),
    (
        "[eal]
args = []
args = []",
        "3:1: the key stands twice; allowed: once",
    ),
    (
        "[el]",
        r#"1:2: "el" is no key here; allowed: eal, wire, workers, conntrack, timeouts, policy, api, store, log, trace, flow_log, metrics, stats, sandbox"#,
    ),
    (
        "[eal]
arg = []",
        r#"2:1: eal: "arg" is no key here; allowed: args, telemetry"#,
    ),
    (
        r#"[eal]
telemetry = "on""#,
        r#"2:13: eal.telemetry: "on" is no switch; allowed: true, false"#,
    ),
    (
        r#"[eal]
args = "--no-pci""#,
        r#"2:8: eal.args: "--no-pci" is no list; allowed: a list of arguments of DPDK, [] for none"#,
    ),
    (
        r#"[eal]
args = ["--no-pci", "-l", "1"]"#,
        r#"2:21: eal.args[1]: "-l" chooses cores; allowed: every argument that does not, workers.cores decides"#,
    ),
    (
        r#"[eal]
args = ["--lcores=0@1"]"#,
        r#"2:9: eal.args[0]: "--lcores=0@1" chooses cores; allowed: every argument that does not, workers.cores decides"#,
    ),
    (
        r#"[eal]
args = ["-c0x3"]"#,
        r#"2:9: eal.args[0]: "-c0x3" chooses cores; allowed: every argument that does not, workers.cores decides"#,
    ),
    (
        "[eal]
args = [1]",
        "2:9: eal.args[0]: 1 is no argument; allowed: text (text that looks like a number goes in quotes)",
    ),
    (
        r#"[eal]
args = [""]"#,
        r#"2:9: eal.args[0]: "" is no argument; allowed: text that is not empty, without NUL"#,
    ),
    (
        r#"[wire]
name = "a""#,
        "1:1: wire: a mapping is no list of wires; allowed: tables [[wire]] with name, inside and outside",
    ),
    (
        r#"[[wire]]
name = "w"
inside = "a""#,
        "1:1: wire[0]: the key outside is missing; it is required",
    ),
    (
        r#"[[wire]]
name = "w"
inside = "a"
outside = "a""#,
        r#"4:11: wire[0].outside: the port "a" is in use above; allowed: once"#,
    ),
    (
        r#"[[wire]]
name = "w"
inside = "a"
outside = "b"
[[wire]]
name = "w"
inside = "c"
outside = "d""#,
        r#"6:8: wire[1].name: a wire "w" stands above; allowed: once"#,
    ),
    (
        r#"[[wire]]
name = "w"
inside = "a"
outside = "b"
[[wire]]
name = "x"
inside = "c"
outside = "a""#,
        r#"8:11: wire[1].outside: the port "a" is in use above; allowed: once"#,
    ),
    (
        r#"[[wire]]
name = "w"
inside = ""
outside = "b""#,
        r#"3:10: wire[0].inside: "" is no port; allowed: the name of a DPDK port"#,
    ),
    (
        "[workers]
cores = []",
        "2:9: workers.cores: no core is given; allowed: at least one",
    ),
    (
        "[workers]
cores = [1, 1]",
        "2:13: workers.cores[1]: 1 stands twice; allowed: once",
    ),
    (
        "[workers]
cores = [-1]",
        "2:10: workers.cores[0]: -1 is no core; allowed: 0-1023",
    ),
    (
        "[workers]
cores = 1",
        "2:9: workers.cores: 1 is no list; allowed: a list of cores, [] for none",
    ),
    (
        "[conntrack]
capacity = 0",
        "2:12: conntrack.capacity: 0 is no capacity; allowed: 1-268435456",
    ),
    (
        "[conntrack]
capacity = 268435457",
        "2:12: conntrack.capacity: 268435457 is no capacity; allowed: 1-268435456",
    ),
    (
        "[conntrack]
unconfirmed_share = 0",
        "2:21: conntrack.unconfirmed_share: 0 is no share; allowed: above 0 and at most 1",
    ),
    (
        "[conntrack]
unconfirmed_share = 1.5",
        "2:21: conntrack.unconfirmed_share: 1.5 is no share; allowed: above 0 and at most 1",
    ),
    (
        r#"[conntrack]
tcp_pickup = "Strict""#,
        r#"2:14: conntrack.tcp_pickup: "Strict" is no tcp_pickup; allowed: strict, loose"#,
    ),
    (
        r#"[conntrack]
tcp_window_check = "yes""#,
        r#"2:20: conntrack.tcp_window_check: "yes" is no switch; allowed: true, false"#,
    ),
    (
        "[conntrack]
pickup_grace = -1",
        "2:16: conntrack.pickup_grace: -1 is no duration; allowed: a number of seconds from 0 to 2592000",
    ),
    (
        r#"[conntrack]
keep = "yes""#,
        r#"2:8: conntrack.keep: "yes" is no place to keep connections; allowed: "off", "auto" or the absolute path of a folder"#,
    ),
    (
        r#"[conntrack]
keep = "folder/kept""#,
        r#"2:8: conntrack.keep: "folder/kept" is no place to keep connections; allowed: "off", "auto" or the absolute path of a folder"#,
    ),
    (
        "[conntrack]
keep = true",
        r#"2:8: conntrack.keep: true is no place to keep connections; allowed: "off", "auto" or the absolute path of a folder"#,
    ),
    (
        "[timeouts]
icmp = 0",
        "2:8: timeouts.icmp: 0 is no duration; allowed: a number of seconds above 0 to 2592000",
    ),
    (
        "[timeouts]
icmp = 2592001",
        "2:8: timeouts.icmp: 2592001 is no duration; allowed: a number of seconds above 0 to 2592000",
    ),
    (
        r#"[timeouts]
icmp = "30s""#,
        r#"2:8: timeouts.icmp: "30s" is no duration; allowed: a number of seconds above 0 to 2592000"#,
    ),
    (
        "[timeouts]
icmp = nan",
        "2:8: timeouts.icmp: NaN is no duration; allowed: a number of seconds above 0 to 2592000",
    ),
    (
        "[timeouts]
tcp_syn = 30
udp = 30",
        r#"3:1: timeouts: "udp" is no key here; allowed: tcp_syn, tcp_established, tcp_fin, tcp_half_closed, tcp_reset, icmp, one_way, two_way, fragment"#,
    ),
    (
        "[timeouts]
tcp_half_closed = 0",
        "2:19: timeouts.tcp_half_closed: 0 is no duration; allowed: a number of seconds above 0 to 2592000",
    ),
    (
        r#"[timeouts]
tcp_reset = "10""#,
        r#"2:13: timeouts.tcp_reset: "10" is no duration; allowed: a number of seconds above 0 to 2592000"#,
    ),
    (
        "[timeouts]
tcp_reset = 2592001",
        "2:13: timeouts.tcp_reset: 2592001 is no duration; allowed: a number of seconds above 0 to 2592000",
    ),
    (
        r#"[policy]
inbound_flush = "any""#,
        r#"2:17: policy.inbound_flush: "any" is no inbound_flush; allowed: any-rule, inbound-rules"#,
    ),
    (
        "[policy]
rules_per_group = 0",
        "2:19: policy.rules_per_group: 0 is no quota; allowed: 1-1000",
    ),
    (
        "[policy]
pass_ethertypes = [0x0800]",
        "2:20: policy.pass_ethertypes[0]: 2048 is no ethertype to pass; allowed: 0x0600-0xffff but 0x0800 (IPv4), 0x0806 (ARP), 0x86dd (IPv6), 0x8100 and 0x88a8 (VLAN)",
    ),
    (
        "[policy]
pass_ethertypes = [0x5ff]",
        "2:20: policy.pass_ethertypes[0]: 1535 is no ethertype to pass; allowed: 0x0600-0xffff but 0x0800 (IPv4), 0x0806 (ARP), 0x86dd (IPv6), 0x8100 and 0x88a8 (VLAN)",
    ),
    (
        r#"[policy]
pass_ethertypes = ["0x88cc"]"#,
        r#"2:20: policy.pass_ethertypes[0]: "0x88cc" is no ethertype to pass; allowed: 0x0600-0xffff but 0x0800 (IPv4), 0x0806 (ARP), 0x86dd (IPv6), 0x8100 and 0x88a8 (VLAN)"#,
    ),
    (
        r#"[policy]
pass_multicast = ["::ffff:224.0.0.18/128"]"#,
        r#"2:19: policy.pass_multicast[0]: "::ffff:224.0.0.18/128" is IPv4-mapped; allowed: 224.0.0.18/32"#,
    ),
    (
        r#"[policy]
pass_multicast = ["10.0.0.0/8"]"#,
        r#"2:19: policy.pass_multicast[0]: "10.0.0.0/8" is no multicast prefix; allowed: a prefix in 224.0.0.0/4 or ff00::/8"#,
    ),
    (
        r#"[policy]
pass_multicast = ["224.0.0.0/3"]"#,
        r#"2:19: policy.pass_multicast[0]: "224.0.0.0/3" is no multicast prefix; allowed: a prefix in 224.0.0.0/4 or ff00::/8"#,
    ),
    (
        r#"[policy]
source = "store""#,
        r#"2:10: policy.source: "store" is no source; allowed: file, api"#,
    ),
    (
        "[policy]
mode = 1",
        "2:8: policy.mode: 1 is no mode; allowed: enforce, observe",
    ),
    (
        "[policy]
pass_link_local = 1",
        "2:19: policy.pass_link_local: 1 is no switch; allowed: true, false",
    ),
    (
        r#"[api]
console = true"#,
        "2:11: api.console: true without listen: a browser reaches no socket; allowed: false, or listen beside it",
    ),
    (
        r#"[api]
listen = "0.0.0.0:9696""#,
        "2:10: api.listen: 0.0.0.0:9696 is open to others without TLS and a token; allowed: a loopback address, or tls_cert, tls_key and token_file beside it",
    ),
    (
        r#"[api]
listen = "[::ffff:127.0.0.1]:9696""#,
        "2:10: api.listen: [::ffff:127.0.0.1]:9696 is IPv4-mapped; allowed: 127.0.0.1:9696",
    ),
    (
        r#"[api]
listen = "localhost""#,
        r#"2:10: api.listen: "localhost" is no address to listen on; allowed: ADDRESS:PORT or [ADDRESS]:PORT"#,
    ),
    (
        r#"[api]
listen = "0.0.0.0:9696"
tls_cert = "a"
token_file = "b""#,
        "3:12: api.tls_cert: tls_cert without tls_key; allowed: both or neither",
    ),
    (
        r#"[api]
socket = """#,
        r#"2:10: api.socket: "" is no path; allowed: the path of a file"#,
    ),
    (
        r#"[api]
socket = "/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx""#,
        "2:10: api.socket: a path of 119 bytes; allowed: at most 107 for a unix socket",
    ),
    (
        "[store]
path = 1979-05-27",
        r#"2:8: store.path: "1979-05-27" is no path; allowed: the path of a file"#,
    ),
    (
        "[[wire]]
name = \"a\"
inside = \"x\"
outside = \"y\"
mtu = 100",
        "5:7: wire[0].mtu: 100 is no MTU; allowed: 576-16000",
    ),
    (
        "[log]
level = \"loud\"",
        r#"2:9: log.level: "loud" is no level; allowed: off, error, warn, info, debug, trace"#,
    ),
    (
        "[log]
format = \"xml\"",
        r#"2:10: log.format: "xml" is no format; allowed: text, json"#,
    ),
    (
        "[trace]
history = -1",
        "2:11: trace.history: -1 is no history; allowed: 0-10000000",
    ),
    (
        "store = 3",
        "1:9: store: 3 is no mapping; allowed: a mapping with the keys path, witness, must_exist",
    ),
    ("metrics.nics = -1", "1:16: metrics.nics: -1 is no number of NICs; allowed: 0-131071"),
    ("metrics.nics = 131072", "1:16: metrics.nics: 131072 is no number of NICs; allowed: 0-131071"),
    ("metrics.rules = 1", "1:9: metrics: \"rules\" is no key here; allowed: nics"),
    ("stats.page = \"\"", "1:14: stats.page: \"\" is no path; allowed: the path of a file"),
    (
        "[sandbox]\nno_new_privs = false",
        "2:16: sandbox.no_new_privs: false, and landlock is on, which implies it; allowed: true, or both off",
    ),
    (
        "[sandbox]\nno_new_privs = false\nlandlock = false",
        "2:16: sandbox.no_new_privs: false, and seccomp is on, which implies it; allowed: true, or both off",
    ),
    (
        "[sandbox]\nseccomp = 1",
        "2:11: sandbox.seccomp: 1 is no switch; allowed: true, false",
    ),
    (
        "[sandbox]\npaths = [\"\"]",
        "2:10: sandbox.paths[0]: \"\" is no path; allowed: the path of a file",
    ),
    (
        "[sandbox]\nlandlock = false\npaths = [\"/srv\"]",
        "3:9: sandbox.paths: paths are given and landlock is off, so that every file is in reach; allowed: one of both",
    ),
    (
        "[sandbox]\ncapability = true",
        "2:1: sandbox: \"capability\" is no key here; allowed: capabilities, no_new_privs, landlock, seccomp, core_dumps, lock_memory, paths",
    ),
    ("stats.file = \"x\"", "1:7: stats: \"file\" is no key here; allowed: page"),
    (
        r#"conntrack.capacity = "many""#,
        r#"1:22: conntrack.capacity: "many" is no capacity; allowed: 1-268435456"#,
    ),
];

#[test]
fn a_bad_configuration_is_refused_with_place_finding_and_what_is_allowed() {
    for (config, expected) in REFUSED {
        match parse_config(config, "c.toml") {
            Ok(_) => panic!("accepted:\n{config}"),
            Err(diagnostic) => assert_eq!(diagnostic.to_string(), format!("c.toml:{expected}"), "\n{config}"),
        }
    }
}
