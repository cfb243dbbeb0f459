//! What the tests of `replay` have in common: a directory, the program, and captures of many kinds.

#![allow(dead_code)]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;
use testkit::frame::*;

pub const POLICY: &str = r#"
vpcs: [{ name: lab, segment: { untagged: true } }]
security_groups:
  - name: open
    rules:
      - { direction: inbound, protocol: udp, ports: 53 }
      - { direction: outbound, protocol: udp }
nics: [{ name: server, vpc: lab, addresses: [10.5.6.7], security_groups: [open] }]
"#;

/// A question from outside, and the answer.
pub fn question() -> Vec<u8> {
    udp("192.0.2.9:4000", "10.5.6.7:53").payload([7; 20]).frame()
}

pub fn answer() -> Vec<u8> {
    udp("10.5.6.7:53", "192.0.2.9:4000").payload([8; 20]).frame()
}

/// A directory with the policy in it.
pub struct Setup(TempDir);

impl Setup {
    pub fn new() -> Setup {
        let setup = Setup(TempDir::new().unwrap());
        setup.write("policy.yaml", POLICY);
        setup
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        fs::write(self.path(name), bytes).unwrap();
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Files other than these.
    pub fn others(&self, known: &[&str]) -> Vec<String> {
        let names = fs::read_dir(self.0.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
        names.retain(|name| !known.contains(&name.as_str()));
        names.sort();
        names
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
        command.current_dir(self.0.path()).args(["replay", "--policy", "policy.yaml"]).args(arguments);
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// What it prints when it succeeds.
    pub fn stdout(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The verdict lines, as text.
    pub fn lines(&self, arguments: &[&str]) -> Vec<String> {
        let text = self.stdout(&[arguments, &["--verdicts", "-"]].concat());
        text.lines().map(str::to_owned).collect()
    }

    /// The verdict lines, cut short: `from index time reason`.
    pub fn verdicts(&self, arguments: &[&str]) -> Vec<String> {
        let lines = self.lines(arguments);
        lines
            .iter()
            .map(|line| brief(&serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"))))
            .collect()
    }

    /// The one line of a refusal.
    pub fn refusal(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        stderr.strip_prefix("portcullis: ").unwrap_or_else(|| panic!("{stderr}")).to_owned()
    }
}

fn brief(line: &Value) -> String {
    let text = |key: &str| line[key].as_str().unwrap_or("-").to_owned();
    format!("{} {} {} {}", text("from"), line["index"], line["time"], text("reason"))
}

/// A pcapng file, block by block.
pub struct Pcapng {
    big_endian: bool,
    pub bytes: Vec<u8>,
}

impl Pcapng {
    /// With its first section.
    pub fn new(big_endian: bool) -> Pcapng {
        Pcapng { big_endian, bytes: Vec::new() }.section(big_endian)
    }

    fn u32(&self, value: u32) -> [u8; 4] {
        if self.big_endian { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    fn u16(&self, value: u16) -> [u8; 2] {
        if self.big_endian { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    /// Any block.
    pub fn block(mut self, kind: u32, body: &[u8]) -> Pcapng {
        let body = [body, &vec![0; body.len().next_multiple_of(4) - body.len()]].concat();
        let length = self.u32(body.len() as u32 + 12);
        let kind = self.u32(kind);
        self.bytes.extend([&kind[..], &length, &body, &length].concat());
        self
    }

    /// A section of unknown length.
    pub fn section(mut self, big_endian: bool) -> Pcapng {
        self.big_endian = big_endian;
        let body = [&self.u32(0x1A2B_3C4D)[..], &self.u16(1), &self.u16(0), &[0xFF; 8]].concat();
        self.block(0x0A0D_0D0A, &body)
    }

    /// An interface with options: code and value.
    pub fn interface(self, link_type: u16, options: &[(u16, &[u8])]) -> Pcapng {
        let mut body = [&self.u16(link_type)[..], &[0, 0], &self.u32(0)].concat();
        body.extend(self.options(options));
        self.block(1, &body)
    }

    /// An Ethernet interface with this resolution.
    pub fn ethernet(self, resolution: u8) -> Pcapng {
        self.interface(1, &[(9, &[resolution])])
    }

    fn options(&self, options: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (code, value) in options {
            bytes.extend(self.u16(*code));
            bytes.extend(self.u16(value.len() as u16));
            bytes.extend(*value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        if !options.is_empty() {
            bytes.extend([0; 4]);
        }
        bytes
    }

    /// A packet of an interface, `units` behind the epoch, with options.
    pub fn packet_with(self, interface: u32, units: u64, frame: &[u8], options: &[(u16, &[u8])]) -> Pcapng {
        let words = [interface, (units >> 32) as u32, units as u32, frame.len() as u32, frame.len() as u32];
        let mut body: Vec<u8> = words.iter().flat_map(|word| self.u32(*word)).collect();
        body.extend(frame);
        body.resize(body.len().next_multiple_of(4), 0);
        body.extend(self.options(options));
        self.block(6, &body)
    }

    /// The same without options.
    pub fn packet(self, interface: u32, units: u64, frame: &[u8]) -> Pcapng {
        self.packet_with(interface, units, frame, &[])
    }
}
