//! Whatever becomes of the files, links and directories on the way: a change of what the path leads to is told.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use testkit::rng::Rng;
use tokio::time::timeout;

use super::{LONGEST_QUIET, LOOK_EVERY, Stamp, Watch};

/// A look, another that finds the file at rest, the quiet, and a machine with other things to do.
const PATIENCE: Duration = Duration::from_secs(12);

/// A place in which `way/policy.yaml` is watched: `way` is a directory or leads to one, and so may the file.
struct Place {
    root: PathBuf,
    random: Rng,
    number: u32,
    /// A file that somebody has begun to write.
    open: Option<File>,
    story: Vec<String>,
}

impl Place {
    fn new(root: &Path, seed: u64) -> Place {
        let mut place =
            Place { root: root.to_owned(), random: Rng::new(seed), number: 0, open: None, story: Vec::new() };
        for directory in ["one", "two"] {
            fs::create_dir(place.at(directory)).unwrap();
            place.write(&format!("{directory}/policy.yaml"));
            place.write(&format!("{directory}/other.yaml"));
        }
        match place.random.below(3) {
            0 => fs::create_dir(place.at("way")).unwrap(),
            1 => symlink("one", place.at("way")).unwrap(),
            _ => {
                // By two links, one of them absolute.
                symlink(place.at("inner"), place.at("way")).unwrap();
                symlink("two", place.at("inner")).unwrap();
            }
        }
        if !place.path().exists() {
            place.write("way/policy.yaml");
        }
        place
    }

    fn at(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn path(&self) -> PathBuf {
        self.at("way/policy.yaml")
    }

    /// A content that was nowhere before.
    fn content(&mut self) -> String {
        self.number += 1;
        format!("content {:06}", self.number)
    }

    fn write(&mut self, name: &str) {
        let content = self.content();
        // What is in the way may be gone, or be no file.
        let _ = fs::write(self.at(name), content);
    }

    /// Swaps what stands at a name for a link, in one step as `ln -sfn` and Kubernetes do, or in two.
    fn link(&mut self, target: &str, name: &str, at_once: bool) {
        let place = self.at(name);
        if at_once && !fs::symlink_metadata(&place).is_ok_and(|found| found.is_dir()) {
            let _ = fs::remove_file(self.at("new-link"));
            symlink(target, self.at("new-link")).unwrap();
            let _ = fs::rename(self.at("new-link"), place);
            return;
        }
        self.remove(name);
        let _ = symlink(target, place);
    }

    /// Takes a name away, whatever it is.
    fn remove(&mut self, name: &str) {
        let place = self.at(name);
        if fs::symlink_metadata(&place).is_ok_and(|found| found.is_dir()) {
            self.number += 1;
            let _ = fs::rename(&place, self.at(&format!("gone-{}", self.number)));
        } else {
            let _ = fs::remove_file(place);
        }
    }

    fn step(&mut self) {
        let target = self.random.pick(&["one", "two"]);
        let at_once = self.random.one_in(2);
        let what = self.random.below(13);
        match what {
            0 => self.write("way/policy.yaml"),
            1 => {
                // Beside, and put in its place.
                self.write("beside");
                let _ = fs::rename(self.at("beside"), self.path());
            }
            2 => self.link(target, "way", at_once),
            3 => self.link(target, "inner", at_once),
            4 => self.link(&format!("../{target}/other.yaml"), "way/policy.yaml", at_once),
            5 => self.write(&format!("{target}/policy.yaml")),
            6 => self.write(&format!("{target}/other.yaml")),
            7 => {
                // A directory in the place of another.
                self.remove(target);
                let _ = fs::create_dir(self.at(target));
                self.write(&format!("{target}/policy.yaml"));
                self.write(&format!("{target}/other.yaml"));
            }
            8 => {
                self.remove("way");
                let _ = fs::create_dir(self.at("way"));
                self.write("way/policy.yaml");
            }
            9 => {
                // By another name of the same file.
                let _ = fs::remove_file(self.at("alias"));
                if fs::canonicalize(self.path())
                    .and_then(|file| fs::hard_link(file, self.at("alias")))
                    .is_ok()
                {
                    self.write("alias");
                }
            }
            10 => {
                // Begun, and ended by a later step or by the end of the round.
                let content = self.content();
                if let Ok(mut file) = File::create(self.path()) {
                    let _ = file.write_all(content.as_bytes());
                    self.open = Some(file);
                }
            }
            11 => {
                self.remove("way/policy.yaml");
                self.write("way/policy.yaml");
            }
            _ => {
                self.remove(target);
                self.write("beside");
                let _ = fs::create_dir(self.at(target));
                let _ = fs::rename(self.at("beside"), self.at(&format!("{target}/policy.yaml")));
            }
        }
        self.story.push(format!("{what} ({target}, at once: {at_once})"));
    }
}

/// Rounds of a few steps each. After a round the watch must tell, if what the path leads to differs from what was read when it told last.
async fn play(root: PathBuf, seed: u64) -> usize {
    let mut place = Place::new(&root, seed);
    let path = place.path();
    let mut watch = Watch::new(&path, Stamp::of(&path)).unwrap();
    let (mut read, mut told) = (fs::read(&path).ok(), 0);
    for _ in 0..5 {
        place.story.push("--".to_owned());
        for _ in 0..1 + place.random.below(3) {
            place.step();
            if place.random.one_in(2) {
                tokio::time::sleep(Duration::from_millis(place.random.below(40) as u64)).await;
            }
        }
        place.open = None;
        let begun = Instant::now();
        loop {
            let there = fs::read(&path).ok();
            if there.is_none() || there == read {
                break;
            }
            let left = PATIENCE.saturating_sub(begun.elapsed());
            let is_told = timeout(left, watch.changed()).await;
            assert!(
                is_told.is_ok(),
                "seed {seed}: {there:?} is there, {read:?} was read: {:#?}",
                place.story
            );
            is_told.unwrap().unwrap();
            (read, told) = (fs::read(&path).ok(), told + 1);
        }
    }
    // With nothing going on nothing is told for ever: what is left over of the last round at most.
    let quiet = 2 * LOOK_EVERY + LONGEST_QUIET;
    let mut left_over = 0;
    while timeout(quiet, watch.changed()).await.is_ok() {
        left_over += 1;
        assert!(left_over < 4, "seed {seed} tells of nothing: {:#?}", place.story);
    }
    assert!(fs::read(&path).is_err() || fs::read(&path).ok() == read, "seed {seed}");
    told
}

#[test]
fn whatever_happens_on_the_way_a_file_of_other_content_is_told() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let told: usize = runtime.block_on(async {
        let mut playing = tokio::task::JoinSet::new();
        for seed in 0..60 {
            let root = directory.path().join(seed.to_string());
            fs::create_dir(&root).unwrap();
            playing.spawn(play(root, seed));
        }
        playing.join_all().await.into_iter().sum()
    });
    assert!(told > 60, "{told} changes were told");
}
