//! How a container ended.
//!
//! The record is what a symbolic link, `exit`, points to: made whole by one call, without a file to be synced, and read
//! by one where a file takes three, which lists of hundreds of stopped containers feel. One that is longer than every
//! file system takes is in a file, `exit.json`. A second line of the link, where there is room for it, is what lists show
//! of the container's record ([`Brief`]), and which file that stood in: while it is the same, nobody need read that.

use std::mem::MaybeUninit;
use std::path::PathBuf;
use std::{fs, io};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::brief::Shown;
use super::{Containers, Error, VERSION, is_default, write};
use crate::base::id::ContainerId;
use crate::sys::atomic::{self, Durability};

/// The link, and the file for what is too long for it.
const NAMES: [&str; 2] = ["exit", "exit.json"];
/// Bytes that a link may have on XFS; others take more.
pub(super) const LONGEST: usize = 1000;

/// How a container's first process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Exit {
    /// It called exit.
    Code(u8),
    /// A signal ended it.
    Signal(i32),
    /// Nobody was there to see it.
    Unknown,
}

impl Exit {
    /// As Podman's users see it: 128+n for a signal, -1 where nobody knows.
    pub fn code(self) -> i32 {
        match self {
            Self::Code(code) => code.into(),
            Self::Signal(signal) => 128 + signal,
            Self::Unknown => -1,
        }
    }
}

/// How a container ended, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// Format version.
    pub version: u32,
    /// How it ended.
    pub exit: Exit,
    /// Nanoseconds since 1970; 0 if it never started.
    pub started: i64,
    /// Nanoseconds since 1970 of the end, or of the moment that somebody noticed.
    pub finished: i64,
    /// Why it could not be started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How often it had been started again when it ended.
    #[serde(default, skip_serializing_if = "is_default")]
    pub restarts: u32,
    /// Whether its monitor means to start it again.
    #[serde(default, skip_serializing_if = "is_default")]
    pub again: bool,
    /// Whether the kernel killed a process of it for want of memory.
    #[serde(default, skip_serializing_if = "is_default")]
    pub oom: bool,
}

impl ExitRecord {
    /// A record of this format version.
    pub fn new(exit: Exit, started: i64, finished: i64) -> Self {
        Self { version: VERSION, exit, started, finished, error: None, restarts: 0, again: false, oom: false }
    }
}

impl Containers {
    /// Records how it ended.
    pub fn write_exit(
        &self,
        id: &ContainerId,
        exit: &ExitRecord,
        durability: Durability,
    ) -> Result<(), Error> {
        let [link, file] = NAMES.map(|name| self.dir(id).join(name));
        let to_text = |value: serde_json::Result<String>| {
            value.map_err(|source| Error::Damaged { path: link.clone(), source })
        };
        let mut text = to_text(serde_json::to_string(exit))?;
        if text.len() > LONGEST {
            write(&file, exit, durability)?;
            return remove(link);
        }
        // Lists do without.
        if let Ok(Some(shown)) = self.shown(id) {
            let line = to_text(serde_json::to_string(&shown))?;
            if text.len() + 1 + line.len() <= LONGEST {
                text = [text, line].join("\n");
            }
        }
        atomic::write_link(&link, &text, durability).map_err(|source| Error::Io {
            action: "writing",
            path: link.clone(),
            source,
        })
    }

    /// Forgets the end of an earlier run.
    pub fn clear_exit(&self, id: &ContainerId) -> Result<(), Error> {
        NAMES.iter().try_for_each(|name| remove(self.dir(id).join(name)))
    }

    /// How it ended; none while it runs or was never started.
    pub(super) fn exit(&self, id: &ContainerId) -> Result<Option<ExitRecord>, Error> {
        Ok(self.last(id)?.map(|last| last.exit))
    }

    /// The same, with what lists show of its record.
    pub(super) fn last(&self, id: &ContainerId) -> Result<Option<Last>, Error> {
        let read = match self.read_link(id) {
            Ok(None) => self.read(id, NAMES[1]).map(|exit| exit.map(|exit| Last { exit, shown: None })),
            other => other,
        };
        // A power cut may leave something that was not synced empty: an end nobody knows.
        match read {
            Err(Error::Damaged { path, .. }) => {
                use std::os::unix::fs::MetadataExt;
                let written = fs::symlink_metadata(&path);
                let written = written.map_or(0, |m| m.mtime() * 1_000_000_000 + m.mtime_nsec());
                Ok(Some(Last { exit: ExitRecord::new(Exit::Unknown, 0, written), shown: None }))
            }
            other => other,
        }
    }

    fn read_link(&self, id: &ContainerId) -> Result<Option<Last>, Error> {
        let path = || self.dir(id).join(NAMES[0]);
        let mut buffer = [MaybeUninit::<u8>::uninit(); LONGEST + 1];
        let read = match &self.near {
            Some(near) => {
                rustix::fs::readlinkat_raw(near, &*[id.as_str(), "/", NAMES[0]].concat(), &mut buffer)
            }
            None => rustix::fs::readlinkat_raw(rustix::fs::CWD, path(), &mut buffer),
        };
        let text: &[u8] = match read {
            Ok((text, _)) => text,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(Error::Io { action: "reading", path: path(), source: errno.into() }),
        };
        let end = text.iter().position(|byte| *byte == b'\n').unwrap_or(text.len());
        let exit = serde_json::from_slice(&text[..end]);
        let exit = exit.map_err(|source| Error::Damaged { path: path(), source })?;
        let shown = text.get(end + 1..).and_then(|line| serde_json::from_slice(line).ok());
        Ok(Some(Last { exit, shown }))
    }
}

/// What is known of a container that ended.
#[derive(Debug)]
pub(super) struct Last {
    /// How it ended.
    pub exit: ExitRecord,
    /// What lists showed of its record when it did.
    pub shown: Option<Shown>,
}

fn remove(path: PathBuf) -> Result<(), Error> {
    match fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Error::Io { action: "removing", path, source })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_counts_however_long_it_is() {
        let root = std::env::temp_dir().join(format!("umiak-exit-{:x}", atomic::random().unwrap()));
        let id: ContainerId = "e".repeat(64).parse().unwrap();
        let containers = Containers::new(&root, &root.join("run"));
        fs::create_dir_all(containers.dir(&id)).unwrap();
        let (short, long) = (ExitRecord::new(Exit::Code(3), 1, 2), "why ".repeat(300));
        let long = ExitRecord { error: Some(long), ..short.clone() };
        assert_eq!(containers.exit(&id).unwrap(), None);
        for exit in [&short, &long, &ExitRecord::new(Exit::Signal(9), 5, 6), &long, &short] {
            containers.write_exit(&id, exit, Durability::Volatile).unwrap();
            for containers in [containers.clone(), containers.near()] {
                assert_eq!(containers.exit(&id).unwrap().as_ref(), Some(exit));
            }
        }
        containers.clear_exit(&id).unwrap();
        assert_eq!(containers.exit(&id).unwrap(), None);
        fs::remove_dir_all(root).unwrap();
    }
}
