//! A TCP connection between a client outside and a server of the NIC `a`, in each of its states.

use testkit::frame::*;
use testkit::scenario::{Scenario, one, rule::*};

/// The client, which opens.
pub const C: &str = "198.51.100.9:40000";
/// The server, a NIC's.
pub const S: &str = "10.0.0.1:22";

pub fn scenario() -> Scenario {
    Scenario::new(&one(&[SSH, OUT]))
}

/// The client has sent its SYN, 1000.
pub fn syn_sent() -> Scenario {
    let mut s = scenario();
    assert_eq!(s.outside(tcp(C, S).syn().seq(1000)), "new by web#0");
    s
}

/// The server has answered with 5000.
pub fn syn_received() -> Scenario {
    let mut s = syn_sent();
    assert_eq!(s.inside(tcp(S, C).syn().seq(5000).ack(1001)), "established");
    s
}

/// Both may send 8000 bytes.
pub fn established() -> Scenario {
    let mut s = scenario();
    s.connect(C, S);
    s
}

/// The server has sent a FIN.
pub fn fin_wait() -> Scenario {
    let mut s = established();
    assert_eq!(s.inside(tcp(S, C).fin().seq(5001).ack(1001)), "established");
    s
}

/// The client, too.
pub fn closing() -> Scenario {
    let mut s = fin_wait();
    assert_eq!(s.outside(tcp(C, S).fin().seq(1001).ack(5002)), "established");
    s
}

/// The end of the only connection's line: state and seconds left.
pub fn ends(s: &mut Scenario, with: &str) {
    let lines = s.connections();
    assert!(lines.len() == 1 && lines[0].ends_with(&format!(" {with}")), "{lines:?}: not {with}");
}
