//! Where frames come from and go to: what [`mod@crate::drive`] drives.

use engine::Side;
use engine::io::Frame;

use crate::count::Counts;
use crate::port::Writable;
use crate::tag::Class;

/// A frame that was built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Built {
    /// What it is for.
    pub class: Class,
    /// The side that it is sent from.
    pub from: Side,
    /// False for an answer, which waits for no schedule.
    pub initiated: bool,
    /// Its bytes, checksum included.
    pub length: u16,
}

/// Builds frames, and judges those that come.
pub trait Source {
    /// Builds the next frame of this side into `frame`, an answer first; one that is no answer only
    /// if it may `initiate`. `None` if there is nothing to send now.
    fn next<F: Writable>(
        &mut self,
        from: Side,
        initiate: bool,
        now: u64,
        frame: &mut F,
        counts: &mut Counts,
    ) -> Option<Built>;

    /// Judges frames that came in at this side at cycle `now`; where there is one port only, at
    /// neither.
    fn receive<F: Frame>(&mut self, at: Option<Side>, frames: &mut [F], now: u64, counts: &mut Counts);

    /// True if `receive` may be called for 64 frames more before `next` has sent the answers.
    fn has_room(&self) -> bool {
        true
    }

    /// True if everything that was to be done is done.
    fn is_finished(&self) -> bool {
        false
    }

    /// A new measurement begins: what still comes from before is none of it.
    fn begin(&mut self, epoch: u8);
}

/// The bytes of a frame that lie together. Those of an odd one are put together in `scratch`.
#[inline]
pub fn whole<'a, F: Frame>(frame: &'a mut F, scratch: &'a mut [u8]) -> &'a [u8] {
    if frame.is_odd() {
        // Without room for a tag the frame is read without it, and found foreign.
        frame.restore_tag();
        let length = frame.gather(scratch);
        return &scratch[..length];
    }
    frame.head()
}
