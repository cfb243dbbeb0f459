//! Flows as captures of queues: which worker owns a frame is decided by the engine's own hash,
//! which queue brings it by us.

use std::io;
use std::path::{Path, PathBuf};

use engine::rss::{RETA_SIZE, rss_hash};
use testkit::frame::{Build, udp};
use testkit::pcap::{self, Format};

/// The instance that all flows are of.
const SERVER: [u8; 4] = [10, 5, 6, 7];
/// Its port, which the policy admits.
const PORT: u16 = 53;
/// Bytes of a frame, without the checksum that no capture holds: 64 on a wire.
const FRAME: usize = 60;

/// The policy under which these flows pass.
pub const POLICY: &str = r#"
vpcs: [{ name: perf, segment: { untagged: true } }]
security_groups:
  - name: open
    rules: [{ direction: inbound, protocol: udp, ports: 53 }, { direction: outbound }]
nics:
  - { name: server, vpc: perf, addresses: [10.5.6.7], security_groups: [open] }
"#;

/// A client's address and port.
type Client = ([u8; 4], u16);

/// Which queue brings what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// One queue with everything: for one worker.
    One,
    /// A queue a worker, with what it owns: as a NIC with symmetric RSS would.
    ByOwner,
    /// A queue a worker, with so much of eight of each other's: 4 is half.
    Crossed(u32),
}

impl Spread {
    /// Queues of each port.
    pub fn queues(self) -> usize {
        if self == Spread::One { 1 } else { 2 }
    }

    /// The queue of the `nth` flow that `owner` owns.
    fn queue(self, owner: usize, nth: u32) -> usize {
        match self {
            Spread::One => 0,
            Spread::ByOwner => owner,
            Spread::Crossed(eighths) => owner ^ usize::from(nth % 8 < eighths),
        }
    }
}

/// Captures of one wire's two ports, a file a queue.
#[derive(Clone, Debug)]
pub struct Captures {
    /// The server's frames, by queue.
    pub inside: Vec<PathBuf>,
    /// The clients' frames, by queue.
    pub outside: Vec<PathBuf>,
    /// Flows by owner and queue: a frame each in both captures of that queue.
    pub flows: [[u32; 2]; 2],
}

impl Captures {
    /// DPDK's arguments for `net_pcap0` inside and `net_pcap1` outside. What is sent is swallowed.
    /// `endless`: the files are received again and again.
    pub fn vdevs(&self, endless: bool) -> [String; 2] {
        let vdev = |index: usize, files: &[PathBuf]| {
            let files: Vec<_> = files.iter().map(|file| format!("rx_pcap={}", file.display())).collect();
            format!(
                "--vdev=net_pcap{index},{}{}",
                files.join(","),
                if endless { ",infinite_rx=1" } else { "" }
            )
        };
        [vdev(0, &self.inside), vdev(1, &self.outside)]
    }
}

/// Who owns a flow, of two workers.
fn owner((address, port): Client) -> usize {
    let number = |bytes: [u8; 4]| u128::from(u32::from_be_bytes(bytes));
    (rss_hash(number(address), number(SERVER), Some((port, PORT))) % RETA_SIZE % 2) as usize
}

/// The `nth` client.
fn client(nth: u32) -> Client {
    let [_, high, middle, low] = (nth / 16).to_be_bytes();
    ([10, 64 + high, middle, low], 1024 + (nth % 16) as u16)
}

/// Writes a UDP frame of each of `flows` clients to the server, and its answer: half of the flows
/// are either worker's, and both frames of a flow come by the same queue.
pub fn write(directory: &Path, spread: Spread, flows: u32) -> io::Result<Captures> {
    let mut clients: Vec<Vec<Client>> = vec![Vec::new(); spread.queues()];
    let mut by_owner = [[0; 2]; 2];
    for client in (0..).map(client) {
        let owner = owner(client);
        let owned: u32 = by_owner[owner].iter().sum();
        if owned >= flows / 2 {
            if by_owner.as_flattened().iter().sum::<u32>() >= flows / 2 * 2 {
                break;
            }
            continue;
        }
        let queue = spread.queue(owner, owned);
        by_owner[owner][queue] += 1;
        clients[queue].push(client);
    }
    let write = |name: &str, frame: &dyn Fn(Client) -> Vec<u8>| -> io::Result<Vec<PathBuf>> {
        let each = clients.iter().enumerate().map(|(queue, clients)| {
            let path = directory.join(format!("{name}-{spread:?}-{queue}.pcap"));
            let frames = clients.iter().copied().map(frame);
            pcap::write(&path, Format::MICRO, &pcap::records(0, frames)).map(|()| path)
        });
        each.collect()
    };
    let text = |(address, port): Client| format!("{}:{port}", std::net::Ipv4Addr::from(address));
    let payload = [0; FRAME - 14 - 20 - 8];
    let server = text((SERVER, PORT));
    Ok(Captures {
        inside: write("inside", &|client| udp(&*server, &*text(client)).payload(payload).frame())?,
        outside: write("outside", &|client| udp(&*text(client), &*server).payload(payload).frame())?,
        flows: by_owner,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(paths: &[PathBuf]) -> Vec<Vec<Vec<u8>>> {
        let data = |path| pcap::read(path).unwrap().1.into_iter().map(|record| record.data).collect();
        paths.iter().map(data).collect()
    }

    #[test]
    fn each_queue_has_what_it_should_and_both_ways_of_it() {
        let directory = tempfile::tempdir().unwrap();
        for (spread, flows) in [
            (Spread::One, [[500, 0], [500, 0]]),
            (Spread::ByOwner, [[500, 0], [0, 500]]),
            (Spread::Crossed(4), [[248, 252], [252, 248]]),
            (Spread::Crossed(8), [[0, 500], [500, 0]]),
        ] {
            let captures = write(directory.path(), spread, 1000).unwrap();
            assert_eq!(captures.flows, flows, "{spread:?}");
            let (inside, outside) = (frames(&captures.inside), frames(&captures.outside));
            for (queue, (answers, questions)) in inside.iter().zip(&outside).enumerate() {
                assert_eq!(answers.len() as u32, flows[0][queue] + flows[1][queue]);
                assert_eq!(answers.len(), questions.len());
                for (answer, question) in answers.iter().zip(questions) {
                    assert_eq!((answer.len(), question.len()), (FRAME, FRAME));
                    assert_eq!(answer[26..30], question[30..34]);
                    assert_eq!(answer[34..36], question[36..38]);
                }
            }
        }
    }
}
