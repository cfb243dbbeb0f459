//! In which order the words of a page are written and read: all that keeps a reader from a copy of
//! two moments.
//!
//! Numbers of publications go up by one, and each lies in the half of its parity. The writer writes
//! into the half that was published before last, and publishes it; a reader copies the half that
//! was published last, and throws the copy away if another was published meanwhile: then the writer
//! may have begun to write into the copied half. Two fences make it sound that everything else is
//! relaxed. `scripts/loom` checks this through every interleaving, and with planted faults.

#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// Which of the two halves has this publication.
pub(super) const fn half_of(number: u64) -> usize {
    (number % 2) as usize
}

/// Orders what was published last before what is written from here on: who reads any of that finds
/// its half published over.
pub(super) fn begin() {
    if !planted("begin-without-fence") {
        fence(Ordering::Release);
    }
}

/// Publishes what was written since [`begin`]. Release pairs with the Acquire of [`published`]: who
/// sees this number finds its half whole.
pub(super) fn publish(word: &AtomicU64, number: u64) {
    let order = if planted("relaxed-publication") { Ordering::Relaxed } else { Ordering::Release };
    word.store(number.to_le(), order);
}

/// What was published last.
pub(super) fn published(word: &AtomicU64) -> u64 {
    let order = if planted("relaxed-look") { Ordering::Relaxed } else { Ordering::Acquire };
    u64::from_le(word.load(order))
}

/// Behind a copy of the half of `number`: whether it is of one moment.
pub(super) fn is_whole(word: Option<&AtomicU64>, number: u64) -> bool {
    if planted("no-second-look") {
        return true;
    }
    if !planted("second-look-without-fence") {
        // Orders the copy before the second look.
        fence(Ordering::Acquire);
    }
    word.map_or(0, published) == number
}

/// Faults that the model must catch, in its builds alone; elsewhere a constant, so that nothing of
/// it is left in the program.
#[cfg(not(loom))]
#[inline(always)]
const fn planted(_: &str) -> bool {
    false
}

#[cfg(loom)]
fn planted(fault: &str) -> bool {
    static PLANTED: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    PLANTED.get_or_init(|| std::env::var("STATS_FAULT").ok()).as_deref() == Some(fault)
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use loom::sync::Arc;

    /// The head's number, and two words a half.
    #[derive(Default)]
    struct Page {
        published: AtomicU64,
        halves: [[AtomicU64; 2]; 2],
    }

    #[test]
    fn a_copy_that_is_kept_is_of_one_publication() {
        loom::model(|| {
            let page = Arc::new(Page::default());
            let writers = page.clone();
            let writer = loom::thread::spawn(move || {
                // The third is written over the first.
                for number in 1..=3 {
                    begin();
                    for word in &writers.halves[half_of(number)] {
                        word.store(number, Ordering::Relaxed);
                    }
                    publish(&writers.published, number);
                }
            });
            let mut last = 0;
            for _ in 0..2 {
                let number = published(&page.published);
                let copy = page.halves[half_of(number)].each_ref().map(|word| word.load(Ordering::Relaxed));
                if number > 0 && is_whole(Some(&page.published), number) {
                    assert_eq!(copy, [number; 2], "a copy of two moments");
                    assert!(number >= last, "time goes back");
                    last = number;
                }
            }
            writer.join().unwrap();
        });
    }

    #[test]
    fn every_planted_fault_is_caught() {
        let faults = [
            "begin-without-fence",
            "relaxed-publication",
            "relaxed-look",
            "no-second-look",
            "second-look-without-fence",
        ];
        for fault in faults {
            let model = "page::protocol::models::a_copy_that_is_kept_is_of_one_publication";
            let run = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", model, "--nocapture"])
                .env("STATS_FAULT", fault)
                .output()
                .unwrap();
            let said =
                String::from_utf8_lossy(&run.stderr).into_owned() + &String::from_utf8_lossy(&run.stdout);
            assert!(!run.status.success(), "the model did not notice the planted fault {fault}:\n{said}");
            assert!(
                said.contains("a copy of two moments"),
                "it failed for another reason than {fault}:\n{said}"
            );
            println!("fault {fault}: caught");
        }
    }
}
