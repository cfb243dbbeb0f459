//! The program under test, as its users run it.

#![allow(dead_code, missing_docs)]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::OnceLock,
    time::Duration,
};

use testkit::lab::Process;

pub mod rig;

/// The binary: `PORTCULLIS_BIN` (set by `scripts/test`), else one built now, so that it is never an old one.
pub fn portcullis() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(binary) = env::var_os("PORTCULLIS_BIN") {
            return binary.into();
        }
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../ctrl/portcullis/Cargo.toml");
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--offline", "--manifest-path", manifest])
            .status()
            .expect("cargo runs");
        assert!(built.success(), "portcullis does not build");
        // target/debug/deps/lab_x-0123 → target/debug/portcullis
        let test = env::current_exe().unwrap();
        test.ancestors().nth(2).unwrap().join("portcullis")
    })
}

/// Runs it to its end, which is its own affair.
pub fn run(arguments: &[&str]) -> Output {
    let output = Command::new(portcullis()).args(arguments).output();
    output.unwrap_or_else(|error| panic!("{}: {error}", portcullis().display()))
}

/// Runs it; its stdout, if it ends with 0.
pub fn stdout_of(arguments: &[&str]) -> String {
    let mut command = Command::new(portcullis());
    command.args(arguments);
    let finished = Process::start(command).unwrap().finish(Duration::from_secs(60)).unwrap();
    finished.success().unwrap_or_else(|error| panic!("portcullis {arguments:?}: {error}")).stdout
}

/// The number behind the first `"key":` of a JSON text.
pub fn number(json: &str, key: &str) -> u64 {
    let behind = json.split_once(&format!("\"{key}\":")).unwrap_or_else(|| panic!("no {key} in {json}")).1;
    let digits: String = behind.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("{key} is no number in {json}"))
}

/// A directory of one test's, gone with it.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Scratch {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    pub fn path(&self, file: &str) -> String {
        self.0.join(file).to_str().unwrap().to_owned()
    }

    pub fn write(&self, file: &str, text: &str) -> String {
        fs::write(self.0.join(file), text).unwrap();
        self.path(file)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
