//! DPDK's own classifier, by the program that DPDK has for it: builds its tries of a file of rules,
//! classifies a file of headers in bulk, and says how many cycles a header took.

use std::fmt::Display;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use testkit::lab::Process;

use super::sets::{Header, Set, acl_trace};

/// Its ways to search that this processor has. Which is the quickest depends on the machine and the
/// set.
pub fn algorithms() -> &'static [&'static str] {
    const ALL: [&str; 5] = ["scalar", "sse", "avx2", "avx512x16", "avx512x32"];
    // It ends with an error where it is told to take one that is not there. The processor is asked,
    // not `engine::cpu`: what our own variable forbids us must not be forbidden to whom we are
    // compared with.
    #[cfg(target_arch = "x86_64")]
    {
        let has_avx512 = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512cd")
            && is_x86_feature_detected!("avx512bw");
        match (is_x86_feature_detected!("avx2"), has_avx512) {
            (true, true) => &ALL,
            (true, false) => &ALL[..3],
            (false, _) => &ALL[..2],
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    &ALL[..1]
}

/// Headers a call, the program's default.
const STEP: usize = 256;
/// What the tries of the largest set and the headers need.
const MEMORY_MB: u32 = 2048;
/// Building tries of ten thousand rules takes a while.
const PATIENCE: Duration = Duration::from_secs(120);

/// The two files it reads.
pub struct TestAcl {
    rules: PathBuf,
    trace: PathBuf,
    count: usize,
    core: usize,
}

impl TestAcl {
    /// Writes them into a directory.
    pub fn new(directory: &Path, set: &Set, headers: &[Header], core: usize) -> io::Result<TestAcl> {
        let files = TestAcl {
            rules: directory.join("rules"),
            trace: directory.join("trace"),
            count: headers.len(),
            core,
        };
        fs::write(&files.rules, set.acl_rules())?;
        fs::write(&files.trace, acl_trace(headers))?;
        Ok(files)
    }

    /// Cycles a header, over so many rounds through the headers.
    pub fn cycles(&self, algorithm: &str, rounds: usize) -> io::Result<f64> {
        let said = self.run(algorithm, rounds, 0)?;
        cycles_in(&said).ok_or_else(|| unexpected("no cycles a packet", &said))
    }

    /// The winning rule of every header.
    pub fn verdicts(&self, algorithm: &str) -> io::Result<Vec<Option<usize>>> {
        let said = self.run(algorithm, 1, 2)?;
        let verdicts: Vec<_> = said.lines().filter_map(verdict_in).collect();
        match verdicts.len() == self.count {
            true => Ok(verdicts),
            false => Err(unexpected(&format!("{} verdicts, not {}", verdicts.len(), self.count), &said)),
        }
    }

    fn run(&self, algorithm: &str, rounds: usize, verbose: u32) -> io::Result<String> {
        let mut command = Command::new("dpdk-test-acl");
        command.args(["-l", &self.core.to_string(), "--no-pci", "--no-huge", "-m", &MEMORY_MB.to_string()]);
        command.args(["--no-telemetry", "--force-max-simd-bitwidth=512"]);
        command.arg(format!("--file-prefix=acl{}", std::process::id())).arg("--");
        command.arg(format!("--rulesf={}", self.rules.display()));
        command.arg(format!("--tracef={}", self.trace.display()));
        let mut option = |name: &str, value: &dyn Display| {
            command.arg(format!("--{name}={value}"));
        };
        // More than there are: told the exact number, it reads one line more than it has room for.
        option("tracenum", &(self.count + 1));
        option("tracestep", &STEP);
        // One answer a header, as ours; the tries are smaller so.
        option("bldcat", &1);
        option("runcat", &1);
        option("iter", &rounds);
        option("alg", &algorithm);
        option("verbose", &verbose);
        Ok(Process::start(command)?.finish(PATIENCE)?.success()?.stdout)
    }
}

fn unexpected(what: &str, said: &str) -> io::Error {
    let last: Vec<&str> = said.lines().rev().take(5).collect();
    io::Error::other(format!("{what} from dpdk-test-acl, whose last lines, the last first, are: {last:#?}"))
}

/// `search_ip5tuples  @lcore 1: 9 iterations, 27 pkts, 1 categories, 4834 cycles (0.00 sec), 179.04
/// cycles/pkt, …`
fn cycles_in(said: &str) -> Option<f64> {
    let line = said.lines().find(|line| line.starts_with("search_ip5tuples  @lcore"))?;
    line.split(", ").find_map(|part| part.strip_suffix(" cycles/pkt"))?.parse().ok()
}

/// `ipv4_5tuple: 3, category: 0, result: 2`; a header that no rule matches has the largest number
/// there is.
fn verdict_in(line: &str) -> Option<Option<usize>> {
    let result = line.strip_prefix("ipv4_5tuple: ")?.split(", ").last()?.strip_prefix("result: ")?;
    let result: u32 = result.parse().ok()?;
    Some((result != u32::MAX).then_some(result as usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_report_is_read() {
        let said = "rte_acl_build(1) finished with 0\nipv4_5tuple: 1, category: 0, result: 7\n\
            ipv4_5tuple: 2, category: 0, result: 4294967295\n\
            search_ip5tuples  @lcore 1: 9 iterations, 27 pkts, 1 categories, 4834 cycles (0.00 sec), 179.04 cycles/pkt, 1.0 pkt/sec\n";
        assert_eq!(cycles_in(said), Some(179.04));
        assert_eq!(said.lines().filter_map(verdict_in).collect::<Vec<_>>(), [Some(7), None]);
    }
}
