//! `check` and `init`: files validated and written, offline.

use std::io::Write;
use std::process::ExitCode;

use control::store::{Contents, Store};

use crate::cli;
use crate::failure::{Failure, print};
use crate::input;

/// `check`: every file that is wrong is named, the first fault of each.
pub fn check(args: &cli::Check) -> Result<ExitCode, Failure> {
    if args.config.is_none() && args.files.is_empty() && args.store.is_none() {
        return Err(Failure::input("nothing to check: give --config FILE, --store FILE, policy documents"));
    }
    let config = input::config(args.config.as_deref())?;
    if let Some(path) = &args.config {
        print(&format!("{}: ok\n", path.display()), false);
    }
    if let Some(path) = &args.store {
        let Contents { generation, policy, history, .. } = Store::read(path).map_err(Failure::input)?;
        let text = format!(
            "{}: ok: generation {generation}, {} groups, {} NICs, {} generations of history\n",
            path.display(),
            policy.security_groups.values().filter(|group| !group.implied).count(),
            policy.nics.len(),
            history.len()
        );
        print(&text, false);
    }
    let mut bad = None;
    for file in &args.files {
        match input::policy(file, &config) {
            Ok(parsed) => {
                let policy = &parsed.policy;
                let text = format!(
                    "{}: ok: {} VPCs, {} groups, {} NICs\n",
                    file.display(),
                    policy.vpcs.len(),
                    policy.security_groups.values().filter(|group| !group.implied).count(),
                    policy.nics.len()
                );
                print(&text, false);
            }
            // Each fault is a line of its own; the last one gives the exit status.
            Err(failure) => {
                if let Some(before) = bad.replace(failure) {
                    let _: ExitCode = before.report();
                }
            }
        }
    }
    bad.map_or(Ok(ExitCode::SUCCESS), Err)
}

/// `init`: a first configuration and policy. Nothing that is there is overwritten.
pub fn init(args: &cli::Init) -> Result<ExitCode, Failure> {
    let templates = control::init::templates(&args.inside, &args.outside).map_err(Failure::input)?;
    std::fs::create_dir_all(&args.dir)
        .map_err(|e| Failure::runtime(format!("{}: {e}", args.dir.display())))?;
    let files = [
        (args.dir.join("portcullis.toml"), templates.config),
        (args.dir.join("policy.yaml"), templates.policy),
    ];
    if let Some((path, _)) = files.iter().find(|(path, _)| path.exists()) {
        return Err(Failure::input(format!("{}: is there already, and is not overwritten", path.display())));
    }
    for (path, text) in &files {
        std::fs::File::create_new(path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(|e| Failure::runtime(format!("{}: {e}", path.display())))?;
        print(&format!("{}\n", path.display()), false);
    }
    Ok(ExitCode::SUCCESS)
}
