//! `[sandbox]`: what the process gives up once its ports are open.

use std::path::PathBuf;

use super::read::{path, set};
use crate::source::{Faults, Node};

/// What the process gives up once its ports are open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// The capabilities that its ports do not need any more.
    pub capabilities: bool,
    /// That a program which it executes may have more than it has.
    pub no_new_privs: bool,
    /// Files that the configuration does not name, and TCP but for the connections of clients.
    pub landlock: bool,
    /// System calls that it does not use.
    pub seccomp: bool,
    /// Core files are written, and other processes of its user may look into this one.
    pub core_dumps: bool,
    /// What it has mapped when it begins to forward is never paged out.
    pub lock_memory: bool,
    /// Directories and files that may be read besides.
    pub paths: Vec<PathBuf>,
}

impl Default for Sandbox {
    fn default() -> Sandbox {
        Sandbox {
            capabilities: true,
            no_new_privs: true,
            landlock: true,
            seccomp: true,
            core_dumps: false,
            lock_memory: true,
            paths: Vec::new(),
        }
    }
}

pub(super) fn sandbox(table: &Node, faults: &mut Faults) -> Sandbox {
    let mut sandbox = Sandbox::default();
    let Sandbox { capabilities, no_new_privs, landlock, seccomp, core_dumps, lock_memory, paths } =
        &mut sandbox;
    let switches = [
        ("capabilities", capabilities),
        ("no_new_privs", no_new_privs),
        ("landlock", landlock),
        ("seccomp", seccomp),
        ("core_dumps", core_dumps),
        ("lock_memory", lock_memory),
    ];
    let mut keys: Vec<&str> = switches.iter().map(|(key, _)| *key).collect();
    keys.push("paths");
    let Some(fields) = table.keys(&keys, faults) else { return sandbox };
    for (key, switch) in switches {
        set(switch, &fields, key, faults, Node::bool);
    }
    let given = faults.take(fields.items("paths", "paths")).unwrap_or_default();
    *paths = given.iter().filter_map(|node| faults.take(path(node))).collect();
    // The kernel lets nobody restrict itself who could get out of it by executing a program.
    let implied = [("landlock", sandbox.landlock), ("seccomp", sandbox.seccomp)];
    if let (Some(node), Some((implying, _))) =
        (fields.get("no_new_privs"), implied.into_iter().find(|(_, is_on)| *is_on && !sandbox.no_new_privs))
    {
        faults.add(
            node,
            format_args!("false, and {implying} is on, which implies it; allowed: true, or both off"),
        );
    }
    if let Some(node) = fields.get("paths").filter(|_| !sandbox.paths.is_empty() && !sandbox.landlock) {
        faults.add(
            node,
            "paths are given and landlock is off, so that every file is in reach; allowed: one of both",
        );
    }
    sandbox
}
