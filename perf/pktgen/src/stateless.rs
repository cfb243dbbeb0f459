//! Frames from templates, flow after flow, whatever comes back.
//!
//! All flows are visited in turn, so that the sequence number of a frame is the number of the round
//! and sending needs no memory of the flow. Receiving needs 16 bytes a flow: for each direction the
//! number expected next, and which of the last 32 came.

use engine::Side;
use engine::io::{BURST, Frame};

use crate::clock::cycles;
use crate::count::Counts;
use crate::flow::{Ends, Flows};
use crate::hostile::Hostile;
use crate::parse::Layout;
use crate::plan::{FCS, From, Plan};
use crate::port::Writable;
use crate::source::{Built, Source, whole};
use crate::tag::{Class, TAG, Tag, ahead};
use crate::template::{Shape, Tcp, Template, flags};
use crate::track::{Order, note};

/// Bits of a flow's window.
const WINDOW: u32 = 32;
/// The longest frame in pieces that is read whole.
const SCRATCH: usize = 2048;

/// Where one side is.
#[derive(Clone, Copy, Debug, Default)]
struct Cursor {
    active: bool,
    flow: u32,
    round: u32,
    size: usize,
    deal: usize,
    /// Frames of other classes so far.
    others: u64,
}

/// What came of one direction of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Window {
    next: u32,
    seen: u32,
}

/// The source of templates.
pub struct Stateless {
    flows: Flows,
    layout: Layout,
    templates: Templates,
    deal: Vec<Class>,
    tcp_flags: u8,
    seed: u64,
    epoch: u8,
    cursors: [Cursor; 2],
    windows: Vec<[Window; 2]>,
    hostile: Hostile,
    scratch: Vec<u8>,
}

/// Templates by side, version, protocol and size.
#[derive(Clone, Debug)]
pub struct Templates {
    sized: Vec<Template>,
    sizes: usize,
    bare: Vec<Template>,
}

impl Templates {
    /// All that a plan may need.
    pub fn new(plan: &Plan) -> Templates {
        let (mut sized, mut bare) = (Vec::new(), Vec::new());
        for from in [Side::Inside, Side::Outside] {
            for (v6, udp) in [(false, false), (false, true), (true, false), (true, true)] {
                sized.extend(
                    plan.lengths(v6, udp).map(|length| Template::of_length(plan, from, v6, udp, length)),
                );
                bare.push(Template::new(plan, Shape { from, v6, udp, payload: 0 }));
            }
        }
        Templates { sized, sizes: plan.sizes.len(), bare }
    }

    #[inline]
    fn place(from: Side, v6: bool, udp: bool) -> usize {
        from as usize * 4 + usize::from(v6) * 2 + usize::from(udp)
    }

    /// With a payload, of the `size`th size.
    #[inline]
    pub fn sized(&self, from: Side, v6: bool, udp: bool, size: usize) -> &Template {
        &self.sized[Self::place(from, v6, udp) * self.sizes + size]
    }

    /// Without a payload.
    #[inline]
    pub fn bare(&self, from: Side, v6: bool, udp: bool) -> &Template {
        &self.bare[Self::place(from, v6, udp)]
    }
}

impl Stateless {
    /// For a plan.
    pub fn new(plan: &Plan) -> Stateless {
        let active = |side| match plan.from {
            From::Inside => side == Side::Inside,
            From::Outside => side == Side::Outside,
            From::Both => true,
        };
        let cursor = |side| Cursor { active: active(side), ..Cursor::default() };
        Stateless {
            flows: Flows::new(plan),
            layout: Layout::new(plan),
            templates: Templates::new(plan),
            deal: plan.deal(),
            tcp_flags: plan.tcp_flags,
            seed: plan.seed,
            epoch: 0,
            cursors: [cursor(Side::Inside), cursor(Side::Outside)],
            windows: vec![[Window::default(); 2]; plan.flows as usize],
            hostile: Hostile::new(plan),
            scratch: vec![0; SCRATCH],
        }
    }

    /// The next flow of a side, with the number of its round.
    #[inline]
    fn next_flow(&mut self, from: Side) -> (u32, u32) {
        let cursor = &mut self.cursors[from as usize];
        let (flow, round) = (cursor.flow, cursor.round);
        cursor.flow += 1;
        if cursor.flow == self.flows.count() {
            (cursor.flow, cursor.round) = (0, cursor.round.wrapping_add(1));
            // Or a flow would meet the same size in every round.
            self.next_size(from);
        }
        (flow, round)
    }

    #[inline]
    fn next_size(&mut self, from: Side) -> usize {
        let cursor = &mut self.cursors[from as usize];
        let size = cursor.size;
        cursor.size = if size + 1 == self.templates.sizes { 0 } else { size + 1 };
        size
    }

    /// What a frame of a class is: its ends, whether it has a tag, its number.
    #[cold]
    fn other(&mut self, class: Class, from: Side) -> (u32, u32, Ends, bool) {
        let cursor = &mut self.cursors[from as usize];
        let number = cursor.others;
        cursor.others += 1;
        let flow = (number % u64::from(self.flows.count())) as u32;
        let ends = match class {
            Class::New => self.flows.new_one(number, from),
            Class::Denied => self.flows.denied(flow, from),
            _ => self.flows.flood(number, self.seed, from),
        };
        (flow, number as u32, ends, class != Class::Flood)
    }

    #[inline]
    fn note(&mut self, tag: &Tag, at: Option<Side>, length: u64, now: u64, counts: &mut Counts) {
        if at == Some(tag.from) {
            counts.unexpected.misdirected += 1;
        } else if tag.epoch != self.epoch {
            counts.unexpected.stale += 1;
        } else {
            counts.note_latency(tag.age(now));
            let tally = counts.of(tag.class, tag.from);
            tally.received += 1;
            tally.received_bytes += length;
            if tag.class == Class::Flow {
                let Some(windows) = self.windows.get_mut(tag.flow as usize) else { return };
                let window = &mut windows[tag.from as usize];
                let mut seen = u64::from(window.seen);
                match note(ahead(tag.sequence, window.next), &mut seen, WINDOW) {
                    Order::Ahead => window.next = tag.sequence.wrapping_add(1),
                    Order::Late => tally.reordered += 1,
                    Order::Duplicate => tally.duplicates += 1,
                }
                window.seen = seen as u32;
            }
        }
    }

    /// A frame that has no tag where a payload begins: a SYN of a flood, a hostile one, or somebody
    /// else's.
    #[cold]
    fn note_untagged(&mut self, bytes: &[u8], at: Option<Side>, counts: &mut Counts) {
        let flood = self.layout.parse(bytes).and_then(|arrival| {
            let found = self.flows.find(&arrival.ends)?;
            (found.class == Class::Flood && arrival.tcp.flags == flags::SYN)
                .then_some((Class::Flood, arrival.from))
        });
        let hostile = || Hostile::read(bytes).map(|from| (Class::Hostile, from));
        match flood.or_else(hostile) {
            None => counts.unexpected.foreign += 1,
            Some((_, from)) if at == Some(from) => counts.unexpected.misdirected += 1,
            Some((class, from)) => {
                let tally = counts.of(class, from);
                tally.received += 1;
                tally.received_bytes += bytes.len() as u64 + u64::from(FCS);
            }
        }
    }
}

impl Source for Stateless {
    #[inline]
    fn next<F: Writable>(
        &mut self,
        from: Side,
        initiate: bool,
        _now: u64,
        frame: &mut F,
        _: &mut Counts,
    ) -> Option<Built> {
        let cursor = &mut self.cursors[from as usize];
        if !initiate || !cursor.active {
            return None;
        }
        let class = self.deal[cursor.deal];
        cursor.deal = if cursor.deal + 1 == self.deal.len() { 0 } else { cursor.deal + 1 };
        let built = |length: usize| Built { class, from, initiated: true, length: length as u16 + FCS };
        if class == Class::Hostile {
            return self.hostile.write(from, frame).map(built);
        }
        let (flow, sequence, ends, tagged, kind);
        if class == Class::Flow {
            (flow, sequence) = self.next_flow(from);
            kind = self.flows.kind(flow);
            ends = self.flows.of(flow, kind.opener, 0);
            tagged = true;
        } else {
            (flow, sequence, ends, tagged) = self.other(class, from);
            kind = self.flows.kind(flow);
        }
        let template = if tagged {
            let size = self.next_size(from);
            self.templates.sized(from, kind.v6, kind.udp, size)
        } else {
            self.templates.bare(from, kind.v6, false)
        };
        let said =
            Tcp { sequence, acknowledgment: 0, flags: if tagged { self.tcp_flags } else { flags::SYN } };
        let sequence = sequence & 0xFF_FFFF;
        let tag = Tag { epoch: self.epoch, class, from, flow, sequence, stamp: cycles() }.bytes();
        let fits = template.write(frame, &ends, sequence as u16, said, tagged.then_some(&tag));
        fits.then(|| built(template.len()))
    }

    #[inline]
    fn receive<F: Frame>(&mut self, at: Option<Side>, frames: &mut [F], now: u64, counts: &mut Counts) {
        let mut tags = [None; BURST];
        for frame in frames.iter() {
            frame.prefetch(false);
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        for (frame, tag) in frames.iter_mut().zip(&mut tags) {
            let bytes = whole(frame, &mut scratch[..]);
            *tag = self.layout.parse(bytes).and_then(|arrival| Tag::read(arrival.payload));
            match tag {
                Some(tag) => {
                    if let Some(windows) = self.windows.get(tag.flow as usize) {
                        engine::cpu::prefetch(windows);
                    }
                }
                None => self.note_untagged(bytes, at, counts),
            }
        }
        self.scratch = scratch;
        for (frame, tag) in frames.iter().zip(&tags) {
            if let Some(tag) = tag {
                self.note(tag, at, frame.captured() as u64 + u64::from(FCS), now, counts);
            }
        }
    }

    fn begin(&mut self, epoch: u8) {
        self.epoch = epoch;
    }
}

const _: () = assert!(size_of::<[Window; 2]>() == 16 && TAG <= 16);
