//! What replay writes: verdict lines, the frames that passed, the summary.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use control::api::types::{Staged, Would};
use control::compile::NamedRule;
use engine::reason::REASONS;
use engine::verdict::StagedVerdict;
use engine::verdict::Verdict;
use engine::{Reason, RuleId, Side};

use super::capture::{Link, Packet};

/// Written beside its final place, and moved there when all is well: a refused replay leaves nothing
/// behind. What is no regular file (a device, a pipe) is written as it comes instead.
pub struct Pending {
    /// Where it is written meanwhile, and where it belongs.
    temporary: Option<(PathBuf, PathBuf)>,
    /// What is written by.
    pub writer: BufWriter<Named>,
}

/// A file whose every error names the one that it becomes, however far into a replay it comes.
pub struct Named {
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
        Pending::begin(path).map_err(|error| cannot_write(path, &error))
    }

    fn begin(path: &Path) -> io::Result<Pending> {
        let named = |file| BufWriter::with_capacity(1 << 18, Named { path: path.to_owned(), file });
        if is_stream(path) {
            let file = File::options().write(true).open(path)?;
            return Ok(Pending { temporary: None, writer: named(file) });
        }
        // A link stays, and what it leads to is replaced.
        let place = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let mut name = place.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.tmp", std::process::id()));
        let temporary = place.with_file_name(name);
        let file = File::create(&temporary)?;
        Ok(Pending { temporary: Some((temporary, place)), writer: named(file) })
    }

    /// Puts it in its place.
    pub fn finish(&mut self) -> io::Result<()> {
        self.writer.flush()?;
        let Some((temporary, place)) = &self.temporary else { return Ok(()) };
        std::fs::rename(temporary, place).map_err(|error| cannot_write(&self.writer.get_ref().path, &error))
    }
}

impl Write for Pending {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// True for what cannot be replaced by another file: devices, pipes, and the links below /dev and /proc
/// that stand for a process's open files.
fn is_stream(path: &Path) -> bool {
    let is_of_kernel = path.starts_with("/dev") || path.starts_with("/proc");
    std::fs::metadata(path).is_ok_and(|found| is_of_kernel || !found.is_file() && !found.is_dir())
}

/// The error with the file that it is about, as the command line names it.
fn cannot_write(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: cannot write it: {error}", path.display()))
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some((temporary, _)) = &self.temporary {
            // Gone already if it was moved to its place.
            let _ = std::fs::remove_file(temporary);
        }
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

impl Verdicts {
    /// To the file at `path`, or to standard output for `-`.
    pub fn create(path: Option<&Path>) -> io::Result<Verdicts> {
        Ok(match path {
            None => Verdicts::None,
            Some(path) if path == Path::new("-") => {
                Verdicts::Stdout(BufWriter::with_capacity(1 << 16, io::stdout()))
            }
            Some(path) => Verdicts::File(Pending::create(path)?),
        })
    }

    /// True if it takes standard output.
    pub fn is_stdout(&self) -> bool {
        matches!(self, Verdicts::Stdout(_))
    }

    /// Writes a line.
    pub fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        match self {
            Verdicts::None => Ok(()),
            Verdicts::File(pending) => pending.write_all(line),
            Verdicts::Stdout(writer) => writer.write_all(line),
        }
    }

    /// Puts it in its place.
    pub fn finish(&mut self) -> io::Result<()> {
        match self {
            Verdicts::None => Ok(()),
            Verdicts::File(pending) => pending.finish(),
            Verdicts::Stdout(writer) => writer.flush(),
        }
    }
}

/// The names that a verdict line bears.
pub struct Names<'n> {
    /// Of the NIC.
    pub nic: Option<&'n str>,
    /// Of the rule.
    pub rule: Option<&'n NamedRule>,
    /// What a staged rule would decide.
    pub staged: Option<&'n Staged>,
}

/// All that replay writes.
pub struct Output {
    verdicts: Verdicts,
    pass: [Option<Passed>; 2],
    /// Packets by reason.
    pub reasons: [u64; REASONS],
    /// Packets that passed, observed ones included.
    pub passed: u64,
    /// Packets that dropped.
    pub dropped: u64,
    /// What staged rules would decide, by rule.
    pub staged: BTreeMap<RuleId, Would>,
}

/// pcap's magic for nanosecond stamps, then version 2.4, no zone, no accuracy, snap length. The link type
/// follows.
const PCAP_HEADER: [u32; 5] = [0xA1B2_3C4D, 2 | 4 << 16, 0, 0, 262_144];

/// The frames that leave by one side, as a pcap.
struct Passed {
    pending: Pending,
    /// That of the first packet of the capture that they come from, once there is one.
    link: Option<Link>,
}

impl Passed {
    fn create(path: &Path) -> io::Result<Passed> {
        Ok(Passed { pending: Pending::create(path)?, link: None })
    }

    /// A packet of the capture that these frames come from.
    fn saw(&mut self, packet: &Packet, passes: bool) -> io::Result<()> {
        let link = self.begin(packet.link)?;
        if !passes {
            return Ok(());
        }
        if packet.link != link {
            let path = self.pending.writer.get_ref().path.display();
            let what = format!(
                "{path}: packet {} has link type {}, those before it {}; a pcap holds one",
                packet.index,
                packet.link.number(),
                link.number()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        write_frame(&mut self.pending.writer, packet)
    }

    /// The file's link type, which is `link` if none was written yet.
    fn begin(&mut self, link: Link) -> io::Result<Link> {
        if let Some(link) = self.link {
            return Ok(link);
        }
        for word in PCAP_HEADER.into_iter().chain([u32::from(link.number())]) {
            self.pending.writer.write_all(&word.to_le_bytes())?;
        }
        self.link = Some(link);
        Ok(link)
    }

    fn finish(&mut self) -> io::Result<()> {
        self.begin(Link::ETHERNET)?;
        self.pending.finish()
    }
}

impl Output {
    /// Opens what is asked for.
    pub fn new(
        verdicts: Option<&Path>,
        pass_inside: Option<&Path>,
        pass_outside: Option<&Path>,
    ) -> io::Result<Output> {
        let verdicts = Verdicts::create(verdicts)?;
        let pass = |path: Option<&Path>| path.map(Passed::create).transpose();
        Ok(Output {
            verdicts,
            pass: [pass(pass_inside)?, pass(pass_outside)?],
            reasons: [0; REASONS],
            passed: 0,
            dropped: 0,
            staged: BTreeMap::new(),
        })
    }

    /// True if verdict lines are wanted, so that names are worth looking up.
    pub fn wants_lines(&self) -> bool {
        !matches!(self.verdicts, Verdicts::None)
    }

    /// True if verdict lines take standard output, so that the summary goes to standard error.
    pub fn has_stdout(&self) -> bool {
        self.verdicts.is_stdout()
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
        let passes = verdict.passes();
        *(if passes { &mut self.passed } else { &mut self.dropped }) += 1;
        if let Some(passed) = &mut self.pass[side.other() as usize] {
            passed.saw(packet, passes)?;
        }
        match &mut self.verdicts {
            Verdicts::None => Ok(()),
            Verdicts::File(pending) => write_line(&mut pending.writer, packet, side, verdict, names),
            Verdicts::Stdout(writer) => write_line(writer, packet, side, verdict, names),
        }
    }

    /// Counts what a staged rule would decide about a packet.
    pub fn stage(&mut self, staged_verdict: &StagedVerdict) {
        let would = self.staged.entry(staged_verdict.rule).or_default();
        let (all, differing) = match staged_verdict.allows {
            true => (&mut would.pass, &mut would.pass_dropped),
            false => (&mut would.drop, &mut would.drop_passed),
        };
        *all += 1;
        *differing += u64::from(staged_verdict.differs);
    }

    /// Puts the files in their places.
    pub fn finish(&mut self) -> io::Result<()> {
        for passed in self.pass.iter_mut().flatten() {
            passed.finish()?;
        }
        self.verdicts.finish()
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
    write_name(writer, names.rule.map(|rule| &*rule.name))?;
    match names.rule {
        Some(rule) => write!(writer, ",\"rule_id\":\"{}\"", rule.identity)?,
        None => writer.write_all(b",\"rule_id\":null")?,
    }
    if verdict.observed {
        writer.write_all(b",\"observed\":true")?;
    }
    if let Some(staged) = names.staged {
        writer.write_all(b",\"staged\":")?;
        serde_json::to_writer(&mut *writer, staged)?;
    }
    writer.write_all(b"}\n")
}
