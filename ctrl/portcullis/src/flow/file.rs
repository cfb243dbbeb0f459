//! A file that grows by whole lines, and is put aside when it has grown enough.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where lines go. A line is in it whole or not at all: what a full disk cut is taken back.
pub struct LogFile {
    path: PathBuf,
    rotate_bytes: u64,
    rotate_keep: u32,
    /// What each begins with.
    header: &'static str,
    open: Option<Open>,
}

struct Open {
    file: File,
    /// Bytes of whole lines in it.
    len: u64,
    /// What makes it that file; `None` of what is no regular one, which neither grows nor goes.
    identity: Option<(u64, u64)>,
}

impl LogFile {
    /// At this path: opened when something is written.
    pub fn new(path: &Path, rotate_bytes: u64, rotate_keep: u32, header: &'static str) -> LogFile {
        LogFile { path: path.to_owned(), rotate_bytes, rotate_keep, header, open: None }
    }

    /// Appends whole lines; `written` becomes the bytes of those that are in it, be it all of them or not.
    pub fn write(&mut self, lines: &str, written: &mut usize) -> io::Result<()> {
        let mut rest = lines;
        *written = 0;
        while !rest.is_empty() {
            let open = self.opened()?;
            let (is_empty, is_file) = (open.len == 0, open.identity.is_some());
            if is_empty && !self.header.is_empty() {
                self.append(self.header)?;
            }
            let mut taken = rest.len();
            if is_file {
                let room = self.rotate_bytes.saturating_sub(self.len());
                taken = whole_lines(rest, room as usize);
                if taken == 0 {
                    if self.len() > self.header.len() as u64 {
                        self.put_aside()?;
                        continue;
                    }
                    // One line longer than a file may be.
                    taken = rest.find('\n').map_or(rest.len(), |end| end + 1);
                }
            }
            let (now, later) = rest.split_at(taken);
            self.append(now)?;
            (rest, *written) = (later, *written + now.len());
        }
        Ok(())
    }

    fn len(&self) -> u64 {
        self.open.as_ref().map_or(0, |open| open.len)
    }

    fn append(&mut self, lines: &str) -> io::Result<()> {
        let open = self.opened()?;
        if let Err(error) = open.file.write_all(lines.as_bytes()) {
            if open.identity.is_some() {
                // Part of it may be there. Making a file shorter needs no room.
                open.file.set_len(open.len)?;
            }
            return Err(error);
        }
        open.len += lines.len() as u64;
        Ok(())
    }

    fn opened(&mut self) -> io::Result<&mut Open> {
        let open = match self.open.take() {
            Some(open) => open,
            None => {
                let file = File::options().append(true).create(true).open(&self.path)?;
                let found = file.metadata()?;
                let identity = found.is_file().then(|| (found.dev(), found.ino()));
                Open { file, len: if identity.is_some() { found.len() } else { 0 }, identity }
            }
        };
        Ok(self.open.insert(open))
    }

    /// Whether somebody else has put the file aside or taken it away: it is opened anew then.
    pub fn look(&mut self) {
        let Some(identity) = self.open.as_ref().and_then(|open| open.identity) else { return };
        let found = fs::metadata(&self.path).ok();
        if found.map(|found| (found.dev(), found.ino())) != Some(identity) {
            self.open = None;
        }
    }

    fn put_aside(&mut self) -> io::Result<()> {
        self.open = None;
        for number in (1..self.rotate_keep).rev() {
            match fs::rename(self.aside(number), self.aside(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&self.path, self.aside(1))
    }

    fn aside(&self, number: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }
}

/// Bytes of the first lines that fit into so much room.
fn whole_lines(lines: &str, room: usize) -> usize {
    if lines.len() <= room {
        return lines.len();
    }
    lines.as_bytes()[..room].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1)
}
