//! How a worker's queue is exchanged for another while it runs: between two turns, when it holds nothing of either.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded};
use crossbeam::utils::CachePadded;
use engine::Side;
use engine::worker::Wire;
use pmd::Queue;

use super::workers::order;

/// How often whoever waits for workers looks whether it should go on.
const LOOK: Duration = Duration::from_millis(100);

/// One queue for one worker.
pub struct Swap {
    wire: usize,
    side: Side,
    queue: Queue,
    /// Where the worker puts the one that it had.
    old: Sender<Queue>,
}

impl Swap {
    /// By the worker, between two turns.
    pub fn apply(self, wires: &mut [Wire<Queue>]) {
        let Some(wire) = wires.get_mut(self.wire) else { return };
        let place = match self.side {
            Side::Inside => &mut wire.inside,
            Side::Outside => &mut wire.outside,
        };
        // Whoever waits has room for all of them, or has gone and closes the port with the last queue.
        let _ = self.old.try_send(std::mem::replace(place, self.queue));
    }
}

/// The way to all workers. Workers look at what comes by it only while `order` says so: there is nothing more to look
/// at in the turns between.
#[derive(Clone)]
pub struct SwapChannel {
    order: Arc<CachePadded<AtomicU8>>,
    workers: Vec<Sender<Swap>>,
}

impl SwapChannel {
    /// To workers that obey `order`; the second value is what each of them gets.
    pub fn new(order: &Arc<CachePadded<AtomicU8>>, workers: usize) -> (SwapChannel, Vec<Receiver<Swap>>) {
        let (workers, swaps) = (0..workers).map(|_| bounded(1)).unzip();
        (SwapChannel { order: order.clone(), workers }, swaps)
    }

    /// Gives every worker its queue of this port; back come those that they had, once all have let go of them. `None`
    /// where the workers end meanwhile, or `stop` is set.
    pub fn swap(
        &self,
        (wire, side): (usize, Side),
        queues: Vec<Queue>,
        stop: &AtomicBool,
    ) -> Option<Vec<Queue>> {
        let (old, olds) = bounded(queues.len());
        for (worker, queue) in self.workers.iter().zip(queues) {
            worker.send(Swap { wire, side, queue, old: old.clone() }).ok()?;
        }
        drop(old);
        // Relaxed: the channels order what they carry. Where the workers are to end already, that stays.
        let _ = self.order.compare_exchange(order::RUN, order::SWAP, Relaxed, Relaxed);
        let mut back = Vec::new();
        while back.len() < self.workers.len() && !stop.load(Relaxed) {
            match olds.recv_timeout(LOOK) {
                Ok(queue) => back.push(queue),
                Err(error) if error.is_disconnected() => break,
                Err(_) => {}
            }
        }
        let _ = self.order.compare_exchange(order::SWAP, order::RUN, Relaxed, Relaxed);
        (back.len() == self.workers.len()).then_some(back)
    }
}
