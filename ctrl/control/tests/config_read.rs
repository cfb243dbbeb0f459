//! What good configurations mean.

use control::config::{
    Config, FlushScope, InboundFlush, OnFlush, Persistence, Source, TcpPickup, Unknown, Wire, parse_config,
};
use control::model::Mode;
use std::time::Duration;

fn config(text: &str) -> Config {
    parse_config(text, "c.toml").unwrap_or_else(|d| panic!("{d}\n{text}"))
}

#[test]
fn an_empty_configuration_is_the_default_one() {
    assert_eq!(config(""), Config::default());
    assert_eq!(config("# nothing\n"), Config::default());
    assert_eq!(
        config("[eal]\n[workers]\n[conntrack]\n[timeouts]\n[policy]\n[api]\n[store]\n"),
        Config::default()
    );
}

#[test]
fn the_values_of_the_interfaces_page_are_the_defaults() {
    let mut read = config(include_str!("data/example.toml"));
    let wire = Wire {
        name: "wire0".into(),
        inside: "net_af_packet0".into(),
        outside: "net_af_packet1".into(),
        mtu: None,
    };
    assert_eq!(read.require_wires(), Ok(&[wire][..]));
    assert_eq!(read.eal.args.len(), 3);
    assert_eq!(read.policy.source, Some(Source::File));
    read.wires.clear();
    read.eal.args.clear();
    read.policy.source = None;
    assert_eq!(read, Config::default());
    assert!(read.require_wires().is_err());
}

#[test]
fn every_key_is_read() {
    let read = config(
        r#"
[eal]
args = ["--no-huge", "-n4"]
telemetry = false
[[wire]]
name = "w"
inside = "a"
outside = "b"
[workers]
cores = [2, 3]
[conntrack]
keep = "/dev/shm/kept"
capacity = 10
unconfirmed_share = 1
tcp_window_check = false
tcp_pickup = "loose"
pickup_grace = 2.5
[timeouts]
tcp_syn = 1
tcp_established = 2
tcp_fin = 3
tcp_half_closed = 3600
tcp_reset = 0.5
icmp = 4
one_way = 5
two_way = 6
fragment = 0.25
[policy]
inbound_flush = "inbound-rules"
flush_scope = "joined"
on_flush = "rejudge"
rules_per_group = 100
groups_per_nic = 10
pass_ethertypes = [0x88cc, 0x8863]
mode = "observe"
unknown_segment = "pass"
unknown_nic = "pass"
pass_link_local = true
pass_multicast = ["224.0.0.18/32", "ff02::12/128"]
source = "api"
[api]
socket = "/tmp/s"
listen = "0.0.0.0:9696"
tls_cert = "/c"
tls_key = "/k"
token_file = "/t"
[store]
path = "/s"
"#,
    );
    assert_eq!(read.eal.args, ["--no-huge", "-n4"]);
    assert!(!read.eal.telemetry && config("").eal.telemetry);
    assert_eq!(read.workers.cores, [2, 3]);
    let conntrack = &read.conntrack;
    assert_eq!((conntrack.capacity, conntrack.unconfirmed_share), (10, 1.0));
    assert_eq!((conntrack.tcp_window_check, conntrack.tcp_pickup), (false, TcpPickup::Loose));
    assert_eq!(conntrack.pickup_grace, Duration::from_millis(2500));
    assert_eq!(conntrack.keep, Persistence::At("/dev/shm/kept".into()));
    assert_eq!(config("[conntrack]\nkeep = \"auto\"").conntrack.keep, Persistence::Auto);
    assert_eq!(config("[conntrack]\nkeep = \"off\"").conntrack.keep, Persistence::Off);
    assert_eq!(read.timeouts.tcp_syn, Duration::from_secs(1));
    assert_eq!(read.timeouts.tcp_established, Duration::from_secs(2));
    assert_eq!(read.timeouts.tcp_fin, Duration::from_secs(3));
    assert_eq!(read.timeouts.tcp_half_closed, Duration::from_secs(3600));
    assert_eq!(read.timeouts.tcp_reset, Duration::from_millis(500));
    assert_eq!(read.timeouts.longest(), Duration::from_secs(3600));
    assert_eq!(read.timeouts.icmp, Duration::from_secs(4));
    assert_eq!(read.timeouts.one_way, Duration::from_secs(5));
    assert_eq!(read.timeouts.two_way, Duration::from_secs(6));
    assert_eq!(read.timeouts.fragment, Duration::from_millis(250));
    let policy = &read.policy;
    assert_eq!(policy.inbound_flush, InboundFlush::InboundRules);
    assert_eq!((policy.flush_scope, policy.on_flush), (FlushScope::Joined, OnFlush::Rejudge));
    assert_eq!((policy.limits.rules_per_group, policy.limits.groups_per_nic), (100, 10));
    assert_eq!(policy.pass_ethertypes, [0x88cc, 0x8863]);
    assert_eq!(policy.mode, Mode::Observe);
    assert_eq!((policy.unknown_segment, policy.unknown_nic), (Unknown::Pass, Unknown::Pass));
    assert!(policy.pass_link_local);
    assert_eq!(policy.pass_multicast.len(), 2);
    assert_eq!(policy.source, Some(Source::Api));
    assert_eq!(read.api.listen.map(|a| a.port()), Some(9696));
    assert_eq!(read.store.path.as_deref(), Some(std::path::Path::new("/s")));
}

#[test]
fn the_source_is_the_file_until_there_is_a_store() {
    assert_eq!(config("").source(), Source::File);
    assert_eq!(config("[store]\npath = \"/s\"").source(), Source::Api);
    assert_eq!(config("policy.source = \"file\"\n[store]\npath = \"/s\"").source(), Source::File);
}

#[test]
fn a_console_is_served_where_there_is_an_address_unless_said_otherwise() {
    let listen = "[api]\nanonymous = \"read\"\nlisten = \"127.0.0.1:1\"\n";
    for (more, expected) in [("", true), ("console = true", true), ("console = false", false)] {
        assert_eq!(config(&format!("{listen}{more}")).api.console, expected, "{more}");
    }
    assert!(!config("[api]\nconsole = false").api.console);
}

#[test]
fn loopback_needs_no_token() {
    for listen in ["127.0.0.1:1", "127.9.9.9:9696", "[::1]:9696"] {
        assert!(config(&format!("[api]\nanonymous = \"read\"\nlisten = \"{listen}\"")).api.listen.is_some());
    }
}

#[test]
fn one_fin_waits_as_long_as_both_unless_said_otherwise() {
    for (text, half_closed) in [
        ("", 30),
        ("[timeouts]\ntcp_fin = 90\n", 90),
        ("[timeouts]\ntcp_half_closed = 3600\n", 3600),
        ("[timeouts]\ntcp_half_closed = 7\ntcp_fin = 90\n", 7),
    ] {
        let timeouts = config(text).timeouts;
        assert_eq!(timeouts.tcp_half_closed, Duration::from_secs(half_closed), "{text}");
        assert_eq!(timeouts.tcp_reset, Duration::from_secs(10));
    }
}

#[test]
fn everything_that_can_be_given_up_is_unless_the_configuration_keeps_it() {
    let kept = config(
        "[sandbox]\ncapabilities = false\nno_new_privs = false\nlandlock = false\nseccomp = false\ncore_dumps = true\nlock_memory = false",
    )
    .sandbox;
    assert!(!kept.capabilities && !kept.no_new_privs && !kept.landlock && !kept.seccomp);
    assert!(kept.core_dumps && !kept.lock_memory);
    let given_up = config("[sandbox]\npaths = [\"/srv/policies\"]").sandbox;
    assert!(given_up.capabilities && given_up.no_new_privs && given_up.landlock && given_up.seccomp);
    assert!(!given_up.core_dumps && given_up.lock_memory);
    assert_eq!(given_up.paths, [std::path::PathBuf::from("/srv/policies")]);
}
