//! `ports`, `init` and `doctor` on interfaces that are there: what `init` writes starts, and forwards.

mod appliance;

use std::process::Output;
use std::time::Duration;

use appliance::*;
use serde_json::Value;
use testkit::lab::{At, CLIENT_V4, INSIDE, Lab, OUTSIDE, SERVER_V4};

const PATIENCE: Duration = Duration::from_secs(20);

/// A lab, where there can be one.
fn lab() -> Option<Lab> {
    if let Some(reason) = Lab::missing() {
        eprintln!("skipped: {reason}");
        return None;
    }
    Some(Lab::new().unwrap())
}

/// Runs the program where the appliance is.
fn told(lab: &Lab, words: &[&str]) -> Output {
    lab.command(At::Appliance, PORTCULLIS).args(words).output().unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// The checks of this name, by what they are of.
fn checks<'r>(report: &'r Value, check: &str) -> Vec<&'r Value> {
    report["checks"].as_array().unwrap().iter().filter(|one| one["check"] == check).collect()
}

#[test]
fn ports_lists_the_interfaces_of_its_namespace() {
    let Some(lab) = lab() else { return };
    let listed = json(&told(&lab, &["ports", "-o", "json"]));
    let of = |name: &str| listed.as_array().unwrap().iter().find(|one| one["port"] == name).cloned();
    for name in [INSIDE, OUTSIDE] {
        let one = of(name).unwrap_or_else(|| panic!("{listed}"));
        assert_eq!(
            (&one["kind"], &one["link"], &one["mtu"]),
            (&"interface".into(), &"up".into(), &1500.into())
        );
        assert_eq!(one["problem"], Value::Null);
        assert!(one["by"].as_array().unwrap().contains(&"af-packet".into()), "{one}");
    }
    assert!(of("lo").is_none() && of("eth0").is_none(), "{listed}");
    let text = String::from_utf8(told(&lab, &["ports"]).stdout).unwrap();
    assert!(text.starts_with("port ") && text.contains(&format!("\n{INSIDE} ")), "{text}");
}

/// `init` of this kind, examined, started, and asked to forward.
fn init_starts(kind: &str, driver: &str) {
    let Some(lab) = lab() else { return };
    let setup = Setup::new("net_null0", "net_null1");
    let directory = setup.path("written");
    let at = directory.to_str().unwrap();
    let written = told(&lab, &["init", "--kind", kind, "--inside", INSIDE, "--outside", OUTSIDE, at]);
    assert!(written.status.success() && written.stderr.is_empty(), "{written:?}");
    let config = directory.join("portcullis.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    assert!(text.contains(&format!("inside = \"{driver}0\"")), "{text}");
    // But for the place of its socket it is run as it was written.
    let text = text.replace("/run/portcullis/api.sock", setup.socket().to_str().unwrap());
    std::fs::write(&config, text).unwrap();

    let examined = told(&lab, &["doctor", "--config", config.to_str().unwrap(), "-o", "json"]);
    let report = json(&examined);
    assert_eq!(examined.status.code(), Some(0), "{report:#}");
    for check in ["configuration", "link", "mtu", "queues", "offloads", "capabilities", "kernel"] {
        assert!(checks(&report, check).iter().all(|one| one["status"] == "ok"), "{check}: {report:#}");
    }

    let mut command = lab.command(At::Appliance, PORTCULLIS);
    command.args(["run", "--config"]).arg(&config).arg("--policy").arg(directory.join("policy.yaml"));
    let appliance = setup.spawn(command);
    assert!(lab.ping(At::Client, SERVER_V4, 3).unwrap().status.success());
    assert!(lab.ping(At::Server, CLIENT_V4, 3).unwrap().status.success());
    assert_eq!(appliance.show("counters")["ports"][0]["driver"], driver);
    let report = json(&told(&lab, &["doctor", "--config", config.to_str().unwrap(), "-o", "json"]));
    assert_eq!(report["status"], "warn", "{report:#}");
    assert_eq!(checks(&report, "socket")[0]["found"], "an appliance answers there already");
    appliance.end();
}

#[test]
fn what_init_writes_for_packet_sockets_starts_and_forwards() {
    init_starts("af-packet", "net_af_packet");
}

#[test]
fn what_init_writes_for_xdp_sockets_starts_and_forwards() {
    init_starts("af-xdp", "net_af_xdp");
}

#[test]
fn what_is_wrong_with_interfaces_is_named_with_the_command_that_mends_it() {
    let Some(lab) = lab() else { return };
    let setup = Setup::new(
        &format!("net_af_packet0,iface={INSIDE},framecnt=512"),
        &format!("net_af_packet1,iface={OUTSIDE}"),
    );
    let config = setup.config().to_str().unwrap().to_owned();
    let run = |at: At, words: &str| {
        let words: Vec<&str> = words.split(' ').collect();
        let ended = lab.run(at, words, PATIENCE).unwrap();
        assert!(ended.status.success(), "{}", ended.stderr);
    };
    run(At::Appliance, &format!("ip link set {OUTSIDE} mtu 1400"));
    run(At::Appliance, &format!("ip link set {INSIDE} down"));
    let examined = told(&lab, &["doctor", "--config", &config, "-o", "json"]);
    let report = json(&examined);
    assert_eq!((examined.status.code(), &report["status"]), (Some(2), &"fail".into()), "{report:#}");
    let one = |check: &str, on: &str| {
        let found = checks(&report, check).into_iter().find(|one| one["on"] == *on || on.is_empty());
        found.unwrap_or_else(|| panic!("{check} {on}: {report:#}")).clone()
    };
    assert_eq!(one("mtu", "")["status"], "fail");
    assert!(one("mtu", "")["found"].as_str().unwrap().contains("has MTU 1500, outside net_af_packet1"));
    let link = one("link", "net_af_packet0");
    assert_eq!(
        (&link["status"], &link["cure"]),
        (&"warn".into(), &format!("`ip link set {INSIDE} up`").into())
    );
    assert_eq!(
        one("rings", "net_af_packet0")["cure"],
        "framecnt=16384 among the arguments of net_af_packet0"
    );
}

#[test]
fn init_without_ports_lists_what_can_be_one() {
    let Some(lab) = lab() else { return };
    let refused = told(&lab, &["init"]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        said.contains("--inside PORT and --outside PORT") && said.contains(&format!("\n{INSIDE} ")),
        "{said}"
    );
}
