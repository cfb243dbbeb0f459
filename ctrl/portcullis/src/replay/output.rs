//! What replay writes: verdict lines, the frames that passed, the summary.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use engine::reason::REASONS;
use engine::verdict::Verdict;
use engine::{Reason, RuleId, Side};

use super::capture::Packet;

/// Written beside its final place, and moved there when all is well: a refused replay leaves nothing behind.
pub struct Pending {
    temporary: PathBuf,
    writer: BufWriter<Named>,
}

/// A file whose every error names the one that it becomes, however far into a replay it comes.
struct Named {
    path: PathBuf,
    file: File,
}

impl Write for Named {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes).map_err(|error| cannot_write(&self.path, &error))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush().map_err(|error| cannot_write(&self.path, &error))
    }
}

impl Pending {
    /// For the file at `path`.
    pub fn create(path: &Path) -> io::Result<Pending> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.tmp", std::process::id()));
        let temporary = path.with_file_name(name);
        let file = File::create(&temporary).map_err(|error| cannot_write(path, &error))?;
        let named = Named { path: path.to_owned(), file };
        Ok(Pending { temporary, writer: BufWriter::with_capacity(1 << 18, named) })
    }

    fn finish(&mut self) -> io::Result<()> {
        self.writer.flush()?;
        let path = &self.writer.get_ref().path;
        self.put_in_place(path).map_err(|error| cannot_write(path, &error))
    }

    fn put_in_place(&self, path: &Path) -> io::Result<()> {
        // What is no regular file (a device, a pipe) is written through instead of replaced.
        if path.exists() && !path.is_file() {
            let mut from = File::open(&self.temporary)?;
            io::copy(&mut from, &mut File::options().write(true).open(path)?)?;
            return Ok(());
        }
        std::fs::rename(&self.temporary, path)
    }
}

/// The error with the file that it is about, as the command line names it.
fn cannot_write(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: cannot write it: {error}", path.display()))
}

impl Drop for Pending {
    fn drop(&mut self) {
        // Gone already if it was moved to its place.
        let _ = std::fs::remove_file(&self.temporary);
    }
}

/// Where verdict lines go.
pub enum Verdicts {
    /// Nowhere.
    None,
    /// To a file.
    File(Pending),
    /// To standard output.
    Stdout(BufWriter<io::Stdout>),
}

/// The names that a verdict line bears.
pub struct Names<'n> {
    /// Of the NIC.
    pub nic: Option<&'n str>,
    /// Of the rule.
    pub rule: Option<&'n str>,
}

/// All that replay writes.
pub struct Output {
    verdicts: Verdicts,
    pass: [Option<Pending>; 2],
    /// Packets by reason.
    pub reasons: [u64; REASONS],
    /// Packets that passed, observed ones included.
    pub passed: u64,
    /// Packets that dropped.
    pub dropped: u64,
}

/// pcap's magic for nanosecond stamps, then version 2.4, no zone, no accuracy, snap length, Ethernet.
const PCAP_HEADER: [u32; 6] = [0xA1B2_3C4D, 2 | 4 << 16, 0, 0, 262_144, 1];

impl Output {
    /// Opens what is asked for.
    pub fn new(
        verdicts: Option<&Path>,
        pass_inside: Option<&Path>,
        pass_outside: Option<&Path>,
    ) -> io::Result<Output> {
        let verdicts = match verdicts {
            None => Verdicts::None,
            Some(path) if path == Path::new("-") => {
                Verdicts::Stdout(BufWriter::with_capacity(1 << 16, io::stdout()))
            }
            Some(path) => Verdicts::File(Pending::create(path)?),
        };
        let pass = |path: Option<&Path>| {
            path.map(|path| {
                let mut pending = Pending::create(path)?;
                for word in PCAP_HEADER {
                    pending.writer.write_all(&word.to_le_bytes())?;
                }
                Ok::<_, io::Error>(pending)
            })
            .transpose()
        };
        Ok(Output {
            verdicts,
            pass: [pass(pass_inside)?, pass(pass_outside)?],
            reasons: [0; REASONS],
            passed: 0,
            dropped: 0,
        })
    }

    /// True if verdict lines are wanted, so that names are worth looking up.
    pub fn wants_lines(&self) -> bool {
        !matches!(self.verdicts, Verdicts::None)
    }

    /// True if verdict lines take standard output, so that the summary goes to standard error.
    pub fn has_stdout(&self) -> bool {
        matches!(self.verdicts, Verdicts::Stdout(_))
    }

    /// Counts a packet, and writes it where it goes.
    pub fn packet(
        &mut self,
        packet: &Packet,
        side: Side,
        verdict: &Verdict,
        names: &Names,
    ) -> io::Result<()> {
        self.reasons[verdict.reason as usize] += 1;
        if verdict.passes() {
            self.passed += 1;
            if let Some(pending) = &mut self.pass[side.other() as usize] {
                write_frame(&mut pending.writer, packet)?;
            }
        } else {
            self.dropped += 1;
        }
        match &mut self.verdicts {
            Verdicts::None => Ok(()),
            Verdicts::File(pending) => write_line(&mut pending.writer, packet, side, verdict, names),
            Verdicts::Stdout(writer) => write_line(writer, packet, side, verdict, names),
        }
    }

    /// Puts the files in their places.
    pub fn finish(&mut self) -> io::Result<()> {
        for pending in self.pass.iter_mut().flatten() {
            pending.finish()?;
        }
        match &mut self.verdicts {
            Verdicts::None => Ok(()),
            Verdicts::File(pending) => pending.finish(),
            Verdicts::Stdout(writer) => writer.flush(),
        }
    }

    /// The reasons that occurred, in the order of the specification, with their counts.
    pub fn counts(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        Reason::ALL
            .into_iter()
            .map(|reason| (reason, self.reasons[reason as usize]))
            .filter(|(_, count)| *count > 0)
    }
}

fn write_frame(writer: &mut impl Write, packet: &Packet) -> io::Result<()> {
    let nanos = packet.stamp.nanos();
    let words = [
        (nanos / 1_000_000_000) as u32,
        (nanos % 1_000_000_000) as u32,
        packet.data.len() as u32,
        packet.original,
    ];
    for word in words {
        writer.write_all(&word.to_le_bytes())?;
    }
    writer.write_all(packet.data)
}

fn write_name(writer: &mut impl Write, name: Option<&str>) -> io::Result<()> {
    match name {
        Some(name) => Ok(serde_json::to_writer(writer, name)?),
        None => writer.write_all(b"null"),
    }
}

fn write_line(
    writer: &mut impl Write,
    packet: &Packet,
    side: Side,
    verdict: &Verdict,
    names: &Names,
) -> io::Result<()> {
    let from = if side == Side::Inside { "inside" } else { "outside" };
    write!(writer, "{{\"from\":\"{from}\",\"index\":{},\"time\":{}", packet.index, packet.stamp.seconds)?;
    if packet.stamp.digits > 0 {
        write!(writer, ".{:0width$}", packet.stamp.fraction, width = usize::from(packet.stamp.digits))?;
    }
    writer.write_all(b",\"nic\":")?;
    write_name(writer, names.nic)?;
    let direction = names.nic.map(|_| side.direction().name());
    writer.write_all(b",\"direction\":")?;
    write_name(writer, direction)?;
    let passes = if verdict.passes() { "pass" } else { "drop" };
    write!(writer, ",\"verdict\":\"{passes}\",\"reason\":\"{}\",\"rule\":", verdict.reason.name())?;
    debug_assert!(names.rule.is_none() || verdict.rule != RuleId::NONE);
    write_name(writer, names.rule)?;
    if verdict.observed {
        writer.write_all(b",\"observed\":true")?;
    }
    writer.write_all(b"}\n")
}
