//! The event log: what happened to containers, images and volumes, one JSON object a line.
//!
//! ```text
//! events/current    appended to by whoever did it: one write(2), which is whole or not at all
//! events/previous   what was there before `current` had become too large
//! ```
//!
//! Nobody's work fails because its event cannot be written: the log tells what happened, it is not what
//! happened.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::containers::ContainerRecord;
use crate::sys::host;
use crate::sys::lock::Lock;

/// Bytes that a file of the log may have before another one is begun.
const LARGEST: u64 = 2 << 20;

/// Something that happened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Nanoseconds since 1970.
    pub time: i64,
    /// `container`, `image`, `volume` or `system`.
    pub kind: String,
    /// Podman's word: `create`, `died`, …
    pub status: String,
    /// Of the container or image.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Of what it happened to.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The container's image.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// The container's labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// How a container, or a program in it, ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// What a health check has found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<String>,
}

impl Event {
    /// Something that happens to a container now.
    pub fn container(status: &str, record: &ContainerRecord) -> Self {
        Self {
            id: record.id.to_string(),
            image: record.image_name(),
            attributes: record.config.labels.clone(),
            ..Self::new("container", status, &record.name)
        }
    }

    /// Something that happens to an image now.
    pub fn image(status: &str, id: String, name: &str) -> Self {
        Self { id, ..Self::new("image", status, name) }
    }

    /// Something that happens now to what has a name only.
    pub fn new(kind: &str, status: &str, name: &str) -> Self {
        Self {
            time: host::now(),
            kind: kind.to_owned(),
            status: status.to_owned(),
            name: name.to_owned(),
            ..Self::default()
        }
    }
}

/// The log of one store.
#[derive(Clone, Debug)]
pub struct EventLog {
    dir: PathBuf,
}

impl EventLog {
    /// The log of the store at `root`.
    pub fn new(root: &Path) -> Self {
        Self { dir: root.join("events") }
    }

    /// Where its files are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn current(&self) -> PathBuf {
        self.dir.join("current")
    }

    /// Appends events. What cannot be written is lost.
    pub fn write(&self, events: &[Event]) {
        let _ = self.append(events, LARGEST);
    }

    fn append(&self, events: &[Event], largest: u64) -> io::Result<()> {
        let mut lines = Vec::with_capacity(512);
        for event in events {
            serde_json::to_writer(&mut lines, event)?;
            lines.push(b'\n');
        }
        let open = || {
            OpenOptions::new()
                .append(true)
                .create(true)
                .mode(0o600)
                .custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW)
                .open(self.current())
        };
        let mut file = match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                std::fs::create_dir(&self.dir).or_else(|error| match error.kind() {
                    io::ErrorKind::AlreadyExists => Ok(()),
                    _ => Err(error),
                })?;
                open()?
            }
            other => other?,
        };
        // All in one, so that no other writer's line stands in its midst.
        file.write_all(&lines)?;
        if file.stream_position()? > largest {
            self.rotate(&file)?;
        }
        Ok(())
    }

    /// Begins another file, if nobody has done it or is doing it.
    fn rotate(&self, full: &File) -> io::Result<()> {
        let Some(_lock) = Lock::try_exclusive_existing(&self.dir)? else { return Ok(()) };
        let current = self.current();
        if std::fs::metadata(&current)?.ino() == full.metadata()?.ino() {
            std::fs::rename(&current, self.dir.join("previous"))?;
        }
        Ok(())
    }

    /// Reads the log from its beginning.
    pub fn read(&self) -> io::Result<EventReader> {
        let reader = |path: &Path| match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map(|file| Some(BufReader::new(file))),
        };
        // In this order: what is renamed between the two is read twice, which is noticed, rather than not
        // at all.
        let current = reader(&self.current())?;
        let mut previous = reader(&self.dir.join("previous"))?;
        let inode = |file: &Option<BufReader<File>>| -> io::Result<Option<u64>> {
            file.as_ref().map(|file| Ok(file.get_ref().metadata()?.ino())).transpose()
        };
        if inode(&current)? == inode(&previous)? {
            previous = None;
        }
        Ok(EventReader { path: self.current(), files: [previous, current] })
    }
}

/// Goes through the log, also while it grows.
#[derive(Debug)]
pub struct EventReader {
    path: PathBuf,
    /// What is read first, and what is appended to.
    files: [Option<BufReader<File>>; 2],
}

impl EventReader {
    /// The next event; none if there is none yet. Lines that are no events are passed over.
    pub fn read(&mut self) -> io::Result<Option<Event>> {
        loop {
            let Some(file) = &mut self.files[0] else {
                if self.turn()? {
                    continue;
                }
                return Ok(None);
            };
            let mut line = Vec::new();
            let length = file.read_until(b'\n', &mut line)?;
            if line.last() != Some(&b'\n') {
                file.seek_relative(-i64::try_from(length).unwrap_or(0))?;
                if self.turn()? {
                    continue;
                }
                return Ok(None);
            }
            if let Ok(event) = serde_json::from_slice(&line) {
                return Ok(Some(event));
            }
        }
    }

    /// Goes on to the next file, if there is one and nothing can be appended to this one any more.
    fn turn(&mut self) -> io::Result<bool> {
        if let Some(next) = self.files[1].take() {
            self.files[0] = Some(next);
            return Ok(true);
        }
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => other?,
        };
        if let Some(now) = &mut self.files[0]
            && now.get_ref().metadata()?.ino() == file.metadata()?.ino()
        {
            return Ok(false);
        }
        let mut next = BufReader::new(file);
        next.seek(SeekFrom::Start(0))?;
        self.files[0] = Some(next);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log() -> EventLog {
        let random = crate::sys::atomic::random().unwrap();
        EventLog { dir: std::env::temp_dir().join(format!("umiak-events-{random:x}")) }
    }

    fn all(reader: &mut EventReader) -> Vec<String> {
        std::iter::from_fn(|| reader.read().unwrap()).map(|event| event.name).collect()
    }

    #[test]
    fn what_is_written_is_read_over_files_that_are_full() {
        let log = log();
        let mut reader = log.read().unwrap();
        assert_eq!(all(&mut reader), [""; 0]);
        let mut expected = Vec::new();
        for number in 0..100 {
            let name = format!("volume {number}");
            log.append(&[Event::new("volume", "create", &name)], 2000).unwrap();
            expected.push(name);
            if number % 7 == 0 {
                // One who follows misses nothing.
                assert_eq!(all(&mut reader), expected.split_off(0));
            }
        }
        assert_eq!(all(&mut reader), expected);
        // One who comes late sees the end, without a gap.
        let late = all(&mut log.read().unwrap());
        assert!(late.len() > 10 && late.len() < 100, "{}", late.len());
        let first: usize = late[0].strip_prefix("volume ").unwrap().parse().unwrap();
        assert_eq!(late, (first..100).map(|n| format!("volume {n}")).collect::<Vec<_>>());
        std::fs::remove_dir_all(log.dir()).unwrap();
    }

    #[test]
    fn a_half_line_waits_and_nonsense_is_passed_over() {
        let log = log();
        log.append(&[Event::new("volume", "create", "one")], LARGEST).unwrap();
        let mut file = OpenOptions::new().append(true).open(log.current()).unwrap();
        file.write_all(b"nonsense\n{\"time\":1,\"kind\":\"volume\",").unwrap();
        let mut reader = log.read().unwrap();
        assert_eq!(all(&mut reader), ["one"]);
        file.write_all(b"\"status\":\"remove\",\"name\":\"two\"}\n").unwrap();
        assert_eq!(all(&mut reader), ["two"]);
        std::fs::remove_dir_all(log.dir()).unwrap();
    }
}
