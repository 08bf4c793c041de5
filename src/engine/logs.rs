//! `logs`: what a container has written, and what it goes on to write.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Engine, Error, lifecycle};
use crate::monitor::log::LogLine;
use crate::monitor::protocol::Stream;
use crate::storage::containers::Status;

/// Which part of a log, and how.
#[derive(Clone, Debug, Default)]
pub struct LogOptions {
    /// Go on until the container ends.
    pub follow: bool,
    /// Only so many lines from the end.
    pub tail: Option<usize>,
    /// Nothing before.
    pub since: Option<Timestamp>,
    /// Nothing after.
    pub until: Option<Timestamp>,
}

/// A line of output as it is handed on: stream, time, text, and whether its end is missing.
pub type Sink<'a> = dyn FnMut(&LogLine<'_>) -> io::Result<()> + 'a;

impl Engine {
    /// Hands the lines of a container's log to `sink`.
    pub fn logs(&self, text: &str, options: &LogOptions, sink: &mut Sink<'_>) -> Result<(), Error> {
        let (record, status) = self.lookup(text)?;
        if !record.config.log.enabled {
            return Err(Error::NoLogs(record.name));
        }
        let path = self.containers.log_path(&record);
        let error = |source| Error::Log { name: record.name.clone(), source };
        let mut reader = match File::open(&path) {
            // Never started.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => BufReader::new(other.map_err(error)?),
        };
        let mut selected = Selected { options, sink };
        selected.backlog(&mut reader).map_err(error)?;
        let running = match (&status, options.follow) {
            (Status::Running(state) | Status::Paused(state) | Status::Stopping(state), true) => {
                lifecycle::open(state)
            }
            _ => None,
        };
        if let Some(pidfd) = running {
            follow(&path, &mut reader, &pidfd, &mut selected).map_err(error)?;
        }
        Ok(())
    }
}

struct Selected<'a, 'b> {
    options: &'a LogOptions,
    sink: &'a mut Sink<'b>,
}

impl Selected<'_, '_> {
    fn fits(&self, line: &LogLine<'_>) -> bool {
        if self.options.since.is_none() && self.options.until.is_none() {
            return true;
        }
        let Ok(time) = line.time.parse::<Timestamp>() else { return false };
        self.options.since.is_none_or(|since| time >= since)
            && self.options.until.is_none_or(|until| time <= until)
    }

    fn hand_on(&mut self, raw: &[u8]) -> io::Result<()> {
        match LogLine::parse(raw) {
            Some(line) if self.fits(&line) => (self.sink)(&line),
            _ => Ok(()),
        }
    }

    /// What is there already: all of it, or its last lines.
    fn backlog(&mut self, reader: &mut BufReader<File>) -> io::Result<()> {
        let mut raw = Vec::new();
        let Some(tail) = self.options.tail else {
            while read_line(reader, &mut raw)? {
                self.hand_on(&raw)?;
            }
            return Ok(());
        };
        // A line of output may stand in several log lines; the last one of them counts.
        let mut kept: VecDeque<Vec<Vec<u8>>> = VecDeque::new();
        let mut open = [false; 2];
        while read_line(reader, &mut raw)? {
            let Some(line) = LogLine::parse(&raw) else { continue };
            if !self.fits(&line) {
                continue;
            }
            let stream = usize::from(line.stream == Stream::Stderr);
            let continues = open[stream];
            open[stream] = line.partial;
            match kept.back_mut() {
                Some(last) if continues => last.push(raw.clone()),
                _ => kept.push_back(vec![raw.clone()]),
            }
            if kept.len() > tail {
                kept.pop_front();
            }
        }
        for raw in kept.iter().flatten() {
            self.hand_on(raw)?;
        }
        Ok(())
    }
}

/// Reads a whole line, without its end; a part of one at the end of the file is left for later.
fn read_line(reader: &mut BufReader<File>, raw: &mut Vec<u8>) -> io::Result<bool> {
    raw.clear();
    let length = reader.read_until(b'\n', raw)?;
    if raw.pop_if(|last| *last == b'\n').is_some() {
        return Ok(true);
    }
    reader.seek_relative(-i64::try_from(length).unwrap_or(0))?;
    Ok(false)
}

fn follow(
    path: &Path,
    reader: &mut BufReader<File>,
    pidfd: &OwnedFd,
    selected: &mut Selected<'_, '_>,
) -> io::Result<()> {
    use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
    let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    // The directory too: a log that is full is replaced by a new file of the same name.
    inotify::add_watch(&watch, path, WatchFlags::MODIFY)?;
    if let Some(dir) = path.parent() {
        inotify::add_watch(&watch, dir, WatchFlags::MOVED_TO)?;
    }
    let mut raw = Vec::new();
    loop {
        while read_line(reader, &mut raw)? {
            selected.hand_on(&raw)?;
        }
        if replaced(path, reader) {
            *reader = BufReader::new(File::open(path)?);
            reader.seek(SeekFrom::Start(0))?;
            inotify::add_watch(&watch, path, WatchFlags::MODIFY)?;
            continue;
        }
        let mut fds = [PollFd::new(&watch, PollFlags::IN), PollFd::new(pidfd, PollFlags::IN)];
        match poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other?,
        };
        if !fds[1].revents().is_empty() {
            // The monitor drains the pipes after the end; a moment without news is the last word.
            drain(&watch, reader, selected)?;
            return Ok(());
        }
        clear(&watch);
    }
}

fn drain(watch: &OwnedFd, reader: &mut BufReader<File>, selected: &mut Selected<'_, '_>) -> io::Result<()> {
    let mut raw = Vec::new();
    loop {
        while read_line(reader, &mut raw)? {
            selected.hand_on(&raw)?;
        }
        clear(watch);
        let mut fds = [PollFd::new(watch, PollFlags::IN)];
        let patience = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        match poll(&mut fds, Some(&patience)) {
            Ok(0) => return Ok(()),
            Err(rustix::io::Errno::INTR) | Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn clear(watch: &OwnedFd) {
    let mut buffer = [0; 4096];
    while matches!(rustix::io::read(watch.as_fd(), &mut buffer), Ok(1..)) {}
}

fn replaced(path: &Path, reader: &BufReader<File>) -> bool {
    match (std::fs::metadata(path), reader.get_ref().metadata()) {
        (Ok(now), Ok(ours)) => now.ino() != ours.ino(),
        _ => false,
    }
}
