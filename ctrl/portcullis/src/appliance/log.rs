//! The log: lines on standard error that hold nobody up. Whoever logs puts the line into a bounded queue; a
//! thread of its own writes. Lines that find the queue full, or cannot be written, are counted as lost.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use control::config::{Log, LogFormat};
use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use pmd::Level;
use tracing_subscriber::fmt::MakeWriter;

/// Lines that wait for the writer at most.
const QUEUE: usize = 4096;
/// How long the end of the program waits for the writer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Writes lines without ever blocking or failing. Cheap to clone.
#[derive(Clone)]
pub struct LogWriter {
    queue: Sender<Line>,
    lost: Arc<AtomicU64>,
}

enum Line {
    Text(Vec<u8>),
    /// Tells the writer's caller that all before it is written.
    Flush(Sender<()>),
}

impl LogWriter {
    /// To a stream, by a thread of its own.
    pub fn to(stream: impl Write + Send + 'static) -> io::Result<LogWriter> {
        let (queue, lines) = bounded(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let counted = lost.clone();
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_all(&lines, stream, &counted))?;
        Ok(LogWriter { queue, lost })
    }

    /// Lines lost since the start.
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    /// Puts a line, or several at once, into the queue.
    pub fn put(&self, line: Vec<u8>) {
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.queue.try_send(Line::Text(line))
        {
            self.lost.fetch_add(1, Relaxed);
        }
    }

    /// Waits until what was put in so far is written, but not for long: a reader may never come.
    pub fn flush(&self) {
        let (done, is_done) = bounded(1);
        let end = Instant::now() + PATIENCE;
        if self.queue.send_deadline(Line::Flush(done), end).is_ok() {
            // The writer is stuck in a write, or it has answered.
            let _ = is_done.recv_deadline(end);
        }
    }
}

fn write_all(lines: &Receiver<Line>, mut stream: impl Write, lost: &AtomicU64) {
    for line in lines {
        match line {
            Line::Text(text) => {
                if stream.write_all(&text).and_then(|()| stream.flush()).is_err() {
                    lost.fetch_add(1, Relaxed);
                }
            }
            // Nobody may be waiting any more.
            Line::Flush(done) => drop(done.send(())),
        }
    }
}

/// One event's text on its way into the queue.
pub struct Event<'l> {
    lines: &'l LogWriter,
    text: Vec<u8>,
}

impl Write for Event<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Event<'_> {
    fn drop(&mut self) {
        if !self.text.is_empty() {
            self.lines.put(std::mem::take(&mut self.text));
        }
    }
}

impl<'l> MakeWriter<'l> for LogWriter {
    type Writer = Event<'l>;

    fn make_writer(&'l self) -> Event<'l> {
        Event { lines: self, text: Vec::new() }
    }
}

/// Starts the log on standard error, as the configuration says.
pub fn start(log: &Log) -> io::Result<LogWriter> {
    // A descriptor of its own: while EAL starts, standard error leads elsewhere.
    let lines = LogWriter::to(File::from(io::stderr().as_fd().try_clone_to_owned()?))?;
    let subscriber = tracing_subscriber::fmt()
        .with_writer(lines.clone())
        .with_target(false)
        .with_max_level(log.level)
        .with_ansi(io::stderr().is_terminal());
    // Refused only where there is one already.
    let _ = match log.format {
        LogFormat::Text => subscriber.try_init(),
        LogFormat::Json => subscriber.json().with_ansi(false).flatten_event(true).try_init(),
    };
    Ok(lines)
}

/// DPDK's own log, as lines of this one.
pub fn listen_to_dpdk() {
    pmd::listen(|level, line| match level {
        Level::Error => tracing::error!("DPDK: {line}"),
        Level::Warning => tracing::warn!("DPDK: {line}"),
        Level::Info => tracing::info!("DPDK: {line}"),
        Level::Debug => tracing::debug!("DPDK: {line}"),
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// Fails, or blocks as long as the lock is held.
    struct Stream {
        written: Arc<Mutex<Vec<u8>>>,
        fails: bool,
    }

    impl Write for Stream {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.fails {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.written.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_come_out_whole_and_in_order() {
        let written = Arc::new(Mutex::new(Vec::new()));
        let lines = LogWriter::to(Stream { written: written.clone(), fails: false }).unwrap();
        for n in 0..100 {
            let mut event = lines.make_writer();
            write!(event, "line ").unwrap();
            writeln!(event, "{n}").unwrap();
        }
        lines.flush();
        let expected: String = (0..100).map(|n| format!("line {n}\n")).collect();
        assert_eq!(
            (String::from_utf8(written.lock().unwrap().clone()).unwrap(), lines.lost()),
            (expected, 0)
        );
    }

    #[test]
    fn what_cannot_be_written_is_lost_and_counted() {
        let lines = LogWriter::to(Stream { written: Arc::default(), fails: true }).unwrap();
        (0..10).for_each(|_| lines.put(b"line\n".to_vec()));
        lines.flush();
        assert_eq!(lines.lost(), 10);
    }

    #[test]
    fn a_reader_that_does_not_read_holds_nobody_up() {
        let written = Arc::new(Mutex::new(Vec::new()));
        let lines = LogWriter::to(Stream { written: written.clone(), fails: false }).unwrap();
        let held = written.lock().unwrap();
        (0..2 * QUEUE).for_each(|_| lines.put(b"line\n".to_vec()));
        lines.flush();
        let lost = lines.lost();
        assert!((QUEUE as u64 - 1..=QUEUE as u64).contains(&lost), "{lost}");
        drop(held);
        lines.flush();
        assert_eq!(written.lock().unwrap().len() as u64, (2 * QUEUE as u64 - lost) * 5);
    }
}
