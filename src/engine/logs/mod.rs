//! `logs`: what containers have written, and what they go on to write.

mod follow;
mod journal;
mod tail;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::{Engine, Error};
use crate::monitor::log::{LogLine, files};
use crate::storage::containers::{ContainerRecord, LogDriver};
use journal::Journal;

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

/// Takes the lines of logs.
pub trait Sink {
    /// A line of the container with this number, counted from 0 in the order they were named.
    fn line(&mut self, container: usize, line: &LogLine<'_>) -> io::Result<()>;

    /// There is nothing more for now: what is held back is to be shown.
    fn pause(&mut self) -> io::Result<()>;
}

/// Large blocks: a log may have gigabytes.
const BLOCK: usize = 256 * 1024;

impl Engine {
    /// Hands the lines of containers' logs to `sink`: one container's after the other's as far as they are
    /// there, then of all as they come. `started` is told each container's record first.
    pub fn logs(&self, words: &[String], options: &LogOptions, sink: &mut dyn Sink) -> Result<(), Error> {
        let mut logs = Vec::new();
        // All must be there before any is shown.
        for (number, word) in words.iter().enumerate() {
            let (record, _) = self.lookup(word)?;
            let driver = record.config.log.driver;
            if !driver.is_file() && driver != LogDriver::Journald {
                return Err(Error::NoLogs { name: record.name, driver: driver.name() });
            }
            logs.push(Log::new(number, self.containers.log_path(&record), record));
        }
        let mut followed = Vec::new();
        for mut log in logs {
            // Listening comes before reading, lest anything be said in between.
            let end = if options.follow { self.listen_for_end(&log.record)? } else { None };
            let error = |source| Error::Log { name: log.record.name.clone(), source };
            if log.record.config.log.driver == LogDriver::Journald {
                let told = Journal::all(log.number, &log.record, options, sink).and_then(|cursor| {
                    let follow = || Journal::follow(&log.record, options, cursor.as_deref());
                    end.is_some().then(follow).transpose()
                });
                log.journal =
                    told.map_err(|source| Error::Journal { name: log.record.name.clone(), source })?;
                followed.extend(end.map(|end| (log, end)));
                continue;
            }
            let reader = match options.tail {
                Some(lines) => log.tail(lines, options, sink),
                None => log.all(options, sink),
            };
            log.reader = reader.map_err(error)?;
            if let Some(end) = end {
                followed.push((log, end));
            }
        }
        sink.pause().map_err(Error::Relay)?;
        follow::follow(followed, options, sink)
    }
}

/// One container's log.
struct Log {
    number: usize,
    path: PathBuf,
    record: ContainerRecord,
    /// Of the file that is written to, as far as it has been read; none as long as it is not there.
    reader: Option<BufReader<File>>,
    /// Where it is followed, if systemd keeps it.
    journal: Option<Journal>,
}

impl Log {
    fn new(number: usize, path: PathBuf, record: ContainerRecord) -> Self {
        Self { number, path, record, reader: None, journal: None }
    }

    /// The files that there are, the oldest first.
    fn files(&self) -> io::Result<Vec<File>> {
        let mut found = Vec::new();
        for path in files(&self.path, &self.record.config.log) {
            match open(&path)? {
                Some(file) => found.push(file),
                None => continue,
            }
        }
        Ok(found)
    }

    /// Hands on all that is there.
    fn all(&self, options: &LogOptions, sink: &mut dyn Sink) -> io::Result<Option<BufReader<File>>> {
        let mut reader = None;
        for file in self.files()? {
            let mut current = BufReader::with_capacity(BLOCK, file);
            self.rest(&mut current, options, sink)?;
            reader = Some(current);
        }
        Ok(reader)
    }

    /// Hands on the last lines.
    fn tail(
        &self,
        lines: usize,
        options: &LogOptions,
        sink: &mut dyn Sink,
    ) -> io::Result<Option<BufReader<File>>> {
        let mut files = self.files()?;
        let mut end = 0;
        for (raw, file_end) in tail::tail(&mut files, lines, options)? {
            end = file_end;
            if let Some(line) = LogLine::parse(&raw) {
                sink.line(self.number, &line)?;
            }
        }
        let Some(mut file) = files.pop() else { return Ok(None) };
        if lines == 0 || end == 0 {
            end = tail::end_of_lines(&mut file)?;
        }
        file.seek(SeekFrom::Start(end))?;
        Ok(Some(BufReader::with_capacity(BLOCK, file)))
    }

    /// Hands on what a file has from where it was read to.
    fn rest(
        &self,
        reader: &mut BufReader<File>,
        options: &LogOptions,
        sink: &mut dyn Sink,
    ) -> io::Result<()> {
        let mut raw = Vec::new();
        while read_line(reader, &mut raw)? {
            match LogLine::parse(&raw) {
                Some(line) if fits(&line, options) => sink.line(self.number, &line)?,
                _ => {}
            }
        }
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        // Never started.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

fn fits(line: &LogLine<'_>, options: &LogOptions) -> bool {
    if options.since.is_none() && options.until.is_none() {
        return true;
    }
    let Ok(time) = line.time.parse::<Timestamp>() else { return false };
    options.since.is_none_or(|since| time >= since) && options.until.is_none_or(|until| time <= until)
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
