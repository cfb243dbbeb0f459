//! Packets of one conversation between the client (C, outside) and the server (S, inside), as a line says them:
//!
//! ```text
//! C S seq=1000 win=8000 ws=7      a segment with these flags (S A F R P U, or - for none)
//! S A seq=5001 ack=1001 len=100   with 100 bytes of data
//! C A seq=1 ack=2 sack=5-9        with a block selectively acknowledged; `sackok` on a SYN permits that
//! C udp len=5                     a datagram
//! C echo id=7, S reply id=7       pings; `C icmp type=13 id=7` any other message
//! C error type=3 code=1 of S A …  an ICMP error that quotes the packet behind `of`; `cut=28` quotes 28 bytes of it
//! ```

use engine::Side;
use testkit::frame::*;
use testkit::lab::{CLIENT_V4, SERVER_V4};

/// The server's ports: the one that may be opened from outside, and that of datagrams.
const SSH: u16 = 22;
const DNS: u16 = 53;

/// A frame, with the side it comes from.
pub struct Sent {
    pub from: Side,
    pub frame: Vec<u8>,
}

/// The frame that `text` says, in the conversation of the client's port `port`.
pub fn read(text: &str, port: u16) -> Sent {
    let words: Vec<&str> = text.split_whitespace().collect();
    let from = match words[0] {
        "C" => Side::Outside,
        "S" => Side::Inside,
        who => panic!("{text:?}: {who} is neither C nor S"),
    };
    Sent { from, frame: frame(text, &words, port) }
}

fn number<T: TryFrom<u64>>(words: &[&str], key: &str, default: u64) -> T {
    let prefix = format!("{key}=");
    let found = words.iter().find_map(|word| word.strip_prefix(&prefix));
    let value = found.map_or(default, |found| found.parse().unwrap_or_else(|_| panic!("{key}={found}")));
    T::try_from(value).unwrap_or_else(|_| panic!("{key}={value} is too large"))
}

fn frame(text: &str, words: &[&str], port: u16) -> Vec<u8> {
    let is_client = words[0] == "C";
    let (src, dst) = if is_client { (CLIENT_V4, SERVER_V4) } else { (SERVER_V4, CLIENT_V4) };
    let payload = vec![b'x'; number(words, "len", 0)];
    match words[1] {
        "udp" => {
            let (sport, dport) = if is_client { (port, DNS) } else { (DNS, port) };
            udp((src, sport), (dst, dport)).payload(payload).frame()
        }
        "echo" => echo_request(src, dst, number(words, "id", 0), 1).frame(),
        "reply" => echo_reply(src, dst, number(words, "id", 0), 1).frame(),
        "icmp" => {
            let (kind, code) = (number(words, "type", 0), number(words, "code", 0));
            icmp(src, dst, kind, code).id_seq(number(words, "id", 0), 1).payload([0; 12]).frame()
        }
        "error" => {
            let (_, quoted) = text.split_once(" of ").unwrap_or_else(|| panic!("{text:?} quotes nothing"));
            let quoted = read(quoted, port).frame;
            let own = text.split(" of ").next().map_or(vec![], |own| own.split_whitespace().collect());
            let (kind, code) = (number(&own, "type", 3), number(&own, "code", 1));
            let quote = &quoted[14..quoted.len().min(14 + number::<usize>(&own, "cut", 1000))];
            icmp_error(src, dst, kind, code, quote).frame()
        }
        flags => {
            segment(words, flags, (src, dst), if is_client { (port, SSH) } else { (SSH, port) }, payload)
        }
    }
}

fn segment(
    words: &[&str],
    letters: &str,
    (src, dst): (&str, &str),
    (sport, dport): (u16, u16),
    payload: Vec<u8>,
) -> Vec<u8> {
    let flags = letters.chars().fold(0, |set, letter| {
        set | match letter {
            'S' => SYN,
            'A' => ACK,
            'F' => FIN,
            'R' => RST,
            'P' => PSH,
            'U' => URG,
            '-' => 0,
            other => panic!("{other} is no flag"),
        }
    });
    let mut packet = tcp((src, sport), (dst, number(words, "to", dport.into())))
        .ack(number(words, "ack", 0))
        .flags(flags)
        .seq(number(words, "seq", 0))
        .window(number(words, "win", 8000))
        .payload(payload);
    if words.iter().any(|word| word.starts_with("ws=")) {
        packet = packet.wscale(number(words, "ws", 0));
    }
    if words.contains(&"sackok") {
        packet = packet.sack_permitted();
    }
    if let Some(block) = words.iter().find_map(|word| word.strip_prefix("sack=")) {
        let (left, right) = block.split_once('-').unwrap_or_else(|| panic!("sack={block}"));
        let edge = |text: &str| text.parse::<u32>().unwrap_or_else(|_| panic!("sack={block}")).to_be_bytes();
        packet = packet.option(&[&[1, 1, 5, 10][..], &edge(left), &edge(right)].concat());
    }
    packet.frame()
}
