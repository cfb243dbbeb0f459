//! Captures sent into interfaces of the kernel as fast as one core can, over and over.

use std::{
    io::{self, IoSlice},
    os::fd::OwnedFd,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use rustix::net::{
    MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg, sockopt::set_socket_send_buffer_size_force,
};
use testkit::{lab::Wire, pcap};

/// Frames that a call of the kernel sends.
const BATCH: usize = 64;
/// Bytes that may be under way: more than queues behind it hold, so that they overflow before this
/// blocks.
const UNDER_WAY: usize = 64 << 20;

/// A capture and the interface that it is sent into.
pub struct Source {
    socket: OwnedFd,
    frames: Vec<pcap::Record>,
    next: usize,
}

impl Source {
    /// On an interface of the calling thread's network.
    pub fn open(interface: &str, frames: Vec<pcap::Record>) -> io::Result<Source> {
        let socket = Wire::sender(interface)?;
        set_socket_send_buffer_size_force(&socket, UNDER_WAY)?;
        Ok(Source { socket, frames, next: 0 })
    }

    /// The next frames, from the first again after the last.
    fn send(&mut self) -> io::Result<()> {
        let slices: [[IoSlice<'_>; 1]; BATCH] =
            std::array::from_fn(|n| [IoSlice::new(&self.frames[(self.next + n) % self.frames.len()].data)]);
        let mut controls: [SendAncillaryBuffer<'_, '_, '_>; BATCH] =
            std::array::from_fn(|_| Default::default());
        let mut slices = slices.iter().zip(&mut controls);
        let mut messages: [MMsgHdr<'_>; BATCH] = std::array::from_fn(|_| {
            let (slice, control) = slices.next().expect("there are as many");
            MMsgHdr::new(slice, control)
        });
        let sent = match sendmmsg(&self.socket, &mut messages, SendFlags::empty()) {
            Ok(sent) => sent,
            // A queue behind it is full: whoever is measured has more than it can take.
            Err(rustix::io::Errno::NOBUFS | rustix::io::Errno::AGAIN) => BATCH,
            Err(error) => return Err(error.into()),
        };
        self.next = (self.next + sent) % self.frames.len();
        Ok(())
    }
}

/// Sends of all of them in turn until it is told to stop.
pub fn run(sources: &mut [Source], stop: &AtomicBool) -> io::Result<()> {
    while !stop.load(Relaxed) {
        sources.iter_mut().try_for_each(Source::send)?;
    }
    Ok(())
}
