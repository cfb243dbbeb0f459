//! The protocol with real threads, and what each call promises.
#![cfg(not(loom))]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread::{self, ThreadId},
    time::{Duration, Instant},
};

use rcu::{Epoch, Parked, Publisher, Reader, domain, parker};

/// A value that writes down which thread dropped it.
struct Logged {
    number: u64,
    drops: mpsc::Sender<(u64, ThreadId)>,
}

impl Drop for Logged {
    fn drop(&mut self) {
        let _ = self.drops.send((self.number, thread::current().id()));
    }
}

fn logged(number: u64, drops: &mpsc::Sender<(u64, ThreadId)>) -> Box<Logged> {
    Box::new(Logged { number, drops: drops.clone() })
}

fn pair(value: u64) -> (Publisher<u64>, Reader<u64>) {
    let (publisher, mut readers) = domain(Box::new(value), 1);
    (publisher, readers.pop().unwrap())
}

#[test]
fn a_burst_sees_one_value_until_its_quiescent_state() {
    let (mut publisher, mut reader) = pair(1);
    assert_eq!((*reader.read(), reader.epoch()), (1, Some(Epoch::FIRST)));
    let epoch = publisher.publish(Box::new(2));
    assert_eq!(*publisher.current(), 2);
    assert_eq!(*reader.read(), 1);
    assert!(!publisher.acknowledged(0, epoch) && !publisher.all_acknowledged(epoch));
    reader.quiescent();
    assert_eq!((*reader.read(), reader.epoch()), (2, Some(epoch)));
    assert!(publisher.acknowledged(0, epoch) && publisher.all_acknowledged(epoch));
}

#[test]
fn a_value_is_reclaimed_when_its_last_reader_has_moved_on_and_not_before() {
    let (log, drops) = mpsc::channel();
    let (mut publisher, mut readers) = domain(logged(1, &log), 2);
    publisher.publish(logged(2, &log));
    assert_eq!(publisher.reclaim(), 0);
    readers[0].quiescent();
    assert_eq!(publisher.reclaim(), 0);
    publisher.publish(logged(3, &log));
    readers[1].quiescent();
    // Reader 0 holds value 2, reader 1 value 3.
    assert_eq!((publisher.reclaim(), publisher.in_limbo()), (1, 1));
    assert_eq!(drops.try_iter().map(|drop| drop.0).collect::<Vec<_>>(), [1]);
    readers[0].quiescent();
    assert_eq!((publisher.reclaim(), publisher.in_limbo()), (1, 0));
    assert_eq!(drops.try_iter().map(|drop| drop.0).collect::<Vec<_>>(), [2]);
}

#[test]
fn an_offline_reader_holds_up_nobody_and_comes_back_to_the_newest() {
    let (mut publisher, mut reader) = pair(1);
    reader.offline();
    assert!(!reader.is_online() && reader.epoch().is_none());
    let epoch = publisher.publish(Box::new(2));
    assert!(publisher.acknowledged(0, epoch));
    assert_eq!(publisher.reclaim(), 1);
    reader.quiescent();
    assert!(!reader.is_online(), "a quiescent state does not take a reader online");
    reader.online();
    assert_eq!(*reader.read(), 2);
    let epoch = publisher.publish(Box::new(3));
    assert!(!publisher.acknowledged(0, epoch));
}

#[test]
#[should_panic(expected = "only online")]
fn an_offline_reader_cannot_be_read() {
    let (_publisher, mut reader) = pair(1);
    reader.offline();
    reader.read();
}

#[test]
fn a_dropped_reader_counts_as_offline() {
    let (mut publisher, reader) = pair(1);
    let epoch = publisher.publish(Box::new(2));
    drop(reader);
    assert!(publisher.acknowledged(0, epoch));
    assert_eq!(publisher.reclaim(), 1);
}

#[test]
fn a_domain_without_readers_reclaims_at_once() {
    let (mut publisher, readers) = domain(Box::new(1), 0);
    assert!(readers.is_empty());
    let epoch = publisher.publish(Box::new(2));
    assert!(publisher.all_acknowledged(epoch));
    assert_eq!(publisher.reclaim(), 1);
}

#[test]
fn a_publisher_dropped_after_its_readers_drops_every_value() {
    let (log, drops) = mpsc::channel();
    let (mut publisher, mut readers) = domain(logged(1, &log), 2);
    publisher.publish(logged(2, &log));
    readers[0].offline();
    drop(readers.pop());
    drop(publisher);
    assert_eq!(drops.try_iter().map(|drop| drop.0).collect::<Vec<_>>(), [1, 2]);
    assert!(!readers[0].try_online(), "there is nothing to come online to");
    assert!(!readers[0].is_online());
}

#[test]
fn a_publisher_dropped_under_an_online_reader_leaks_what_that_holds() {
    let (log, drops) = mpsc::channel();
    let (mut publisher, mut readers) = domain(logged(1, &log), 1);
    publisher.publish(logged(2, &log));
    readers[0].quiescent();
    drop(publisher);
    assert_eq!(drops.try_iter().map(|drop| drop.0).collect::<Vec<_>>(), [1]);
    readers[0].quiescent();
    assert_eq!(readers[0].read().number, 2);
    readers[0].offline();
    drop(readers);
    assert!(drops.try_iter().next().is_none(), "a worker ran a destructor");
}

#[test]
fn readers_on_threads_see_whole_values_that_only_the_publisher_drops() {
    const ROUNDS: u64 = 20_000;
    let (log, drops) = mpsc::channel();
    let (mut publisher, readers) = domain(logged(0, &log), 3);
    let stop = Arc::new(AtomicBool::new(false));
    let workers: Vec<_> = readers
        .into_iter()
        .enumerate()
        .map(|(number, mut reader)| {
            let stop = stop.clone();
            thread::spawn(move || {
                let (mut last, mut bursts) = (0, 0u64);
                while !stop.load(Ordering::Relaxed) {
                    let value = reader.read().number;
                    assert!(value >= last, "went back from {last} to {value}");
                    last = value;
                    reader.quiescent();
                    bursts += 1;
                    // One of them sleeps now and then.
                    if number == 0 && bursts.is_multiple_of(64) {
                        reader.offline();
                        thread::yield_now();
                        reader.online();
                    }
                }
            })
        })
        .collect();
    let mut reclaimed = 0;
    for number in 1..=ROUNDS {
        let epoch = publisher.publish(logged(number, &log));
        reclaimed += publisher.reclaim();
        if number % 1000 == 0 {
            while !publisher.all_acknowledged(epoch) {
                thread::yield_now();
            }
            reclaimed += publisher.reclaim();
            assert_eq!(reclaimed as u64, number, "acknowledged by all, so nothing old is held");
        }
    }
    stop.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.join().unwrap();
    }
    drop(publisher);
    let here = thread::current().id();
    let dropped: Vec<_> = drops.try_iter().collect();
    assert!(dropped.iter().all(|&(_, thread)| thread == here), "a destructor ran on a worker");
    assert_eq!(dropped.iter().map(|drop| drop.0).collect::<Vec<_>>(), (0..=ROUNDS).collect::<Vec<_>>());
}

#[test]
fn a_worker_that_finds_work_at_its_last_look_does_not_sleep() {
    let (_publisher, mut reader) = pair(1);
    let (mut parker, _waker) = parker().unwrap();
    assert_eq!(parker.park(&mut reader, Duration::from_secs(60), || true), Parked::Work);
    assert!(reader.is_online());
}

#[test]
fn a_parked_worker_wakes_at_its_timeout_with_the_newest_value() {
    let (mut publisher, mut reader) = pair(1);
    let (mut parker, _waker) = parker().unwrap();
    publisher.publish(Box::new(2));
    let before = Instant::now();
    assert_eq!(parker.park(&mut reader, Duration::from_millis(20), || false), Parked::TimedOut);
    assert!(before.elapsed() >= Duration::from_millis(20));
    assert_eq!(*reader.read(), 2);
}

#[test]
fn waking_a_worker_that_is_awake_writes_nothing() {
    let (_publisher, mut reader) = pair(1);
    let (mut parker, waker) = parker().unwrap();
    waker.wake();
    assert_eq!(parker.park(&mut reader, Duration::from_millis(1), || false), Parked::TimedOut);
}

#[test]
fn a_change_does_not_wait_for_a_parked_worker() {
    let (mut publisher, mut reader) = pair(1);
    let (mut parker, waker) = parker().unwrap();
    let worker = thread::spawn(move || {
        let parked = parker.park(&mut reader, Duration::from_secs(60), || false);
        (parked, *reader.read())
    });
    let epoch = publisher.publish(Box::new(2));
    let before = Instant::now();
    while !publisher.all_acknowledged(epoch) {
        assert!(before.elapsed() < Duration::from_secs(10));
        thread::yield_now();
    }
    assert_eq!(publisher.reclaim(), 1);
    waker.wake();
    assert_eq!(worker.join().unwrap(), (Parked::Woken, 2));
}

#[test]
fn a_worker_parked_past_its_publishers_end_is_told() {
    let (publisher, mut reader) = pair(1);
    let (mut parker, waker) = parker().unwrap();
    reader.offline();
    drop(publisher);
    assert_eq!(
        parker.park(&mut reader, Duration::ZERO, || false),
        Parked::TimedOut,
        "was offline, stays offline"
    );

    let (mut publisher, mut reader) = pair(1);
    let (parked, is_parked) = mpsc::channel();
    let worker = thread::spawn(move || {
        parker.park(&mut reader, Duration::from_secs(60), || {
            parked.send(()).unwrap();
            false
        })
    });
    is_parked.recv().unwrap();
    // It cannot pass a quiescent state there, so once it has acknowledged this it sleeps.
    let epoch = publisher.publish(Box::new(2));
    while !publisher.all_acknowledged(epoch) {
        thread::yield_now();
    }
    drop(publisher);
    waker.wake();
    assert_eq!(worker.join().unwrap(), Parked::Closed);
}

#[test]
fn no_wake_up_is_lost_between_two_threads() {
    const ITEMS: usize = 20_000;
    let (_publisher, mut reader) = pair(1);
    let (mut parker, waker) = parker().unwrap();
    let given = Arc::new(AtomicUsize::new(0));
    let taken = Arc::new(AtomicUsize::new(0));
    let (input, output) = (given.clone(), taken.clone());
    let worker = thread::spawn(move || {
        let mut done = 0;
        while done < ITEMS {
            done = input.load(Ordering::Relaxed);
            output.store(done, Ordering::Relaxed);
            if done < ITEMS {
                let parked = parker
                    .park(&mut reader, Duration::from_secs(5), || input.load(Ordering::Relaxed) != done);
                assert_ne!(parked, Parked::TimedOut, "slept over work");
            }
        }
    });
    for item in 1..=ITEMS {
        given.store(item, Ordering::Relaxed);
        waker.wake();
        // Every item waits for the one before: each is a chance to fall asleep over the next.
        while taken.load(Ordering::Relaxed) < item && !worker.is_finished() {
            thread::yield_now();
        }
    }
    worker.join().unwrap();
}
