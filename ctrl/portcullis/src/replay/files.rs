//! Files of the command line that must not be one and the same.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::cli;
use crate::failure::Failure;

/// What makes a file the same file.
#[derive(PartialEq, Eq)]
enum Identity {
    /// One that is there.
    There(u64, u64),
    /// One that is to be made.
    ToBe(PathBuf),
    Stream,
}

/// Refuses one file in two roles: replay would judge it twice, or write into what it reads.
pub fn refuse_shared(args: &cli::Replay) -> Result<(), Failure> {
    let roles: [(&str, &Option<PathBuf>, bool); 9] = [
        ("--inside", &args.inside, true),
        ("--outside", &args.outside, true),
        ("--both", &args.both, true),
        ("--verdicts", &args.verdicts, false),
        ("--pass-inside", &args.pass_inside, false),
        ("--pass-outside", &args.pass_outside, false),
        ("--flow-log", &args.flow_log, false),
        ("--trace", &args.trace, false),
        ("--capture", &args.capture, false),
    ];
    let mut seen: Vec<(&str, bool, Identity)> = Vec::new();
    for (role, path, is_read) in roles {
        let Some(path) = path else { continue };
        let Some(identity) = identity(path, is_read) else { continue };
        let same = seen.iter().find(|(_, other_is_read, other)| {
            // Standard input and standard output are two.
            *other == identity && (identity != Identity::Stream || *other_is_read == is_read)
        });
        if let Some((other, other_is_read, _)) = same {
            let hint =
                if is_read && *other_is_read { "; a capture of both directions goes by --both" } else { "" };
            let path = path.display();
            return Err(Failure::input(format!("{other} and {role} name the same file, {path}{hint}")));
        }
        seen.push((role, is_read, identity));
    }
    Ok(())
}

/// `None` for what may well be named twice, such as /dev/null.
fn identity(path: &Path, is_read: bool) -> Option<Identity> {
    if path == Path::new("-") {
        return Some(Identity::Stream);
    }
    match fs::metadata(path) {
        Ok(found) if found.is_file() || is_read => Some(Identity::There(found.dev(), found.ino())),
        Ok(_) => None,
        Err(_) => {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            let parent = fs::canonicalize(parent.unwrap_or(Path::new("."))).ok()?;
            Some(Identity::ToBe(parent.join(path.file_name()?)))
        }
    }
}
