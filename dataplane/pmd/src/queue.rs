//! A queue pair of a port, in one worker's hands.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::Arc;

use dpdk_sys::rte_mbuf;
use engine::io::{BURST, Burst, Frame, Port, TxRefusal};

use crate::mbuf::Mbuf;
use crate::port::Shared;
use crate::port_state::PortState;

/// One receive and one transmit queue of one port. Only its owner can poll them; it may move to another thread.
///
/// *Frames that are too long.* A frame longer than [`crate::Port::max_frame`] is freed by `rx` and counted in
/// [`crate::Stats::rx_oversize`]; `tx` never hands one to the device, where some would drop it uncounted: it stays in
/// the burst as refused, and counts in [`crate::Stats::tx_oversize`].
///
/// *Segmented frames* go out as they are where the device takes them. Where it does not, they are moved together
/// into their first buffer; those with no room there stay in the burst as refused and count in `tx_oversize` too.
///
/// *Where nobody is.* While its [`crate::TxState`] is shut, and with no device behind it ([`crate::Port::detached_queues`]), it
/// brings no frames and refuses all.
#[derive(Debug)]
pub struct Queue {
    port: u16,
    index: u16,
    max_frame: usize,
    /// More segments than this can't be sent.
    max_segments: u16,
    /// Of those that the last `tx` refused, the ones that can't be sent at all.
    unfit: usize,
    gate: Arc<PortState>,
    /// None where the port has no device.
    shared: Option<Arc<Shared>>,
    _not_sync: PhantomData<Cell<()>>,
}

impl Queue {
    /// The queue pair `index` of the started port behind `shared`. The caller makes each only once.
    pub(crate) fn new(shared: &Arc<Shared>, index: u16) -> Self {
        Self {
            port: shared.id,
            index,
            max_frame: shared.max_frame(),
            max_segments: if shared.multi_segment_tx { u16::MAX } else { 1 },
            unfit: 0,
            gate: Arc::clone(&shared.state),
            shared: Some(Arc::clone(shared)),
            _not_sync: PhantomData,
        }
    }

    /// The same without the device.
    pub(crate) fn detached(shared: &Arc<Shared>, index: u16) -> Self {
        Self { shared: None, ..Self::new(shared, index) }
    }

    /// Its place among the port's queue pairs, from 0.
    pub fn index(&self) -> u16 {
        self.index
    }

    /// The port's name.
    pub fn port_name(&self) -> &str {
        &self.gate.name
    }

    /// Receives what has come so far and lets go of it: how many frames. Before the queue is polled: what comes without a break would keep
    /// this up, so it ends after as many as a large ring holds.
    pub fn set_aside(&mut self) -> usize {
        const MOST: usize = 1 << 17;
        let (mut burst, mut all) = (Burst::new(), 0);
        while all < MOST {
            self.rx(&mut burst);
            if burst.is_empty() {
                break;
            }
            all += burst.len();
            self.free(&mut burst);
        }
        all
    }

    /// Its two ends, for two threads: what one receives and the other sends have nothing in common.
    ///
    /// A `net_ring` port sends to itself; with one end here and one there it is a cable of one way.
    pub fn split(self) -> (RxQueue, TxQueue) {
        let Self { port, index, max_frame, max_segments, unfit, .. } = self;
        let (gate, shared) = (Arc::clone(&self.gate), self.shared.clone());
        let sending =
            Self { port, index, max_frame, max_segments, unfit, gate, shared, _not_sync: PhantomData };
        (RxQueue(self), TxQueue(sending))
    }

    /// Frees the frames from place `from` on that are too long.
    #[cold]
    fn drop_oversize(&self, burst: &mut Burst<Mbuf>, from: usize) {
        let mut place = 0;
        let before = burst.len();
        burst.retain(|frame| {
            place += 1;
            place <= from || frame.captured() <= self.max_frame
        });
        self.gate.counters[usize::from(self.index)].rx_oversize.add((before - burst.len()) as u64);
    }

    /// True if the device would not carry the frame as it is.
    #[inline]
    fn is_unfit(&self, frame: &Mbuf) -> bool {
        (frame.captured() > self.max_frame) | (frame.segments() > self.max_segments)
    }

    /// Takes out of the burst what can't be sent at all, after an attempt to make it fit.
    #[cold]
    fn take_unfit(&self, burst: &mut Burst<Mbuf>) -> Burst<Mbuf> {
        let mut unfit = Burst::new();
        let mut fit = Burst::new();
        for mut frame in burst.drain(..) {
            let fits = frame.captured() <= self.max_frame
                && (frame.segments() <= self.max_segments || frame.linearize());
            if fits { fit.push(frame) } else { unfit.push(frame) }
        }
        *burst = fit;
        self.gate.counters[usize::from(self.index)].tx_oversize.add(unfit.len() as u64);
        unfit
    }

    /// Hands the burst to the device; what it refuses moves to the front.
    #[inline]
    fn send(&self, burst: &mut Burst<Mbuf>) {
        let len = burst.len();
        let frames = burst.as_mut_ptr();
        // SAFETY: `Mbuf` is a transparent pointer, so the burst is an array of `len` of them. The device takes the
        // first `sent` over: they are overwritten or left behind the new length, never dropped. This queue is polled
        // by this thread alone, and its port is started (`shared`).
        unsafe {
            burst.set_len(0);
            let sent = dpdk_sys::shim_eth_tx_burst(
                self.port,
                self.index,
                frames.cast::<*mut rte_mbuf>(),
                len as u16,
            );
            let sent = usize::from(sent).min(len);
            if sent < len && sent > 0 {
                std::ptr::copy(frames.add(sent), frames, len - sent);
            }
            burst.set_len(len - sent);
        }
    }
}

impl Port for Queue {
    type Frame = Mbuf;

    #[inline]
    fn rx(&mut self, burst: &mut Burst<Mbuf>) {
        if self.shared.is_none() {
            return;
        }
        let len = burst.len();
        let room = BURST - len;
        // SAFETY: the burst has `room` places behind `len` (its capacity is BURST); the device fills the first of
        // them with live mbufs that are ours, as many as it says. This queue is polled by this thread alone, and its
        // port is started (`shared`).
        unsafe {
            let free = burst.as_mut_ptr().add(len).cast::<*mut rte_mbuf>();
            let got = dpdk_sys::shim_eth_rx_burst(self.port, self.index, free, room as u16);
            burst.set_len(len + usize::from(got).min(room));
        }
        let longest = burst[len..].iter().map(Frame::captured).max().unwrap_or(0);
        if longest > self.max_frame {
            self.drop_oversize(burst, len);
        }
    }

    #[inline]
    fn tx(&mut self, burst: &mut Burst<Mbuf>) {
        if burst.is_empty() || self.gate.is_shut() || self.shared.is_none() {
            return;
        }
        if burst.iter().fold(false, |any, frame| any | self.is_unfit(frame)) {
            let unfit = self.take_unfit(burst);
            self.unfit = unfit.len();
            self.send(burst);
            burst.extend(unfit);
        } else {
            self.send(burst);
        }
    }

    #[cold]
    fn abandon(&mut self, frames: usize) -> TxRefusal {
        // Those are counted already.
        let fit = frames.saturating_sub(std::mem::take(&mut self.unfit)) as u64;
        let counters = &self.gate.counters[usize::from(self.index)];
        if self.gate.is_down() || self.shared.as_ref().is_none_or(|shared| shared.has_no_peer()) {
            counters.tx_down.add(fit);
            return TxRefusal::Down;
        }
        counters.tx_full.add(fit);
        TxRefusal::Full
    }

    #[inline]
    fn free(&mut self, burst: &mut Burst<Mbuf>) {
        let len = burst.len();
        // SAFETY: `Mbuf` is a transparent pointer; the burst gives up all `len` of them before they are freed here.
        unsafe {
            burst.set_len(0);
            dpdk_sys::shim_pktmbuf_free_bulk(burst.as_mut_ptr().cast::<*mut rte_mbuf>(), len as u32);
        }
    }
}

/// The receiving end of a queue pair: see [`Queue::split`].
#[derive(Debug)]
pub struct RxQueue(Queue);

/// The sending end of a queue pair: see [`Queue::split`].
#[derive(Debug)]
pub struct TxQueue(Queue);

impl RxQueue {
    /// As [`Port::rx`].
    #[inline]
    pub fn rx(&mut self, burst: &mut Burst<Mbuf>) {
        self.0.rx(burst);
    }

    /// As [`Port::free`].
    #[inline]
    pub fn free(&mut self, burst: &mut Burst<Mbuf>) {
        self.0.free(burst);
    }
}

impl TxQueue {
    /// As [`Port::tx`].
    #[inline]
    pub fn tx(&mut self, burst: &mut Burst<Mbuf>) {
        self.0.tx(burst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, Eal, Mempool};

    #[test]
    fn segments_are_moved_together_for_a_device_that_takes_one_and_the_rest_stays_refused() {
        let args = [
            "--no-pci",
            "--no-huge",
            "-m",
            "64",
            "--no-shconf",
            "--no-telemetry",
            "-l",
            "0",
            "--file-prefix=pmd-test",
        ];
        let args: Vec<String> = args.into_iter().chain(["--vdev=net_ring0"]).map(str::to_owned).collect();
        let eal = Eal::init(&args).unwrap();
        let pool = Mempool::new(&eal, "test", 512, 1000).unwrap();
        let port = crate::Port::configure(&eal, "net_ring0", &Config::default(), &pool).unwrap();
        let (port, mut queues) = port.start().unwrap();
        let mut queue = queues.remove(0);
        assert_eq!(queue.max_segments, u16::MAX);
        queue.max_segments = 1;

        let frame = |pieces: &[usize]| {
            let piece = |len: &usize| {
                let mut piece = pool.alloc().unwrap();
                assert!(piece.append(&vec![*len as u8; *len]));
                piece
            };
            let mut head = piece(&pieces[0]);
            pieces[1..].iter().for_each(|len| head.chain(piece(len)).unwrap());
            head
        };
        let mut burst = Burst::new();
        burst.extend([frame(&[100]), frame(&[200, 201]), frame(&[800, 400]), frame(&[300, 301, 302])]);
        queue.tx(&mut burst);
        assert_eq!(burst.iter().map(|f| (f.captured(), f.segments())).collect::<Vec<_>>(), [(1200, 2)]);
        assert_eq!(port.stats().tx_oversize, 1);
        queue.free(&mut burst);

        queue.rx(&mut burst);
        assert_eq!(
            burst.iter().map(|f| (f.captured(), f.segments())).collect::<Vec<_>>(),
            [(100, 1), (401, 1), (903, 1)]
        );
        assert_eq!(burst[1].head(), [vec![200; 200], vec![201; 201]].concat());
        queue.free(&mut burst);
        drop((port, queue));
        assert_eq!(pool.in_use(), 0);
    }
}
