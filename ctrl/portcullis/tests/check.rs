//! `check`: all that `run` would refuse, at once, and what is likely a mistake.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

const CONFIG: &str = r#"[eal]
args = ["--no-pci", "--vdev=net_null0", "--vdev=net_null1"]
[[wire]]
name = "w"
inside = "net_null0"
outside = "net_null1"
[workers]
cores = [0]
"#;

const POLICY: &str = r#"vpcs: [{ name: prod, segment: { untagged: true } }]
security_groups:
  - name: web
    rules:
      - { direction: inbound, protocol: tcp, ports: 22, remote: 198.51.100.0/24 }
      - { direction: outbound }
nics:
  - { name: web-1, vpc: prod, addresses: [10.5.6.7], security_groups: [web] }
"#;

struct Files(TempDir);

impl Files {
    fn new() -> Files {
        let files = Files(TempDir::new().unwrap());
        files.write("portcullis.toml", CONFIG);
        files.write("policy.yaml", POLICY);
        files
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// Runs it in the directory, with this on standard input; its status, results and complaints.
    fn check(&self, args: &[&str], input: &str) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
        command.arg("check").args(args).current_dir(self.0.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // Who does not read it is free not to.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (status.code().unwrap(), text(stdout), text(stderr))
    }
}

#[test]
fn what_is_good_is_said_to_be() {
    let files = Files::new();
    let good =
        (0, "portcullis.toml: ok\npolicy.yaml: ok: 1 VPCs, 1 groups, 1 NICs\n".to_owned(), String::new());
    assert_eq!(files.check(&["--config", "portcullis.toml", "policy.yaml"], ""), good);
    assert_eq!(files.check(&["--strict", "--config", "portcullis.toml", "policy.yaml"], ""), good);
    files.write("tables.toml", "[timeouts]\nicmp = 5\n");
    let (status, told, _) = files.check(&["--config", "tables.toml"], "");
    assert_eq!((status, &*told), (0, "tables.toml: ok, for everything but `run`, which needs a [[wire]]\n"));
}

#[test]
fn every_fault_of_every_file_is_told() {
    let files = Files::new();
    files.write("one.yaml", "vpcs: [{ name: a, segment: { vlan: 5000 } }, { name: b, segment: {} }]\n");
    files.write("two.yaml", "nics: [{ name: n, vpc: nowhere, colour: red }]\n");
    let (status, told, complaints) = files.check(&["one.yaml", "policy.yaml", "two.yaml", "none.yaml"], "");
    assert_eq!((status, &*told), (2, "policy.yaml: ok: 1 VPCs, 1 groups, 1 NICs\n"));
    let lines: Vec<&str> = complaints.lines().collect();
    let heads = [
        "portcullis: one.yaml:1:36: vpcs[0].segment.vlan: 5000",
        "portcullis: one.yaml:1:66: vpcs[1].segment: none",
        "portcullis: two.yaml:1:24: nics[0].vpc: \"nowhere\"",
        "portcullis: two.yaml:1:33: nics[0]: \"colour\"",
        "portcullis: none.yaml: No such file",
    ];
    assert_eq!(lines.len(), heads.len(), "{complaints}");
    for (line, head) in lines.iter().zip(heads) {
        assert!(line.starts_with(head), "{line:?} does not begin with {head:?}");
    }
}

#[test]
fn what_only_run_would_find_is_found() {
    let files = Files::new();
    let loose = files.write("loose.key", "");
    fs::set_permissions(loose, Permissions::from_mode(0o644)).unwrap();
    let tokens = files.write("tokens", "nameless\n");
    fs::set_permissions(tokens, Permissions::from_mode(0o600)).unwrap();
    files.write("no-cert.pem", "");
    let api = "[api]\nlisten = \"127.0.0.1:9696\"\ntls_cert = \"no-cert.pem\"\ntls_key = \"loose.key\"\ntoken_file = \"tokens\"\n\
               socket = \"policy.yaml\"\nsocket_group = \"no-such-group\"\n[store]\npath = \"policy.yaml\"\n";
    let config =
        CONFIG.replace("outside = \"net_null1\"", "outside = \"net_nul1\"").replace("[0]", "[0, 999]");
    files.write("bad.toml", &(config + api));
    let (status, told, complaints) = files.check(&["--config", "bad.toml"], "");
    assert_eq!((status, &*told), (2, ""));
    for part in [
        "bad.toml:8:13: workers.cores[1]: core 999 is not there; allowed: 0",
        "bad.toml:6:11: wire[0].outside: \"net_nul1\" is made by no --vdev of eal.args; near names: net_null1, net_null0",
        "bad.toml:11:12: api.tls_cert: no-cert.pem: holds no certificate",
        "bad.toml:12:11: api.tls_key: loose.key: others can read it (mode 0644); allowed: 0600, by `chmod 600 loose.key`",
        "bad.toml:13:14: api.token_file: tokens:1:1: a name or a token is missing; allowed: NAME TOKEN",
        "bad.toml:14:10: api.socket: policy.yaml is there and is no socket",
        "bad.toml:15:16: api.socket_group: the system has no group no-such-group",
        "bad.toml:17:8: store.path: ",
        "warning: bad.toml:2:8: eal.args: the vdev net_null1 is on no wire",
    ] {
        assert!(complaints.contains(&format!("portcullis: {part}")), "{part:?} is not in:\n{complaints}");
    }
}

#[test]
fn warnings_have_status_0_and_under_strict_2() {
    let files = Files::new();
    files.write("odd.yaml", &POLICY.replace("198.51.100.0/24", "198.51.100.7/24"));
    let told = "portcullis: warning: odd.yaml:5:65: security_groups[0].rules[0].remote: \"198.51.100.7/24\" has host bits, which are \
                masked off: it is 198.51.100.0/24\n";
    let ok = "odd.yaml: ok: 1 VPCs, 1 groups, 1 NICs\n";
    assert_eq!(files.check(&["odd.yaml"], ""), (0, ok.to_owned(), told.to_owned()));
    assert_eq!(files.check(&["--strict", "odd.yaml"], ""), (2, ok.to_owned(), told.to_owned()));
}

#[test]
fn standard_input_is_read_once() {
    let files = Files::new();
    let (status, told, complaints) = files.check(&["-"], POLICY);
    assert_eq!((status, &*told, &*complaints), (0, "standard input: ok: 1 VPCs, 1 groups, 1 NICs\n", ""));
    let (status, told, _) = files.check(&["--config", "-", "policy.yaml"], CONFIG);
    assert_eq!((status, &*told), (0, "standard input: ok\npolicy.yaml: ok: 1 VPCs, 1 groups, 1 NICs\n"));
    let (status, _, complaints) = files.check(&["-"], "vpcs: [{ name: a }]");
    assert_eq!(status, 2);
    assert!(
        complaints.starts_with("portcullis: standard input:1:8: vpcs[0]: the key segment"),
        "{complaints}"
    );
    let (status, _, complaints) = files.check(&["-", "-"], POLICY);
    assert_eq!(
        (status, &*complaints),
        (2, "portcullis: standard input: is named twice; allowed: `-` for one file\n")
    );
}

#[test]
fn a_level_of_the_environment_that_run_would_refuse_is_told() {
    let files = Files::new();
    for (level, status) in [("debug", 0), ("loud", 2)] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
        command.args(["check", "--config", "portcullis.toml"]).env("PORTCULLIS_LOG", level);
        let output = command.current_dir(files.0.path()).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status), "{told}");
        assert_eq!(told.contains("PORTCULLIS_LOG: loud; allowed: "), status == 2, "{told}");
    }
}
