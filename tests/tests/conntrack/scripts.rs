//! Conversations as tables: a title, then packets with what becomes of them.

use super::kinds;

/// The tables. `=> pass` and `=> drop` hold for both firewalls; `=> drop/pass NAME` is what happens here and there, and the name of
/// the difference. `open` stands for a handshake. Behind a difference the states may be others, but the verdicts still count.
const TABLES: &str = include_str!("scripts.txt");

const OPEN: &str = "
C S seq=1000 => pass
S SA seq=5000 ack=1001 => pass
C A seq=1001 ack=5001 => pass
";

/// A packet, and what is to become of it.
pub struct Line {
    /// As [`super::packet`] reads it.
    pub packet: String,
    /// Whether it passes: here, there.
    pub passes: [bool; 2],
    /// The way in which they differ, in verdict or state.
    pub differs: Option<&'static str>,
}

/// A conversation.
pub struct Script {
    /// Its title.
    pub name: String,
    /// Its packets.
    pub lines: Vec<Line>,
}

/// All of them.
pub fn all() -> Vec<Script> {
    let mut scripts: Vec<Script> = Vec::new();
    for line in TABLES.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if line != "open" && !line.contains("=>") {
            scripts.push(Script { name: line.to_owned(), lines: Vec::new() });
            continue;
        }
        let script = scripts.last_mut().expect("a title comes first");
        let lines = if line == "open" { OPEN } else { line };
        script.lines.extend(lines.lines().filter_map(|line| line.split_once("=>")).map(read));
    }
    scripts
}

fn read((packet, expected): (&str, &str)) -> Line {
    let (passes, name) = expected.trim().split_once(' ').unwrap_or((expected.trim(), ""));
    let (here, there) = passes.split_once('/').unwrap_or((passes, passes));
    let passes = [here, there].map(|word| match word {
        "pass" => true,
        "drop" => false,
        other => panic!("{packet}: {other} is neither pass nor drop"),
    });
    let differs = (!name.is_empty()).then(|| kinds::find(name));
    Line { packet: packet.trim().to_owned(), passes, differs }
}
