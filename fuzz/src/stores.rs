//! Store files with any bytes in place of what was written: refused, or what was acknowledged.
//!
//! The input says what is changed in a good store: see `patched`.

use std::fs;
use std::sync::LazyLock;

use control::config::parse_config;
use control::document::{Limits, parse_policy};
use control::live::{PolicyFile, begin};
use control::store::Store;
use testkit::rng::Rng;

const POLICY: &str = "
vpcs: [{ name: prod, segment: { untagged: true } }]
security_groups: [{ name: a, rules: [{ direction: inbound, protocol: tcp, ports: 22 }] }]
nics: [{ name: one, vpc: prod, addresses: [10.0.0.1], security_groups: [a] }]
";

struct Good {
    /// As a kill right after the last change leaves it, and as an end does.
    files: [Vec<u8>; 2],
    generation: u32,
}

static GOOD: LazyLock<Good> = LazyLock::new(|| {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("store");
    let start = |port: u16| {
        let policy = parse_policy(&POLICY.replace("22", &port.to_string()), "p", &Limits::default());
        let file = PolicyFile { path: "p".to_owned(), policy: policy.expect("a policy").policy };
        let config = parse_config("[policy]\nsource = \"file\"", "c").expect("a configuration");
        begin(config, Some(Store::open(&path).expect("a store")), Some(file), None, false).expect("it begins")
    };
    drop(start(22));
    let last = start(23);
    let killed = fs::read(&path).expect("the store");
    drop(last);
    let ended = fs::read(&path).expect("the store");
    let (_, contents) = Store::open(&path).expect("a store");
    Good { files: [killed, ended], generation: contents.expect("contents").generation }
});

/// Opens it, as a start does. Panics of the database are the store's to catch.
pub fn run(bytes: &[u8]) {
    let Some((which, patches)) = bytes.split_first() else { return };
    let good = &*GOOD;
    let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory");
    let path = directory.path().join("store");
    fs::write(&path, crate::patched(&good.files[usize::from(which & 1)], patches)).expect("room for it");
    // libFuzzer takes every panic for an end, also one that is caught.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let opened = std::panic::catch_unwind(|| Store::open(&path).map(|(_, contents)| contents));
    std::panic::set_hook(hook);
    match opened.expect("what the database panics of is told as an error") {
        Ok(Some(contents)) => assert!(contents.generation <= good.generation, "{}", contents.generation),
        // An empty one: nothing was ever acknowledged in it.
        Ok(None) => {}
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// A few bytes each, of what is in use.
pub fn seeds() -> Vec<Vec<u8>> {
    let good = &*GOOD;
    let mut seeds = vec![vec![0], vec![1], vec![0, 0, 1, 0, 0]];
    for (which, file) in good.files.iter().enumerate() {
        let used: Vec<usize> = (0..file.len()).filter(|at| *at < 512 || file[*at] != 0).collect();
        let mut rng = Rng::new(which as u64);
        seeds.extend((0..40).map(|_| {
            let at = (rng.pick(&used) as u32).to_le_bytes();
            vec![which as u8, at[0], at[1], at[2], 1, rng.u8()]
        }));
    }
    seeds
}
