//! An appliance with a store, ended in every way and started again.

mod appliance;

use std::hash::{BuildHasher, RandomState};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::{Duration, Instant};

use appliance::*;
use serde_json::{Value, json};
use testkit::lab::{Finished, Process};
use testkit::rng::Rng;

/// With the store, and the policy file to fill it with.
fn command(setup: &Setup) -> Command {
    setup.command(Some(&setup.path("policy.yaml")))
}

fn stored(confirmable: &str) -> Setup {
    let setup = Setup::new("net_null0,no-rx=1", "net_null1,no-rx=1");
    let store = setup.path("store/policy.redb");
    let setup = setup.more(&format!("[store]\npath = {store:?}\n"));
    setup.write("policy.yaml", confirmable);
    setup
}

fn start(setup: Setup) -> Appliance {
    let command = command(&setup);
    setup.spawn(command)
}

fn with_port(port: u16) -> String {
    POLICY.replace("ports: 22", &format!("ports: {port}"))
}

fn port(appliance: &Appliance) -> u16 {
    let document = appliance.text(["export"]);
    let behind = document.split_once("ports: ").unwrap().1;
    behind.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
}

fn generation(appliance: &Appliance) -> u64 {
    appliance.show("snapshot")["generation"].as_u64().unwrap()
}

fn history(appliance: &Appliance) -> Vec<Value> {
    serde_json::from_str(&appliance.text(["history", "-o", "json"])).unwrap()
}

#[test]
fn a_restart_knows_the_policy_its_generation_and_the_way_back() {
    let appliance = start(stored(POLICY));
    assert_eq!((generation(&appliance), port(&appliance)), (1, 22));
    appliance.apply(&with_port(23), &[]);
    appliance.apply(&with_port(24), &[]);
    let before = history(&appliance);
    let (_, setup) = appliance.end();
    let ok = Command::new(PORTCULLIS)
        .args(["check", "--store"])
        .arg(setup.path("store/policy.redb"))
        .output()
        .unwrap();
    let ok = String::from_utf8(ok.stdout).unwrap();
    assert!(ok.contains("ok: generation 3, 1 groups, 1 NICs, 3 generations of history"), "{ok}");

    let appliance = start(setup);
    assert_eq!((generation(&appliance), port(&appliance)), (3, 24));
    let after = history(&appliance);
    assert_eq!(after.len(), 3);
    for (before, after) in before.iter().zip(&after) {
        for key in ["generation", "who", "origin", "changed", "added"] {
            assert_eq!(before[key], after[key], "{key}");
        }
    }
    appliance.text(["rollback", "2"]);
    assert_eq!((generation(&appliance), port(&appliance)), (4, 23));
    let (finished, _) = appliance.end();
    // The file was for an empty store; it says something else now.
    assert!(finished.stderr.contains("DIFFERS from the store"), "{}", finished.stderr);
}

/// `STORE_KILLS=200` kills it more often, `STORE_SEED=N` at the moments of an earlier run.
#[test]
fn a_kill_at_any_moment_leaves_a_generation_whole() {
    let number = |name: &str| std::env::var(name).ok().map(|n| n.parse::<u64>().unwrap());
    let kills = number("STORE_KILLS").unwrap_or(4) as u16;
    let seed = number("STORE_SEED").unwrap_or_else(|| RandomState::new().hash_one(kills));
    eprintln!("STORE_SEED={seed}");
    let mut moments = Rng::new(seed);
    // Changes that were acknowledged, and those that the kill overtook after they were durable.
    let (mut told, mut untold) = (0, 0);
    let mut appliance = start(stored(POLICY));
    for round in 0..kills {
        let socket = appliance.setup.socket();
        let files: Vec<_> = (0..40u16)
            .map(|n| appliance.setup.write(&format!("{n}.yaml"), with_port(1000 + round % 500 * 100 + n)))
            .collect();
        let first = generation(&appliance);
        let client = std::thread::spawn(move || {
            let mut acknowledged = None;
            for (n, file) in (0..).zip(files) {
                let applied = Command::new(PORTCULLIS)
                    .args(["apply", "-o", "json"])
                    .arg(file)
                    .env("PORTCULLIS_SOCKET", &socket)
                    .output()
                    .unwrap();
                let Ok(receipt) = serde_json::from_slice::<Value>(&applied.stdout) else { break };
                assert_eq!(receipt["state"], "acknowledged");
                acknowledged = Some((receipt["generation"].as_u64().unwrap(), 1000 + round % 500 * 100 + n));
            }
            acknowledged
        });
        std::thread::sleep(Duration::from_micros(moments.below(460_000) as u64));
        let setup = appliance.kill();
        let acknowledged = client.join().unwrap();
        appliance = start(setup);
        let found = (generation(&appliance), port(&appliance));
        // The last that was acknowledged, or the one on its way.
        let (known, last) = acknowledged.unwrap_or((first, 999 + round % 500 * 100));
        let in_flight = (known + 1, last + 1);
        assert!(
            acknowledged == Some(found) || found == in_flight || acknowledged.is_none() && found.0 == first,
            "acknowledged {acknowledged:?}, found {found:?}"
        );
        told += known - first;
        untold += u32::from(found == in_flight);
    }
    eprintln!("{kills} kills, {told} changes acknowledged, {untold} durable before anybody was told");
    appliance.end();
}

#[test]
fn a_confirmation_is_awaited_across_a_restart() {
    let appliance = start(stored(POLICY));
    let begin = Instant::now();
    appliance.apply(&with_port(23), &["--confirm", "4"]);
    let appliance = start(appliance.kill());
    assert_eq!((generation(&appliance), port(&appliance)), (2, 23));
    let (status, _, error) = appliance.apply(&with_port(24), &[]);
    assert!(status == 2 && error.contains("generation 2 awaits its confirmation"), "{error}");
    wait_for("the rollback", || (port(&appliance) == 22).then_some(()));
    assert!(begin.elapsed() > Duration::from_millis(3900), "{:?}", begin.elapsed());
    assert_eq!(generation(&appliance), 3);

    // Confirmed, it stays, also over a restart.
    appliance.apply(&with_port(25), &["--confirm", "2"]);
    appliance.text(["confirm"]);
    let appliance = start(appliance.kill());
    std::thread::sleep(Duration::from_millis(2300));
    assert_eq!(port(&appliance), 25);
    let records = history(&appliance);
    assert_eq!(records[0]["confirmation"], "confirmed");
    assert_eq!((&records[2]["generation"], &records[2]["confirmation"]), (&json!(2), &json!("taken-back")));
    // Its time ran out while nobody ran: it is taken back at the next start.
    appliance.apply(&with_port(26), &["--confirm", "1"]);
    let setup = appliance.kill();
    std::thread::sleep(Duration::from_millis(1200));
    let appliance = start(setup);
    wait_for("the rollback", || (port(&appliance) == 25).then_some(()));
    appliance.end();
}

#[test]
fn a_corrupt_store_stops_the_start_and_is_kept() {
    let appliance = start(stored(POLICY));
    let (_, setup) = appliance.end();
    let store = setup.path("store/policy.redb");
    let mut bytes = std::fs::read(&store).unwrap();
    let middle = bytes.len() / 2;
    bytes[..middle].iter_mut().skip(64).for_each(|byte| *byte ^= 0x55);
    std::fs::write(&store, &bytes).unwrap();
    let (status, error) = setup.refused(Some(&setup.path("policy.yaml")));
    assert_eq!(status, 1, "{error}");
    assert!(error.contains("the store is corrupt") && error.contains("set aside, untouched"), "{error}");
    assert!(std::fs::read(setup.path("store/policy.redb.corrupt-1")).unwrap() == bytes);
    assert_eq!(json!(store.exists()), json!(false));
}

#[test]
fn a_start_that_is_told_to_end_ends_and_leaves_nothing_half_done() {
    let mut setup = start(stored(&with_port(22))).end().1;
    // From before the handler stands to after the ports do.
    for milliseconds in [0, 5, 10, 20, 40, 80, 120, 160, 240, 320, 480] {
        let process = Process::start(command(&setup)).unwrap();
        std::thread::sleep(Duration::from_millis(milliseconds));
        let Finished { status, stderr, .. } = process.terminate(READY).unwrap();
        let is_ended = status.success() || status.signal() == Some(15);
        assert!(is_ended, "after {milliseconds} ms: {status}: {stderr}");
        assert!(!setup.socket().exists(), "after {milliseconds} ms the socket is left behind");
        // A start that ends while it reads the store leaves its copy of it to the next one.
        assert_eq!(left_of(&setup, true), FILES, "after {milliseconds} ms");
    }
    let appliance = start(setup);
    assert_eq!((port(&appliance), &appliance.show("snapshot")["generation"]), (22, &json!(1)));
    setup = appliance.end().1;
    assert_eq!(left_of(&setup, false), FILES);
}

const FILES: [&str; 3] = ["policy.redb", "policy.redb.lock", "policy.redb.witness"];

/// What lies in the store's folder, with or without copies for reading.
fn left_of(setup: &Setup, without_copies: bool) -> Vec<String> {
    let files = std::fs::read_dir(setup.path("store")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut left: Vec<_> = names.filter(|name| !(without_copies && name.contains(".copy-"))).collect();
    left.sort();
    left
}

/// `count` NICs, and the store by whose policy a file that governs is judged.
fn governed(setup: Setup, count: u8) -> Setup {
    let head =
        "vpcs: [{ name: prod, segment: { vlan: 100 } }]\nsecurity_groups:\n  - name: g\n    rules: []\nnics:";
    let nics = (1..=count)
        .map(|n| format!("  - {{ name: n{n}, vpc: prod, addresses: [10.5.6.{n}], security_groups: [g] }}\n"));
    let end = if count == 0 { " []\n" } else { "\n" };
    setup.write("policy.yaml", head.to_owned() + end + &nics.collect::<String>());
    setup
}

#[test]
fn a_file_that_was_cut_short_while_nothing_ran_is_no_more_believed_than_later() {
    let nics = |appliance: &Appliance| appliance.show("snapshot")["nics"].as_u64().unwrap();
    let health = |appliance: &Appliance| appliance.text(["show", "health"]);
    let setup = stored(POLICY).more("[policy]\nsource = \"file\"\n");
    let appliance = start(governed(setup, 11));
    assert_eq!(nics(&appliance), 11);
    let (_, setup) = appliance.end();
    // 7 of 11: the start goes by the store, says so, and a file that is mended counts at once.
    let appliance = start(governed(setup, 4));
    assert_eq!((generation(&appliance), nics(&appliance)), (1, 11));
    wait_for("the refusal in health", || {
        health(&appliance).contains("it would take away 7 of 11 NICs").then_some(())
    });
    let Appliance { setup, .. } = &appliance;
    let file = setup.path("policy.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    setup.write(
        "policy.yaml",
        text.clone()
            + "  - { name: n5, vpc: prod, addresses: [10.5.6.5], security_groups: [g] }\n  \
         - { name: n6, vpc: prod, addresses: [10.5.6.6], security_groups: [g] }\n",
    );
    wait_for("6 NICs", || (nics(&appliance) == 6).then_some(()));
    let (finished, setup) = appliance.end();
    assert!(finished.stderr.contains("the run begins with the policy of the store"), "{}", finished.stderr);
    // None at all is refused however few there were; a smaller change is a change.
    let appliance = start(governed(setup, 0));
    assert_eq!(nics(&appliance), 6);
    wait_for("the refusal in health", || {
        health(&appliance).contains("the document has no NICs").then_some(())
    });
    let (_, setup) = appliance.end();
    let appliance = start(governed(setup, 3));
    assert_eq!((generation(&appliance), nics(&appliance)), (3, 3));
    appliance.end();
}
