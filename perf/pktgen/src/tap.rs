//! A port whose frames are written down on the way.

use engine::io::{self, Burst, Frame};

use crate::capture::Writer;
use crate::port::Port;

/// A port and the captures of what it sends and receives. Slower than the port itself: each frame
/// is copied.
#[derive(Debug)]
pub struct Tapped<P> {
    port: P,
    sent: Option<Writer>,
    received: Option<Writer>,
    /// Frames that are being offered, one behind the other.
    offered: Vec<Vec<u8>>,
}

impl<P> Tapped<P> {
    /// Writes what `port` sends and receives.
    pub fn new(port: P, sent: Option<Writer>, received: Option<Writer>) -> Tapped<P> {
        Tapped { port, sent, received, offered: Vec::new() }
    }

    /// Ends the captures; an error if one of them could not be written.
    pub fn finish(self) -> std::io::Result<()> {
        [self.sent, self.received].into_iter().flatten().try_for_each(Writer::finish)
    }
}

fn whole<F: Frame>(frame: &F) -> Vec<u8> {
    let mut bytes = vec![0; frame.captured()];
    frame.gather(&mut bytes);
    bytes
}

impl<P: io::Port> io::Port for Tapped<P> {
    type Frame = P::Frame;

    fn rx(&mut self, burst: &mut Burst<P::Frame>) {
        let before = burst.len();
        self.port.rx(burst);
        if let Some(writer) = &mut self.received {
            burst[before..].iter().for_each(|frame| writer.write(&whole(frame)));
        }
    }

    fn tx(&mut self, burst: &mut Burst<P::Frame>) {
        let Some(writer) = &mut self.sent else { return self.port.tx(burst) };
        // Sent frames are gone afterwards, and refused ones are not to be written.
        self.offered.clear();
        self.offered.extend(burst.iter().map(whole));
        self.port.tx(burst);
        let taken = self.offered.len() - burst.len();
        self.offered[..taken].iter().for_each(|bytes| writer.write(bytes));
    }

    fn free(&mut self, burst: &mut Burst<P::Frame>) {
        self.port.free(burst);
    }
}

impl<P: Port> Port for Tapped<P> {
    fn alloc(&mut self, count: usize, burst: &mut Burst<P::Frame>) -> usize {
        self.port.alloc(count, burst)
    }
}
