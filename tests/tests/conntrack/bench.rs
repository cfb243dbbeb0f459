//! Both firewalls side by side.

use std::fmt::Write;

use engine::Side;
use testkit::{lab::Router, scenario::Scenario};

use super::packet::{self, Sent};
use super::scripts::Script;

/// Who may open what, in both languages.
const POLICY: &str = r#"
vpcs: [{ name: lab, segment: { untagged: true } }]
security_groups:
  - name: server
    rules:
      - { direction: inbound, protocol: tcp, ports: 22 }
      - { direction: inbound, protocol: udp, ports: 53 }
      - { direction: inbound, protocol: icmp }
      - { direction: outbound }
nics: [{ name: server, vpc: lab, addresses: [10.5.6.7], security_groups: [server] }]
"#;
const RULES: &str = r#"
    iifname "outside" tcp dport 22 accept
    iifname "outside" udp dport 53 accept
    iifname "outside" meta l4proto icmp accept
    iifname "inside" accept
"#;

/// What both made of one packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// Our reason.
    pub reason: String,
    /// It passed here; there.
    pub passed: [bool; 2],
    /// The TCP connection's state afterwards: here; there.
    pub states: [Option<String>; 2],
}

impl Outcome {
    /// Both did the same, and are in states that are each other's counterparts.
    pub fn agrees(&self) -> bool {
        let [ours, theirs] = self.states.each_ref().map(|state| state.as_deref().unwrap_or("none"));
        let states_agree = matches!(
            (ours, theirs),
            ("none", "none" | "CLOSE")
                | ("syn-sent", "SYN_SENT")
                | ("syn-received", "SYN_RECV" | "SYN_SENT2")
                | ("established", "ESTABLISHED")
                | ("fin-wait", "FIN_WAIT" | "CLOSE_WAIT")
                | ("closing", "LAST_ACK" | "TIME_WAIT")
        );
        self.passed[0] == self.passed[1] && states_agree
    }
}

/// A kernel and a firewall of ours, with the same rules.
pub struct Bench {
    router: Router,
    scenario: Scenario,
    port: u16,
}

impl Bench {
    pub fn new() -> Bench {
        Bench { router: Router::new(RULES).unwrap(), scenario: Scenario::new(POLICY), port: 10_000 }
    }

    /// A port of the client's that no conversation had.
    pub fn fresh_port(&mut self) -> u16 {
        self.port += 1;
        self.port
    }

    /// Sends a packet of the conversation of this port.
    pub fn send(&mut self, text: &str, port: u16) -> Outcome {
        let Sent { from, frame } = packet::read(text, port);
        let there = self.router.carries(from, &frame).unwrap();
        let reason = match from {
            Side::Inside => self.scenario.bytes(Side::Inside, frame),
            Side::Outside => self.scenario.bytes(Side::Outside, frame),
        };
        let passed = [self.scenario.passed(), there];
        let remote = format!(":{port} ");
        let ours = self
            .scenario
            .connections()
            .into_iter()
            .find(|line| line.contains(" 6 ") && line.contains(&remote));
        let ours = ours.and_then(|line| line.split(' ').nth(5).map(str::to_owned));
        Outcome { reason, passed, states: [ours, self.router.tcp_state((port, 22)).unwrap()] }
    }

    /// Plays a script: the kinds of differences that it shows, or what went otherwise than it says.
    pub fn play(&mut self, script: &Script) -> Result<Vec<&'static str>, String> {
        let port = self.fresh_port();
        let (mut told, mut kinds, mut is_wrong) = (format!("{}:", script.name), Vec::new(), false);
        for line in &script.lines {
            let outcome = self.send(&line.packet, port);
            let is_right = outcome.passed == line.passes
                && (outcome.agrees() == line.differs.is_none() || !kinds.is_empty());
            kinds.extend(line.differs);
            is_wrong |= !is_right;
            let mark = if is_right { ' ' } else { '!' };
            let _ = write!(told, "\n{mark} {:50} {}", line.packet, tell(&outcome));
        }
        if is_wrong { Err(told) } else { Ok(kinds) }
    }
}

/// One line about an outcome.
pub fn tell(outcome: &Outcome) -> String {
    let word = |passed| if passed { "pass" } else { "drop" };
    let [ours, theirs] = outcome.states.each_ref().map(|state| state.as_deref().unwrap_or("none"));
    let ([here, there], reason) = (outcome.passed.map(word), &outcome.reason);
    format!("here {here} ({reason}; {ours}), kernel {there} ({theirs})")
}
