//! `check`: files validated, offline.

use std::fmt::Display;
use std::path::Path;
use std::process::ExitCode;

use control::commit::Committer;
use control::config::Config;
use control::source::input_name;
use control::store::{Contents, Store};

use crate::appliance::preflight::{self, PreflightReport};
use crate::cli;
use crate::client::REFUSED;
use crate::failure::{Failure, print, warn};
use crate::input;

/// `check`: all that `run` would refuse, of every file, and what is likely a mistake.
pub fn check(args: &cli::Check) -> Result<ExitCode, Failure> {
    if args.config.is_none() && args.files.is_empty() && args.store.is_none() {
        return Err(Failure::input("nothing to check: give --config FILE, --store FILE, policy documents"));
    }
    let mut report = Report::default();
    let config = args.config.as_deref().and_then(|path| report.config(path));
    if args.config.is_none() || config.is_some() {
        let config = config.unwrap_or_default();
        if let Some(path) = &args.store {
            report.store(path);
        }
        args.files.iter().for_each(|file| report.policy(file, &config));
    } else if !args.files.is_empty() {
        // Its quotas hold for them.
        print("the policy documents are checked once the configuration can be read\n", true);
    }
    report.end(args.strict)
}

/// What was found, told as it is.
#[derive(Default)]
struct Report {
    faults: usize,
    warnings: usize,
}

impl Report {
    /// Tells what is wrong with a file and what likely is; true if it is good.
    fn tell(&mut self, faults: &[impl Display], warnings: &[impl Display]) -> bool {
        faults.iter().for_each(|fault| print(&format!("portcullis: {fault}\n"), true));
        warnings.iter().for_each(warn);
        self.faults += faults.len();
        self.warnings += warnings.len();
        faults.is_empty()
    }

    /// A configuration; `None` if it cannot be read.
    fn config(&mut self, path: &Path) -> Option<Config> {
        let checked = match input::checked_config(path) {
            Ok(checked) => checked,
            Err(faults) => {
                self.tell(&faults, &[""; 0]);
                return None;
            }
        };
        let config = &checked.config;
        let is_for_run = config.require_wires().is_ok();
        let mut found =
            if is_for_run { preflight::look(&checked) } else { PreflightReport::of_text(&checked) };
        if let Some(store) = config.store.path.as_deref().filter(|path| is_for_run && path.exists())
            && let Err(error) = Store::read(store)
        {
            found.faults.push(checked.fault("store.path", error));
        }
        found.warnings.append(&mut found.absent);
        if self.tell(&found.faults, &found.warnings) {
            let what = if is_for_run { "ok" } else { "ok, for everything but `run`, which needs a [[wire]]" };
            print(&format!("{}: {what}\n", input_name(path)), false);
        }
        Some(checked.config)
    }

    fn store(&mut self, path: &Path) {
        let Contents { generation, policy, history, .. } = match Store::read(path) {
            Ok(contents) => contents,
            Err(error) => {
                self.tell(&[error], &[""; 0]);
                return;
            }
        };
        let text = format!(
            "{}: ok: generation {generation}, {} groups, {} NICs, {} generations of history\n",
            path.display(),
            policy.security_groups.values().filter(|group| !group.implied).count(),
            policy.nics.len(),
            history.len()
        );
        print(&text, false);
    }

    fn policy(&mut self, file: &Path, config: &Config) {
        let parsed = match input::checked_policy(file, config) {
            Ok(parsed) => parsed,
            Err(faults) => {
                self.tell(&faults, &[""; 0]);
                return;
            }
        };
        let policy = parsed.policy;
        let text = format!(
            "{}: ok: {} VPCs, {} groups, {} NICs\n",
            input_name(file),
            policy.vpcs.len(),
            policy.security_groups.values().filter(|group| !group.implied).count(),
            policy.nics.len()
        );
        // What is valid may yet be more than there are places for.
        let committed = Committer::new(config.clone()).commit(policy, 0);
        let faults: Vec<_> =
            committed.err().iter().map(|error| format!("{}: {error}", input_name(file))).collect();
        if self.tell(&faults, &parsed.warnings) {
            print(&text, false);
        }
    }

    fn end(self, strict: bool) -> Result<ExitCode, Failure> {
        let is_refused = self.faults > 0 || (strict && self.warnings > 0);
        Ok(if is_refused { ExitCode::from(REFUSED) } else { ExitCode::SUCCESS })
    }
}
