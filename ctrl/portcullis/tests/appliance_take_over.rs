//! One process takes the wires over from another, on the real binary and the TCP of real kernels: nothing is lost, and where it fails the
//! running one goes on.

mod appliance;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use appliance::*;
use testkit::lab::{At, INSIDE, Lab, OUTSIDE, Process, SERVER_MAC, SERVER_V4};

const SECOND: Duration = Duration::from_secs(1);

/// Of the server: these ports may be reached, and everything may be.
fn document(ports: &str) -> String {
    format!(
        "vpcs: [{{ name: prod, segment: {{ untagged: true }} }}]\n\
         security_groups:\n  - name: web\n    rules:\n      - {{ direction: inbound, protocol: tcp, ports: {ports} }}\n\
         \x20     - {{ direction: outbound }}\n\
         nics:\n  - {{ name: web-1, mac: \"{SERVER_MAC}\", vpc: prod, addresses: [{SERVER_V4}], security_groups: [web] }}\n"
    )
}

/// The lab's interfaces, with so many queues each.
fn devices(queues: usize) -> [String; 2] {
    let on =
        |n: u8, interface: &str| format!("net_af_packet{n},iface={interface},framecnt=512,qpairs={queues}");
    [on(0, INSIDE), on(1, OUTSIDE)]
}

/// On the lab's interfaces, with connections kept.
fn setup() -> Setup {
    let [inside, outside] = devices(1);
    keeping(Setup::new(&inside, &outside), 4096)
}

/// Keeps its connections, up to so many.
fn keeping(setup: Setup, capacity: u32) -> Setup {
    let [folder, store] = ["kept", "store"].map(|name| setup.path(name).display().to_string());
    setup
        .no_more()
        .more(&format!("[conntrack]\ncapacity = {capacity}\nkeep = {folder:?}\n[store]\npath = {store:?}\n"))
}

/// The command for the lab, with more arguments.
fn command(lab: &Lab, setup: &Setup, policy: Option<&Path>, more: &[&str]) -> Command {
    let mut command: Command = lab.command(At::Appliance, PORTCULLIS);
    command.args(setup.command(policy).get_args()).args(more);
    command
}

/// Has another process take over; the one that was relieved must end in peace.
fn take_over(lab: &Lab, appliance: Appliance, policy: Option<&Path>) -> Appliance {
    let Appliance { process: former, setup } = appliance;
    let next = Process::start(command(lab, &setup, policy, &["--take-over"])).unwrap();
    next.wait_for("portcullis: ready", READY).unwrap();
    let finished = former.finish(READY).unwrap();
    assert!(finished.status.success(), "{finished:?}");
    assert!(finished.stdout.contains("another process has taken"), "{}", finished.stdout);
    Appliance { process: next, setup }
}

fn echoes(stream: &mut TcpStream, patience: Duration) -> bool {
    let _ = stream.set_read_timeout(Some(patience));
    let mut answer = [0; 5];
    stream.write_all(b"hello").is_ok() && stream.read_exact(&mut answer).is_ok() && &answer == b"hello"
}

fn number(value: &serde_json::Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or_else(|| panic!("{key}: {value}"))
}

/// Whoever plays the new process word by word.
struct Player(BufReader<UnixStream>);

impl Player {
    fn new(setup: &Setup) -> Player {
        let mut path = setup.socket().into_os_string();
        path.push(".take-over");
        let stream = UnixStream::connect(PathBuf::from(path)).unwrap();
        stream.set_read_timeout(Some(8 * SECOND)).unwrap();
        Player(BufReader::new(stream))
    }

    fn say(&mut self, line: &str) {
        writeln!(self.0.get_mut(), "{line}").unwrap();
    }

    /// The next word's name; "" where there is none.
    fn hear(&mut self) -> String {
        let mut line = String::new();
        let _ = self.0.read_line(&mut line);
        let word: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
        word["take-over"].as_str().unwrap_or_default().to_owned()
    }

    fn prepare(&mut self) {
        self.say(r#"{"take-over":"hello","protocol":1,"version":"test"}"#);
        assert_eq!(self.hear(), "prepare");
    }

    fn have_it_let_go(&mut self) {
        self.prepare();
        self.say(r#"{"take-over":"let-go"}"#);
        assert_eq!(self.hear(), "gone");
    }
}

#[test]
fn connections_go_over_what_was_shut_stays_shut_and_generations_go_on() {
    if let Some(reason) = Lab::missing() {
        return eprintln!("skipped: {reason}");
    }
    let lab = Lab::new().unwrap();
    let setup = setup();
    let policy = setup.write("policy.yaml", document("22-23"));
    let _servers = [22, 23].map(|port| lab.echo_server(At::Server, port).unwrap());
    let _other = lab.echo_server(At::Client, 9).unwrap();
    let first = command(&lab, &setup, Some(&policy), &[]);
    let mut appliance = setup.spawn(first);
    let mut shut = lab.connect(At::Client, (SERVER_V4, 23), SECOND).unwrap();
    let mut outbound = lab.connect(At::Server, (testkit::lab::CLIENT_V4, 9), SECOND).unwrap();
    assert!(echoes(&mut shut, SECOND) && echoes(&mut outbound, SECOND));
    let (status, receipt, complaint) = appliance.apply(&document("22-24"), &[]);
    assert_eq!((status, number(&receipt, "disconnected")), (0, 1), "{complaint}");
    let mut inbound = lab.connect(At::Client, (SERVER_V4, 22), SECOND).unwrap();
    assert!(echoes(&mut inbound, SECOND));

    for turn in 0..3 {
        let generation = number(&appliance.show("counters"), "generation");
        // Whoever asks meanwhile is answered by the one or the other.
        let socket = appliance.setup.socket();
        let (ends, is_over) = std::sync::mpsc::channel::<()>();
        let asks = std::thread::spawn(move || {
            let mut refused = 0;
            while is_over.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                refused += u32::from(UnixStream::connect(&socket).is_err());
                std::thread::sleep(Duration::from_millis(2));
            }
            refused
        });
        appliance = take_over(&lab, appliance, None);
        drop(ends);
        assert_eq!(asks.join().unwrap(), 0, "a client found nobody");
        assert!(echoes(&mut inbound, SECOND), "turn {turn}: the connection goes on");
        assert!(echoes(&mut outbound, SECOND), "turn {turn}");
        assert!(!echoes(&mut shut, SECOND / 2), "turn {turn}: what was disconnected stays so");
        let restart = appliance.show("restart");
        assert_eq!(restart["began"], "took-over", "{restart}");
        let kinds = ["live", "tombstones", "ended", "unverifiable"].map(|kind| number(&restart, kind));
        assert_eq!(kinds, [2, 1, 0, 0], "{restart}");
        assert_eq!(number(&appliance.show("counters"), "generation"), generation);
        assert_eq!(appliance.show("health")["status"], "ok", "{}", appliance.show("health"));
        // The next change follows on, in the store, too.
        let (status, receipt, complaint) =
            appliance.apply(&document(&format!("22-{}", 30 + turn)), &["--dry-run"]);
        assert_eq!((status, number(&receipt, "disconnected")), (0, 1), "{complaint}");
    }
    let (status, receipt, _) = appliance.apply(&document("22-40"), &[]);
    assert_eq!((status, number(&receipt, "disconnected")), (0, 1), "{receipt}");
    assert!(!echoes(&mut inbound, SECOND / 2) && echoes(&mut outbound, SECOND));
    // One that ends later cleans up; the sockets were handed down three times.
    let socket = appliance.setup.socket();
    let finished = appliance.process.terminate(READY).unwrap();
    assert!(finished.status.success() && !socket.exists(), "{finished:?}");
}

/// What a process says that does not take over in the end.
type Play = fn(&mut Player);

/// Whatever the new process does, up to the last word the running one goes on, with its ports, its store and what is kept.
#[test]
fn where_the_new_process_fails_at_any_step_the_running_one_goes_on() {
    if let Some(reason) = Lab::missing() {
        return eprintln!("skipped: {reason}");
    }
    let lab = Lab::new().unwrap();
    let setup = setup();
    let policy = setup.write("policy.yaml", document("22"));
    let _server = lab.echo_server(At::Server, 22).unwrap();
    let first = command(&lab, &setup, Some(&policy), &[]);
    let mut appliance = setup.spawn(first);
    let mut stream = lab.connect(At::Client, (SERVER_V4, 22), SECOND).unwrap();
    let steps: &[(&str, Play)] = &[
        ("it comes and goes", |_| {}),
        ("it is older", |player| {
            player.say(r#"{"take-over":"hello","protocol":7,"version":"other"}"#);
            assert_eq!(player.hear(), "no");
        }),
        ("it talks nonsense", |player| player.say("GET / HTTP/1.1")),
        ("it says the wrong word", |player| {
            player.say(r#"{"take-over":"ready"}"#);
            assert_eq!(player.hear(), "no");
        }),
        ("it ends while it prepares itself", Player::prepare),
        ("it can't be prepared", |player| {
            player.prepare();
            player.say(r#"{"take-over":"no","reason":"a test"}"#);
        }),
        ("it skips a step", |player| {
            player.prepare();
            player.say(r#"{"take-over":"ready"}"#);
            assert_eq!(player.hear(), "no");
        }),
        ("it ends when nobody forwards", Player::have_it_let_go),
        ("it can't be ready", |player| {
            player.have_it_let_go();
            player.say(r#"{"take-over":"no","reason":"a test"}"#);
        }),
        ("it says the wrong word when nobody forwards", |player| {
            player.have_it_let_go();
            player.say(r#"{"take-over":"let-go"}"#);
            assert_eq!(player.hear(), "no");
        }),
        ("it is silent when nobody forwards", |player| {
            player.have_it_let_go();
            assert_eq!(player.hear(), "no");
        }),
    ];
    for (what, play) in steps {
        let mut player = Player::new(&appliance.setup);
        play(&mut player);
        drop(player);
        let stderr = || appliance.process.stderr();
        assert!(echoes(&mut stream, 5 * SECOND), "{what}: the connection goes on\n{}", stderr());
        let (status, _, complaint) = appliance.apply(&document("22"), &["--dry-run"]);
        assert_eq!(status, 0, "{what}: {complaint}");
    }
    let (status, receipt, complaint) = appliance.apply(&document("22-23"), &[]);
    assert_eq!((status, number(&receipt, "disconnected")), (0, 1), "{complaint}");
    assert!(appliance.process.is_running());
    let mut stream = lab.connect(At::Client, (SERVER_V4, 22), SECOND).unwrap();
    assert!(echoes(&mut stream, SECOND));
    // What it wrote down in between is whole.
    let appliance = take_over(&lab, appliance, None);
    assert!(echoes(&mut stream, 2 * SECOND), "{}", appliance.text(["show", "restart"]));
    assert_eq!(number(&appliance.show("restart"), "live"), 1);
}

#[test]
fn a_change_that_comes_meanwhile_waits_and_is_made_by_the_one_that_goes_on() {
    if let Some(reason) = Lab::missing() {
        return eprintln!("skipped: {reason}");
    }
    let lab = Lab::new().unwrap();
    let setup = setup();
    let policy = setup.write("policy.yaml", document("22"));
    let first = command(&lab, &setup, Some(&policy), &[]);
    let appliance = setup.spawn(first);
    let mut player = Player::new(&appliance.setup);
    player.prepare();
    let begin = Instant::now();
    std::thread::scope(|scope| {
        let change = scope.spawn(|| appliance.apply(&document("22-23"), &[]));
        std::thread::sleep(SECOND / 2);
        assert!(!change.is_finished(), "another process may have read the policy by now");
        assert_eq!(number(&appliance.show("counters"), "generation"), 1);
        drop(player);
        let (status, receipt, complaint) = change.join().unwrap();
        assert_eq!((status, number(&receipt, "generation")), (0, 2), "{complaint}");
    });
    assert!(begin.elapsed() >= SECOND / 2);
}

#[test]
fn other_numbers_of_workers_and_less_room_take_the_same_connections_over() {
    if let Some(reason) = Lab::missing() {
        return eprintln!("skipped: {reason}");
    }
    let lab = Lab::new().unwrap();
    let setup = setup().devices(devices(2)).cores(&[0, 1]);
    let policy = setup.write("policy.yaml", document("22"));
    let _server = lab.echo_server(At::Server, 22).unwrap();
    let first = command(&lab, &setup, Some(&policy), &[]);
    let mut appliance = setup.spawn(first);
    let mut streams: Vec<_> =
        (0..8).map(|_| lab.connect(At::Client, (SERVER_V4, 22), SECOND).unwrap()).collect();
    for (cores, capacity) in [(&[1][..], 1024), (&[0, 1], 8192)] {
        let Appliance { process, setup } = appliance;
        let setup = keeping(setup.devices(devices(cores.len())).cores(cores), capacity);
        appliance = take_over(&lab, Appliance { process, setup }, None);
        for stream in &mut streams {
            assert!(echoes(stream, 2 * SECOND), "{}", appliance.text(["show", "restart"]));
        }
        assert_eq!(number(&appliance.show("restart"), "live"), 8);
        let workers = appliance.show("counters")["workers"].as_array().map(Vec::len);
        assert_eq!(workers, Some(cores.len()));
    }
}

/// The supervisor of the process that is relieved follows the new one, which it did not start.
#[test]
fn the_supervisor_is_told_who_runs_now_and_is_called_by_that_one() {
    if let Some(reason) = Lab::missing() {
        return eprintln!("skipped: {reason}");
    }
    let lab = Lab::new().unwrap();
    let setup = setup();
    let policy = setup.write("policy.yaml", document("22"));
    let supervisor = UnixDatagram::bind(setup.path("notify")).unwrap();
    supervisor.set_read_timeout(Some(READY)).unwrap();
    let told = || {
        let mut bytes = [0; 256];
        let len = supervisor.recv(&mut bytes).expect("the supervisor is told nothing");
        String::from_utf8_lossy(&bytes[..len]).into_owned()
    };
    let mut first = command(&lab, &setup, Some(&policy), &[]);
    first.env("NOTIFY_SOCKET", setup.path("notify")).env("WATCHDOG_USEC", "400000");
    let Appliance { process, setup } = setup.spawn(first);
    assert_eq!(told(), "READY=1");
    let next = Process::start(command(&lab, &setup, None, &["--take-over"])).unwrap();
    next.wait_for("portcullis: ready", READY).unwrap();
    let main = std::iter::repeat_with(told).find(|word| word != "WATCHDOG=1");
    assert_eq!(main, Some(format!("MAINPID={}", next.id())));
    let ready = std::iter::repeat_with(told).find(|word| word != "WATCHDOG=1");
    assert_eq!(ready.as_deref(), Some("READY=1"), "and nothing of an end");
    assert!(process.finish(READY).unwrap().status.success());
    assert_eq!(told(), "WATCHDOG=1");
    drop(next);
}

#[test]
fn what_is_in_the_way_is_told_and_the_running_process_goes_on() {
    if let Some(reason) = Lab::missing() {
        return eprintln!("skipped: {reason}");
    }
    let lab = Lab::new().unwrap();
    let mut running = setup();
    let policy = running.write("policy.yaml", document("22"));
    let refused = |setup: &Setup| {
        let finished =
            Process::start(command(&lab, setup, None, &["--take-over"])).unwrap().finish(READY).unwrap();
        (finished.status.code().unwrap(), finished.stderr)
    };
    let (status, told) = refused(&running);
    assert!(status == 1 && told.contains("nobody is there to take over from"), "{told}");
    let kept = running.path("kept").display().to_string();
    // It keeps nothing itself.
    running = running.no_more();
    let first = command(&lab, &running, Some(&policy), &[]);
    let mut appliance = running.spawn(first);
    appliance.setup = appliance.setup.more(&format!("[conntrack]\nkeep = {kept:?}\n"));
    let (status, told) = refused(&appliance.setup);
    assert!(status == 1 && told.contains("gives nothing away: its [conntrack] keep is \"off\""), "{told}");
    let setup = appliance.kill();
    let first = command(&lab, &setup, Some(&policy), &[]);
    let mut appliance = setup.spawn(first);
    for (more, expected, wanted) in [
        (String::new(), 2, "[conntrack] keep is \"off\"; required"),
        (format!("[conntrack]\nkeep = \"{kept}-2\"\n"), 2, "this configuration names"),
        // It is prepared but for its port.
        (format!("[conntrack]\nkeep = {kept:?}\n"), 1, "nowhere"),
    ] {
        let Appliance { process, setup } = appliance;
        let mut setup = setup.no_more().more(&more);
        if wanted == "nowhere" {
            let on = |n: usize, interface: &str| format!("net_af_packet{n},iface={interface}");
            setup = setup.devices([on(0, INSIDE), on(1, wanted)]);
        }
        appliance = Appliance { process, setup };
        let (status, told) = refused(&appliance.setup);
        assert!(status == expected && told.contains(wanted), "{more}: {status} {told}");
        assert!(appliance.process.is_running());
    }
    // What it would go by is damaged: it is told so, and nothing is forgotten for that.
    let control = Path::new(&kept).join("control");
    let whole = std::fs::read(&control).unwrap();
    std::fs::write(&control, &whole[..whole.len() - 1]).unwrap();
    let Appliance { process, setup } = appliance;
    let setup = setup.no_more().more(&format!("[conntrack]\nkeep = {kept:?}\n")).devices(devices(1));
    let (status, told) = refused(&setup);
    assert!(status == 1 && told.contains("cannot be taken up: it is damaged"), "{told}");
    assert!(control.exists());
    std::fs::write(&control, &whole).unwrap();
    let appliance = take_over(&lab, Appliance { process, setup }, None);
    assert_eq!(appliance.show("restart")["began"], "took-over");
    let files = std::fs::read_dir(&kept).unwrap().count();
    assert_eq!(files, 3, "lock, control and one table: nothing is left of the attempts");
}

/// A port that one process alone can have: given up, and had again where the other fails; its peer, DPDK's own, stays.
#[test]
fn shared_memory_interfaces_are_given_up_and_had_again() {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let testpmd =
        std::env::split_paths(&path).map(|place| place.join("dpdk-testpmd")).find(|file| file.is_file());
    let Some(testpmd) = testpmd else {
        return eprintln!("skipped: dpdk-testpmd is not installed (Debian: dpdk-dev)");
    };
    let name = |side: &str| format!("portcullis-{}-{side}", std::process::id());
    let memif = |n: usize, role: &str| {
        let socket = name(["in", "out"][n]);
        format!("net_memif{n},role={role},socket-abstract=yes,socket={socket}")
    };
    // testpmd sends from the one to the other, round and round.
    let serve = || {
        let mut peer = Command::new(&testpmd);
        peer.args([
            "--lcores=0@0,1@0",
            "--no-pci",
            "--no-huge",
            "-m",
            "128",
            "--no-shconf",
            "--no-telemetry",
        ]);
        peer.args(["--vdev".to_owned(), memif(0, "server"), "--vdev".to_owned(), memif(1, "server")]);
        peer.args([
            "--",
            "--total-num-mbufs=8192",
            "--forward-mode=txonly",
            "--auto-start",
            "--stats-period=1",
        ]);
        peer.args(["--tx-ip=10.5.6.8,198.51.100.9", "--txpkts=64"]);
        let peer = Process::start(peer).unwrap();
        peer.wait_for("Port statistics", READY).unwrap();
        peer
    };
    let mut peer = serve();
    let setup = Setup::new(&memif(0, "client"), &memif(1, "client"));
    let kept = setup.path("kept").display().to_string();
    let setup = setup.more(&format!("[conntrack]\ncapacity = 4096\nkeep = {kept:?}\n"));
    let appliance = setup.start(POLICY);
    let received = |appliance: &Appliance| number(&appliance.show("counters")["packets"], "in");
    // DPDK's server may fall over a client that leaves while it sends. Then it is started again: the appliance finds it.
    let goes_on = |appliance: &Appliance, peer: &mut Process, what: &str| {
        let before = received(appliance);
        let until = Instant::now() + 2 * READY;
        while received(appliance) <= before {
            let (health, ports) = (appliance.show("health"), appliance.show("counters")["ports"].clone());
            assert!(Instant::now() < until, "{what}: {health}\n{ports}\n{}", appliance.process.stderr());
            if !peer.is_running() {
                *peer = serve();
            }
            std::thread::sleep(SECOND / 20);
        }
    };
    goes_on(&appliance, &mut peer, "frames of the peer");

    let mut player = Player::new(&appliance.setup);
    player.have_it_let_go();
    // What is shown may be a second old.
    std::thread::sleep(3 * SECOND / 2);
    let before = received(&appliance);
    std::thread::sleep(3 * SECOND / 2);
    let stderr = appliance.process.stderr();
    assert_eq!(received(&appliance), before, "it stands still\n{stderr}");
    drop(player);
    goes_on(&appliance, &mut peer, "frames after an attempt that failed");

    let Appliance { process: former, setup } = appliance;
    let mut next = setup.command(None);
    next.arg("--take-over");
    let next = Process::start(next).unwrap();
    next.wait_for("portcullis: ready", READY).unwrap();
    assert!(former.finish(READY).unwrap().status.success());
    let appliance = Appliance { process: next, setup };
    goes_on(&appliance, &mut peer, "frames of the peer at the new process");
    // A server that is gone and comes back is found again, without a restart.
    drop(peer);
    wait_for("word of the peer's end", || {
        let health = appliance.show("health").to_string();
        health.contains("no peer is connected").then_some(())
    });
    std::thread::sleep(3 * SECOND);
    let mut peer = serve();
    goes_on(&appliance, &mut peer, "frames of a peer that came back");
    wait_for("the end of the problem", || (appliance.show("health")["status"] == "ok").then_some(()));
}
