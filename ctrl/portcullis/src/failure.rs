//! How commands end when they do not succeed, and how they print.

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

/// One clear line a fault, and the exit status it comes with.
#[derive(Debug)]
pub struct Failure {
    message: String,
    status: u8,
}

impl Failure {
    /// Bad usage or bad input: exit status 2.
    pub fn input(message: impl Display) -> Failure {
        Failure { message: message.to_string(), status: 2 }
    }

    /// Bad input with several faults: a line each.
    pub fn inputs<M: Display>(messages: impl IntoIterator<Item = M>) -> Failure {
        let lines: Vec<_> = messages.into_iter().map(|message| message.to_string()).collect();
        Failure::input(lines.join("\nportcullis: "))
    }

    /// It ran and failed: exit status 1.
    pub fn runtime(message: impl Display) -> Failure {
        Failure { message: message.to_string(), status: 1 }
    }

    /// The same as a failure at run time, for commands whose status 2 says something else.
    pub fn into_runtime(self) -> Failure {
        Failure { status: 1, ..self }
    }

    /// The same in other words.
    pub fn reworded(self, word: impl FnOnce(String) -> String) -> Failure {
        Failure { message: word(self.message), ..self }
    }

    /// What it says.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Says so on standard error.
    pub fn report(self) -> ExitCode {
        let _ = writeln!(std::io::stderr(), "portcullis: {}", self.message);
        ExitCode::from(self.status)
    }
}

/// Prints a result to standard output, or to standard error where that is taken. A reader that has gone away is no
/// failure of the command's.
pub fn print(text: &str, to_stderr: bool) {
    let _ = if to_stderr {
        std::io::stderr().write_all(text.as_bytes())
    } else {
        std::io::stdout().write_all(text.as_bytes())
    };
}

/// Says on standard error what is likely a mistake.
pub fn warn(warning: impl Display) {
    print(&format!("portcullis: warning: {warning}\n"), true);
}

/// How long a result waits for a reader.
const PATIENCE: Duration = Duration::from_secs(2);

/// Prints to standard output, but does not wait for ever for a reader that does not read: the appliance has
/// other things to do.
pub fn print_patiently(text: String) {
    let (done, is_done) = mpsc::channel();
    let printer = move || {
        print(&text, false);
        let _ = std::io::stdout().flush();
        let _ = done.send(());
    };
    if std::thread::Builder::new().spawn(printer).is_ok() {
        let _ = is_done.recv_timeout(PATIENCE);
    }
}
