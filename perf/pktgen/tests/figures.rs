//! Every figure that a run reports, against what the device between its ports saw of it.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use engine::Side;
use engine::io::{self, Burst, Frame};
use pktgen::clock::{Clock, cycles};
use pktgen::memory::MemoryFrame;
use pktgen::plan::{FCS, From, Rate, Shares, Versions};
use pktgen::report::TallyCounts;
use pktgen::search::Search;
use pktgen::tag::{Class, TAG, Tag};
use pktgen::{Generator, Monitor, Plan, Port, Ports, Report, Spec};
use testkit::rng::Rng;

/// What a frame was when it was sent.
#[derive(Clone, Copy, Debug)]
struct Sent {
    class: Class,
    from: Side,
    /// Where its tag begins; hostile frames and SYNs of a flood have none that is read.
    tag: Option<(usize, Tag)>,
}

/// What is to be reported of one class and side.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    sent: u64,
    sent_bytes: u64,
    received: u64,
    received_bytes: u64,
    duplicates: u64,
    reordered: u64,
}

/// The device's own books of one measurement.
#[derive(Debug, Default)]
struct Books {
    lines: HashMap<(Class, Side), Line>,
    foreign: u64,
    misdirected: u64,
    stale: u64,
    refused: u64,
    told_latency: u64,
    /// Of a flow and a direction: the numbers that came, and the highest.
    came: HashMap<(Side, u32), Vec<u32>>,
}

impl Books {
    fn line(&self, wanted: impl Fn(Class, Side) -> bool) -> Line {
        let chosen = self.lines.iter().filter(|((class, from), _)| wanted(*class, *from));
        chosen.fold(Line::default(), |sum, (_, line)| Line {
            sent: sum.sent + line.sent,
            sent_bytes: sum.sent_bytes + line.sent_bytes,
            received: sum.received + line.received,
            received_bytes: sum.received_bytes + line.received_bytes,
            duplicates: sum.duplicates + line.duplicates,
            reordered: sum.reordered + line.reordered,
        })
    }

    fn receive(&mut self, sent: &Sent, bytes: u64) {
        let line = self.lines.entry((sent.class, sent.from)).or_default();
        line.received += 1;
        line.received_bytes += bytes;
        let Some((_, tag)) = sent.tag else { return };
        self.told_latency += 1;
        if sent.class == Class::Flow {
            let came = self.came.entry((sent.from, tag.flow)).or_default();
            if came.contains(&tag.sequence) {
                line.duplicates += 1;
            } else if came.iter().any(|other| *other > tag.sequence) {
                line.reordered += 1;
            }
            came.push(tag.sequence);
        }
    }
}

fn counts(line: &Line) -> TallyCounts {
    let Line { sent, received, duplicates, reordered, .. } = *line;
    // Only frames of flows are known when they come again: what comes twice of others stands for
    // one that was lost.
    TallyCounts { sent, received, lost: sent.saturating_sub(received - duplicates), duplicates, reordered }
}

/// What a device does to a frame.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Pass,
    Drop,
    Twice,
    /// Behind the next one.
    Hold,
    /// Out at the side that it came from.
    Back,
    /// Changed, so that nobody knows it.
    Spoil,
    /// As of an earlier measurement.
    Age,
}

type Waiting = VecDeque<(MemoryFrame, Option<Sent>, Fate)>;

/// A device that keeps books, by measurement.
struct Device {
    fate: Box<dyn FnMut(&Sent) -> Fate>,
    /// How many of so many it takes at once.
    takes: Box<dyn FnMut(usize) -> usize>,
    waiting: [Waiting; 2],
    held: [Waiting; 2],
    books: BTreeMap<u8, Books>,
    epoch: u8,
}

impl Device {
    fn new(fate: impl FnMut(&Sent) -> Fate + 'static, takes: impl FnMut(usize) -> usize + 'static) -> Device {
        Device {
            fate: Box::new(fate),
            takes: Box::new(takes),
            waiting: Default::default(),
            held: Default::default(),
            books: BTreeMap::new(),
            epoch: 0,
        }
    }

    fn books(&mut self) -> &mut Books {
        self.books.entry(self.epoch).or_default()
    }

    fn take(&mut self, from: Side, mut frame: MemoryFrame) {
        let sent = read(frame.head(), from);
        if let Some((_, tag)) = sent.tag {
            self.epoch = tag.epoch;
        }
        let bytes = frame.captured() as u64 + u64::from(FCS);
        let line = self.books().lines.entry((sent.class, from)).or_default();
        line.sent += 1;
        line.sent_bytes += bytes;
        let mut fate = (self.fate)(&sent);
        // What has no tag is known by its form, whatever becomes of a byte.
        if sent.tag.is_none() && matches!(fate, Fate::Spoil | Fate::Age) {
            fate = Fate::Pass;
        }
        if let (Fate::Spoil | Fate::Age, Some((at, _))) = (fate, sent.tag) {
            let mut changed = frame.head().to_vec();
            changed[if fate == Fate::Spoil { at } else { at + 1 }] ^= 0x80;
            frame = MemoryFrame::new(changed);
        }
        let to = if fate == Fate::Back { from } else { from.other() } as usize;
        match fate {
            Fate::Drop => return,
            Fate::Hold => return self.held[to].push_back((frame, Some(sent), fate)),
            Fate::Twice => self.waiting[to].push_back((frame.clone(), Some(sent), fate)),
            _ => {}
        }
        self.waiting[to].push_back((frame, Some(sent), fate));
        let held = std::mem::take(&mut self.held[to]);
        self.waiting[to].extend(held);
    }

    fn deliver(&mut self, side: Side) -> Option<MemoryFrame> {
        let (frame, sent, fate) = self.waiting[side as usize].pop_front()?;
        let bytes = frame.captured() as u64 + u64::from(FCS);
        let books = self.books();
        match (fate, &sent) {
            (Fate::Back, _) => books.misdirected += 1,
            (Fate::Spoil, _) => books.foreign += 1,
            (Fate::Age, _) => books.stale += 1,
            (_, Some(sent)) => books.receive(sent, bytes),
            (_, None) => books.foreign += 1,
        }
        Some(frame)
    }
}

/// What a frame is, by its bytes: lengths of headers as the standards have them.
fn read(frame: &[u8], from: Side) -> Sent {
    let last = frame.last_chunk::<TAG>().and_then(|bytes| Tag::read(bytes));
    if last.is_some_and(|tag| tag.class == Class::Hostile) {
        return Sent { class: Class::Hostile, from, tag: None };
    }
    let ip = if frame[12..14] == [0x81, 0x00] { 18 } else { 14 };
    let (behind, protocol) =
        if frame[ip] >> 4 == 4 { (ip + 20, frame[ip + 9]) } else { (ip + 40, frame[ip + 6]) };
    let at = behind + if protocol == 17 { 8 } else { 20 };
    match Tag::read(&frame[at..]) {
        Some(tag) => Sent { class: tag.class, from, tag: Some((at, tag)) },
        None => Sent { class: Class::Flood, from, tag: None },
    }
}

struct DevicePort {
    side: Side,
    device: Rc<RefCell<Device>>,
}

impl io::Port for DevicePort {
    type Frame = MemoryFrame;

    fn rx(&mut self, burst: &mut Burst<MemoryFrame>) {
        let mut device = self.device.borrow_mut();
        while !burst.is_full()
            && let Some(frame) = device.deliver(self.side)
        {
            burst.push(frame);
        }
    }

    fn tx(&mut self, burst: &mut Burst<MemoryFrame>) {
        let mut device = self.device.borrow_mut();
        let count = (device.takes)(burst.len()).min(burst.len());
        burst.drain(..count).for_each(|frame| device.take(self.side, frame));
        device.books().refused += burst.len() as u64;
    }
}

impl Port for DevicePort {
    fn alloc(&mut self, count: usize, burst: &mut Burst<MemoryFrame>) -> usize {
        let count = count.min(burst.remaining_capacity());
        burst.extend((0..count).map(|_| MemoryFrame::default()));
        count
    }
}

/// Calls `generate` with ports at both sides of the device; its books afterwards.
fn through<T>(
    device: Device,
    generate: impl FnOnce(&mut Ports<DevicePort>) -> T,
) -> (T, BTreeMap<u8, Books>) {
    let device = Rc::new(RefCell::new(device));
    let port = |side| DevicePort { side, device: device.clone() };
    let told = generate(&mut Ports::pair(port(Side::Inside), port(Side::Outside)));
    let books = std::mem::take(&mut device.borrow_mut().books);
    (told, books)
}

fn near(told: f64, expected: f64, what: &str) {
    assert!((told - expected).abs() <= 1e-9 * expected.abs().max(1.0), "{what}: {told}, not {expected}");
}

/// The report of a measurement says what the device's books say, in every field that does not hang
/// on the time of day.
fn compare(report: &Report, books: &Books, what: &str) {
    let total = books.line(|_, _| true);
    let admitted = counts(&books.line(|class, _| matches!(class, Class::Flow | Class::New)));
    let packets = report.packets;
    assert_eq!((packets.sent, packets.received), (total.sent, total.received), "{what}");
    assert_eq!(packets.lost, admitted.lost, "{what}");
    assert_eq!((packets.duplicates, packets.reordered), (total.duplicates, total.reordered), "{what}");
    let unexpected = packets.unexpected;
    assert_eq!(
        (unexpected.foreign, unexpected.misdirected, unexpected.stale, unexpected.total),
        (books.foreign, books.misdirected, books.stale, books.foreign + books.misdirected + books.stale),
        "{what}"
    );
    assert_eq!(packets.refused, books.refused, "{what}");
    near(report.loss, admitted.lost as f64 / admitted.sent.max(1) as f64, what);
    for class in [Class::Flow, Class::New, Class::Denied, Class::Hostile, Class::Flood] {
        let line = books.line(|other, _| other == class);
        assert_eq!(report.class(class), counts(&line), "{what}: {}", class.name());
        let told = report.classes.iter().find(|told| told.class == class.name());
        assert_eq!(told.is_some(), line.sent + line.received > 0, "{what}: {}", class.name());
    }
    let of = |side| counts(&books.line(|_, from| from == side));
    assert_eq!(report.directions.inbound, of(Side::Outside), "{what}");
    assert_eq!(report.directions.outbound, of(Side::Inside), "{what}");
    let a_second = |number: u64| number as f64 / report.seconds;
    near(report.rate.sent_pps, a_second(total.sent), what);
    near(report.rate.received_pps, a_second(total.received), what);
    near(report.rate.sent_bps, a_second(8 * total.sent_bytes), what);
    near(report.rate.received_bps, a_second(8 * total.received_bytes), what);
    assert_eq!(report.latency_ns.map_or(0, |latency| latency.samples), books.told_latency, "{what}");
}

#[test]
fn whatever_becomes_of_frames_the_report_says_what_the_device_saw() {
    let mut reached = [false; 5];
    for seed in 0..40 {
        let mut rng = Rng::new(seed);
        let shares = if rng.one_in(3) {
            Shares::default()
        } else {
            Shares { new: 0.1, denied: 0.07, hostile: 0.05, flood: 0.03 }
        };
        let spec = Spec {
            from: rng.pick(&[From::Inside, From::Outside, From::Both]),
            versions: rng.pick(&[Versions::V4, Versions::V6, Versions::Both]),
            udp: rng.pick(&[0.0, 0.5, 1.0]),
            vlan: rng.pick(&[None, Some(7)]),
            flows: rng.pick(&[1, 3, 100]),
            sizes: if rng.one_in(2) { vec![128] } else { vec![128, 594, 1518, 200] },
            shares,
            count: Some(3000),
            duration: None,
            drain: Duration::from_millis(5),
            seed,
            ..Spec::default()
        };
        let what = format!("seed {seed}, {spec:?}");
        let (mut of_fates, mut of_takes) = (Rng::new(seed + 1000), Rng::new(seed + 2000));
        let fate = move |_: &Sent| match of_fates.below(20) {
            0 => Fate::Drop,
            1 => Fate::Twice,
            2 => Fate::Hold,
            3 => Fate::Back,
            4 => Fate::Spoil,
            5 => Fate::Age,
            _ => Fate::Pass,
        };
        let takes = move |count: usize| if of_takes.one_in(3) { of_takes.below(count + 1) } else { count };
        let plan = Plan::new(spec).unwrap();
        let (report, books) =
            through(Device::new(fate, takes), |ports| pktgen::run(ports, &plan, &Monitor::default()));
        // Offers before the first frame that bears a tag are in the books of no measurement.
        let mut books: Vec<Books> = books.into_values().collect();
        let mut all = books.pop().unwrap();
        all.refused += books.iter().map(|other| other.refused).sum::<u64>();
        for other in books {
            for (key, line) in other.lines {
                let sum = all.lines.entry(key).or_default();
                (sum.sent, sum.sent_bytes) = (sum.sent + line.sent, sum.sent_bytes + line.sent_bytes);
            }
        }
        compare(&report, &all, &what);
        let p = report.packets;
        assert_eq!((p.planned, p.skipped_late, p.skipped_blocked, report.ended), (Some(3000), 0, 0, "count"));
        let met = [p.duplicates, p.reordered, p.unexpected.misdirected, p.unexpected.stale, p.refused];
        reached.iter_mut().zip(met).for_each(|(reached, met)| *reached |= met > 0);
    }
    assert_eq!(reached, [true; 5]);
}

#[test]
fn a_search_tells_of_each_trial_what_the_device_saw_of_it() {
    // Of the frames that are to pass every tenth is lost; of the others all.
    let mut number = 0;
    let fate = move |sent: &Sent| {
        number += u64::from(sent.class == Class::Flow);
        if sent.class != Class::Flow || number.is_multiple_of(10) { Fate::Drop } else { Fate::Pass }
    };
    let spec = Spec {
        sizes: vec![128],
        shares: Shares { denied: 0.25, ..Shares::default() },
        drain: Duration::from_millis(2),
        ..Spec::default()
    };
    let plan = Plan::new(spec).unwrap();
    let monitor = Monitor::default();
    let wanted = Search { min_pps: 2e4, max_pps: 8e4, resolution: 0.1, ndr_loss: 0.0, pdr_loss: 0.15 };
    let trial = Duration::from_millis(50);
    let (report, books) = through(Device::new(fate, |count| count), |ports| {
        Generator::new(&plan).search(ports, &wanted, (true, true), trial, &monitor)
    });
    let search = report.search.as_ref().unwrap();
    // The highest, at which the PDR is found, and the lowest, at which no NDR is; then the one that
    // the report is of.
    assert_eq!(search.trials.iter().map(|trial| trial.pps).collect::<Vec<_>>(), [8e4, 2e4]);
    assert_eq!((books.len(), monitor.progress().trial), (3, 2));
    for (trial, books) in search.trials.iter().zip(books.values()) {
        let line = counts(&books.line(|class, _| class == Class::Flow));
        assert_eq!((trial.offered, trial.lost), (line.sent, line.lost), "{trial:?}");
        near(trial.loss, line.lost as f64 / line.sent as f64, "loss");
        assert!((trial.loss - 0.1).abs() < 0.01, "{trial:?}");
        let all = books.line(|_, _| true).sent as f64;
        // Sent in 50 ms, or a little more where the machine was late.
        assert!(trial.sent_pps <= all / 0.05 * 1.001 && trial.sent_pps > all / 5.0, "{trial:?} of {all}");
    }
    let (ndr, pdr) = (search.ndr.unwrap(), search.pdr.unwrap());
    assert_eq!(
        (ndr.pps, ndr.sent_pps, ndr.at_minimum, ndr.at_maximum, ndr.allowed_loss),
        (None, None, true, false, 0.0)
    );
    assert_eq!((pdr.pps, pdr.at_minimum, pdr.at_maximum, pdr.allowed_loss), (Some(8e4), false, true, 0.15));
    assert_eq!(pdr.sent_pps, Some(search.trials[0].sent_pps));
    compare(&report, books.values().last().unwrap(), "the last trial");
    assert_eq!((report.rate.asked_pps, report.mode, report.ended), (Some(8e4), "stateless", "duration"));
}

#[test]
fn a_device_that_takes_so_much_and_no_more_is_found_to_take_that() {
    const CAPACITY: f64 = 60_000.0;
    let clock = Clock::calibrate();
    // What it was not asked to take it takes later: only the average counts, and the machine's
    // hiccups do not.
    let (mut begun, mut taken, mut last) = (cycles(), 0u64, 0u8);
    let epoch = Rc::new(std::cell::Cell::new(0u8));
    let seen = epoch.clone();
    let takes = move |count: usize| {
        if seen.get() != last {
            (begun, taken, last) = (cycles(), 0, seen.get());
        }
        let capable = (clock.seconds(cycles() - begun) * CAPACITY) as u64 + 1;
        let room = capable.saturating_sub(taken);
        let count = count.min(room as usize);
        taken += count as u64;
        count
    };
    let fate = move |sent: &Sent| {
        epoch.set(sent.tag.map_or(0, |(_, tag)| tag.epoch));
        Fate::Pass
    };
    let plan = Plan::new(Spec { drain: Duration::from_millis(2), ..Spec::default() }).unwrap();
    let wanted = Search { min_pps: 1e4, max_pps: 2e5, resolution: 0.02, ndr_loss: 0.0, pdr_loss: 0.005 };
    let (report, _) = through(Device::new(fate, takes), |ports| {
        let trial = Duration::from_millis(100);
        Generator::new(&plan).search(ports, &wanted, (true, false), trial, &Monitor::default())
    });
    let search = report.search.unwrap();
    let ndr = search.ndr.unwrap();
    // Above its capacity by what may be caught up with (256 frames of 6,000), and below by the
    // resolution.
    let sent = ndr.sent_pps.unwrap();
    assert!(sent <= CAPACITY * 1.06, "{ndr:?}");
    assert!(ndr.pps.unwrap() >= CAPACITY - 0.02 * wanted.max_pps - 1.0, "{ndr:?} of {:?}", search.trials);
    // What it did not take in time is lost, and was offered.
    for trial in &search.trials {
        near(trial.loss, trial.lost as f64 / trial.offered as f64, "loss");
        let due = trial.pps * 0.1;
        assert!(trial.offered as f64 <= due + 1.0, "{trial:?}");
        assert!((trial.offered + trial.skipped_late) as f64 >= due - 320.0, "{trial:?}");
        assert_eq!(trial.lost > 0, trial.loss > 0.0);
    }
}

#[test]
fn with_a_rate_what_was_due_is_what_was_sent_and_what_was_skipped_and_why() {
    // A device that takes nothing for a while: the ports are to blame, and not the generator.
    let mut begun = None;
    let takes = move |count: usize| {
        let begun = begun.get_or_insert_with(std::time::Instant::now);
        if begun.elapsed() > Duration::from_millis(100) { count } else { 0 }
    };
    let spec = Spec {
        rate: Rate::Pps(50_000.0),
        duration: Some(Duration::from_millis(300)),
        drain: Duration::from_millis(5),
        ..Spec::default()
    };
    let plan = Plan::new(spec).unwrap();
    let (report, _) =
        through(Device::new(|_| Fate::Pass, takes), |ports| pktgen::run(ports, &plan, &Monitor::default()));
    let packets = report.packets;
    // Where the machine had other things to do meanwhile, the generator was late, too.
    assert!(packets.refused > 0 && packets.skipped_blocked + packets.skipped_late > 0, "{packets:?}");
    let due = packets.planned.unwrap();
    let told = packets.sent + packets.skipped_late + packets.skipped_blocked;
    assert!(told <= due + 1 && due <= told + 320, "{packets:?}");
}
