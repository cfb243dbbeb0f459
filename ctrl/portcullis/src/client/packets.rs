//! `trace`, `why` and `capture`: single packets, as the running appliance judges and has judged them.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use control::api::types::{Told, Whys};
use control::trace::FilterQuery;
use hyper::Method;

use super::http::{encoded, request, stream};
use super::told::{decisions, told};
use super::{parsed, print_answer};
use crate::cli::{self, Output};
use crate::failure::{Failure, print};

/// The query of a filter.
pub fn query(asked: &FilterQuery) -> String {
    let FilterQuery { nic, remote, local, protocol, verdict, reason, group, rule, direction, from, .. } =
        asked;
    let texts = [
        ("nic", nic),
        ("remote", remote),
        ("local", local),
        ("protocol", protocol),
        ("verdict", verdict),
        ("reason", reason),
        ("group", group),
        ("rule", rule),
        ("direction", direction),
        ("from", from),
    ];
    let numbers = [
        ("port", asked.port.map(u64::from)),
        ("rate", asked.rate.map(u64::from)),
        ("count", asked.count),
        ("snaplen", asked.snaplen.map(u64::from)),
    ];
    let texts = texts.into_iter().filter_map(|(key, value)| Some((key, encoded(value.as_ref()?))));
    let numbers = numbers.into_iter().filter_map(|(key, value)| Some((key, value?.to_string())));
    let seconds = asked.seconds.map(|seconds| ("seconds", seconds.to_string()));
    let all = texts.chain(numbers).chain(seconds);
    all.map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join("&")
}

/// A refusal that begins with a parameter's name, with the option's in its place.
pub fn as_option(refusal: String) -> String {
    const MORE: [&str; 5] = ["rate", "count", "seconds", "snaplen", "at"];
    match refusal.split_once(':') {
        Some((name, rest)) if cli::PARAMETERS.contains(&name) || MORE.contains(&name) => {
            format!("--{name}:{rest}")
        }
        _ => refusal,
    }
}

/// Says on standard error how much was lost.
fn say_lost(lost: u64, what: &str) {
    print(&format!("portcullis: {lost} {what} lost: this reader or the rings do not keep up\n"), true);
}

/// `trace`
pub fn trace(args: &cli::Trace) -> Result<ExitCode, Failure> {
    let cli::Trace { packets, count, rate, seconds, output, client } = args;
    let asked = FilterQuery { count: *count, rate: *rate, seconds: *seconds, ..packets.asked() };
    let (mut rest, mut shown) = (Vec::new(), String::new());
    let each = |bytes: &[u8]| {
        rest.extend_from_slice(bytes);
        let whole = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        for line in rest[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match line.strip_prefix(b"{\"lost\":") {
                Some(lost) => {
                    let lost = String::from_utf8_lossy(lost);
                    say_lost(lost.trim_end_matches('}').parse().unwrap_or_default(), "records");
                }
                None if *output == Output::Json => {
                    shown.push_str(&String::from_utf8_lossy(line));
                    shown.push('\n');
                }
                None => shown += &told(&parsed::<Told>(line)?),
            }
        }
        rest.drain(..whole);
        let is_read = io::stdout().write_all(shown.as_bytes()).and_then(|()| io::stdout().flush());
        shown.clear();
        // A reader that has gone away has seen enough.
        Ok(is_read.is_ok())
    };
    let begun = || print("portcullis: tracing\n", true);
    let streamed = stream(client, &format!("/v1/trace?{}", query(&asked)), begun, each);
    streamed.map_err(|failure| failure.reworded(as_option))?;
    Ok(ExitCode::SUCCESS)
}

/// `capture`
pub fn capture(args: &cli::Capture) -> Result<ExitCode, Failure> {
    let cli::Capture { write, packets, count, seconds, rate, snaplen, client } = args;
    let asked =
        FilterQuery { count: *count, seconds: *seconds, rate: *rate, snaplen: *snaplen, ..packets.asked() };
    let mut target: Target = if write == Path::new("-") {
        Target::Stdout(io::stdout())
    } else {
        Target::File { path: write, file: None }
    };
    let counted = frames(client, &asked, || print("portcullis: capturing\n", true), &mut target)?;
    print(&format!("portcullis: {} frames captured, {} lost\n", counted.frames, counted.lost), true);
    Ok(ExitCode::SUCCESS)
}

/// Where frames go. A file is made when the appliance has begun to tell.
enum Target<'p> {
    Stdout(io::Stdout),
    File { path: &'p Path, file: Option<File> },
}

impl Write for Target<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Target::Stdout(stdout) => stdout.write(bytes),
            Target::File { file: Some(file), .. } => file.write(bytes),
            Target::File { path, file } => {
                let made = File::create(*path);
                let made = made.map_err(|error| {
                    io::Error::new(error.kind(), format!("{}: cannot write it: {error}", path.display()))
                })?;
                file.insert(made).write(bytes)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Target::Stdout(stdout) = self { stdout.flush() } else { Ok(()) }
    }
}

/// What a capture held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Frames.
    pub frames: u64,
    /// Those that were lost on the way.
    pub lost: u64,
}

/// Captures into a file, block by block: one that is interrupted holds whole frames.
pub fn frames(
    client: &cli::Client,
    asked: &FilterQuery,
    begun: impl FnMut(),
    target: &mut impl Write,
) -> Result<Counted, Failure> {
    let (mut rest, mut counted) = (Vec::new(), Counted::default());
    let each = |bytes: &[u8]| {
        rest.extend_from_slice(bytes);
        let whole = count_blocks(&rest, &mut counted);
        let written = target.write_all(&rest[..whole]).and_then(|()| target.flush());
        rest.drain(..whole);
        match written {
            Ok(()) => Ok(true),
            // Who reads a pipe and goes away has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(Failure::runtime(error)),
        }
    };
    let streamed = stream(client, &format!("/v1/capture?{}", query(asked)), begun, each);
    streamed.map_err(|failure| failure.reworded(as_option))?;
    Ok(counted)
}

/// The bytes that whole blocks take, which are counted.
fn count_blocks(bytes: &[u8], counted: &mut Counted) -> usize {
    const STATISTICS: u32 = 5;
    const PACKET: u32 = 6;
    /// Of a statistics block, where the count of lost frames stands.
    const LOST: usize = 24;
    let word = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    let mut at = 0;
    while let (Some(kind), Some(length)) = (word(at), word(at + 4)) {
        let end = at + length as usize;
        if length < 12 || end > bytes.len() {
            break;
        }
        match kind {
            PACKET => counted.frames += 1,
            STATISTICS => {
                counted.lost = word(at + LOST).map_or(counted.lost, u64::from);
            }
            _ => {}
        }
        at = end;
    }
    at
}

/// `why`
pub fn why(args: &cli::Why) -> Result<ExitCode, Failure> {
    let mut target = format!("/v1/why?packet={}&limit={}", encoded(&args.tuple.join(" ")), args.limit);
    if let Some(at) = &args.at {
        target += &format!("&at={}", moment(at)?);
    }
    let answer = request(&args.client, Method::GET, &target, Vec::new())?.success();
    let body = answer.map_err(|failure| failure.reworded(as_option))?;
    print_answer(&body, args.output, |body| Ok(decisions(&parsed::<Whys>(body)?)))
}

/// A moment as seconds since 1970.
pub fn moment(text: &str) -> Result<String, Failure> {
    let bad = || {
        Failure::input(format!(
            "--at: {text}; allowed: seconds since 1970, a time such as 2026-01-31T12:00:00Z, or how long ago, such as -90s, -5m or -2h"
        ))
    };
    if let Some(ago) = text.strip_prefix('-') {
        let (number, unit) = ago.split_at(ago.len() - usize::from(ago.ends_with(['s', 'm', 'h'])));
        let unit = match unit {
            "m" => 60.0,
            "h" => 3600.0,
            _ => 1.0,
        };
        let ago = number.parse::<f64>().ok().filter(|number| *number >= 0.0).ok_or_else(bad)? * unit;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        return Ok(format!("{:.6}", (now - ago).max(0.0)));
    }
    if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') && text.parse::<f64>().is_ok() {
        return Ok(text.to_owned());
    }
    let time: jiff::Timestamp = text.parse().map_err(|_| bad())?;
    // Up to the end of what is written: a time to the second means that second.
    let whole = time.subsec_nanosecond() == 0;
    let micros = time.as_microsecond() + if whole { 999_999 } else { 0 };
    Ok(format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_written_whole_and_counted() {
        let block = |kind: u32, body: &[u8]| {
            let length = (body.len() as u32 + 12).to_le_bytes();
            [&kind.to_le_bytes()[..], &length, body, &length].concat()
        };
        let lost = [[0; 12].as_slice(), &[5, 0, 8, 0], &7u64.to_le_bytes(), &[0; 4]].concat();
        let all =
            [block(0x0A0D_0D0A, &[1; 20]), block(6, &[2; 24]), block(5, &lost), block(6, &[3; 8])].concat();
        let mut counted = Counted::default();
        assert_eq!(count_blocks(&all, &mut counted), all.len());
        assert_eq!(counted, Counted { frames: 2, lost: 7 });
        let mut counted = Counted::default();
        assert_eq!(count_blocks(&all[..all.len() - 1], &mut counted), all.len() - 20);
        assert_eq!(counted.frames, 1);
    }

    #[test]
    fn moments_are_read_in_three_forms() {
        assert_eq!(moment("1700000000.25").unwrap(), "1700000000.25");
        assert_eq!(moment("2023-11-14T22:13:20Z").unwrap(), "1700000000.999999");
        assert_eq!(moment("2023-11-14T22:13:20.5Z").unwrap(), "1700000000.500000");
        let ago: f64 = moment("-2m").unwrap().parse().unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        assert!((now - ago - 120.0).abs() < 5.0);
        for bad in ["", "yesterday", "-", "-5d", "1.2.3", "--5s"] {
            assert!(moment(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn refusals_name_options() {
        assert_eq!(as_option("nic: no NIC \"a\"".to_owned()), "--nic: no NIC \"a\"");
        assert_eq!(as_option("worker 0 does not answer".to_owned()), "worker 0 does not answer");
    }
}
