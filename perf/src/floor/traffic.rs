//! Flows as captures: a frame a flow and direction, so that from the second round on every packet
//! is of an answered flow.

use std::{
    io,
    path::{Path, PathBuf},
};

use testkit::{
    frame::{Build, udp},
    lab::SERVER_V4,
    pcap::{self, Format},
};

/// Where the two captures are.
#[derive(Clone, Debug)]
pub struct Captures {
    /// The server's frames.
    pub inside: PathBuf,
    /// The clients' frames.
    pub outside: PathBuf,
}

/// Writes a UDP frame of `flows` clients to the server, and its answer; 64 bytes each on the wire.
pub fn write(directory: &Path, flows: u32) -> io::Result<Captures> {
    let client = |flow: u32| {
        let [_, high, middle, low] = (flow / 16).to_be_bytes();
        format!("10.{}.{middle}.{low}:{}", 64 + high, 1024 + flow % 16)
    };
    let server = format!("{SERVER_V4}:53");
    // 60 bytes without the checksum that no capture holds.
    let payload = [0; 60 - 14 - 20 - 8];
    let questions = (0..flows).map(|flow| udp(&*client(flow), &*server).payload(payload).frame());
    let answers = (0..flows).map(|flow| udp(&*server, &*client(flow)).payload(payload).frame());
    let captures =
        Captures { inside: directory.join("inside.pcap"), outside: directory.join("outside.pcap") };
    pcap::write(&captures.outside, Format::MICRO, &pcap::records(0, questions))?;
    pcap::write(&captures.inside, Format::MICRO, &pcap::records(0, answers))?;
    Ok(captures)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_flow_has_a_question_and_its_answer() {
        let directory = std::env::temp_dir().join(format!("perf-traffic-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let captures = write(&directory, 40_000).unwrap();
        let (questions, answers) =
            (pcap::read(&captures.outside).unwrap().1, pcap::read(&captures.inside).unwrap().1);
        std::fs::remove_dir_all(&directory).unwrap();
        assert_eq!((questions.len(), answers.len()), (40_000, 40_000));
        let mut flows = HashSet::new();
        for (question, answer) in questions.iter().zip(&answers) {
            assert_eq!((question.data.len(), answer.data.len()), (60, 60));
            // Addresses and ports, exchanged.
            assert_eq!(question.data[26..30], answer.data[30..34]);
            assert_eq!(question.data[34..36], answer.data[36..38]);
            flows.insert((question.data[26..30].to_vec(), question.data[34..36].to_vec()));
        }
        assert_eq!(flows.len(), 40_000);
    }
}
