//! Changes under fire: what they take away is gone with the receipt, what they do not touch goes
//! on, and how long they take.

pub mod port;
pub mod preview;
pub mod report;
pub mod rig;
pub mod scale;
pub mod storm;
pub mod subjects;
pub mod undo;
pub mod wholesale;
pub mod world;
