//! One end of the conversation: lines of JSON, some with descriptors.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

use super::Word;

/// Descriptors in one message at most.
const DESCRIPTORS: usize = 8;
/// Bytes of a line at most.
const LONGEST: usize = 16 << 10;

/// One end.
pub struct Line {
    stream: UnixStream,
    unread: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

impl Line {
    /// Over a stream that blocks.
    pub fn new(stream: UnixStream) -> Line {
        Line { stream, unread: Vec::new(), descriptors: Vec::new() }
    }

    /// Says something.
    pub fn say(&self, word: &Word, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut line = serde_json::to_vec(word)?;
        line.push(b'\n');
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::Error::other("too many descriptors"));
        }
        // A line is shorter than a socket's buffer, and one is under way at a time: it goes as a whole.
        match sendmsg(&self.stream, &[IoSlice::new(&line)], &mut control, SendFlags::NOSIGNAL)? {
            sent if sent == line.len() => Ok(()),
            _ => Err(io::ErrorKind::WriteZero.into()),
        }
    }

    /// The other's next word; an error where none comes in time, the other is gone, or it makes no sense.
    pub fn hear(&mut self, patience: Duration) -> io::Result<Word> {
        let until = Instant::now() + patience;
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                return Ok(serde_json::from_slice(&line)?);
            }
            if self.unread.len() > LONGEST {
                return Err(io::Error::other("a line without an end"));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left))?;
            self.receive()?;
        }
    }

    fn receive(&mut self) -> io::Result<()> {
        let (mut bytes, mut space) =
            ([0; 4096], [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))]);
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received =
            recvmsg(&self.stream, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC);
        let received = match received {
            Err(rustix::io::Errno::AGAIN) => return Err(io::ErrorKind::TimedOut.into()),
            Err(rustix::io::Errno::INTR) => return Ok(()),
            other => other?.bytes,
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                self.descriptors.extend(descriptors);
            }
        }
        if received == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.unread.extend_from_slice(bytes.get(..received).unwrap_or_default());
        Ok(())
    }

    /// The descriptors that came, in their order.
    pub fn descriptors(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.descriptors)
    }

    /// The process and the user at the other end.
    pub fn peer(&self) -> io::Result<(u32, u32)> {
        let peer = rustix::net::sockopt::socket_peercred(&self.stream)?;
        Ok((peer.pid.as_raw_nonzero().get() as u32, peer.uid.as_raw()))
    }
}

/// What became of the other, in words.
pub fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
            "it is gone".to_owned()
        }
        io::ErrorKind::TimedOut => "it does not answer".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_word_comes_with_its_descriptors_and_a_silent_or_dead_end_is_told() {
        let (one, other) = UnixStream::pair().unwrap();
        let (one, mut other) = (Line::new(one), Line::new(other));
        let file = tempfile::tempfile().unwrap();
        one.say(&Word::LetGo, &[file.as_fd(), file.as_fd()]).unwrap();
        one.say(&Word::Ready, &[]).unwrap();
        assert!(matches!(other.hear(Duration::from_secs(5)), Ok(Word::LetGo)));
        assert_eq!(other.descriptors().len(), 2);
        assert!(matches!(other.hear(Duration::from_secs(5)), Ok(Word::Ready)));
        assert_eq!(words(&other.hear(Duration::from_millis(20)).unwrap_err()), "it does not answer");
        assert_eq!(other.peer().unwrap().0, std::process::id());
        drop(one);
        assert_eq!(words(&other.hear(Duration::from_secs(5)).unwrap_err()), "it is gone");
    }

    #[test]
    fn a_line_without_an_end_and_what_is_no_word_are_refused() {
        let (one, other) = UnixStream::pair().unwrap();
        let mut other = Line::new(other);
        io::Write::write_all(&mut &one, b"{\"take-over\":\"sing\"}\n").unwrap();
        assert!(other.hear(Duration::from_secs(5)).unwrap_err().to_string().contains("sing"));
        io::Write::write_all(&mut &one, &[b'x'; LONGEST + 1]).unwrap();
        assert_eq!(other.hear(Duration::from_secs(5)).unwrap_err().to_string(), "a line without an end");
    }
}
