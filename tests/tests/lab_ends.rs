//! What the ends of connections get to see: real kernels' TCP and UDP through the appliance, and the same through a bridge in its place,
//! 20 ms away from each other. Where the rules allow everything, an end must learn the same bytes and the same errors, and as soon.

mod common;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::Command;
use std::thread;
use std::time::Duration;

use common::rig::Rig;
use serde_json::Value;
use testkit::lab::{At, Lab, Process, SERVER_V4, SERVER_V6};

/// Between a host and the appliance's place: half of the way.
const HALF_WAY: Duration = Duration::from_millis(10);
/// Times differ by no more than so many seconds, less than any retransmission takes, and a tenth of the longer one.
const SLACK: f64 = 0.12;
/// What differs is played again, since other things run on the machine as well, and has to agree once.
const ROUNDS: usize = 4;
const ONE_ROUND: Duration = Duration::from_secs(60);
/// Scenarios, each in both families and both directions.
const AT_LEAST: usize = 52 * 4;

/// By scenario and step: its outcomes and how many seconds they took, in order.
type Seen = BTreeMap<String, BTreeMap<String, Vec<(String, f64)>>>;

/// What the ends in this lab get to see, in these scenarios or in all.
fn play(lab: &Lab, only: &[String]) -> Seen {
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/lab-ends"));
    command.args([lab.namespace(At::Client), lab.namespace(At::Server)]);
    command.args(only.iter().flat_map(|name| ["--only", name]));
    let finished = Process::start(command).unwrap().finish(ONE_ROUND).unwrap().success().unwrap();
    finished.stdout.lines().map(read).collect()
}

fn read(line: &str) -> (String, BTreeMap<String, Vec<(String, f64)>>) {
    let told: Value = serde_json::from_str(line).unwrap();
    let mut steps: BTreeMap<String, Vec<(String, f64)>> = BTreeMap::new();
    for event in told["events"].as_array().unwrap() {
        let text = |at: usize| event[at].as_str().unwrap().to_owned();
        steps.entry(text(0)).or_default().push((text(1), event[2].as_f64().unwrap()));
    }
    (told["name"].as_str().unwrap().to_owned(), steps)
}

fn agree(one: &[(String, f64)], other: &[(String, f64)]) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).all(|((one, soon), (other, late))| {
            one == other && (soon - late).abs() <= SLACK + soon.max(*late) / 10.0
        })
}

/// The scenarios that went another way through the appliance, and how.
fn differences(through: &Seen, bridged: &Seen) -> BTreeMap<String, String> {
    let mut differ = BTreeMap::new();
    for (name, steps) in bridged {
        let ours = &through[name];
        let mut told = String::new();
        for step in steps.keys().chain(ours.keys().filter(|step| !steps.contains_key(*step))) {
            let (ours, theirs) = (ours.get(step), steps.get(step));
            if !ours.zip(theirs).is_some_and(|(ours, theirs)| agree(ours, theirs)) {
                let _ =
                    write!(told, "\n  {step}: {ours:?} through the appliance, {theirs:?} through a bridge");
            }
        }
        if !told.is_empty() {
            differ.insert(name.clone(), told);
        }
    }
    differ
}

#[test]
fn ends_get_to_see_through_the_appliance_what_they_do_through_a_bridge() {
    if let Some(reason) = Lab::missing() {
        eprintln!("skipped: {reason}");
        return;
    }
    let policy = format!(
        "vpcs: [{{ name: lab, segment: {{ untagged: true }} }}]
security_groups:
  - name: all
    rules:
      - {{ direction: inbound }}
      - {{ direction: inbound, ethertype: IPv6 }}
      - {{ direction: outbound }}
      - {{ direction: outbound, ethertype: IPv6 }}
nics: [{{ name: server, vpc: lab, addresses: [{SERVER_V4}, \"{SERVER_V6}\"], security_groups: [all] }}]
"
    );
    let (lab, bridged) = (Lab::new().unwrap(), Lab::new().unwrap());
    let delays = [lab.delayed(HALF_WAY).unwrap(), bridged.delayed(HALF_WAY).unwrap()];
    bridged.bridge().unwrap();
    let rig = Rig::start_in(lab, "ends", "", &policy);

    let (mut only, mut differ) = (Vec::new(), BTreeMap::new());
    for round in 0..ROUNDS {
        let (through, by_bridge) = thread::scope(|scope| {
            let by_bridge = scope.spawn(|| play(&bridged, &only));
            (play(&rig.lab, &only), by_bridge.join().unwrap())
        });
        let counts = [through.len(), by_bridge.len()];
        assert!(counts[0] == counts[1] && (round > 0 || counts[0] >= AT_LEAST), "{counts:?} scenarios");
        // Which is what they are for.
        for family in [4, 6] {
            let fast = by_bridge.get(&format!("fast-open {family} in"));
            assert!(fast.is_none_or(|steps| steps["A opens with data"][0].0 == "at once"), "{fast:?}");
        }
        differ = differences(&through, &by_bridge);
        only = differ.keys().cloned().collect();
        println!("round {round}: {} of {} scenarios differ", only.len(), counts[0]);
        for (name, how) in &differ {
            println!("{name}:{how}");
        }
        if only.is_empty() {
            break;
        }
    }
    let told: String = differ.iter().map(|(name, how)| format!("\n{name}:{how}")).collect();
    assert!(differ.is_empty(), "ends saw something else:{told}");
    drop(delays);
    rig.end();
}
