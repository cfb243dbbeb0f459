//! Frames that ports lose: told in health while it goes on, with what is known of why.

use std::time::{Duration, Instant};

use control::api::types::PortCounters;
use control::health::{HealthBoard, Severity};

/// Without a loss for so long it is over.
const OVER: Duration = Duration::from_secs(5);
/// The kind of problem.
const LOSING: &str = "losing";

/// What one port had lost when it was looked at last.
#[derive(Default)]
pub struct Losses {
    before: Option<PortCounters>,
    /// When it lost the last frame, and what since it began to.
    last: Option<Instant>,
    since: u64,
}

impl Losses {
    /// Looks at a port's counters, `elapsed` after the last look.
    pub fn look(&mut self, port: PortCounters, board: &HealthBoard, now: Instant) {
        let what = format!("port {}", port.name);
        let Some(before) = self.before.replace(port.clone()) else { return };
        let lost = causes(&before, &port);
        let sum: u64 = lost.iter().map(|(n, ..)| n).sum();
        if sum == 0 {
            if self.last.is_some_and(|last| now.duration_since(last) >= OVER) {
                (self.last, self.since) = (None, 0);
                board.clear((&what, LOSING));
            }
            return;
        }
        (self.last, self.since) = (Some(now), self.since + sum);
        let told: Vec<_> = lost.iter().map(|(n, why, _)| format!("{n} {why}")).collect();
        let mut cures: Vec<&str> = lost.iter().map(|(.., cure)| *cure).collect();
        cures.dedup();
        let problem = format!("losing frames: {} (since it began: {})", told.join(", "), self.since);
        board.raise((&what, LOSING), Severity::Degraded, problem, cures.join("; "));
    }
}

/// Frames lost since `before`, and why, and what mends it; kinds that did not occur are left out. What found nobody at
/// the other end is told by the link.
fn causes(before: &PortCounters, now: &PortCounters) -> Vec<(u64, &'static str, &'static str)> {
    const BUSY: &str = "look who else runs on the workers' cores, give more workers, or make its rings larger \
                        (AF_PACKET: framecnt= among the vdev's arguments)";
    const LONG: &str =
        "make the MTU larger, or have the peer segment by itself (ethtool -K … tso off gso off)";
    type Of = fn(&PortCounters) -> u64;
    let kinds: [(Of, &str, &str); 8] = [
        (|p| p.rx_kernel, "received found no room in the kernel's ring or backlog", BUSY),
        (|p| p.rx_missed, "received found no room in the device's ring", BUSY),
        (|p| p.rx_no_buffer, "received found no buffer", "report this as a fault"),
        (|p| p.rx_errors, "received with errors", "look at the cable and at the peer"),
        (|p| p.rx_oversize, "received are longer than the MTU", LONG),
        (|p| p.tx_errors, "could not be sent", "look at the interface's queue and at the peer"),
        (|p| p.tx_oversize, "to be sent are longer than the MTU", LONG),
        (|p| p.tx_full, "to be sent found no room", "look at what drains the port: link speed, qdisc, peer"),
    ];
    let of_kind = |(count, why, cure): (Of, &'static str, &'static str)| {
        let lost = count(now).saturating_sub(count(before));
        (lost > 0).then_some((lost, why, cure))
    };
    kinds.into_iter().filter_map(of_kind).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(rx_kernel: u64, tx_full: u64) -> PortCounters {
        PortCounters { name: "eth".to_owned(), rx_kernel, tx_full, ..PortCounters::default() }
    }

    #[test]
    fn losses_are_in_health_while_they_go_on_and_for_a_while_after() {
        let (mut losses, board, begin) = (Losses::default(), HealthBoard::default(), Instant::now());
        let mut look = |seconds: u64, rx, tx| {
            losses.look(port(rx, tx), &board, begin + Duration::from_secs(seconds));
            let (_, problems) = board.list();
            problems.into_iter().filter(|problem| problem.ended.is_none()).map(|p| p.problem).next()
        };
        // What was lost before the first look is nobody's news.
        assert_eq!(look(0, 7, 0), None);
        assert_eq!(look(1, 7, 0), None);
        let told = look(2, 10, 4).unwrap();
        assert_eq!(
            told,
            "losing frames: 3 received found no room in the kernel's ring or backlog, 4 to be sent found no room \
             (since it began: 7)"
        );
        assert!(look(3, 11, 4).unwrap().ends_with("(since it began: 8)"));
        assert!(look(7, 11, 4).is_some());
        assert_eq!(look(8, 11, 4), None);
    }
}
