//! What the tests share: something to test, between two ports in memory. It works within the ports'
//! own calls, so that no test depends on when a thread gets its core.

#![allow(dead_code, missing_docs)]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use engine::Side;
use engine::io::{self, Burst, Frame};
use pktgen::memory::MemoryFrame;
use pktgen::{Monitor, Plan, Port, Ports, Report, Spec};

/// Frames that wait at a side at most.
const ROOM: usize = 512;

/// What becomes of a frame.
pub enum Fate {
    Pass,
    Drop,
    Twice,
    /// Kept until the next one has passed.
    Hold,
    /// Sent back to where it came from.
    Back,
}

type Judge = Box<dyn FnMut(&mut Vec<u8>) -> Fate>;

/// A device under test.
pub struct Dut {
    judge: Judge,
    /// What is to be received, by side.
    waiting: [VecDeque<MemoryFrame>; 2],
    /// What is held back, by the side that it leaves on.
    held: [Option<MemoryFrame>; 2],
}

impl Dut {
    pub fn new(judge: impl FnMut(&mut Vec<u8>) -> Fate + 'static) -> Dut {
        Dut { judge: Box::new(judge), waiting: Default::default(), held: Default::default() }
    }

    pub fn cable() -> Dut {
        Dut::new(|_| Fate::Pass)
    }

    /// A frame comes in by this side.
    fn take(&mut self, from: Side, frame: &MemoryFrame) {
        let mut bytes = frame.head().to_vec();
        let (fate, to) = ((self.judge)(&mut bytes), from.other() as usize);
        let frame = MemoryFrame::new(bytes);
        match fate {
            Fate::Drop => return,
            Fate::Hold => {
                self.held[to] = Some(frame);
                return;
            }
            Fate::Pass => self.waiting[to].push_back(frame),
            Fate::Twice => self.waiting[to].extend([frame.clone(), frame]),
            Fate::Back => self.waiting[from as usize].push_back(frame),
        }
        let held = self.held[to].take();
        self.waiting[to].extend(held);
    }
}

/// The generator's port at one side of it.
pub struct DutPort {
    side: Side,
    dut: Rc<RefCell<Dut>>,
}

impl io::Port for DutPort {
    type Frame = MemoryFrame;

    fn rx(&mut self, burst: &mut Burst<MemoryFrame>) {
        let waiting = &mut self.dut.borrow_mut().waiting[self.side as usize];
        let count = waiting.len().min(burst.remaining_capacity());
        burst.extend(waiting.drain(..count));
    }

    fn tx(&mut self, burst: &mut Burst<MemoryFrame>) {
        let mut dut = self.dut.borrow_mut();
        let room = ROOM.saturating_sub(dut.waiting[self.side.other() as usize].len());
        let count = room.min(burst.len());
        burst.drain(..count).for_each(|frame| dut.take(self.side, &frame));
    }
}

impl Port for DutPort {
    fn alloc(&mut self, count: usize, burst: &mut Burst<MemoryFrame>) -> usize {
        let count = count.min(burst.remaining_capacity());
        burst.extend((0..count).map(|_| MemoryFrame::default()));
        count
    }
}

pub fn plan(spec: &Spec) -> Plan {
    Plan::new(spec.clone()).unwrap_or_else(|invalid| panic!("{invalid}"))
}

/// Runs a plan through the device.
pub fn run(spec: &Spec, dut: Dut) -> Report {
    let plan = plan(spec);
    through(dut, |ports| pktgen::run(ports, &plan, &Monitor::default()))
}

/// Calls `generate` with ports at both sides of the device.
pub fn through<T>(dut: Dut, generate: impl FnOnce(&mut Ports<DutPort>) -> T) -> T {
    let dut = Rc::new(RefCell::new(dut));
    let port = |side| DutPort { side, dut: dut.clone() };
    generate(&mut Ports::pair(port(Side::Inside), port(Side::Outside)))
}
