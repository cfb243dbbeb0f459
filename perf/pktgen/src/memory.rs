//! Ports in memory: a cable between two of them, a plug that sends to itself, and a hole. They need
//! no DPDK.

use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use engine::io::{self, Burst, Frame};

use crate::port::{Port, Writable};

/// A frame in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryFrame(Vec<u8>);

impl MemoryFrame {
    /// With these bytes.
    pub fn new(bytes: Vec<u8>) -> MemoryFrame {
        MemoryFrame(bytes)
    }
}

impl Frame for MemoryFrame {
    fn head(&self) -> &[u8] {
        &self.0
    }

    fn captured(&self) -> usize {
        self.0.len()
    }
}

impl Writable for MemoryFrame {
    fn fill(&mut self, bytes: &[u8]) -> bool {
        self.0.clear();
        self.0.extend_from_slice(bytes);
        true
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

type Wire = Arc<ArrayQueue<MemoryFrame>>;

/// One end of a wire in memory.
#[derive(Debug)]
pub struct MemoryPort {
    from: Option<Wire>,
    to: Option<Wire>,
    spare: Vec<MemoryFrame>,
}

/// Two ports, each receiving what the other sends; a direction holds up to `capacity` frames, at
/// least one.
pub fn cable(capacity: usize) -> (MemoryPort, MemoryPort) {
    let wire = || Arc::new(ArrayQueue::new(capacity.max(1)));
    let (there, back) = (wire(), wire());
    (MemoryPort::new(Some(back.clone()), Some(there.clone())), MemoryPort::new(Some(there), Some(back)))
}

impl MemoryPort {
    fn new(from: Option<Wire>, to: Option<Wire>) -> MemoryPort {
        MemoryPort { from, to, spare: Vec::new() }
    }

    /// A port that receives what it sends, up to `capacity` frames at once.
    pub fn plug(capacity: usize) -> MemoryPort {
        let wire = Arc::new(ArrayQueue::new(capacity.max(1)));
        MemoryPort::new(Some(wire.clone()), Some(wire))
    }

    /// A port that takes whatever it is given, and brings nothing.
    pub fn hole() -> MemoryPort {
        MemoryPort::new(None, None)
    }
}

impl io::Port for MemoryPort {
    type Frame = MemoryFrame;

    fn rx(&mut self, burst: &mut Burst<MemoryFrame>) {
        let Some(wire) = &self.from else { return };
        while !burst.is_full()
            && let Some(frame) = wire.pop()
        {
            burst.push(frame);
        }
    }

    fn tx(&mut self, burst: &mut Burst<MemoryFrame>) {
        let Some(wire) = &self.to else { return self.free(burst) };
        let mut taken = 0;
        for frame in burst.iter_mut() {
            match wire.push(std::mem::take(frame)) {
                Ok(()) => taken += 1,
                Err(refused) => {
                    *frame = refused;
                    break;
                }
            }
        }
        burst.drain(..taken);
    }

    fn free(&mut self, burst: &mut Burst<MemoryFrame>) {
        self.spare.extend(burst.drain(..));
        self.spare.truncate(io::BURST);
    }
}

impl Port for MemoryPort {
    fn alloc(&mut self, count: usize, burst: &mut Burst<MemoryFrame>) -> usize {
        let count = count.min(burst.remaining_capacity());
        burst.extend((0..count).map(|_| self.spare.pop().unwrap_or_default()));
        count
    }
}

#[cfg(test)]
mod tests {
    use engine::io::Port as _;

    use super::*;

    fn frames(numbers: std::ops::Range<u8>) -> Burst<MemoryFrame> {
        numbers.map(|n| MemoryFrame::new(vec![n; 60])).collect()
    }

    #[test]
    fn a_cable_carries_both_ways_in_order_and_refuses_what_does_not_fit() {
        let (mut a, mut b) = cable(3);
        let mut burst = frames(0..5);
        a.tx(&mut burst);
        assert_eq!(burst, frames(3..5));
        b.tx(&mut frames(7..8));
        let mut got = Burst::new();
        b.rx(&mut got);
        assert_eq!(got, frames(0..3));
        b.free(&mut got);
        a.rx(&mut got);
        assert_eq!(got, frames(7..8));
    }

    #[test]
    fn a_plug_gives_back_and_a_hole_does_not() {
        let mut burst = frames(0..2);
        let (mut plug, mut hole) = (MemoryPort::plug(9), MemoryPort::hole());
        plug.tx(&mut burst);
        plug.rx(&mut burst);
        assert_eq!(burst, frames(0..2));
        hole.tx(&mut burst);
        hole.rx(&mut burst);
        assert!(burst.is_empty());
        assert_eq!(hole.alloc(70, &mut burst), 64);
    }
}
