//! Files on their way from one tree to another, perhaps between two processes that see different mounts and
//! ids: what is found is told in messages, content goes along as an open file, so that no byte of it passes
//! through a pipe and holes stay holes.

mod content;
mod message;
mod sink;

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use super::visit::{Content, Found};

pub use content::copy_content;
pub use message::{Source, Stream};
pub use sink::{Fill, Owners, Progress, Replace, Sink, Written};

/// What a file is, but for its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Below the root of what is copied; empty for that itself.
    pub path: PathBuf,
    /// What it is.
    pub kind: Kind,
    /// Permissions with setuid, setgid and sticky bits (12 bits).
    pub mode: u32,
    /// Owner, as the reader sees it.
    pub uid: u32,
    /// Group, as the reader sees it.
    pub gid: u32,
    /// Modification time: seconds and nanoseconds since 1970.
    pub mtime: (i64, u32),
    /// Extended attributes.
    pub attributes: Vec<(OsString, Vec<u8>)>,
}

/// Kinds of files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory; what is in it follows.
    Directory,
    /// A regular file; its content is an open file.
    File,
    /// Another name of a file that came before.
    Link(PathBuf),
    /// A symbolic link.
    Symlink(OsString),
    /// A named pipe.
    Fifo,
    /// A device.
    Device,
}

/// A file that could not be copied.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, thiserror::Error)]
pub enum Problem {
    /// The kernel says no.
    #[error("{action} \"{path}\": {}", io::Error::from_raw_os_error(*errno))]
    Io {
        /// As "reading".
        action: String,
        /// The file.
        path: String,
        /// Why.
        errno: i32,
    },
    /// It is not there.
    #[error("there is no \"{0}\"")]
    Missing(String),
    /// A directory is in the way of a file.
    #[error("\"{0}\" is a directory, and what is copied is not")]
    DirectoryThere(String),
    /// A file is in the way of a directory.
    #[error("\"{0}\" is no directory, and what is copied is one")]
    FileThere(String),
    /// There is nothing of it that could be copied.
    #[error("it is a device, not a file or a directory")]
    Device,
    /// The other process is gone without a word.
    #[error("the process that reads the files died")]
    Died,
    /// What is read is no archive, or a broken one.
    #[error("reading the archive: {0}")]
    Archive(String),
    /// More than a message has room for.
    #[error("\"{0}\" has more extended attributes than can be copied")]
    TooMuch(String),
}

impl Problem {
    /// What went wrong while something was done with a file.
    pub fn io(action: &str, path: &Path, error: &io::Error) -> Self {
        let errno = error.raw_os_error().unwrap_or(match error.kind() {
            io::ErrorKind::InvalidInput => libc::EINVAL,
            io::ErrorKind::NotFound => libc::ENOENT,
            _ => libc::EIO,
        });
        Self::Io { action: action.to_owned(), path: path.display().to_string(), errno }
    }
}

/// What [`visit`](super::visit) found, as an item and its content.
pub fn item_of(found: Found<'_>) -> Option<(Item, Option<OwnedFd>)> {
    let Found { path, stat, attributes, content } = found;
    let mut file = None;
    let kind = match content {
        Content::Directory => Kind::Directory,
        Content::File(content) => {
            file = Some(content.into());
            Kind::File
        }
        Content::Link(first) => Kind::Link(first),
        Content::Symlink(target) => Kind::Symlink(target),
        Content::Special if FileType::from_raw_mode(stat.st_mode) == FileType::Fifo => Kind::Fifo,
        Content::Special => Kind::Device,
        // Only layers have these.
        Content::Whiteout | Content::Opaque => return None,
    };
    let item = Item {
        path: path.to_owned(),
        kind,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
        attributes,
    };
    Some((item, file))
}
