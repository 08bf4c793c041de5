//! A container's output on disk, in the k8s-file format: `TIME STREAM F|P TEXT`, one line of
//! output a line; `P` marks a part of a line whose rest follows.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::journal::JournalWriter;
use super::protocol::Stream;
use crate::storage::containers::LogConfig;

/// Who keeps a container's output.
#[derive(Debug)]
pub enum Keeper {
    /// A file.
    File(LogWriter),
    /// The journal.
    Journal(JournalWriter),
}

impl Keeper {
    /// Takes what one read of `stream` gave.
    pub fn write(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::File(file) => file.write(stream, bytes, jiff::Timestamp::now()),
            Self::Journal(journal) => journal.write(stream, bytes),
        }
    }
}

/// The files of a log, the oldest first: those that were full, then the one that is written to.
pub fn files(path: &Path, config: &LogConfig) -> Vec<PathBuf> {
    let full = (1..config.file_max.unwrap_or(1)).rev().map(|number| numbered(path, number));
    full.chain([path.to_owned()]).collect()
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// Appends output to a log file.
#[derive(Debug)]
pub struct LogWriter {
    path: PathBuf,
    file: File,
    size: u64,
    size_max: Option<u64>,
    file_max: u32,
    buffer: Vec<u8>,
}

impl LogWriter {
    /// Opens (or makes) the log. Beyond `size_max` bytes the file is begun anew; of `file_max` files the
    /// ones before it are kept.
    pub fn open(path: &Path, size_max: Option<u64>, file_max: u32) -> io::Result<Self> {
        // A fifo would hold the container up until somebody reads: opened so, it is an error (ENXIO)
        // or, with a reader, refused below.
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        let size = metadata.len();
        Ok(Self { path: path.to_owned(), file, size, size_max, file_max, buffer: Vec::new() })
    }

    /// Appends `bytes` as they came from one read of `stream`.
    pub fn write(&mut self, stream: Stream, bytes: &[u8], now: jiff::Timestamp) -> io::Result<()> {
        let time = format!("{now:.9}");
        if self.size_max.is_some() {
            // Line by line: one read may hold more than a whole file should.
            return bytes
                .split_inclusive(|b| *b == b'\n')
                .try_for_each(|line| self.append(stream, line, &time));
        }
        self.append(stream, bytes, &time)
    }

    /// Makes room for a new file where those before it are kept.
    fn shift(&self) -> io::Result<()> {
        for number in (1..self.file_max).rev() {
            let older = numbered(&self.path, number);
            let newer = if number > 1 { numbered(&self.path, number - 1) } else { self.path.clone() };
            match std::fs::rename(newer, older) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn append(&mut self, stream: Stream, bytes: &[u8], time: &str) -> io::Result<()> {
        self.buffer.clear();
        encode(&mut self.buffer, stream, bytes, time);
        if self.size_max.is_some_and(|max| self.size > 0 && self.size + self.buffer.len() as u64 > max) {
            // By a new file under the same name: a reader that follows keeps the old one whole.
            let staging = self.path.with_extension(format!("{:016x}.new", crate::sys::atomic::random()?));
            self.file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&staging)?;
            self.shift()?;
            std::fs::rename(&staging, &self.path)?;
            self.size = 0;
        }
        self.file.write_all(&self.buffer)?;
        self.size += self.buffer.len() as u64;
        // What a flood took is given back when it is over.
        if bytes.len() < 4096 && self.buffer.capacity() > 64 * 1024 {
            self.buffer = Vec::new();
        }
        Ok(())
    }
}

fn encode(buffer: &mut Vec<u8>, stream: Stream, bytes: &[u8], time: &str) {
    let head = |tag: &str| format!("{time} {} {tag} ", stream.name());
    let (full, part) = (head("F"), head("P"));
    let mut start = 0;
    for end in memchr::memchr_iter(b'\n', bytes) {
        buffer.extend_from_slice(full.as_bytes());
        buffer.extend_from_slice(&bytes[start..=end]);
        start = end + 1;
    }
    if start < bytes.len() {
        buffer.extend_from_slice(part.as_bytes());
        buffer.extend_from_slice(&bytes[start..]);
        buffer.push(b'\n');
    }
}

/// One line of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine<'a> {
    /// When it was read from the program.
    pub time: &'a str,
    /// Where from.
    pub stream: Stream,
    /// Whether the rest of the output line follows in another log line.
    pub partial: bool,
    /// Without the line's end.
    pub text: &'a [u8],
}

impl<'a> LogLine<'a> {
    /// Takes apart one line without its end; `None` for what no log writer wrote.
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let mut parts = line.splitn(4, |b| *b == b' ');
        let time = std::str::from_utf8(parts.next()?).ok()?;
        let stream = match parts.next()? {
            b"stdout" => Stream::Stdout,
            b"stderr" => Stream::Stderr,
            _ => return None,
        };
        // Tags may be joined by colons (Kubernetes' CRI log format); the first tells F from P.
        let partial = match parts.next()?.split(|b| *b == b':').next()? {
            b"F" => false,
            b"P" => true,
            _ => return None,
        };
        Some(Self { time, stream, partial, text: parts.next()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_parts_round_trip() {
        let mut buffer = Vec::new();
        encode(&mut buffer, Stream::Stderr, b"one\n\nthr\xff ee", "T");
        assert_eq!(buffer, b"T stderr F one\nT stderr F \nT stderr P thr\xff ee\n");
        let lines: Vec<_> = buffer[..buffer.len() - 1]
            .split(|b| *b == b'\n')
            .map(|line| LogLine::parse(line).unwrap())
            .collect();
        assert_eq!(
            lines[2],
            LogLine { time: "T", stream: Stream::Stderr, partial: true, text: b"thr\xff ee" }
        );
        assert_eq!(lines[1].text, b"");
        assert_eq!(LogLine::parse(b"garbage"), None);
    }

    #[test]
    fn a_full_log_is_begun_anew() {
        let path =
            std::env::temp_dir().join(format!("umiak-log-{:x}", crate::sys::atomic::random().unwrap()));
        let mut log = LogWriter::open(&path, Some(200), 1).unwrap();
        for _ in 0..10 {
            log.write(
                Stream::Stdout,
                b"0123456789012345678901234567890123456789\n",
                jiff::Timestamp::UNIX_EPOCH,
            )
            .unwrap();
        }
        // A read that holds more than the file may.
        log.write(Stream::Stdout, "0123456789\n".repeat(100).as_bytes(), jiff::Timestamp::UNIX_EPOCH)
            .unwrap();
        log.write(Stream::Stdout, b"6789\n", jiff::Timestamp::UNIX_EPOCH).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.len() <= 200 && text.ends_with("789\n"), "{text}");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn full_files_are_kept_as_many_as_asked_for() {
        let random = crate::sys::atomic::random().unwrap();
        let dir = std::env::temp_dir().join(format!("umiak-logs-{random:x}"));
        std::fs::create_dir(&dir).unwrap();
        let path = dir.join("ctr.log");
        let mut log = LogWriter::open(&path, Some(200), 3).unwrap();
        for number in 0..20 {
            let line = format!("line {number} of many\n");
            log.write(Stream::Stdout, line.as_bytes(), jiff::Timestamp::UNIX_EPOCH).unwrap();
        }
        let config = LogConfig {
            driver: crate::storage::containers::LogDriver::K8sFile,
            path: None,
            size_max: None,
            file_max: Some(3),
            tag: None,
            labels: Vec::new(),
        };
        let files = files(&path, &config);
        assert_eq!(files.len(), 3);
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 3);
        let text: String = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
        let numbers: Vec<usize> =
            text.lines().map(|line| line.split(' ').nth(4).unwrap().parse().unwrap()).collect();
        assert!(numbers.len() > 3 && numbers.is_sorted() && numbers.last() == Some(&19), "{numbers:?}");
        std::fs::remove_dir_all(dir).unwrap();
    }
}
