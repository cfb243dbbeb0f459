//! What was given up is out of reach: each part in a process of its own, by an attempt that fails there and succeeded before, on
//! the thread that gave it up and on one that was there already.

use std::fs::{self, File};
use std::io;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::thread;

use sandbox::{Calls, Capability, Files, Outcome, Restrictions, confine};

/// Set in the process that gives something up: its directory.
const IN: &str = "SANDBOX_TEST_DIRECTORY";

/// Runs this very test in a process of its own, where `body` gets a directory; false there afterwards.
fn in_a_process_of_its_own(test: &str, body: impl FnOnce(&Path)) {
    if let Some(directory) = std::env::var_os(IN) {
        return body(Path::new(&directory));
    }
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args(["--exact", test, "--nocapture"]).env(IN, directory.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{}: {said}", output.status);
}

/// Another thread, which is there before anything is given up and does what it is sent.
struct Other {
    ask: mpsc::Sender<fn(&Path) -> io::Result<()>>,
    answers: mpsc::Receiver<io::Result<()>>,
}

impl Other {
    fn start(directory: &Path) -> Other {
        let ((ask, asked), (answer, answers)) =
            (mpsc::channel::<fn(&Path) -> io::Result<()>>(), mpsc::channel());
        let directory = directory.to_owned();
        thread::spawn(move || asked.iter().for_each(|what| answer.send(what(&directory)).unwrap()));
        Other { ask, answers }
    }

    /// What comes of it here, there, and on a thread that begins now.
    fn everywhere(&self, directory: &Path, what: fn(&Path) -> io::Result<()>) -> [io::Result<()>; 3] {
        // One after the other: they do it with the same files.
        let here = what(directory);
        self.ask.send(what).unwrap();
        let there = self.answers.recv().unwrap();
        let owned = directory.to_owned();
        [here, there, thread::spawn(move || what(&owned)).join().unwrap()]
    }

    fn succeeds(&self, directory: &Path, what: fn(&Path) -> io::Result<()>) {
        for result in self.everywhere(directory, what) {
            result.unwrap();
        }
    }

    fn fails_with(&self, errno: i32, directory: &Path, what: fn(&Path) -> io::Result<()>) {
        for result in self.everywhere(directory, what) {
            assert_eq!(result.expect_err("it is still possible").raw_os_error(), Some(errno));
        }
    }
}

/// The words of what holds; what does not is a failure.
fn holds(outcomes: &[Outcome]) -> Vec<&str> {
    let words = outcomes.iter().map(|outcome| match outcome {
        Outcome::Holds(words) => words.as_str(),
        Outcome::Lacking(why) => panic!("{why}"),
    });
    words.collect()
}

/// A line of /proc/self/status.
fn status(name: &str) -> String {
    let text = fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap().trim().to_owned()
}

fn effective() -> u64 {
    u64::from_str_radix(&status("CapEff"), 16).unwrap()
}

/// Maps a page with this protection.
fn map(protection: i32) -> io::Result<()> {
    let how = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping at a place that the kernel chooses; it is left there.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), 4096, protection, how, -1, 0) };
    checked(if at == libc::MAP_FAILED { -1 } else { 0 })
}

fn checked(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[test]
fn capabilities_that_are_not_kept_are_gone_from_every_thread() {
    in_a_process_of_its_own("capabilities_that_are_not_kept_are_gone_from_every_thread", |directory| {
        let other = Other::start(directory);
        if effective() >> 13 & 1 == 0 || effective() >> 12 & 1 == 0 {
            return eprintln!("skipped: it takes CAP_NET_RAW and CAP_NET_ADMIN");
        }
        // SAFETY: takes numbers alone; the descriptor is left open.
        let packet_socket =
            |_: &Path| checked(unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0) }.into());
        let host_name = |_: &Path| {
            let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
            let name = name.trim();
            // SAFETY: takes a name of this length; the same as it is now.
            checked(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) }.into())
        };
        other.succeeds(directory, packet_socket);
        let is_admin = effective() >> 21 & 1 == 1;
        if is_admin {
            other.succeeds(directory, host_name);
        }
        let kept = vec![Capability::NetRaw, Capability::Bpf];
        let outcomes = confine(&Restrictions { capabilities: Some(kept), ..Restrictions::default() });
        let has_bpf = effective() >> 39 & 1 == 1;
        assert_eq!(holds(&outcomes), [if has_bpf { "CAP_BPF, CAP_NET_RAW" } else { "CAP_NET_RAW" }]);
        assert_eq!(effective() & !(1 << 39), 1 << 13);
        assert_eq!(
            status("CapBnd").trim_start_matches('0'),
            "8000002000",
            "nor by a program that it executes"
        );
        other.succeeds(directory, packet_socket);
        other.fails_with(libc::EPERM, directory, host_name);
        // They do not come back.
        let none = confine(&Restrictions { capabilities: Some(vec![]), ..Restrictions::default() });
        assert_eq!((holds(&none), effective()), (vec!["no capabilities"], 0));
        other.fails_with(libc::EPERM, directory, packet_socket);
        let again = confine(&Restrictions {
            capabilities: Some(vec![Capability::NetRaw]),
            ..Restrictions::default()
        });
        assert_eq!((holds(&again), effective()), (vec!["no capabilities"], 0));
    });
}

#[test]
fn new_privileges_are_given_up_by_every_thread() {
    in_a_process_of_its_own("new_privileges_are_given_up_by_every_thread", |directory| {
        let other = Other::start(directory);
        let has_given_up = |_: &Path| match status("NoNewPrivs").as_str() {
            "1" => Ok(()),
            _ => Err(io::Error::from_raw_os_error(libc::EPERM)),
        };
        let before = status("NoNewPrivs");
        let outcomes = confine(&Restrictions { no_new_privs: true, ..Restrictions::default() });
        assert_eq!((before.as_str(), holds(&outcomes)), ("0", vec!["no new privileges"]));
        other.succeeds(directory, has_given_up);
    });
}

#[test]
fn files_that_are_not_named_are_out_of_reach() {
    in_a_process_of_its_own("files_that_are_not_named_are_out_of_reach", |directory| {
        for name in ["read", "write", "neither"] {
            fs::create_dir(directory.join(name)).unwrap();
            fs::write(directory.join(name).join("file"), "there").unwrap();
        }
        let other = Other::start(directory);
        let read = |directory: &Path| fs::read(directory.join("read/file")).map(drop);
        let change = |directory: &Path| fs::write(directory.join("read/file"), "there");
        let rotate = |directory: &Path| {
            let (now, then) = (directory.join("write/file"), directory.join("write/file.1"));
            fs::rename(&now, &then)?;
            fs::write(&now, "there")?;
            fs::remove_file(then)
        };
        let neither = |directory: &Path| File::open(directory.join("neither/file")).map(drop);
        let shadow = |_: &Path| File::open("/etc/hostname").or_else(|_| File::open("/etc/passwd")).map(drop);
        let link =
            |directory: &Path| fs::hard_link(directory.join("neither/file"), directory.join("write/l"));
        let symlink = |directory: &Path| {
            let at = directory.join("write/link");
            let _ = fs::remove_file(&at);
            std::os::unix::fs::symlink("/etc", at)
        };
        for possible in [read, change, rotate, neither, shadow, symlink] {
            other.succeeds(directory, possible);
        }
        let at = |name: &str| directory.join(name);
        let files = Files {
            read: vec![at("read"), PathBuf::from("/proc"), at("is not there")],
            write: vec![at("write")],
            devices: vec![PathBuf::from("/dev/null")],
        };
        let outcomes = confine(&Restrictions { files: Some(files), ..Restrictions::default() });
        if let [_, Outcome::Lacking(why)] = &outcomes[..] {
            // The line that the log has where the kernel does not know how.
            assert_eq!(why, "landlock: this kernel has no Landlock, or was started without (lsm=)");
            return eprintln!("skipped: {why}");
        }
        let words = holds(&outcomes);
        assert!(words[0] == "no new privileges" && words[1].starts_with("files by Landlock "), "{words:?}");
        for possible in [read, rotate] {
            other.succeeds(directory, possible);
        }
        for denied in [change, neither, shadow, symlink] {
            other.fails_with(libc::EACCES, directory, denied);
        }
        other.fails_with(libc::EXDEV, directory, link);
        // Devices are opened, and nothing beside them.
        File::options().write(true).open("/dev/null").unwrap();
        assert_eq!(File::open("/dev/zero").unwrap_err().raw_os_error(), Some(libc::EACCES));
    });
}

#[test]
fn nobody_is_called_by_tcp_and_nothing_new_listens() {
    in_a_process_of_its_own("nobody_is_called_by_tcp_and_nothing_new_listens", |directory| {
        let other = Other::start(directory);
        let there = TcpListener::bind("127.0.0.1:0").unwrap();
        fs::write(directory.join("address"), there.local_addr().unwrap().to_string()).unwrap();
        let call = |directory: &Path| {
            TcpStream::connect(fs::read_to_string(directory.join("address")).unwrap()).map(drop)
        };
        let listen = |_: &Path| TcpListener::bind("127.0.0.1:0").map(drop);
        other.succeeds(directory, call);
        other.succeeds(directory, listen);
        let files = Files { read: vec![directory.to_owned()], ..Files::default() };
        let outcomes = confine(&Restrictions { files: Some(files), ..Restrictions::default() });
        let version = outcomes.iter().find_map(|outcome| match outcome {
            Outcome::Holds(words) => words.strip_prefix("files by Landlock ")?.parse::<u32>().ok(),
            Outcome::Lacking(_) => None,
        });
        if version.is_none_or(|version| version < 4) {
            return eprintln!("skipped: this kernel's Landlock does not know TCP");
        }
        other.fails_with(libc::EACCES, directory, call);
        other.fails_with(libc::EACCES, directory, listen);
    });
}

#[test]
fn system_calls_that_no_appliance_makes_are_refused() {
    in_a_process_of_its_own("system_calls_that_no_appliance_makes_are_refused", |directory| {
        let other = Other::start(directory);
        let execute = |_: &Path| Command::new("/bin/true").status().map(drop);
        // SAFETY: takes a null pointer, which it refuses, or refuses before.
        let trace = |_: &Path| checked(unsafe { libc::ptrace(libc::PTRACE_PEEKDATA, 0, 0, 0) });
        let code = |_: &Path| map(libc::PROT_READ | libc::PROT_EXEC);
        let data = |_: &Path| map(libc::PROT_READ | libc::PROT_WRITE);
        // SAFETY: takes numbers alone; the descriptor is left open.
        let virtual_machines =
            |_: &Path| checked(unsafe { libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0) }.into());
        // SAFETY: as above.
        let local = |_: &Path| checked(unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0) }.into());
        // SAFETY: signal 0 reaches nobody.
        let parent = |_: &Path| checked(unsafe { libc::kill(libc::getppid(), 0) }.into());
        // SAFETY: as above.
        let own = |_: &Path| checked(unsafe { libc::kill(libc::getpid(), 0) }.into());
        // SAFETY: takes numbers alone.
        let dumpable = |_: &Path| checked(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) }.into());
        for possible in
            [execute, code, data, local, parent, own, dumpable] as [fn(&Path) -> io::Result<()>; 7]
        {
            other.succeeds(directory, possible);
        }
        let outcomes = confine(&Restrictions { calls: Some(Calls::default()), ..Restrictions::default() });
        let words = holds(&outcomes);
        assert!(words[0] == "no new privileges" && words[1].ends_with(" system calls"), "{words:?}");
        assert_eq!(status("Seccomp"), "2");
        let denied = [execute, trace, code, virtual_machines, parent, dumpable];
        for denied in denied as [fn(&Path) -> io::Result<()>; 6] {
            other.fails_with(libc::EPERM, directory, denied);
        }
        for possible in [data, local, own] as [fn(&Path) -> io::Result<()>; 3] {
            other.succeeds(directory, possible);
        }
        // Threads begin as before, files are read, time passes.
        thread::spawn(|| thread::sleep(std::time::Duration::from_millis(1))).join().unwrap();
        fs::read("/proc/self/status").unwrap();
    });
}

#[test]
fn there_is_no_core_file_and_nobody_looks_into_it() {
    in_a_process_of_its_own("there_is_no_core_file_and_nobody_looks_into_it", |_| {
        let limit = || fs::read_to_string("/proc/self/limits").unwrap();
        // SAFETY: takes numbers alone.
        let dumpable = || unsafe { libc::prctl(libc::PR_GET_DUMPABLE) };
        assert_eq!(dumpable(), 1);
        sandbox::no_core_files().unwrap();
        assert_eq!(dumpable(), 0);
        let limits = limit();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().filter(|word| *word == "0").count(), 2, "{core}");
    });
}

#[test]
fn what_is_mapped_is_locked_where_the_limit_lets_it_be() {
    in_a_process_of_its_own("what_is_mapped_is_locked_where_the_limit_lets_it_be", |_| {
        let locked = || {
            let text = status("VmLck");
            text.trim_end_matches(" kB").parse::<u64>().unwrap()
        };
        assert_eq!(locked(), 0);
        sandbox::raise_lock_limit();
        match sandbox::lock_what_is_mapped() {
            Ok(()) => {
                let before = locked();
                assert!(before > 0);
                // What comes later is not, so that no limit is in its way.
                let later = vec![1u8; 64 << 20];
                assert!(locked() < before + (64 << 10) / 2, "{} kB", later.len() >> 10);
            }
            Err(why) => assert!(why.contains("the limit of locked memory is"), "{why}"),
        }
    });
}
