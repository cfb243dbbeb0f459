//! A child process: its output while it runs, an end at a timeout, and no orphan.

use std::{
    io::{self, Read},
    os::unix::process::ExitStatusExt,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

const POLL: Duration = Duration::from_millis(5);

/// A child that was started here; killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    what: String,
    stdout: Reader,
    stderr: Reader,
}

/// A child that has ended, and what it printed.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it complained.
    pub stderr: String,
}

/// Collects one stream of a child, so that the child never waits for us.
#[derive(Debug)]
struct Reader {
    text: Arc<Mutex<Vec<u8>>>,
    thread: JoinHandle<()>,
}

impl Reader {
    fn new(mut stream: impl Read + Send + 'static) -> Reader {
        let text = Arc::new(Mutex::new(Vec::new()));
        let into = text.clone();
        let thread = thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(length @ 1..) = stream.read(&mut piece) {
                into.lock().unwrap_or_else(PoisonError::into_inner).extend(&piece[..length]);
            }
        });
        Reader { text, thread }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.text.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// Waits for the end of the stream, but not for long: a grandchild may hold it open for ever.
    fn rest(&self) -> String {
        let until = Instant::now() + Duration::from_millis(500);
        while !self.ended() && Instant::now() < until {
            thread::sleep(POLL);
        }
        self.text()
    }

    /// Whether the stream is closed and all of it collected.
    fn ended(&self) -> bool {
        self.thread.is_finished()
    }
}

impl Process {
    /// Starts a command with its input closed.
    pub fn start(mut command: Command) -> io::Result<Process> {
        let what = format!("{command:?}");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| io::Error::new(error.kind(), format!("{what}: {error}")))?;
        let stdout = Reader::new(child.stdout.take().expect("it is piped"));
        let stderr = Reader::new(child.stderr.take().expect("it is piped"));
        Ok(Process { child, what, stdout, stderr })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What it has complained so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until it has printed (or complained) this text.
    pub fn wait_for(&self, text: &str, timeout: Duration) -> io::Result<()> {
        let until = Instant::now() + timeout;
        loop {
            // Before the look, so that what it said last is seen.
            let silent = self.stdout.ended() && self.stderr.ended();
            if self.stdout().contains(text) || self.stderr().contains(text) {
                return Ok(());
            }
            if silent || Instant::now() >= until {
                return Err(self.late(&format!("did not say {text:?}"), timeout));
            }
            thread::sleep(POLL);
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let pid = Pid::from_child(&self.child);
        Ok(kill_process(pid, signal)?)
    }

    /// Asks it to end (SIGTERM) and waits for that.
    pub fn terminate(self, timeout: Duration) -> io::Result<Finished> {
        self.signal(Signal::TERM)?;
        self.finish(timeout)
    }

    /// Asks it to end as control-C does (SIGINT) and waits for that.
    pub fn interrupt(self, timeout: Duration) -> io::Result<Finished> {
        self.signal(Signal::INT)?;
        self.finish(timeout)
    }

    /// Waits for its end; at the timeout it is killed, and the error tells what it had printed.
    pub fn finish(mut self, timeout: Duration) -> io::Result<Finished> {
        let until = Instant::now() + timeout;
        let status = loop {
            match self.child.try_wait()? {
                Some(status) => break status,
                None if Instant::now() < until => thread::sleep(POLL),
                None => return Err(self.late("did not end", timeout)),
            }
        };
        Ok(Finished { status, stdout: self.stdout.rest(), stderr: self.stderr.rest() })
    }

    fn late(&self, what: &str, timeout: Duration) -> io::Error {
        let (stdout, stderr) = (self.stdout(), self.stderr());
        let told = format!("{} {what} within {timeout:?}\nstdout:\n{stdout}\nstderr:\n{stderr}", self.what);
        io::Error::new(io::ErrorKind::TimedOut, told)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Only our own child, and only while it is not reaped: its id cannot have become another's.
        if self.is_running() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl Finished {
    /// This, or an error with all it printed, if it did not end with status 0.
    pub fn success(self) -> io::Result<Finished> {
        if self.status.success() {
            return Ok(self);
        }
        let how = match self.status.signal() {
            Some(signal) => format!("killed by signal {signal}"),
            None => self.status.to_string(),
        };
        Err(io::Error::other(format!("{how}\nstdout:\n{}\nstderr:\n{}", self.stdout, self.stderr)))
    }
}
