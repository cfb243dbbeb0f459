//! `doctor`: what of this machine keeps the appliance from starting, or costs it packets, and the command that mends it.
//!
//! Each check looks at a [`Machine`], which a test plants, and asks the same questions as `run` and `check` do
//! ([`preflight`](crate::appliance::preflight), [`refusals`](crate::appliance::refusals), [`mtu`](crate::appliance::mtu)): what
//! those would refuse is a failure here.

mod cores;
mod devices;
mod memory;
mod process;
mod store;
#[cfg(test)]
mod tests;

use std::fmt::Write;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use control::config::{Checked, Config};
use serde::Serialize;

use crate::cli::{self, Output};
use crate::client::REFUSED;
use crate::failure::{Failure, print};
use crate::input;
use crate::machine::Machine;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// As it should be.
    Ok,
    /// `run` starts, and something costs.
    Warn,
    /// `run` would not start.
    Fail,
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which check.
    pub check: &'static str,
    /// What it was of: a port, a core, a file; nothing where it is of the whole machine.
    pub on: Option<String>,
    /// How it ended.
    pub status: Status,
    /// What was found.
    pub found: String,
    /// What it costs; empty where nothing is wrong.
    pub cost: String,
    /// What mends it; empty where nothing is wrong.
    pub cure: String,
}

/// What `-o json` prints.
#[derive(Serialize)]
struct Report<'f> {
    status: Status,
    checks: &'f [Finding],
}

/// One look at a machine, for a configuration if there is one.
pub struct MachineCheck<'m> {
    machine: &'m Machine,
    /// What is to run; without a file, a configuration without wires and workers.
    config: Config,
    checked: Option<&'m Checked>,
    /// An appliance runs by this configuration already: what it holds is held by nobody else.
    runs: bool,
    findings: Vec<Finding>,
}

impl MachineCheck<'_> {
    fn ok(&mut self, check: &'static str, on: Option<String>, found: impl Into<String>) {
        let (found, nothing) = (found.into(), String::new);
        self.findings.push(Finding {
            check,
            on,
            status: Status::Ok,
            found,
            cost: nothing(),
            cure: nothing(),
        });
    }

    fn warn(
        &mut self,
        check: &'static str,
        on: Option<String>,
        found: impl Into<String>,
        (cost, cure): (impl Into<String>, impl Into<String>),
    ) {
        let (found, cost, cure) = (found.into(), cost.into(), cure.into());
        self.findings.push(Finding { check, on, status: Status::Warn, found, cost, cure });
    }

    fn fail(
        &mut self,
        check: &'static str,
        on: Option<String>,
        found: impl Into<String>,
        cure: impl Into<String>,
    ) {
        let cost = "`run` does not start".to_owned();
        let (found, cure) = (found.into(), cure.into());
        self.findings.push(Finding { check, on, status: Status::Fail, found, cost, cure });
    }

    /// Arguments for EAL.
    fn args(&self) -> &[String] {
        &self.config.eal.args
    }

    /// The ports of all wires.
    fn ports(&self) -> Vec<String> {
        self.config.wires.iter().flat_map(|wire| [wire.inside.clone(), wire.outside.clone()]).collect()
    }
}

/// All checks. `runs`: an appliance runs by this configuration already.
pub fn examine(machine: &Machine, checked: Option<&Checked>, runs: bool) -> Vec<Finding> {
    let config = match checked {
        Some(checked) => checked.config.clone(),
        None => {
            let mut nothing = Config::default();
            nothing.workers.cores.clear();
            nothing
        }
    };
    let mut examination = MachineCheck { machine, config, checked, runs, findings: Vec::new() };
    examination.files();
    examination.memory();
    examination.process();
    examination.devices();
    examination.cores();
    examination.clock();
    examination.store();
    examination.kernel();
    examination.findings
}

/// `doctor`
pub fn run(args: &cli::Doctor) -> Result<ExitCode, Failure> {
    let machine = Machine::here();
    let read = args.config.as_deref().map(|path| {
        let checked = input::checked_config(path)?;
        match checked.config.require_wires() {
            Ok(_) => Ok(checked),
            Err(message) => Err(vec![checked.fault("wire", message)]),
        }
    });
    let findings = match read.transpose() {
        Ok(checked) => {
            let socket = checked.as_ref().map(|checked| checked.config.api.socket.as_path());
            let runs = socket.is_some_and(|socket| UnixStream::connect(socket).is_ok());
            examine(&machine, checked.as_ref(), runs)
        }
        Err(faults) => {
            let mut findings = examine(&machine, None, false);
            let refused = faults.iter().map(|fault| Finding {
                check: "configuration",
                on: None,
                status: Status::Fail,
                found: fault.to_string(),
                cost: "`run` does not start".to_owned(),
                cure: "mend the file: `portcullis check --config FILE` reads it alone".to_owned(),
            });
            findings.splice(0..0, refused);
            findings
        }
    };
    let status = findings.iter().map(|finding| finding.status).max().unwrap_or(Status::Ok);
    let told = match args.output {
        Output::Table => text(&findings),
        Output::Json => {
            let report = Report { status, checks: &findings };
            format!("{}\n", serde_json::to_string(&report).map_err(Failure::runtime)?)
        }
    };
    print(&told, false);
    Ok(if status == Status::Fail { ExitCode::from(REFUSED) } else { ExitCode::SUCCESS })
}

/// For people: what is worst first.
fn text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for (status, word) in [(Status::Fail, "FAIL"), (Status::Warn, "warn"), (Status::Ok, "ok")] {
        for finding in findings.iter().filter(|finding| finding.status == status) {
            let on = finding.on.as_ref().map_or_else(String::new, |on| format!(" {on}"));
            // Writing to a text does not fail.
            let _ = writeln!(text, "{word:<5} {}{on}: {}", finding.check, finding.found);
            for (head, told) in [("costs", &finding.cost), ("mend", &finding.cure)] {
                if !told.is_empty() {
                    let _ = writeln!(text, "      {head}: {told}");
                }
            }
        }
    }
    let count = |status| findings.iter().filter(|finding| finding.status == status).count();
    let (failed, warned) = (count(Status::Fail), count(Status::Warn));
    let end = if failed > 0 { "`run` would not start" } else { "`run` would start" };
    let _ = writeln!(text, "{} checks, {failed} failed, {warned} warnings: {end}", findings.len());
    text
}
