//! The store: what was committed is there again, and what we did not write is refused.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use control::commit::Committer;
use control::config::Config;
use control::delta::Delta;
use control::document::{Limits, parse_policy};
use control::live::{PolicyFile, PreviousState, begin};
use control::model::{Key, Policy};
use control::persisted::{PersistedState, Tables};
use control::store::{Contents, Missing, OpenOptions, Store, StoreError};
use tempfile::TempDir;

fn policy(port: u16, nics: &str) -> Policy {
    let text = format!(
        "vpcs: [{{ name: prod, segment: {{ vlan: 7 }} }}]
address_groups: [{{ name: office, addresses: [203.0.113.0/24, \"2001:db8::/32\"] }}]
security_groups:
  - name: a
    rules:
      - {{ direction: inbound, protocol: tcp, ports: {port}, remote_address_group: office, description: \"ü\" }}
      - {{ direction: inbound, protocol: icmp, icmp_type: 8, icmp_code: 0, action: deny, priority: 3 }}
      - {{ direction: outbound, remote_group: a }}
nics: [{nics}]"
    );
    parse_policy(&text, "test", &Limits::default()).unwrap().policy
}

const ONE: &str =
    "{ name: one, vpc: prod, mac: \"02:00:00:00:00:01\", addresses: [10.0.0.1], security_groups: [a] }";
const TWO: &str =
    "{ name: two, project: p, vpc: prod, addresses: [\"2001:db8::1\"], mode: observe, max_connections: 5 }";

fn file(policy: Policy) -> Option<PolicyFile> {
    Some(PolicyFile { path: "policy.yaml".to_owned(), policy })
}

struct Scratch {
    directory: TempDir,
}

impl Scratch {
    fn new() -> Scratch {
        Scratch { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("deep/store.redb")
    }

    /// As a start of the appliance with this policy file governing would leave it.
    fn start_with(&self, policy: Policy) -> Contents {
        let config = control::config::parse_config("[policy]\nsource = \"file\"", "test").unwrap();
        let store = Store::open(&self.path()).unwrap();
        begin(config, Some(store), file(policy), None, false).unwrap().store.unwrap().1.unwrap()
    }

    fn reopened(&self) -> Option<Contents> {
        Store::open(&self.path()).unwrap().1
    }
}

#[test]
fn generations_are_there_again_with_the_way_back() {
    let scratch = Scratch::new();
    let policies = [policy(22, ONE), policy(23, &format!("{ONE}, {TWO}")), policy(23, TWO)];
    for (generation, policy) in (1..).zip(&policies) {
        let contents = scratch.start_with(policy.clone());
        assert_eq!((&contents.policy, contents.generation), (policy, generation));
        assert_eq!(scratch.reopened().unwrap(), contents);
    }
    // The same again is no generation.
    assert_eq!(scratch.start_with(policies[2].clone()).generation, 3);
    let contents = scratch.reopened().unwrap();
    let mut committer = Committer::new(Config::default());
    let deltas: Vec<Arc<Delta>> = contents.history.iter().map(|past| past.delta.clone()).collect();
    committer.resume(contents.policy, engine::Generation(3), deltas).unwrap();
    for (generation, policy) in (1..).zip(&policies) {
        assert_eq!(committer.policy_at(engine::Generation(generation)).unwrap(), *policy);
    }
    assert_eq!(committer.policy_at(engine::Generation(0)).unwrap(), Policy::default());
    assert_eq!(contents.history[1].record.added, ["p/two"]);
    assert_eq!(contents.history[1].record.who, "policy.yaml");
}

/// What a process leaves that has come to the first of these policies, and so on, one a generation.
fn state_after(policies: &[Policy]) -> PersistedState {
    let mut committer = Committer::new(Config::default());
    for policy in policies {
        committer.commit(policy.clone(), 0).unwrap();
    }
    let tables = Tables { set: 1, files: Vec::new(), boot: [0; 2] };
    PersistedState::decode(&PersistedState::of(&committer, &tables).encode()).unwrap()
}

#[test]
fn a_state_that_the_store_is_ahead_of_goes_through_each_change_since() {
    let scratch = Scratch::new();
    let policies = [policy(22, ONE), policy(23, ONE), policy(22, ONE)];
    for policy in &policies {
        scratch.start_with(policy.clone());
    }
    let begin_with = |state: PersistedState| {
        let store = Store::open(&scratch.path()).unwrap();
        begin(Config::default(), Some(store), None, Some(state), false).unwrap()
    };
    let flush = |committer: &Committer| committer.registry().nic(&Key::in_default("one")).unwrap().flush().0;
    // The rules are again what they were: the flush on the way there stays.
    let beginning = begin_with(state_after(&policies[..1]));
    assert_eq!(beginning.former, PreviousState::Taken(engine::Generation(1)));
    assert_eq!((beginning.committer.generation().0, flush(&beginning.committer)), (3, 3));
    assert_eq!(beginning.snapshot.generation.0, 3);
    assert_eq!(beginning.committer.policy_at(engine::Generation(2)).unwrap(), policies[1]);
    drop(beginning);
    // Where the store is where it was left nothing is flushed again.
    let state = state_after(&policies);
    let beginning = begin_with(state);
    assert_eq!(beginning.former, PreviousState::Taken(engine::Generation(3)));
    assert_eq!((beginning.committer.generation().0, flush(&beginning.committer)), (3, 3));
    drop(beginning);
    // Of another store, or of one that has been set back.
    for (state, expected) in [
        (state_after(&[policies[1].clone()]), "generation 1 is another than the one that was kept"),
        (
            state_after(&[&policies[..], &[policy(9, ONE)]].concat()),
            "generation 3, and generation 4 was kept",
        ),
    ] {
        let beginning = begin_with(state);
        let PreviousState::Unfit(reason) = &beginning.former else { panic!("{:?}", beginning.former) };
        assert!(reason.contains(expected), "{reason}");
        assert_eq!((beginning.committer.generation().0, beginning.committer.policy()), (3, &policies[2]));
    }
}

#[test]
fn without_store_and_file_what_was_kept_meets_no_policy() {
    let kept = state_after(&[policy(22, ONE)]);
    let beginning = begin(Config::default(), None, None, Some(kept), false).unwrap();
    assert_eq!(beginning.committer.policy(), &Policy::default());
    assert_eq!(beginning.snapshot.generation.0, 2);
}

#[test]
fn where_the_api_governs_a_file_fills_an_empty_store_only() {
    let scratch = Scratch::new();
    let start = |policy: Policy| {
        let mut config = Config::default();
        config.store.path = Some(scratch.path());
        begin(config, Some(Store::open(&scratch.path()).unwrap()), file(policy), None, false).unwrap()
    };
    let first = start(policy(22, ONE));
    assert!(first.warnings.len() == 1 && first.warnings[0].contains("made anew"), "{:?}", first.warnings);
    drop(first);
    let second = start(policy(23, &format!("{ONE}, {TWO}")));
    assert_eq!(second.committer.policy(), &policy(22, ONE));
    assert_eq!(second.warnings.len(), 1);
    let warning = &second.warnings[0];
    assert!(warning.contains("policy.yaml DIFFERS from the store"), "{warning}");
    assert!(warning.contains("added p/two; changed a;"), "{warning}");
    drop(second);
    assert!(start(policy(22, ONE)).warnings.is_empty());
}

#[test]
fn a_store_is_its_owners_alone_also_one_that_others_could_read() {
    use std::os::unix::fs::PermissionsExt;
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("store.redb");
    drop(Store::open(&path).unwrap());
    let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    drop(Store::open(&path).unwrap());
    assert_eq!(mode(), 0o600);
}

#[test]
fn a_store_has_one_user_at_a_time() {
    let scratch = Scratch::new();
    let held = Store::open(&scratch.path()).unwrap();
    let Err(error) = Store::open(&scratch.path()) else { panic!("opened twice") };
    assert!(error.to_string().ends_with("another appliance uses this store"), "{error}");
    drop(held);
    Store::open(&scratch.path()).unwrap();
}

#[test]
fn a_corrupt_store_is_refused_set_aside_and_not_touched() {
    let scratch = Scratch::new();
    scratch.start_with(policy(22, ONE));
    let mut bytes = fs::read(scratch.path()).unwrap();
    // A digit of the port, in every copy of it: the page's checksum is wrong then.
    let port = b"\"ports\":[22,22]";
    let at: Vec<usize> =
        (0..bytes.len() - port.len()).filter(|at| &bytes[*at..at + port.len()] == port).collect();
    assert!(!at.is_empty());
    at.iter().for_each(|at| bytes[at + 10] = b'3');
    fs::write(scratch.path(), &bytes).unwrap();
    let Err(StoreError::Corrupt { aside: Ok(aside), .. }) = Store::open(&scratch.path()) else {
        panic!("accepted")
    };
    assert_eq!(aside.file_name().unwrap(), "store.redb.corrupt-1");
    assert!(fs::read(&aside).unwrap() == bytes, "the corrupt store was changed");
    assert!(!scratch.path().exists());
    // The next start does not begin anew by itself, and the corrupt one still lies there.
    let Err(error) = Store::open(&scratch.path()) else { panic!("began anew") };
    assert!(error.to_string().contains("the one that was there held generation 1: put it back"), "{error}");
    let anew = OpenOptions { missing: Missing::New, ..OpenOptions::of(&scratch.path()) };
    assert_eq!(Store::open_as(&anew).unwrap().1, None);
    assert!(aside.exists());
    let left: Vec<_> =
        fs::read_dir(aside.parent().unwrap()).unwrap().flatten().map(|e| e.file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains("copy")), "{left:?}");
}

#[test]
fn a_store_of_a_newer_version_is_left_alone() {
    let scratch = Scratch::new();
    scratch.start_with(policy(22, ONE));
    let table: redb::TableDefinition<'_, &str, &[u8]> = redb::TableDefinition::new("meta");
    let database = redb::Database::open(scratch.path()).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(table).unwrap().insert("schema", &b"2"[..]).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let Err(error) = Store::open(&scratch.path()) else { panic!("accepted") };
    assert!(error.to_string().contains("schema 2, written by a newer version; allowed: up to 1"), "{error}");
    assert!(scratch.path().exists());
}

/// `STORE_MUTANTS=10000` tries more.
#[test]
fn mutated_stores_are_refused_or_hold_what_was_acknowledged() {
    let mutants = std::env::var("STORE_MUTANTS").map_or(500, |n| n.parse().unwrap());
    let scratch = Scratch::new();
    let policies = [policy(22, ONE), policy(23, &format!("{ONE}, {TWO}")), policy(24, TWO)];
    for policy in &policies[..2] {
        scratch.start_with(policy.clone());
    }
    // As a kill right after the last change leaves it: with the commit before that in its header, too.
    let killed = {
        let config = control::config::parse_config("[policy]\nsource = \"file\"", "test").unwrap();
        let store = Store::open(&scratch.path()).unwrap();
        let _held = begin(config, Some(store), file(policies[2].clone()), None, false).unwrap();
        fs::read(scratch.path()).unwrap()
    };
    let ended = fs::read(scratch.path()).unwrap();
    // Only what is in use can matter much; the rest is zeros.
    let used = [&ended, &killed]
        .map(|whole| (0..whole.len()).filter(|at| *at < 512 || whole[*at] != 0).collect::<Vec<_>>());
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as usize % below
    };
    let (mut corrupt, mut older, mut right) = (0, 0, 0);
    for mutant in 0..mutants {
        let is_killed = random(2);
        let (whole, used) = ([&ended, &killed][is_killed], &used[is_killed]);
        let mut bytes = whole.clone();
        match mutant % 6 {
            0 => bytes[used[random(used.len())]] ^= 1 << random(8),
            1 => bytes[used[random(used.len())]] = random(256) as u8,
            2 => {
                let at = used[random(used.len())];
                let end = (at + 1 + random(600)).min(bytes.len());
                bytes[at..end].fill(random(256) as u8);
            }
            3 => bytes.truncate(random(whole.len())),
            // The header, where the commits are told apart.
            _ => bytes[random(320)] ^= 1 << random(8),
        }
        fs::write(scratch.path(), &bytes).unwrap();
        match Store::open(&scratch.path()) {
            Ok((_, contents)) => {
                let found = contents.map(|contents| (contents.generation, contents.policy));
                assert!(found == Some((3, policies[2].clone())), "mutant {mutant} shows something else");
                right += 1;
            }
            // The database took it for one that a crash had ended a commit earlier.
            Err(StoreError::Unlike { .. }) => {
                assert!(fs::read(scratch.path()).unwrap() == bytes, "mutant {mutant} was changed");
                older += 1;
            }
            Err(StoreError::Corrupt { aside, .. }) => {
                let aside = aside.unwrap();
                assert!(fs::read(&aside).unwrap() == bytes, "mutant {mutant} was changed");
                fs::remove_file(&aside).unwrap();
                corrupt += 1;
            }
            Err(other) => panic!("mutant {mutant}: {other}"),
        }
    }
    println!("{corrupt} corrupt, {older} older, {right} right");
    assert!(older > 0 || mutants < 500, "none of them looked like the one before");
    assert!(corrupt > mutants / 4, "{corrupt} of {mutants} refused");
}

#[test]
fn a_store_that_is_missing_older_or_another_one_is_not_begun_with() {
    let scratch = Scratch::new();
    let path = scratch.path();
    let refused = |opening: &OpenOptions| match Store::open_as(opening) {
        Ok(_) => panic!("begun with"),
        Err(error) => error.to_string(),
    };
    let must_exist = OpenOptions { missing: Missing::Refuse, ..OpenOptions::of(&path) };
    assert!(refused(&must_exist).contains("there is no store: put it back"), "{}", refused(&must_exist));
    assert!(!path.parent().unwrap().exists(), "nothing was made");
    let new = OpenOptions { missing: Missing::New, ..OpenOptions::of(&path) };
    drop(Store::open_as(&new).unwrap());
    assert!(refused(&new).contains("there is a store; allowed with --new-store"), "{}", refused(&new));
    assert_eq!(Store::open_as(&must_exist).unwrap().1, None);
    scratch.start_with(policy(22, ONE));
    let first = fs::read(&path).unwrap();
    scratch.start_with(policy(23, ONE));
    // An older copy.
    let second = fs::read(&path).unwrap();
    fs::write(&path, &first).unwrap();
    let error = refused(&OpenOptions::of(&path));
    assert!(error.contains("it holds generation 1, and 2 was the last that was acknowledged"), "{error}");
    // Missing.
    fs::remove_file(&path).unwrap();
    for opening in [OpenOptions::of(&path), must_exist.clone()] {
        let error = refused(&opening);
        assert!(error.contains("the one that was there held generation 2: put it back"), "{error}");
    }
    // Another one, though of a later generation.
    let other = Scratch::new();
    for port in [22, 23, 24] {
        other.start_with(policy(port, ONE));
    }
    fs::copy(other.path(), &path).unwrap();
    let error = refused(&OpenOptions::of(&path));
    assert!(error.contains("it is not the store that was here, which held generation 2"), "{error}");
    // The right one again.
    fs::write(&path, &second).unwrap();
    assert_eq!(scratch.reopened().unwrap().generation, 2);
    // A witness that is lost or damaged is told of, and made again.
    let witness = path.with_extension("redb.witness");
    for damage in
        [|path: &std::path::Path| fs::remove_file(path), |path: &std::path::Path| fs::write(path, "x")]
    {
        damage(&witness).unwrap();
        let (store, contents) = Store::open(&path).unwrap();
        assert_eq!(contents.unwrap().generation, 2);
        assert!(store.notes()[0].contains("holds generation 2"), "{:?}", store.notes());
        drop(store);
        assert!(Store::open(&path).unwrap().0.notes().is_empty());
    }
    // By the operator's word.
    fs::remove_file(&path).unwrap();
    assert_eq!(Store::open_as(&new).unwrap().1, None);
}

#[test]
fn a_witness_may_lie_elsewhere_and_copies_of_a_killed_start_are_removed() {
    let (scratch, elsewhere) = (Scratch::new(), TempDir::new().unwrap());
    let opening =
        OpenOptions { witness: Some(elsewhere.path().join("witness")), ..OpenOptions::of(&scratch.path()) };
    drop(Store::open_as(&opening).unwrap());
    let directory = scratch.path().parent().unwrap().to_owned();
    let dead = {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        child.id()
    };
    let [left, running] = [dead, 1].map(|id| directory.join(format!("store.redb.copy-{id}")));
    fs::write(&left, "x").unwrap();
    fs::write(&running, "x").unwrap();
    drop(Store::open_as(&opening).unwrap());
    assert_eq!((left.exists(), running.exists()), (false, true));
    // With its whole directory.
    fs::remove_dir_all(&directory).unwrap();
    assert!(matches!(Store::open_as(&opening), Err(StoreError::Missing { held: Some(0), .. })));
    assert!(!directory.exists());
}
