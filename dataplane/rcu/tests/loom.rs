//! Models of the protocol: loom runs each through every interleaving and every value that the
//! memory model lets a load see.
//!
//! `scripts/loom` runs them. Outside `--cfg loom` this file is empty.
#![cfg(loom)]

use std::time::Duration;

use loom::{
    cell::UnsafeCell,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};
use rcu::{Event, Parked, Reader, domain, parker_on};

/// A value that knows whether it lives. loom watches the cell: a read that no synchronisation
/// orders before the drop is a failure, even in the interleavings in which it happens to come
/// first.
struct Canary {
    number: u64,
    alive: UnsafeCell<bool>,
}

// SAFETY: the cell is loom's, which fails the model on any access that is not ordered: that is what
// is tested.
unsafe impl Sync for Canary {}

impl Canary {
    fn boxed(number: u64) -> Box<Canary> {
        Box::new(Canary { number, alive: UnsafeCell::new(true) })
    }

    fn number(&self) -> u64 {
        // SAFETY: see `Sync`.
        assert!(self.alive.with(|alive| unsafe { *alive }), "value {} was used after its drop", self.number);
        self.number
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        // SAFETY: see `Sync`.
        assert!(self.alive.with_mut(|alive| unsafe { alive.replace(false) }), "dropped twice");
    }
}

fn model(preemptions: Option<usize>, f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.check(f);
}

/// Two bursts, each of one generation, and generations never go back.
fn two_bursts(reader: &mut Reader<Canary>) {
    let mut last = 0;
    for _ in 0..2 {
        let first = reader.read().number();
        assert!(first >= last);
        last = first;
        assert_eq!(reader.read().number(), first, "one burst saw two generations");
        reader.quiescent();
    }
}

#[test]
fn a_reader_never_sees_a_dropped_value() {
    model(None, || {
        let (mut publisher, mut readers) = domain(Canary::boxed(1), 1);
        let mut reader = readers.pop().unwrap();
        let worker = thread::spawn(move || two_bursts(&mut reader));
        publisher.publish(Canary::boxed(2));
        publisher.reclaim();
        let epoch = publisher.publish(Canary::boxed(3));
        let acknowledged = publisher.all_acknowledged(epoch);
        publisher.reclaim();
        assert!(!acknowledged || publisher.in_limbo() == 0, "acknowledged, and still held");
        worker.join().unwrap();
        assert!(publisher.all_acknowledged(epoch));
    });
}

#[test]
fn two_readers_hold_a_value_each_for_itself() {
    model(Some(2), || {
        let (mut publisher, readers) = domain(Canary::boxed(1), 2);
        let workers: Vec<_> =
            readers.into_iter().map(|mut reader| thread::spawn(move || two_bursts(&mut reader))).collect();
        let epoch = publisher.publish(Canary::boxed(2));
        publisher.reclaim();
        for worker in workers {
            worker.join().unwrap();
        }
        assert!(publisher.all_acknowledged(epoch));
        publisher.reclaim();
        assert_eq!(publisher.in_limbo(), 0);
    });
}

#[test]
fn a_reader_that_comes_online_during_a_publish_is_safe() {
    model(None, || {
        let (mut publisher, mut readers) = domain(Canary::boxed(1), 1);
        let mut reader = readers.pop().unwrap();
        reader.offline();
        let worker = thread::spawn(move || {
            for _ in 0..2 {
                reader.online();
                reader.read().number();
                reader.offline();
            }
        });
        publisher.publish(Canary::boxed(2));
        publisher.reclaim();
        worker.join().unwrap();
        publisher.reclaim();
        assert_eq!(publisher.in_limbo(), 0);
    });
}

#[test]
fn after_the_acknowledgement_nothing_old_is_read() {
    model(None, || {
        let (mut publisher, mut readers) = domain(Canary::boxed(1), 1);
        let mut reader = readers.pop().unwrap();
        reader.offline();
        let acknowledged = Arc::new(AtomicBool::new(false));
        let seen = acknowledged.clone();
        let worker = thread::spawn(move || {
            reader.online();
            for _ in 0..2 {
                // As a packet that was received after the call had returned.
                let after = seen.load(Ordering::Acquire);
                let number = reader.read().number();
                assert!(
                    !after || number == 2,
                    "judged by the old value after everybody had acknowledged the new one"
                );
                reader.quiescent();
            }
        });
        let epoch = publisher.publish(Canary::boxed(2));
        if publisher.all_acknowledged(epoch) {
            acknowledged.store(true, Ordering::Release);
        }
        worker.join().unwrap();
    });
}

#[test]
fn a_publisher_that_goes_first_frees_nothing_that_a_reader_holds() {
    model(None, || {
        let (publisher, mut readers) = domain(Canary::boxed(1), 1);
        let mut reader = readers.pop().unwrap();
        reader.offline();
        let worker = thread::spawn(move || {
            if reader.try_online() {
                reader.read().number();
                reader.quiescent();
                reader.read().number();
            } else {
                assert!(!reader.is_online());
            }
        });
        drop(publisher);
        worker.join().unwrap();
    });
}

/// An eventfd as loom can see it. It never times out: a lost wake-up is a deadlock, which loom
/// reports.
#[derive(Default)]
struct ModelEvent {
    signalled: Mutex<bool>,
    changed: Condvar,
}

impl Event for ModelEvent {
    fn signal(&self) {
        *self.signalled.lock().unwrap() = true;
        self.changed.notify_one();
    }

    fn wait(&self, _: Duration) -> bool {
        let mut signalled = self.signalled.lock().unwrap();
        while !*signalled {
            signalled = self.changed.wait(signalled).unwrap();
        }
        std::mem::replace(&mut signalled, false)
    }
}

/// The worker takes a piece of work from each giver, and sleeps while there is none.
fn park_until_all_work_is_done(givers: usize) {
    let (mut publisher, mut readers) = domain(Canary::boxed(1), 1);
    let mut reader = readers.pop().unwrap();
    let (mut parker, waker) = parker_on(ModelEvent::default());
    let rings: Arc<Vec<AtomicBool>> = Arc::new((0..givers).map(|_| AtomicBool::new(false)).collect());

    let inputs = rings.clone();
    let worker = thread::spawn(move || {
        let mut done = 0;
        while done < givers {
            for ring in inputs.iter() {
                // Relaxed on purpose, the weakest ring there can be: the protocol must not live on
                // the ring's own ordering.
                if ring.load(Ordering::Relaxed) {
                    ring.store(false, Ordering::Relaxed);
                    done += 1;
                }
            }
            reader.read().number();
            if done < givers {
                let has_work = || inputs.iter().any(|ring| ring.load(Ordering::Relaxed));
                let parked = parker.park(&mut reader, Duration::MAX, has_work);
                assert!(matches!(parked, Parked::Work | Parked::Woken));
                reader.read().number();
            }
        }
    });
    let others: Vec<_> = (1..givers)
        .map(|giver| {
            let (rings, waker) = (rings.clone(), waker.clone());
            thread::spawn(move || {
                rings[giver].store(true, Ordering::Relaxed);
                waker.wake();
            })
        })
        .collect();
    rings[0].store(true, Ordering::Relaxed);
    waker.wake();
    publisher.publish(Canary::boxed(2));
    publisher.reclaim();
    for other in others {
        other.join().unwrap();
    }
    worker.join().unwrap();
}

#[test]
fn a_parked_worker_never_sleeps_over_work() {
    model(None, || park_until_all_work_is_done(1));
}

#[test]
fn of_two_givers_neither_is_forgotten() {
    model(Some(2), || park_until_all_work_is_done(2));
}

/// Models that find nothing prove little unless they find what is there: each planted fault must
/// make its model fail.
#[test]
fn every_planted_fault_is_caught() {
    let faults = [
        ("relaxed-ack", "a_reader_never_sees_a_dropped_value", "Causality violation"),
        ("reclaim-early", "a_reader_never_sees_a_dropped_value", "Causality violation"),
        (
            "online-without-fence",
            "a_reader_that_comes_online_during_a_publish_is_safe",
            "Causality violation",
        ),
        (
            "publish-without-fence",
            "a_reader_that_comes_online_during_a_publish_is_safe",
            "Causality violation",
        ),
        ("park-without-fence", "a_parked_worker_never_sleeps_over_work", "deadlock"),
        ("park-without-second-look", "a_parked_worker_never_sleeps_over_work", "deadlock"),
        ("wake-without-fence", "a_parked_worker_never_sleeps_over_work", "deadlock"),
    ];
    for (fault, model, finding) in faults {
        let run = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", model, "--nocapture"])
            .env("RCU_FAULT", fault)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&run.stderr).into_owned() + &String::from_utf8_lossy(&run.stdout);
        assert!(!run.status.success(), "{model} did not notice the planted fault {fault}:\n{said}");
        assert!(said.contains(finding), "{model} failed for another reason than {fault}:\n{said}");
        println!("fault {fault}: caught by {model} ({finding})");
    }
}
