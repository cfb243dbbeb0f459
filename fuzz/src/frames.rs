//! Frames of any bytes, each verdict against the oracle's.
//!
//! The first byte chooses configuration and policy. A frame is a byte (side, time, burst), its
//! length in two and its bytes.

use control::config::parse_config;
use engine::Side;
use testkit::rng::Rng;
use testkit::traffic::{Arrival, Event, Traffic};

use crate::pair::Pair;

/// Frames of one run.
const MOST: usize = 64;
/// Since the frame before, in nanoseconds: a burst, a pause, a reassembly that is given up, a
/// timeout.
const WAITS: [u64; 4] = [1_000, 10_000_000, 1_100_000_000, 31_000_000_000];

/// Judges them.
pub fn run(bytes: &[u8]) {
    let Some((seed, mut rest)) = bytes.split_first() else { return };
    let mut traffic = Traffic::new(u64::from(*seed));
    let config = parse_config(&traffic.config(), "config").expect("its own configuration");
    let mut pair = Pair::new(config);
    if !pair.apply(&traffic.policy()) {
        return;
    }
    let mut frames = 0;
    while let [how, low, high, behind @ ..] = rest {
        let (frame, after) =
            behind.split_at(usize::from(u16::from_le_bytes([*low, *high])).min(behind.len()));
        let arrival = Arrival {
            wait_ns: WAITS[usize::from(how >> 1 & 3)],
            side: if how & 1 == 0 { Side::Inside } else { Side::Outside },
            frame: frame.to_vec(),
            original_len: frame.len() + if how >> 3 & 3 == 3 { 100 } else { 0 },
            flow: 0,
            what: String::new(),
        };
        pair.frame(arrival, 1 + usize::from(how >> 5));
        (rest, frames) = (after, frames + 1);
        if frames == MOST {
            break;
        }
    }
    pair.end();
}

fn put(bytes: &mut Vec<u8>, how: u8, frame: &[u8]) {
    bytes.push(how);
    bytes.extend_from_slice(&(frame.len() as u16).to_le_bytes());
    bytes.extend_from_slice(frame);
}

/// Traffic of those policies, and hostile frames.
pub fn seeds() -> Vec<Vec<u8>> {
    let of_traffic = (0..48u8).map(|seed| {
        let mut traffic = Traffic::new(seed.into());
        traffic.config();
        let (mut bytes, mut rng, mut frames) = (vec![seed], Rng::new(seed.into()), 0);
        while frames < 24 {
            if let Event::Frame(arrival) = traffic.event() {
                let side = u8::from(arrival.side == Side::Outside);
                put(&mut bytes, side | rng.u8() & 0xe6 & !0x04, &arrival.frame);
                frames += 1;
            }
        }
        bytes
    });
    let hostile = (0..16u8).map(|seed| {
        let mut bytes = vec![seed];
        for (place, frame) in testkit::hostile::frames(seed.into(), 16).enumerate() {
            if frame.len() < 2000 {
                put(&mut bytes, place as u8 & 1, &frame);
            }
        }
        bytes
    });
    of_traffic.chain(hostile).collect()
}
