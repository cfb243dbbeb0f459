//! What DPDK is started with: the operator's arguments, and what they leave open.

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::{fs, io};

use control::config::Config;
use engine::io::BURST;

use super::mtu::BufferSizing;
use engine::worker::ring_size;

/// Frames of a port's receive and transmit rings.
pub const PORT_RING: u16 = 1024;
/// Buffers that a thread's cache may hold, see `pmd::Mempool`.
const THREAD_CACHE: usize = 384;
const NO_TELEMETRY: &str = "--no-telemetry";

/// What the names of our files and of telemetry's socket begin with.
const PREFIX: &str = "portcullis";

/// Options that say how much of which memory there should be, or that there are no huge pages.
const WISHES: [&str; 6] =
    ["--no-huge", "--socket-mem", "--socket-limit", "--huge-dir", "--huge-unlink", "--single-file-segments"];

/// What EAL gets, and what the operator should know of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// The arguments.
    pub args: Vec<String>,
    /// Buffers of the pool.
    pub buffers: u32,
    /// Bytes of each, see `pmd::Mempool`.
    pub data_room: u16,
    /// One line each.
    pub warnings: Vec<String>,
}

/// True if an argument is this long option, alone or with a value.
fn is_option(arg: &str, option: &str) -> bool {
    arg.strip_prefix(option).is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
}

impl Environment {
    /// For the configuration's ports and workers, with the operator's arguments and buffers as in `room`. EAL's own
    /// thread runs on `core`.
    pub fn new(config: &Config, room: &BufferSizing, core: usize, has_hugepages: bool) -> Environment {
        let (given, data_room) = (&room.args, pmd::data_room(room.buffer));
        let has = |option: &str| given.iter().any(|arg| is_option(arg, option));
        let has_amount = given.iter().any(|arg| arg.starts_with("-m"));
        let buffers = buffers(config);
        let (mut args, mut warnings) = (vec![format!("--lcores=0@{core}")], Vec::new());
        let add_no_huge = !has_hugepages && !WISHES.iter().any(|wish| has(wish)) && !has("--in-memory");
        if add_no_huge {
            args.push("--no-huge".to_owned());
            warnings.push(
                "there are no free huge pages: running without, slower (reserve some through vm.nr_hugepages, or say \
                 --no-huge in eal.args)"
                    .to_owned(),
            );
        }
        let no_huge = add_no_huge || has("--no-huge");
        if no_huge && !has_amount {
            // Without it EAL takes 64 MB.
            args.extend(["-m".to_owned(), pmd::megabytes_without_huge_pages(buffers, data_room).to_string()]);
        }
        let shares_files =
            ["--file-prefix", "--no-shconf", "--in-memory", "--proc-type", "--huge-dir", "--huge-unlink"]
                .iter()
                .any(|option| has(option));
        // Appliances side by side: nothing of one's memory has a name that another could meet.
        if no_huge && !shares_files {
            args.push("--no-shconf".to_owned());
        } else if !no_huge && !shares_files && !has("--legacy-mem") {
            args.push("--in-memory".to_owned());
        }
        // Other programs over DPDK have "rte", and a secondary process its primary's.
        if !has("--file-prefix") && !has("--proc-type") {
            args.push(format!("--file-prefix={PREFIX}"));
        }
        if !config.eal.telemetry && !has("--telemetry") && !has("--no-telemetry") {
            args.push(NO_TELEMETRY.to_owned());
        }
        args.extend(given.iter().cloned());
        Environment { args, buffers, data_room, warnings }
    }

    /// Bytes of huge pages that the pool of buffers takes.
    pub fn pool_bytes(&self) -> u64 {
        /// What a buffer has beside its data, as in `pmd::megabytes_without_huge_pages`.
        const HEADERS: u64 = 512;
        u64::from(self.buffers) * (u64::from(self.data_room) + HEADERS)
    }

    /// Whether DPDK is to answer for itself.
    pub fn has_telemetry(&self) -> bool {
        let mut said = self.args.iter().rev().filter_map(|arg| match &**arg {
            "--telemetry" => Some(true),
            NO_TELEMETRY => Some(false),
            _ => None,
        });
        said.next().unwrap_or(true)
    }

    /// Does without telemetry where its socket has no place: EAL would not start.
    pub fn look_for_a_place(&mut self, runtime: &Path) {
        if !self.has_telemetry() {
            return;
        }
        let directory = runtime.join("dpdk").join(self.prefix());
        if let Err(error) = can_hold_a_socket(&directory) {
            self.warnings.push(format!(
                "DPDK's telemetry is off: its socket has no place in {}: {error} (RUNTIME_DIRECTORY or XDG_RUNTIME_DIR names another \
                 place, [eal] telemetry = false does without)",
                directory.display()
            ));
            self.args.push(NO_TELEMETRY.to_owned());
        }
    }

    /// What the operator's arguments or ours call the files; EAL's own name otherwise.
    fn prefix(&self) -> &str {
        let mut prefix = "rte";
        for (at, arg) in self.args.iter().enumerate() {
            match arg.strip_prefix("--file-prefix") {
                Some("") => prefix = self.args.get(at + 1).map_or(prefix, String::as_str),
                Some(rest) => prefix = rest.strip_prefix('=').unwrap_or(prefix),
                None => {}
            }
        }
        prefix
    }
}

/// Where EAL keeps what belongs to a run, by its own rules.
pub fn runtime_directory() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let directory = set("RUNTIME_DIRECTORY").or_else(|| {
        let is_root = rustix::process::getuid().is_root();
        if is_root { Some("/var/run".into()) } else { set("XDG_RUNTIME_DIR") }
    });
    directory.map_or_else(|| PathBuf::from("/tmp"), PathBuf::from)
}

/// Tries it, with the longest name that the socket may get.
fn can_hold_a_socket(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let path = directory.join(format!("dpdk_telemetry.try.{}", std::process::id()));
    let tried = UnixListener::bind(&path);
    let _ = fs::remove_file(&path);
    tried.map(drop)
}

/// Buffers that never run out: every ring full at once, every cache too, all fragments held that may be, and what devices keep for themselves.
fn buffers(config: &Config) -> u32 {
    let (ports, workers) = (2 * config.wires.len(), config.workers.cores.len());
    let rings = ports * workers * 2 * usize::from(PORT_RING);
    let handoff = workers * workers.saturating_sub(1) * ring_size(config.wires.len());
    let in_hand = (workers + 1) * (THREAD_CACHE + (2 + ports) * BURST);
    let held = workers * engine::fragment_queue::SLOTS;
    let kept: usize = config.eal.args.iter().map(|arg| kept_by_device(arg)).sum();
    u32::try_from(rings + handoff + in_hand + held + kept + 2048).unwrap_or(u32::MAX)
}

/// A `net_pcap` device with `infinite_rx` keeps a buffer for every frame of its files.
fn kept_by_device(arg: &str) -> usize {
    if !arg.contains("net_pcap") || !arg.split(',').any(|part| part == "infinite_rx=1") {
        return 0;
    }
    let files = arg.split(',').filter_map(|part| part.strip_prefix("rx_pcap="));
    files.map(|file| frames_at_most(Path::new(file))).sum()
}

/// Frames in a pcap file: counted, or where the file is something else, as many as its size could hold. A file that can't be
/// read keeps its port from starting.
fn frames_at_most(path: &Path) -> usize {
    let Ok(file) = fs::read(path) else { return 0 };
    count_frames(&file).unwrap_or(file.len() / 32)
}

fn count_frames(file: &[u8]) -> Option<usize> {
    let word = |at: usize| file.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
    let is_little = match word(0)? {
        0xa1b2_c3d4 | 0xa1b2_3c4d => true,
        0xd4c3_b2a1 | 0x4d3c_b2a1 => false,
        _ => return None,
    };
    let (mut at, mut frames) = (24, 0);
    while let Some(captured) = word(at + 8) {
        at += 16 + (if is_little { captured } else { captured.swap_bytes() }) as usize;
        frames += 1;
    }
    Some(frames)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(args: &[&str], has_hugepages: bool) -> Environment {
        let mut config = Config::default();
        config.eal.args = args.iter().map(ToString::to_string).collect();
        Environment::new(
            &config,
            &BufferSizing { args: config.eal.args.clone(), buffer: 1522 },
            0,
            has_hugepages,
        )
    }

    #[test]
    fn without_huge_pages_it_starts_without_them_and_says_so_unless_they_are_wished_for() {
        let started = environment(&["--no-pci"], false);
        assert!(started.args.contains(&"--no-huge".to_owned()) && started.args.contains(&"-m".to_owned()));
        assert_eq!(started.warnings.len(), 1);
        for wish in ["--socket-mem=64", "--huge-dir=/x", "--no-huge", "--in-memory"] {
            let started = environment(&[wish], false);
            assert_eq!(
                started.args.iter().filter(|arg| *arg == "--no-huge").count(),
                usize::from(wish == "--no-huge")
            );
            assert_eq!(started.warnings, [""; 0], "{wish}");
        }
        assert!(environment(&[], true).warnings.is_empty());
    }

    #[test]
    fn without_huge_pages_there_is_a_page_for_each_buffer() {
        let started = environment(&["--no-huge"], false);
        let amount = started.args.iter().position(|arg| arg == "-m").map(|at| started.args[at + 1].parse());
        let megabytes: usize = amount.unwrap().unwrap();
        assert!(megabytes << 20 >= started.buffers as usize * 4096);
    }

    #[test]
    fn what_the_operator_says_comes_last_and_is_not_said_twice() {
        let started = environment(&["--no-huge", "-m", "512", "--file-prefix=mine"], false);
        assert_eq!(started.args[started.args.len() - 4..], ["--no-huge", "-m", "512", "--file-prefix=mine"]);
        assert_eq!(started.args.iter().filter(|arg| arg.contains("file-prefix") || *arg == "-m").count(), 2);
    }

    #[test]
    fn telemetry_is_on_under_a_prefix_of_its_own_unless_somebody_wants_it_otherwise() {
        for hugepages in [true, false] {
            let started = environment(&[], hugepages);
            assert!(started.has_telemetry() && started.prefix() == "portcullis", "{:?}", started.args);
        }
        assert!(!environment(&["--no-telemetry"], true).has_telemetry());
        for args in [&["--file-prefix=mine"][..], &["--file-prefix", "mine"]] {
            let started = environment(args, true);
            assert_eq!(started.prefix(), "mine");
            assert_eq!(started.args.iter().filter(|arg| arg.starts_with("--file-prefix")).count(), 1);
        }
        assert_eq!(environment(&["--proc-type=secondary"], true).prefix(), "rte");
        let mut config = Config::default();
        config.eal.telemetry = false;
        let room = |args: &[&str]| BufferSizing {
            args: args.iter().map(ToString::to_string).collect(),
            buffer: 1522,
        };
        assert!(!Environment::new(&config, &room(&[]), 0, true).has_telemetry());
        assert!(Environment::new(&config, &room(&["--telemetry"]), 0, true).has_telemetry());
    }

    #[test]
    fn where_telemetry_has_no_place_it_is_off_with_a_warning() {
        let directory = tempfile::tempdir().unwrap();
        let mut started = environment(&[], true);
        started.look_for_a_place(directory.path());
        assert!(started.has_telemetry() && started.warnings.is_empty());
        assert_eq!(fs::read_dir(directory.path().join("dpdk/portcullis")).unwrap().count(), 0);
        fs::write(directory.path().join("file"), "").unwrap();
        // No directory, and none whose name leaves room for a socket's.
        for place in [directory.path().join("file"), directory.path().join("x".repeat(100))] {
            let mut started = environment(&[], true);
            started.look_for_a_place(&place);
            assert!(!started.has_telemetry());
            assert!(started.warnings[0].starts_with("DPDK's telemetry is off: "), "{:?}", started.warnings);
        }
    }

    #[test]
    fn a_device_that_repeats_its_file_gets_a_buffer_for_each_of_its_frames() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("in.pcap");
        let frames = testkit::pcap::records(0, (0..5000).map(|_| vec![0; 60]));
        testkit::pcap::write(&path, testkit::pcap::Format::NANO, &frames).unwrap();
        let vdev = format!("--vdev=net_pcap0,rx_pcap={},tx_pcap=/tmp/x", path.display());
        assert_eq!(kept_by_device(&vdev), 0);
        assert_eq!(kept_by_device(&format!("{vdev},infinite_rx=1")), 5000);
    }
}
