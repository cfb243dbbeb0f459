//! What the tests of Portcullis are made of: builders of frames, captures, a generator of hostile
//! frames, the lab.

pub mod frame;
pub mod hostile;
pub mod lab;
pub mod oracle;
pub mod pcap;
pub mod persisted;
pub mod rng;
pub mod scenario;
pub mod sim;
pub mod simulator;
pub mod traffic;
