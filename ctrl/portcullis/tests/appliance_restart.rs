//! A restart that keeps connections, on the real binary and the TCP of real kernels: killed, and started again.

mod appliance;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use appliance::*;
use control::persisted::PersistedState;
use testkit::lab::{At, INSIDE, Lab, OUTSIDE, Process, SERVER_MAC, SERVER_V4};

const SECOND: Duration = Duration::from_secs(1);

/// Of the server: ports 22 and 23 may be reached, and everything may be.
fn document(ports: &str) -> String {
    format!(
        "vpcs: [{{ name: prod, segment: {{ untagged: true }} }}]\n\
         security_groups:\n  - name: web\n    rules:\n      - {{ direction: inbound, protocol: tcp, ports: {ports} }}\n\
         \x20     - {{ direction: outbound }}\n\
         nics:\n  - {{ name: web-1, mac: \"{SERVER_MAC}\", vpc: prod, addresses: [{SERVER_V4}], security_groups: [web] }}\n"
    )
}

fn setup(more: &str) -> Setup {
    let setup = Setup::new(
        &format!("net_af_packet0,iface={INSIDE},framecnt=512"),
        &format!("net_af_packet1,iface={OUTSIDE},framecnt=512"),
    );
    let folder = setup.path("kept").display().to_string();
    setup.more(&format!("[conntrack]\ncapacity = 4096\npickup_grace = 60\nkeep = {folder:?}\n{more}"))
}

/// Starts it in the lab, with more arguments.
fn start(lab: &Lab, setup: Setup, policy: &Path, more: &[&str]) -> Appliance {
    let mut command: Command = lab.command(At::Appliance, PORTCULLIS);
    command.args(setup.command(Some(policy)).get_args()).args(more);
    setup.spawn(command)
}

fn echoes(stream: &mut TcpStream, patience: Duration) -> bool {
    let _ = stream.set_read_timeout(Some(patience));
    let mut answer = [0; 5];
    stream.write_all(b"hello").is_ok() && stream.read_exact(&mut answer).is_ok() && &answer == b"hello"
}

fn number(restart: &serde_json::Value, key: &str) -> u64 {
    restart[key].as_u64().unwrap_or_else(|| panic!("{key}: {restart}"))
}

#[test]
fn killed_and_started_again_connections_go_on_and_what_was_shut_stays_shut() {
    if let Some(reason) = Lab::missing() {
        return eprintln!("skipped: {reason}");
    }
    let lab = Lab::new().unwrap();
    let setup = setup("");
    let policy = setup.write("policy.yaml", document("22-23"));
    let _server = lab.echo_server(At::Server, 22).unwrap();
    let _other = lab.echo_server(At::Client, 9).unwrap();
    let appliance = start(&lab, setup, &policy, &[]);
    assert_eq!(appliance.show("restart")["began"], "cold");
    assert_eq!(appliance.show("restart")["reason"], "nothing was kept");
    let mut inbound = lab.connect(At::Client, (SERVER_V4, 22), SECOND).unwrap();
    let mut outbound = lab.connect(At::Server, (testkit::lab::CLIENT_V4, 9), SECOND).unwrap();
    assert!(echoes(&mut inbound, SECOND) && echoes(&mut outbound, SECOND));

    let setup = appliance.kill();
    let mode = std::fs::metadata(setup.path("kept")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let begin = Instant::now();
    let appliance = start(&lab, setup, &policy, &[]);
    assert!(
        echoes(&mut inbound, 5 * SECOND),
        "no SYN, no pick-up: it goes on\n{}",
        appliance.text(["show", "restart"])
    );
    eprintln!("the inbound connection went on {:?} after the kill", begin.elapsed());
    assert!(echoes(&mut outbound, 5 * SECOND));
    let restart = appliance.show("restart");
    assert_eq!((restart["began"].as_str(), number(&restart, "live")), (Some("warm"), 2), "{restart}");
    assert_eq!(number(&restart, "unverifiable"), 0, "{restart}");

    // Disconnected while it runs, and by a policy that changes while it does not.
    appliance.apply(&document("22-24"), &[]);
    assert!(!echoes(&mut inbound, SECOND));
    let setup = appliance.kill();
    let policy = setup.write("policy.yaml", document("22-24"));
    let appliance = start(&lab, setup, &policy, &[]);
    let restart = appliance.show("restart");
    assert_eq!([number(&restart, "tombstones"), number(&restart, "live")], [1, 1], "{restart}");
    assert!(!echoes(&mut inbound, 2 * SECOND), "the tombstone stays");
    assert!(echoes(&mut outbound, 5 * SECOND));
    let mut inbound = lab.connect(At::Client, (SERVER_V4, 22), SECOND).unwrap();
    assert!(echoes(&mut inbound, SECOND));
    let setup = appliance.kill();
    let policy = setup.write("policy.yaml", document("22-25"));
    let appliance = start(&lab, setup, &policy, &[]);
    let restart = appliance.show("restart");
    assert_eq!([number(&restart, "ended"), number(&restart, "tombstones")], [1, 1], "{restart}");
    assert!(!echoes(&mut inbound, 2 * SECOND), "what an apply would have cut is cut");
    assert!(echoes(&mut outbound, 5 * SECOND), "what went out lives on");

    // An end in peace is no other.
    let finished = appliance.process.terminate(READY).unwrap();
    assert!(
        finished.status.success() && finished.stdout.contains("takes its connections"),
        "{}",
        finished.stdout
    );
    let appliance = start(&lab, appliance.setup, &policy, &["--cold"]);
    let restart = appliance.show("restart");
    assert_eq!(
        (restart["began"].as_str(), restart["reason"].as_str()),
        (Some("cold"), Some("--cold was given"))
    );
}

#[test]
fn another_number_of_workers_takes_up_the_same_connections() {
    if let Some(reason) = Lab::missing() {
        return eprintln!("skipped: {reason}");
    }
    let lab = Lab::new().unwrap();
    let mut kept = setup("");
    let policy = kept.write("policy.yaml", document("22"));
    let _server = lab.echo_server(At::Server, 22).unwrap();
    let mut streams: Vec<TcpStream> = Vec::new();
    for cores in [&[1][..], &[0, 1], &[1]] {
        let two_queues = |vdev: usize, iface: &str| {
            let queues = if cores.len() > 1 { ",qpairs=2" } else { "" };
            format!("net_af_packet{vdev},iface={iface},framecnt=512{queues}")
        };
        kept = kept.devices([two_queues(0, INSIDE), two_queues(1, OUTSIDE)]).cores(cores);
        let appliance = start(&lab, kept, &policy, &[]);
        for stream in &mut streams {
            assert!(echoes(stream, 5 * SECOND), "{cores:?}: {}", appliance.text(["show", "restart"]));
        }
        assert_eq!(number(&appliance.show("restart"), "live"), streams.len() as u64);
        for _ in 0..8 {
            let mut stream = lab.connect(At::Client, (SERVER_V4, 22), SECOND).unwrap();
            assert!(echoes(&mut stream, SECOND));
            streams.push(stream);
        }
        kept = appliance.kill();
    }
}

#[test]
fn a_folder_that_is_not_ours_alone_is_refused() {
    let kept = setup("");
    let policy = kept.write("policy.yaml", document("22"));
    std::fs::create_dir(kept.path("kept")).unwrap();
    std::fs::set_permissions(kept.path("kept"), PermissionsExt::from_mode(0o755)).unwrap();
    let finished = Process::start(kept.command(Some(&policy))).unwrap().finish(READY).unwrap();
    assert_eq!(finished.status.code(), Some(1));
    assert!(finished.stderr.contains("its mode is 755; required: 700"), "{}", finished.stderr);
}

#[test]
fn with_a_store_generations_go_on_and_what_does_not_fit_begins_cold() {
    let kept = Setup::new("net_null0", "net_null1");
    let (folder, store) = (kept.path("kept"), kept.path("store"));
    let kept =
        kept.more(&format!("[conntrack]\ncapacity = 64\nkeep = {folder:?}\n[store]\npath = {store:?}\n"));
    let run = |kept: Setup| {
        let command = kept.command(None);
        kept.spawn(command)
    };
    let began = |appliance: &Appliance| {
        let restart = appliance.show("restart");
        let of = |key: &str| restart[key].as_str().unwrap_or_default().to_owned();
        (of("began"), of("reason"))
    };
    let appliance = run(kept);
    assert_eq!(appliance.apply(&document("22"), &[]).0, 0);
    assert_eq!(appliance.apply(&document("23"), &[]).0, 0);
    let kept = appliance.kill();
    let control = folder.join("control");
    let at_two = std::fs::read(&control).unwrap();
    let appliance = run(kept);
    assert_eq!(began(&appliance), ("warm".to_owned(), String::new()));
    assert_eq!(appliance.show("snapshot")["generation"], 2);
    assert_eq!(appliance.apply(&document("24"), &[]).0, 0);
    assert!(appliance.client(["rollback", "1"]).status.success());
    let kept = appliance.kill();

    // The tables that the older state names are gone.
    let at_four = std::fs::read(&control).unwrap();
    std::fs::write(&control, &at_two).unwrap();
    let appliance = run(kept);
    let (how, reason) = began(&appliance);
    assert!(how == "cold" && reason.starts_with("table-"), "{how} {reason}");
    assert_eq!(appliance.show("snapshot")["generation"], 4);
    let kept = appliance.kill();

    let mut kept = kept;
    for (damage, expected) in
        [(at_four.len() - 9, "it is damaged"), (9, "its format is"), (0, "it is no kept state")]
    {
        let mut bytes = std::fs::read(&control).unwrap();
        bytes[damage] ^= 1;
        std::fs::write(&control, bytes).unwrap();
        let appliance = run(kept);
        let (how, reason) = began(&appliance);
        assert!(how == "cold" && reason.contains(expected), "{how} {reason}");
        kept = appliance.kill();
    }
    let mut bytes = PersistedState::decode(&std::fs::read(&control).unwrap()).unwrap();
    bytes.tables.boot[0] ^= 1;
    std::fs::write(&control, bytes.encode()).unwrap();
    let appliance = run(kept);
    assert_eq!(
        began(&appliance),
        ("cold".to_owned(), "it was kept before the machine's last boot".to_owned())
    );
    kept = appliance.kill();
    std::fs::remove_file(&store).unwrap();
    std::fs::read_dir(store.parent().unwrap()).unwrap().flatten().for_each(|entry| {
        if entry.file_name().to_string_lossy().contains("witness") {
            std::fs::remove_file(entry.path()).unwrap();
        }
    });
    let appliance = run(kept);
    assert_eq!(began(&appliance), ("cold".to_owned(), "the store is new".to_owned()));
}

#[test]
fn a_run_that_keeps_nothing_forgets_what_the_usual_folder_held() {
    let auto = "[conntrack]\ncapacity = 64\nkeep = \"auto\"\n";
    let setup = Setup::new("net_null0", "net_null1").more(auto);
    let policy = setup.write("policy.yaml", document("22"));
    let run = |setup: Setup| {
        let command = setup.command(Some(&policy));
        setup.spawn(command)
    };
    let appliance = run(setup);
    let folder = PathBuf::from(appliance.show("restart")["folder"].as_str().unwrap());
    assert!(folder.starts_with("/dev/shm"), "{folder:?}");
    let appliance = run(appliance.kill());
    assert_eq!(appliance.show("restart")["began"], "warm");
    let series = "portcullis_restart_connections{outcome=\"live\"} 0";
    let metrics = |appliance: &Appliance| get(&appliance.setup.socket(), "/metrics", "text/plain").1;
    assert!(metrics(&appliance).contains(series));
    let appliance = run(appliance.kill().no_more());
    assert_eq!(appliance.show("restart")["began"], "off");
    assert!(!folder.join("control").exists());
    assert!(!metrics(&appliance).contains("portcullis_restart_connections{"));
    let appliance = run(appliance.kill().more(auto));
    let restart = appliance.show("restart");
    assert_eq!((&restart["began"], &restart["reason"]), (&"cold".into(), &"nothing was kept".into()));
    drop(appliance);
    std::fs::remove_dir_all(folder).unwrap();
}
