//! How long connections last.

use super::State;

/// Idle timeouts in ticks (semantics 4.1, 4.3, 4.6).
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// SYN sent and SYN received.
    pub tcp_syn: u32,
    /// Established.
    pub tcp_established: u32,
    /// Both FINs seen.
    pub tcp_fin: u32,
    /// One FIN seen.
    pub tcp_half_closed: u32,
    /// What is left at most after a reset that its receiver may refuse.
    pub tcp_reset: u32,
    /// ICMP.
    pub icmp: u32,
    /// Others, one direction seen.
    pub one_way: u32,
    /// Others, both seen.
    pub two_way: u32,
    /// What is remembered of a first fragment.
    pub fragment: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = |s: u32| s * crate::time::TICKS_PER_SECOND;
        Timeouts {
            tcp_syn: seconds(30),
            tcp_established: seconds(600),
            tcp_fin: seconds(30),
            tcp_half_closed: seconds(30),
            tcp_reset: seconds(10),
            icmp: seconds(30),
            one_way: seconds(30),
            two_way: seconds(180),
            fragment: seconds(5),
        }
    }
}

impl Timeouts {
    /// Of a connection in this state.
    pub fn of(&self, state: State) -> u32 {
        match state {
            State::SynSent | State::SynReceived => self.tcp_syn,
            State::Established => self.tcp_established,
            State::FinWait => self.tcp_half_closed,
            State::Closing => self.tcp_fin,
            State::Icmp | State::IcmpAnswered => self.icmp,
            State::OneWay => self.one_way,
            State::TwoWay => self.two_way,
        }
    }

    /// The longest that a deadline can lie ahead.
    pub fn longest(&self) -> u32 {
        [
            self.tcp_syn,
            self.tcp_established,
            self.tcp_fin,
            self.tcp_half_closed,
            self.icmp,
            self.one_way,
            self.two_way,
            self.fragment,
        ]
        .into_iter()
        .fold(0, u32::max)
    }
}
