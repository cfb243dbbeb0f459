//! What can go wrong between the appliance and DPDK, each as one clear line.

use std::ffi::CStr;
use std::fmt;

/// A failure of EAL, of a pool or of a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// EAL starts once in a process, and was started before.
    AlreadyStarted,
    /// An argument for EAL that can't be handed over.
    Argument(String),
    /// EAL did not start.
    Eal(String),
    /// A thread could not be registered with EAL.
    Thread(String),
    /// A command of telemetry could not be registered.
    Telemetry {
        /// The command.
        command: String,
        /// What DPDK said.
        reason: String,
    },
    /// A pool of buffers could not be made.
    Mempool {
        /// The pool's name.
        name: String,
        /// What DPDK said.
        reason: String,
    },
    /// No port has this name.
    NoSuchPort {
        /// The name asked for.
        name: String,
        /// Why its device did not come up, if EAL tried it.
        reason: Option<String>,
        /// The ports that there are.
        available: Vec<String>,
    },
    /// The port is in use already, by this process.
    PortInUse(String),
    /// The port has fewer queue pairs than asked for.
    TooManyQueues {
        /// The port's name.
        port: String,
        /// Its driver.
        driver: String,
        /// Queue pairs asked for.
        asked: u16,
        /// Queue pairs that it offers.
        offered: u16,
    },
    /// The port can't carry frames of this MTU.
    Mtu {
        /// The port's name.
        port: String,
        /// The MTU asked for, in bytes.
        asked: u16,
        /// The largest MTU that it offers, in bytes.
        offered: u32,
    },
    /// A step of setting up a port failed.
    Port {
        /// The port's name.
        port: String,
        /// What was tried.
        step: &'static str,
        /// What DPDK said.
        reason: String,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlreadyStarted => {
                f.write_str("EAL starts only once in a process, and it was started before")
            }
            Self::Argument(arg) => write!(f, "an EAL argument holds a NUL byte: {arg:?}"),
            Self::Eal(reason) => write!(f, "EAL does not start: {reason}"),
            Self::Thread(reason) => write!(f, "a thread can't be registered with EAL: {reason}"),
            Self::Telemetry { command, reason } => write!(f, "{command} is not registered: {reason}"),
            Self::Mempool { name, reason } => write!(f, "the buffer pool {name} can't be made: {reason}"),
            Self::NoSuchPort { name, reason: Some(reason), .. } => {
                write!(f, "the port {name} did not come up: {reason}")
            }
            Self::NoSuchPort { name, available, .. } if available.is_empty() => {
                write!(f, "there is no port {name:?}, nor any other: EAL found no device")
            }
            Self::NoSuchPort { name, available, .. } => {
                write!(f, "there is no port {name:?}; ports that there are: {}", available.join(", "))
            }
            Self::PortInUse(name) => write!(f, "the port {name} is in use already"),
            Self::TooManyQueues { port, driver, asked, offered } => write!(
                f,
                "the port {port} ({driver}) offers {offered} queue pair{}, {asked} asked for",
                if *offered == 1 { "" } else { "s" }
            ),
            Self::Mtu { port, asked, offered } => {
                write!(f, "the port {port} carries an MTU of at most {offered} bytes, {asked} asked for")
            }
            Self::Port { port, step, reason } => write!(f, "the port {port} does not {step}: {reason}"),
        }
    }
}

impl std::error::Error for Error {}

/// The text of an `errno` value, positive or negative.
pub(crate) fn errno_text(errno: i32) -> String {
    // SAFETY: rte_strerror returns a C string in a per-thread buffer (or a static one); it is copied at once.
    let text = unsafe { CStr::from_ptr(dpdk_sys::rte_strerror(errno.abs())) };
    text.to_string_lossy().into_owned()
}

/// The present thread's `rte_errno`.
pub(crate) fn rte_errno() -> i32 {
    // SAFETY: reads a per-thread variable.
    unsafe { dpdk_sys::shim_errno() }
}

/// What the drivers wrote about the device `name` while EAL tried in vain to bring it up; `None` if it did not.
pub(crate) fn probe_failure(log: &str, name: &str) -> Option<String> {
    const FAILED: &str = "failed to initialize ";
    let verdict = format!("{FAILED}{name} device");
    let lines: Vec<&str> = log.lines().map(str::trim).collect();
    let end = lines.iter().position(|line| line.contains(&verdict))?;
    let other =
        |line: &&str| line.starts_with("EAL:") || line.starts_with("TELEMETRY:") || line.contains(FAILED);
    let start = lines[..end].iter().rposition(other).map_or(0, |i| i + 1);
    // Memif says so wherever EAL shares nothing with other processes, and goes on.
    let said = lines[start..end].iter().filter(|line| !line.contains("Failed to register mp action"));
    let said = said.copied().collect::<Vec<_>>().join("; ");
    Some(if said.is_empty() { "its driver gave no reason".to_owned() } else { said })
}

/// One line out of what DPDK wrote while it failed, and the text of its error code.
///
/// DPDK logs the cause first and its consequences after it, each with its component's prefix, between lines about
/// what it found on the machine. The latter are left out; what remains is joined in its order.
pub(crate) fn reason(log: &str, errno: i32) -> String {
    const NOISE: [&str; 14] = [
        "Detected ",
        "Multi-process socket",
        "Selected IOVA",
        "VFIO support",
        "Probing VFIO",
        "No free ",
        "No available ",
        "TELEMETRY:",
        "Physical addresses are unavailable",
        "Registered device",
        "Not managed by",
        "Cannot find plugin",
        "Some devices want",
        "Probe PCI driver",
    ];
    const LINES: usize = 3;

    let mut said: Vec<&str> = Vec::new();
    for line in log.lines().map(str::trim) {
        // The help that EAL prints after a bad argument.
        if line.starts_with("Usage:") || line.starts_with("EAL common options:") {
            break;
        }
        let line = line.strip_prefix("EAL: ").or_else(|| line.strip_prefix("ETHDEV: ")).unwrap_or(line);
        let line = line.strip_prefix("FATAL: ").unwrap_or(line);
        if line.is_empty() || NOISE.iter().any(|noise| line.contains(noise)) || said.contains(&line) {
            continue;
        }
        said.push(line);
        if said.len() == LINES {
            break;
        }
    }
    let mut text = said.join("; ");
    // Many drivers return -1 for anything; it says EPERM only where nothing better was said.
    if errno != 0 && (errno.abs() != libc::EPERM || text.is_empty()) {
        let code = errno_text(errno);
        text = if text.is_empty() { code } else { format!("{text} ({code})") };
    }
    if text.is_empty() { "DPDK gave no reason".to_owned() } else { text }
}
