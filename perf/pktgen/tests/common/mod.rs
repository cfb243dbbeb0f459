//! What the tests share: something to test, between two cables.

#![allow(dead_code, missing_docs)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use engine::io::{Burst, Frame, Port as _};
use pktgen::memory::{MemoryFrame, MemoryPort, cable};
use pktgen::{Monitor, Plan, Ports, Report, Spec, Writable};

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

type Judge = Box<dyn FnMut(&mut Vec<u8>) -> Fate + Send>;

/// A device under test.
pub struct Dut(Judge);

impl Dut {
    pub fn new(judge: impl FnMut(&mut Vec<u8>) -> Fate + Send + 'static) -> Dut {
        Dut(Box::new(judge))
    }

    pub fn cable() -> Dut {
        Dut::new(|_| Fate::Pass)
    }
}

pub fn plan(spec: &Spec) -> Plan {
    Plan::new(spec.clone()).unwrap_or_else(|invalid| panic!("{invalid}"))
}

/// Runs a plan through the device, which works on a thread of its own.
pub fn run(spec: &Spec, dut: Dut) -> Report {
    let plan = plan(spec);
    through(dut, |ports| pktgen::run(ports, &plan, &Monitor::default()))
}

/// Calls `generate` with ports at both sides of the device.
pub fn through<T>(dut: Dut, generate: impl FnOnce(&mut Ports<MemoryPort>) -> T) -> T {
    let (inside, near) = cable(512);
    let (outside, far) = cable(512);
    let done = Arc::new(AtomicBool::new(false));
    let stop = done.clone();
    std::thread::scope(|scope| {
        scope.spawn(move || forward(near, far, dut, &stop));
        let result = generate(&mut Ports::pair(inside, outside));
        done.store(true, Relaxed);
        result
    })
}

fn forward(mut inside: MemoryPort, mut outside: MemoryPort, mut dut: Dut, stop: &AtomicBool) {
    let mut held: [Option<MemoryFrame>; 2] = [None, None];
    while !stop.load(Relaxed) {
        let moved = pass(&mut inside, &mut outside, &mut dut, &mut held[0])
            | pass(&mut outside, &mut inside, &mut dut, &mut held[1]);
        if !moved {
            std::thread::yield_now();
        }
    }
}

fn pass(from: &mut MemoryPort, to: &mut MemoryPort, dut: &mut Dut, held: &mut Option<MemoryFrame>) -> bool {
    let mut burst = Burst::new();
    from.rx(&mut burst);
    let moved = !burst.is_empty();
    for frame in burst.drain(..) {
        let mut bytes = frame.head().to_vec();
        let fate = dut.0(&mut bytes);
        let frame = MemoryFrame::new(bytes);
        match fate {
            Fate::Pass => send(to, frame),
            Fate::Twice => {
                send(to, frame.clone());
                send(to, frame);
            }
            Fate::Back => send(from, frame),
            Fate::Drop => continue,
            Fate::Hold => {
                *held = Some(frame);
                continue;
            }
        }
        if let Some(frame) = held.take() {
            send(to, frame);
        }
    }
    moved
}

fn send(port: &mut MemoryPort, frame: MemoryFrame) {
    let mut burst = Burst::new();
    burst.push(frame);
    while !burst.is_empty() {
        port.tx(&mut burst);
    }
}

/// A frame of these bytes.
pub fn frame(bytes: &[u8]) -> MemoryFrame {
    let mut frame = MemoryFrame::default();
    assert!(frame.fill(bytes));
    frame
}
