//! A large capture of small packets: TCP connections of many clients to one server, opened one
//! after the other, then questions and answers in any order. Written as it is made, so that its
//! size costs no memory.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use testkit::{
    frame::{Build, checksum, tcp},
    lab::SERVER_V4,
    pcap::{self, Format},
    rng::Rng,
};

/// The policy that lets these connections pass.
pub const POLICY: &str = r#"
vpcs: [{ name: perf, segment: { untagged: true } }]
security_groups:
  - name: open
    rules: [{ direction: inbound, protocol: tcp, ports: 443 }, { direction: outbound }]
nics:
  - { name: server, vpc: perf, addresses: [10.5.6.7], security_groups: [open] }
"#;

/// Bytes of a question and of an answer: with its headers 60, which are 64 on the wire.
const PAYLOAD: u32 = 6;
/// From one packet to the next.
const STEP_NS: u64 = 1_000;
const EPOCH_NS: u64 = 1_700_000_000_000_000_000;

/// Where the two captures are, and the policy.
#[derive(Clone, Debug)]
pub struct Conversations {
    /// The server's frames.
    pub inside: PathBuf,
    /// The clients' frames.
    pub outside: PathBuf,
    /// The document.
    pub policy: PathBuf,
}

/// What the captures are written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// pcap, nanoseconds.
    Pcap,
    /// pcapng, one interface of nanoseconds, packets without options.
    Pcapng,
}

impl Encoding {
    fn file_header(self) -> Vec<u8> {
        match self {
            Encoding::Pcap => pcap::encode(Format::NANO, &[]),
            Encoding::Pcapng => {
                // A section of unknown length; an Ethernet interface with the option `if_tsresol`.
                let section = [0x0A0D_0D0A, 28, 0x1A2B_3C4D, 1, u32::MAX, u32::MAX, 28];
                let interface = [1, 32, 1, 0, 9 | 1 << 16, 9, 0, 32];
                section.iter().chain(&interface).flat_map(|word: &u32| word.to_le_bytes()).collect()
            }
        }
    }

    /// What stands around a frame of this length, which is a multiple of 4.
    fn around(self, length: u32) -> (Vec<u32>, Vec<u32>) {
        match self {
            Encoding::Pcap => (vec![0, 0, length, length], vec![]),
            Encoding::Pcapng => (vec![6, length + 32, 0, 0, 0, length, length], vec![length + 32]),
        }
    }

    fn stamp(self, record: &mut [u8], time_ns: u64) {
        let (at, high, low) = match self {
            Encoding::Pcap => (0, time_ns / 1_000_000_000, time_ns % 1_000_000_000),
            Encoding::Pcapng => (12, time_ns >> 32, time_ns & 0xFFFF_FFFF),
        };
        record[at..at + 4].copy_from_slice(&(high as u32).to_le_bytes());
        record[at + 4..at + 8].copy_from_slice(&(low as u32).to_le_bytes());
    }
}

/// One side's capture under way.
struct Side {
    encoding: Encoding,
    file: BufWriter<File>,
    /// A frame with what stands around it, all of it but the numbers.
    record: Vec<u8>,
    /// Where the frame begins.
    frame_at: usize,
}

impl Side {
    fn new(path: &Path, encoding: Encoding, frame: &[u8]) -> io::Result<Side> {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
        file.write_all(&encoding.file_header())?;
        let bytes = |words: Vec<u32>| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
        let (before, behind) = encoding.around(frame.len() as u32);
        let (before, behind) = (bytes(before), bytes(behind));
        let frame_at = before.len();
        Ok(Side { encoding, file, record: [&before, frame, &behind].concat(), frame_at })
    }

    /// Writes the frame of a client (its address at `at` in the frame, its port at `port_at`).
    fn write(
        &mut self,
        time_ns: u64,
        (at, port_at): (usize, usize),
        client: u32,
        segment: Segment,
    ) -> io::Result<()> {
        self.encoding.stamp(&mut self.record, time_ns);
        let frame = &mut self.record[self.frame_at..];
        frame[at..at + 4].copy_from_slice(&(0x0A40_0000 + client / 16).to_be_bytes());
        frame[port_at..port_at + 2].copy_from_slice(&(1024 + (client % 16) as u16).to_be_bytes());
        frame[38..42].copy_from_slice(&segment.seq.to_be_bytes());
        frame[42..46].copy_from_slice(&segment.ack.to_be_bytes());
        frame[47] = segment.flags;
        // The SYNs hold no data: what is behind their packet is padding.
        let total = if segment.flags & 0x02 != 0 { 40u16 } else { 40 + PAYLOAD as u16 };
        frame[16..18].copy_from_slice(&total.to_be_bytes());
        frame[24..26].fill(0);
        let sum = checksum(&[&frame[14..34]]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        self.file.write_all(&self.record)
    }
}

#[derive(Clone, Copy)]
struct Segment {
    seq: u32,
    ack: u32,
    flags: u8,
}

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
/// Where the client's address and port lie in its own frames, and in the server's.
const OF_CLIENT: (usize, usize) = (26, 34);
const OF_SERVER: (usize, usize) = (30, 36);

/// Writes about `packets` packets of `clients` connections into a directory.
pub fn write(directory: &Path, encoding: Encoding, packets: u64, clients: u32) -> io::Result<Conversations> {
    let paths = Conversations {
        inside: directory.join("inside.pcap"),
        outside: directory.join("outside.pcap"),
        policy: directory.join("policy.yaml"),
    };
    std::fs::write(&paths.policy, POLICY)?;
    let (client, server) = ("10.64.0.0:1024", format!("{SERVER_V4}:443"));
    let payload = [b'x'; PAYLOAD as usize];
    let mut inside = Side::new(&paths.inside, encoding, &tcp(&*server, client).payload(payload).frame())?;
    let mut outside = Side::new(&paths.outside, encoding, &tcp(client, &*server).payload(payload).frame())?;
    let mut time_ns = EPOCH_NS;
    let mut tick = || {
        time_ns += STEP_NS;
        time_ns
    };
    // What client and server send next.
    let mut next: Vec<(u32, u32)> = Vec::with_capacity(clients as usize);
    let mut rng = Rng::new(u64::from(clients));
    for client in 0..clients {
        let (c, s) = (rng.u32(), rng.u32());
        outside.write(tick(), OF_CLIENT, client, Segment { seq: c, ack: 0, flags: SYN })?;
        let c = c.wrapping_add(1);
        inside.write(tick(), OF_SERVER, client, Segment { seq: s, ack: c, flags: SYN | ACK })?;
        next.push((c, s.wrapping_add(1)));
    }
    for _ in u64::from(clients)..packets / 2 {
        let client = rng.below(clients as usize);
        let (c, s) = next[client];
        outside.write(tick(), OF_CLIENT, client as u32, Segment { seq: c, ack: s, flags: ACK })?;
        let c = c.wrapping_add(PAYLOAD);
        inside.write(tick(), OF_SERVER, client as u32, Segment { seq: s, ack: c, flags: ACK })?;
        next[client] = (c, s.wrapping_add(PAYLOAD));
    }
    inside.file.flush()?;
    outside.file.flush()?;
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_packet_is_of_64_bytes_and_stamped_behind_the_one_before() {
        let directory = std::env::temp_dir().join(format!("perf-conversations-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let paths = write(&directory, Encoding::Pcap, 10_000, 100).unwrap();
        let (inside, outside) = (pcap::read(&paths.inside).unwrap().1, pcap::read(&paths.outside).unwrap().1);
        std::fs::remove_dir_all(&directory).unwrap();
        assert_eq!((inside.len(), outside.len()), (5_000, 5_000));
        assert!(inside.iter().chain(&outside).all(|record| record.data.len() == 60));
        for (question, answer) in outside.iter().zip(&inside) {
            assert_eq!(question.time + STEP_NS, answer.time);
            assert_eq!(question.data[26..30], answer.data[30..34]);
            assert_eq!(question.data[34..36], answer.data[36..38]);
        }
    }
}
