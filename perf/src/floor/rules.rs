//! One set of rules, told to each program in its own words.

use std::fmt::Write;

use testkit::lab::SERVER_V4;

/// Where all clients are.
const CLIENTS: &str = "10.64.0.0/10";
/// The server's port.
const PORT: u16 = 53;
/// Rules that a security group has room for.
const GROUP: u32 = 50;

/// UDP from a network to a port of the server may open a connection. Everything else may not,
/// answers least of all: they pass because they belong to one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    remote: String,
    port: u16,
}

/// So many rules of different networks and ports. The one in the middle admits the traffic.
fn rules(count: u32) -> impl Iterator<Item = Rule> {
    (0..count).map(move |n| match n {
        n if n == count / 2 => Rule { remote: CLIENTS.to_owned(), port: PORT },
        n => Rule { remote: format!("172.{}.{}.0/24", 16 + n / 256, n % 256), port: 1000 + n as u16 },
    })
}

/// Groups that they fill.
pub fn groups(count: u32) -> u32 {
    count.div_ceil(GROUP)
}

/// As the appliance's policy: one server in as many groups as it takes.
pub fn policy(count: u32) -> String {
    let mut text = "vpcs: [{name: perf, segment: {untagged: true}}]\nsecurity_groups:\n".to_owned();
    let rules: Vec<Rule> = rules(count).collect();
    // Writing to a string does not fail, here and below.
    for (g, rules) in rules.chunks(GROUP as usize).enumerate() {
        let _ = writeln!(text, "  - name: g{g}\n    rules:");
        for Rule { remote, port } in rules {
            let _ = writeln!(
                text,
                "      - {{direction: inbound, protocol: udp, ports: {port}, remote: {remote}}}"
            );
        }
    }
    let groups: Vec<String> = (0..groups(count)).map(|g| format!("g{g}")).collect();
    let _ = writeln!(
        text,
        "nics: [{{name: server, vpc: perf, addresses: [{SERVER_V4}], security_groups: [{}]}}]",
        groups.join(", ")
    );
    text
}

/// As flows of a switch whose port 1 is inside and whose port 2 is outside: everything is tracked,
/// then what is established passes, then the rules decide who is tracked from now on.
pub fn openflow(count: u32) -> String {
    let mut text = "table=0,priority=10,ip,actions=ct(table=1)\n\
                    table=0,priority=0,actions=drop\n\
                    table=1,priority=100,ct_state=+trk+est,ip,in_port=1,actions=output:2\n\
                    table=1,priority=100,ct_state=+trk+est,ip,in_port=2,actions=output:1\n\
                    table=1,priority=0,actions=drop\n"
        .to_owned();
    for Rule { remote, port } in rules(count) {
        let _ = writeln!(
            text,
            "table=1,priority=50,ct_state=+trk+new,udp,in_port=2,nw_src={remote},nw_dst={SERVER_V4},tp_dst={port},\
             actions=ct(commit),output:1"
        );
    }
    text
}

/// As a table of nftables between interfaces `inside` and `outside`. What it refuses is counted,
/// behind all rules, where no packet of a connection comes by.
pub fn nftables(count: u32) -> String {
    let mut text =
        "table ip compare {\n chain forward {\n  type filter hook forward priority filter; policy drop\n  \
                    ct state established,related accept\n"
            .to_owned();
    for Rule { remote, port } in rules(count) {
        let _ = writeln!(
            text,
            "  iifname outside ip saddr {remote} ip daddr {SERVER_V4} udp dport {port} accept"
        );
    }
    text + "  counter drop\n }\n}\n"
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn rules_are_many_and_one_admits() {
        for count in [1, 50, 250, 1000] {
            let all: Vec<Rule> = rules(count).collect();
            let different: HashSet<_> = all.iter().map(|rule| (&rule.remote, rule.port)).collect();
            assert_eq!(different.len(), count as usize);
            assert_eq!(all.iter().filter(|rule| rule.remote == CLIENTS && rule.port == PORT).count(), 1);
        }
    }

    #[test]
    fn each_program_is_told_every_rule() {
        for count in [1, 50, 250, 1000] {
            for (text, word) in
                [(policy(count), "inbound"), (openflow(count), "+new"), (nftables(count), "saddr")]
            {
                assert_eq!(text.matches(word).count(), count as usize, "{text}");
                assert_eq!(text.matches(CLIENTS).count(), 1);
            }
            assert!(
                openflow(count).lines().all(|line| line.starts_with("table=") && line.contains("actions="))
            );
        }
    }

    #[test]
    fn the_appliance_takes_the_policy() {
        for count in [1, 50, 250, 1000] {
            let compiled = crate::rig::compile(&policy(count));
            drop(compiled);
            assert!(policy(count).matches("name: g").count() == groups(count) as usize);
        }
    }
}
