//! Logs that systemd keeps. They are asked of `journalctl`, which comes with the journal: its files' format, their
//! compression and who may read which are its own business (docs/adr/0020-journal.md).
//!
//! It answers in the export format (systemd.io/JOURNAL_EXPORT_FORMATS): fields `NAME=TEXT\n`, or
//! `NAME\n`, the length as 64 bits, the bytes and `\n`; an empty line ends an entry.

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, ChildStderr};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{LogOptions, Sink, fits};
use crate::monitor::log::LogLine;
use crate::monitor::protocol::Stream;
use crate::storage::containers::ContainerRecord;
use crate::sys::process;

/// What reads the journal.
const PROGRAM: &str = "journalctl";
/// After a container's end its last words are on their way through the journal's own socket, and nothing tells
/// an ordinary user when they have arrived: silence for so long is taken for it.
const SILENCE: Duration = Duration::from_millis(300);

/// One line of a container's output.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Entry {
    /// Where it is in the journal.
    cursor: String,
    /// Microseconds since 1970.
    time: i64,
    stderr: bool,
    partial: bool,
    text: Vec<u8>,
}

impl Entry {
    /// Takes the first whole entry from `bytes`: with it comes its length, and none is an entry without a message.
    fn take(bytes: &[u8]) -> Option<(Option<Self>, usize)> {
        let mut entry = Self::default();
        let mut message = false;
        let mut rest = bytes;
        loop {
            let end = rest.iter().position(|b| *b == b'\n')?;
            let line = &rest[..end];
            rest = &rest[end + 1..];
            if line.is_empty() {
                return Some((message.then_some(entry), bytes.len() - rest.len()));
            }
            let (name, value) = match line.iter().position(|b| *b == b'=') {
                Some(at) => (&line[..at], &line[at + 1..]),
                None => {
                    let length = u64::from_le_bytes(*rest.first_chunk()?);
                    let length = usize::try_from(length).ok()?;
                    let value = rest.get(8..8_usize.checked_add(length)?)?;
                    rest = rest.get(8 + length + 1..)?;
                    (line, value)
                }
            };
            let text = || String::from_utf8_lossy(value);
            match name {
                b"__CURSOR" => entry.cursor = text().into_owned(),
                b"__REALTIME_TIMESTAMP" => entry.time = text().parse().unwrap_or(0),
                b"PRIORITY" => entry.stderr = value == b"3",
                b"CONTAINER_PARTIAL_MESSAGE" => entry.partial = value == b"true",
                b"MESSAGE" => {
                    entry.text = value.to_vec();
                    message = true;
                }
                _ => {}
            }
        }
    }

    /// Hands it on, if it is wanted.
    fn give(&self, number: usize, options: &LogOptions, sink: &mut dyn Sink) -> io::Result<()> {
        let time = Timestamp::from_microsecond(self.time).unwrap_or(Timestamp::UNIX_EPOCH).to_string();
        let stream = if self.stderr { Stream::Stderr } else { Stream::Stdout };
        let line = LogLine { time: &time, stream, partial: self.partial, text: &self.text };
        if fits(&line, options) { sink.line(number, &line) } else { Ok(()) }
    }
}

/// A `journalctl` that tells of one container.
#[derive(Debug)]
pub(super) struct Journal {
    child: Child,
    out: OwnedFd,
    err: Option<ChildStderr>,
    bytes: Vec<u8>,
    /// Since when the container has ended and nothing more came.
    silent: Option<Instant>,
}

impl Drop for Journal {
    fn drop(&mut self) {
        // One that follows does not end by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `journalctl` is asked, behind its name.
fn arguments(id: &str, options: &LogOptions, after: Option<&str>, follow: bool) -> Vec<String> {
    let fields = "MESSAGE,PRIORITY,CONTAINER_PARTIAL_MESSAGE";
    let mut args = vec!["--output=export".to_owned(), format!("--output-fields={fields}")];
    let point = |time: Timestamp| format!("@{}.{:06}", time.as_second(), time.subsec_microsecond().max(0));
    match (after, options.since) {
        (Some(cursor), _) => args.push(format!("--after-cursor={cursor}")),
        (None, Some(since)) => args.push(format!("--since={}", point(since))),
        (None, None) => {}
    }
    if follow {
        args.extend(["--follow".to_owned(), "--lines=all".to_owned()]);
    } else if options.tail.is_some() {
        args.push("--reverse".to_owned());
    }
    if let Some(until) = options.until {
        args.push(format!("--until={}", point(until)));
    }
    args.push(format!("CONTAINER_ID_FULL={id}"));
    args
}

impl Journal {
    fn start(args: &[String]) -> io::Result<Self> {
        let (child, out, err) = process::listen_to_program(PROGRAM, args)?;
        Ok(Self { child, out, err: Some(err), bytes: Vec::new(), silent: None })
    }

    /// Hands on what there is of a container, and returns where that ended.
    pub fn all(
        number: usize,
        record: &ContainerRecord,
        options: &LogOptions,
        sink: &mut dyn Sink,
    ) -> io::Result<Option<String>> {
        let mut journal = Self::start(&arguments(record.id.as_str(), options, None, false))?;
        let mut cursor = None;
        let Some(wanted) = options.tail else {
            while let Some(entry) = journal.next()? {
                entry.give(number, options, sink)?;
                cursor = Some(entry.cursor);
            }
            return journal.end().map(|()| cursor);
        };
        // The newest come first.
        let (mut last, mut lines) = (Vec::new(), 0);
        loop {
            let Some(entry) = journal.next()? else {
                journal.end()?;
                break;
            };
            cursor.get_or_insert_with(|| entry.cursor.clone());
            // The newest may be a line that is not whole yet.
            if !entry.partial || lines == 0 {
                if lines == wanted {
                    break;
                }
                lines += 1;
            }
            last.push(entry);
        }
        last.iter().rev().try_for_each(|entry| entry.give(number, options, sink))?;
        Ok(cursor)
    }

    /// Begins to listen to what comes behind `cursor`, or to all.
    pub fn follow(record: &ContainerRecord, options: &LogOptions, cursor: Option<&str>) -> io::Result<Self> {
        Self::start(&arguments(record.id.as_str(), options, cursor, true))
    }

    /// The next entry; none at the end.
    fn next(&mut self) -> io::Result<Option<Entry>> {
        loop {
            if let Some(entry) = self.taken() {
                return Ok(Some(entry));
            }
            if self.fill()? == 0 {
                return Ok(None);
            }
        }
    }

    /// The next entry of what has been read.
    fn taken(&mut self) -> Option<Entry> {
        while let Some((entry, length)) = Entry::take(&self.bytes) {
            self.bytes.drain(..length);
            if entry.is_some() {
                return entry;
            }
        }
        None
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut buffer = [0; 16 * 1024];
        let count = rustix::io::read(&self.out, &mut buffer)?;
        self.bytes.extend_from_slice(&buffer[..count]);
        Ok(count)
    }

    /// Waits for the end of one that has said all; what it complained of is the error.
    fn end(&mut self) -> io::Result<()> {
        let mut said = String::new();
        if let Some(mut err) = self.err.take() {
            err.read_to_string(&mut said)?;
        }
        let status = self.child.wait()?;
        if status.success() {
            return Ok(());
        }
        let words = said.lines().find(|line| !line.trim().is_empty() && !line.starts_with("Hint:"));
        Err(io::Error::other(format!("{PROGRAM}: {}", words.unwrap_or("it failed and did not say why"))))
    }

    /// What becomes readable when there is more.
    pub fn fd(&self) -> &OwnedFd {
        &self.out
    }

    /// Hands on what has come. Says whether more may come.
    pub fn read_on(&mut self, number: usize, options: &LogOptions, sink: &mut dyn Sink) -> io::Result<bool> {
        loop {
            let mut fds = [PollFd::from_borrowed_fd(self.out.as_fd(), PollFlags::IN)];
            if poll(&mut fds, Some(&Timespec::default()))? == 0 {
                return Ok(true);
            }
            let more = self.fill()? > 0;
            if more && self.silent.is_some() {
                self.silent = Some(Instant::now());
            }
            while let Some(entry) = self.taken() {
                entry.give(number, options, sink)?;
            }
            if !more {
                self.end()?;
                return Ok(false);
            }
        }
    }

    /// Notes that the container has ended.
    pub fn ended(&mut self) {
        self.silent.get_or_insert_with(Instant::now);
    }

    /// How long to listen still to one whose container has ended; zero is no longer.
    pub fn left(&self) -> Option<Duration> {
        self.silent.map(|since| SILENCE.saturating_sub(since.elapsed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_both_forms() {
        let text =
            b"__CURSOR=s=1;i=2\n__REALTIME_TIMESTAMP=1700000000000001\nPRIORITY=6\nMESSAGE=hello = you\n\n";
        let (entry, length) = Entry::take(text).unwrap();
        let entry = entry.unwrap();
        assert_eq!(
            (length, entry.text.as_slice(), entry.stderr, entry.partial),
            (text.len(), &b"hello = you"[..], false, false)
        );
        assert_eq!((entry.cursor.as_str(), entry.time), ("s=1;i=2", 1_700_000_000_000_001));
        let mut binary =
            b"PRIORITY=3\nCONTAINER_PARTIAL_MESSAGE=true\nMESSAGE\n\x05\0\0\0\0\0\0\0a\n\n\xffb\n\nrest"
                .to_vec();
        let (entry, length) = Entry::take(&binary).unwrap();
        let entry = entry.unwrap();
        assert_eq!((&*entry.text, entry.stderr, entry.partial), (&b"a\n\n\xffb"[..], true, true));
        assert_eq!(&binary[length..], b"rest");
        // Not whole yet, at whatever place it is cut.
        binary.truncate(length);
        for end in 0..length {
            assert_eq!(Entry::take(&binary[..end]), None, "{end}");
        }
        // An entry without a message is none; a length beyond all bounds is waited for and harms nothing.
        assert_eq!(Entry::take(b"_PID=1\n\n"), Some((None, 8)));
        assert_eq!(Entry::take(b"MESSAGE\n\xff\xff\xff\xff\xff\xff\xff\xffx\n\n"), None);
    }

    #[test]
    fn what_is_asked() {
        let since = LogOptions {
            tail: Some(3),
            since: Timestamp::from_microsecond(5_000_007).ok(),
            ..LogOptions::default()
        };
        let args = arguments("c", &since, None, false);
        assert!(args.contains(&"--since=@5.000007".to_owned()) && args.contains(&"--reverse".to_owned()));
        let args = arguments("c", &since, Some("s=1"), true);
        assert!(
            args.contains(&"--after-cursor=s=1".to_owned())
                && !args.iter().any(|arg| arg.starts_with("--since"))
        );
        assert_eq!(args.last().unwrap(), "CONTAINER_ID_FULL=c");
    }
}
