//! DPDK's telemetry, read by the program that DPDK brings for it.

mod appliance;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use appliance::*;
use serde_json::{Value, json};
use testkit::frame::*;
use testkit::pcap::{self, Format};

const READER: &str = "/usr/bin/dpdk-telemetry.py";

/// What it prints for these commands, an answer a line.
fn ask(runtime: &Path, commands: &[&str]) -> Vec<Value> {
    let mut reader = Command::new(READER);
    reader.args(["-f", "portcullis"]).env("RUNTIME_DIRECTORY", runtime);
    let mut reader = reader.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    writeln!(reader.stdin.take().unwrap(), "{}", commands.join("\n")).unwrap();
    let output = reader.wait_with_output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
}

/// An appliance with a place of its own for what belongs to the run, that has seen 20 opening packets and as many that nobody asks for.
fn start(of_eal: &str) -> (Appliance, std::path::PathBuf) {
    let setup = Setup::new("net_pcap0,rx_pcap=IN,tx_pcap=OUT", "net_pcap1,rx_pcap=IN,tx_pcap=OUT");
    let mut frames = Vec::new();
    for n in 0..20u16 {
        let from = format!("198.51.100.9:{}", 20_000 + n);
        frames.push(tcp(from.as_str(), "10.5.6.7:22").syn().seq(1).frame());
        frames.push(udp(from.as_str(), "10.5.6.7:53").payload("nobody asks").frame());
    }
    pcap::write(setup.path("outside.pcap"), Format::MICRO, &pcap::records(0, frames)).unwrap();
    pcap::write(setup.path("inside.pcap"), Format::MICRO, &[]).unwrap();
    let runtime = setup.path("runtime");
    std::fs::create_dir(&runtime).unwrap();
    let setup = setup.fill("inside", "outside");
    let policy = setup.write("policy.yaml", POLICY);
    let mut command = setup.command(Some(&policy));
    command.env("RUNTIME_DIRECTORY", &runtime);
    let config = std::fs::read_to_string(setup.path("portcullis.toml")).unwrap();
    setup.write("portcullis.toml", config.replace("[eal]\n", &format!("[eal]\n{of_eal}")));
    let appliance = setup.spawn(command);
    appliance.wait_for_counters("all frames", |counters| counters["packets"]["in"] == 40);
    (appliance, runtime)
}

#[test]
fn the_program_that_dpdk_brings_lists_and_reads_the_commands() {
    let (appliance, runtime) = start("");
    let drops = || ask(&runtime, &["/portcullis/drops"]).remove(0)["/portcullis/drops"].clone();
    wait_for("the page to be written", || (drops()["no_rule"] == 20).then_some(()));

    let commands = ["info", "health", "generation", "workers", "ports", "drops", "connections"];
    let commands = commands.map(|name| format!("/portcullis/{name}"));
    let mut asked = vec!["/"];
    asked.extend(commands.iter().map(String::as_str));
    let answers = ask(&runtime, &asked);
    let listed = answers[0]["/"].as_array().unwrap();
    let named = |command: &str| answers.iter().find_map(|answer| answer.get(command)).unwrap();
    for command in &commands {
        assert!(listed.contains(&json!(command)), "{command} is not in {listed:?}");
        assert!(!named(command).is_null() && named(command).get("error").is_none(), "{}", named(command));
    }
    assert_eq!(named("/portcullis/health"), &json!({"status": "ok", "problems": []}));
    assert_eq!(named("/portcullis/generation")["generation"], 1);
    assert_eq!(named("/portcullis/generation")["oldest_of_workers"], 1);
    assert_eq!(named("/portcullis/workers"), &json!(["0"]));
    assert_eq!(named("/portcullis/ports"), &json!(["net_pcap0", "net_pcap1"]));
    let connections = named("/portcullis/connections");
    assert_eq!((&connections["syn_sent"], &connections["opened"]), (&json!(20), &json!(20)));
    assert_eq!(named("/portcullis/info")["version"], env!("CARGO_PKG_VERSION"));

    let answers = ask(
        &runtime,
        &[
            "/portcullis/workers,0",
            "/portcullis/ports,net_pcap1",
            "/portcullis/ports,eth7",
            "/portcullis/drops,1",
        ],
    );
    assert_eq!(
        (&answers[0]["/portcullis/workers"]["pass"], &answers[0]["/portcullis/workers"]["drop"]),
        (&json!(20), &json!(20))
    );
    let port = &answers[1]["/portcullis/ports"];
    assert_eq!((&port["received"], &port["side"], &port["up"]), (&json!(40), &json!("outside"), &json!(1)));
    let error = &answers[2]["/portcullis/ports"]["error"];
    assert_eq!(error, "no port \"eth7\"; there are net_pcap0, net_pcap1");
    assert_eq!(answers[3]["/portcullis/drops"]["error"], "takes no parameter, got \"1\"");
    // It and the appliance's own commands are of the same numbers.
    let help = ask(&runtime, &["/help,/portcullis/ports"]);
    assert!(help[0].to_string().contains("a port's counters"), "{help:?}");
    appliance.end();
    assert!(!runtime.join("dpdk/portcullis/dpdk_telemetry.v2").exists(), "the socket is left behind");
}

#[test]
fn without_telemetry_there_is_no_socket_and_without_a_place_for_it_a_warning() {
    let (appliance, runtime) = start("telemetry = false\n");
    assert!(!runtime.join("dpdk/portcullis/dpdk_telemetry.v2").exists());
    appliance.end();
    let setup = Setup::new("net_null0", "net_null1");
    let policy = setup.write("policy.yaml", POLICY);
    let mut command = setup.command(Some(&policy));
    // A file where the directory should be.
    command.env("RUNTIME_DIRECTORY", &policy);
    let appliance = setup.spawn(command);
    let (finished, _) = appliance.end();
    assert!(
        finished.stderr.contains("DPDK's telemetry is off: its socket has no place in "),
        "{}",
        finished.stderr
    );
}
