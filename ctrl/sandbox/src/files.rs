//! Files, by Landlock: what the process may read, and where it may write. TCP goes with them, where the kernel knows how.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, make_bitflags,
};

use crate::threads::{Step, on_all};

/// The files that stay in reach, each with all that lies below it. What is not there is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// They are read.
    pub read: Vec<PathBuf>,
    /// In these directories files are read, written, made, renamed and removed.
    pub write: Vec<PathBuf>,
    /// These are opened to be read and written, and asked by `ioctl`.
    pub devices: Vec<PathBuf>,
}

/// What is restricted, where the kernel knows of it: all that this version does. (What came later is about devices' ioctls, which
/// is in it, about signals and abstract sockets, which supervisors and ports use, and about audit.)
const KNOWN: ABI = ABI::V5;

fn reading() -> BitFlags<AccessFs> {
    make_bitflags!(AccessFs::{ReadFile | ReadDir})
}

fn writing() -> BitFlags<AccessFs> {
    let makes = make_bitflags!(AccessFs::{MakeReg | MakeSock | MakeDir | RemoveFile | RemoveDir});
    reading() | makes | make_bitflags!(AccessFs::{WriteFile | Truncate})
}

fn device() -> BitFlags<AccessFs> {
    make_bitflags!(AccessFs::{ReadFile | WriteFile | IoctlDev})
}

/// What of this is possible with a file that is no directory.
const OF_FILES: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | WriteFile | Truncate | IoctlDev});

impl Files {
    /// Restricts every thread to them.
    pub(crate) fn restrict(&self) -> Result<String, String> {
        let version = kernels_version();
        if version == 0 {
            return Err("this kernel has no Landlock, or was started without (lsm=)".to_owned());
        }
        let ruleset = self.ruleset().map_err(|error| error.to_string())?;
        let descriptor: Option<OwnedFd> = ruleset.into();
        let descriptor = descriptor.ok_or("the kernel gives no ruleset")?;
        on_all(Step::Landlock(descriptor.as_raw_fd()))?;
        Ok(format!("files by Landlock {version}"))
    }

    fn ruleset(&self) -> Result<landlock::RulesetCreated, landlock::RulesetError> {
        let mut ruleset = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(KNOWN))?
            // What listens does so by now, and nobody is called by TCP.
            .handle_access(AccessNet::BindTcp | AccessNet::ConnectTcp)?
            .create()?;
        let rights = [(&self.read, reading()), (&self.write, writing()), (&self.devices, device())];
        for (paths, access) in rights {
            for path in paths {
                let Ok(opened) = PathFd::new(path) else { continue };
                let access = if path.is_dir() { access } else { access & OF_FILES };
                ruleset = ruleset.add_rule(PathBeneath::new(opened, access))?;
            }
        }
        Ok(ruleset)
    }

    /// The directory of a file that is written, or of one that will be. Where it is not there yet, the nearest above it is; the root
    /// never.
    pub fn directory_of(file: &Path) -> Option<PathBuf> {
        let file = std::path::absolute(file).ok()?;
        let there = file.ancestors().skip(1).find(|above| above.is_dir())?;
        (there != Path::new("/")).then(|| there.to_owned())
    }
}

/// The version of Landlock's interface that the kernel has; 0: none.
fn kernels_version() -> i64 {
    const VERSION: u32 = 1;
    // SAFETY: without attributes, the call reads nothing and answers with a number.
    let version =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0usize, VERSION) };
    version.max(0)
}
