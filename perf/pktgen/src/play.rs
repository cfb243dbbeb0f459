//! Captures played: their frames in the order of their stamps, at a rate or as they were captured,
//! once or again and again.
//!
//! What comes back is counted and not compared: frames of a capture say nothing of themselves.

use engine::Side;
use engine::io::Frame;

use crate::capture::Capture;
use crate::clock::{Clock, cycles};
use crate::count::Counts;
use crate::plan::FCS;
use crate::port::Writable;
use crate::source::{Built, Source};
use crate::tag::Class;

/// When frames are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timing {
    /// By the plan's rate.
    Rate,
    /// As long after the first one as they were captured after it.
    Original,
}

/// What is played.
#[derive(Clone, Debug, Default)]
pub struct Reels {
    /// Frames to be sent from inside.
    pub inside: Option<Capture>,
    /// Frames to be sent from outside.
    pub outside: Option<Capture>,
}

#[derive(Clone, Copy, Debug)]
struct Item {
    /// Cycles after the first.
    at: u64,
    from: Side,
    index: usize,
}

/// The source of captured frames.
#[derive(Clone, Debug)]
pub struct Playback {
    reels: Reels,
    order: Vec<Item>,
    timing: Timing,
    /// Loops to play; 0: without end.
    loops: u64,
    played: u64,
    next: usize,
    start: u64,
    /// Cycles from one loop to the next.
    span: u64,
}

impl Playback {
    /// Merges the captures by their stamps; of two equal ones that from inside is first.
    pub fn new(reels: Reels, timing: Timing, loops: u64, clock: &Clock) -> Playback {
        let mut order: Vec<(u64, Side, usize)> = Vec::new();
        for (from, reel) in [(Side::Inside, &reels.inside), (Side::Outside, &reels.outside)] {
            let frames =
                reel.iter().flat_map(|reel| (0..reel.len()).map(|index| (reel.frame(index).0, from, index)));
            order.extend(frames);
        }
        order.sort_by_key(|(time, _, _)| *time);
        let first = order.first().map_or(0, |(time, _, _)| *time);
        let cycles_after = |time: u64| ((time - first) as f64 * clock.hz() / 1e9) as u64;
        let order: Vec<Item> = order
            .into_iter()
            .map(|(time, from, index)| Item { at: cycles_after(time), from, index })
            .collect();
        let last = order.last().map_or(0, |item| item.at);
        // The next loop begins a mean gap after the last frame.
        let span = last + last / (order.len() as u64).saturating_sub(1).max(1);
        Playback { reels, order, timing, loops, played: 0, next: 0, start: cycles(), span }
    }

    fn is_over(&self) -> bool {
        self.order.is_empty() || self.loops > 0 && self.played >= self.loops
    }
}

impl Source for Playback {
    fn next<F: Writable>(
        &mut self,
        from: Side,
        initiate: bool,
        now: u64,
        frame: &mut F,
        _: &mut Counts,
    ) -> Option<Built> {
        if !initiate || self.is_over() {
            return None;
        }
        let item = self.order[self.next];
        let due = self.start + self.played * self.span + item.at;
        if item.from != from || self.timing == Timing::Original && now < due {
            return None;
        }
        let reel = if from == Side::Inside { &self.reels.inside } else { &self.reels.outside };
        let (_, bytes) = reel.as_ref()?.frame(item.index);
        self.next += 1;
        if self.next == self.order.len() {
            (self.next, self.played) = (0, self.played + 1);
        }
        let built = Built { class: Class::Flow, from, initiated: true, length: bytes.len() as u16 + FCS };
        frame.fill(bytes).then_some(built)
    }

    fn receive<F: Frame>(&mut self, at: Option<Side>, frames: &mut [F], _now: u64, counts: &mut Counts) {
        // With one port it is not known which way a frame went.
        let tally = counts.of(Class::Flow, at.map_or(Side::Outside, Side::other));
        tally.received += frames.len() as u64;
        tally.received_bytes +=
            frames.iter().map(|frame| frame.captured() as u64 + u64::from(FCS)).sum::<u64>();
    }

    fn is_finished(&self) -> bool {
        self.is_over()
    }

    fn begin(&mut self, _epoch: u8) {
        (self.played, self.next, self.start) = (0, 0, cycles());
    }
}
