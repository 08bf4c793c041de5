//! The build context: the directory whose files `COPY` and `ADD` take.

use std::io;
use std::path::{Path, PathBuf};

use super::request::ContextSource;
use crate::storage::{self, Store};
use crate::sys::lock::Lock;
use crate::sys::path::Root;

/// There is no such context.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory.
    #[error("opening the build context \"{}\"", path.display())]
    Open {
        /// It.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A repository.
    #[error("the build context \"{0}\": Git repositories are not supported yet")]
    Git(String),
    /// It cannot be fetched, or read.
    #[error("reading the build context from {from}: {message}")]
    Read {
        /// `standard input`, or the address in quotes.
        from: String,
        /// The chain of errors.
        message: String,
    },
    /// Nothing came.
    #[error("the build context from {0} is empty")]
    Empty(String),
    /// Compressed in a way that we cannot undo.
    #[error("the build context from {from}: archives compressed with {how} are not supported yet")]
    Compression {
        /// `standard input`, or the address in quotes.
        from: String,
        /// `bzip2`, `xz`.
        how: &'static str,
    },
    /// The store.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// Its place in the store cannot be made.
    #[error("unpacking the build context into \"{}\"", path.display())]
    Stage {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// How to mend it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Git(url) => Some(format!("git clone {url}, then build in that directory")),
            _ => None,
        }
    }
}

/// A context. What was unpacked for it is removed when it is dropped.
#[derive(Debug)]
pub struct Context {
    place: Place,
}

#[derive(Debug)]
enum Place {
    Directory(Root),
    Staged(Root, #[allow(dead_code)] Staged),
    /// None, but a Dockerfile.
    Dockerfile(Vec<u8>),
}

/// An archive's files, in the store's staging area.
#[derive(Debug)]
struct Staged {
    store: Store,
    path: PathBuf,
    lock: Lock,
}

impl Drop for Staged {
    fn drop(&mut self) {
        if self.lock.is_at(&self.path) {
            // What cannot be removed now is swept later: the lock is free from here on.
            let _ = self.store.discard(&self.path);
        }
    }
}

impl Context {
    /// Opens it; an archive is fetched and unpacked by processes of their own. The caller must be single-threaded.
    pub fn open(store: &Store, source: &ContextSource) -> Result<Self, Error> {
        let _ = store;
        match source {
            ContextSource::Directory(path) => {
                let root = Root::open(path).map_err(|source| Error::Open { path: path.clone(), source })?;
                Ok(Self { place: Place::Directory(root) })
            }
            _ => unreachable!(),
        }
    }

    /// Its directory; `None` if there is only a Dockerfile.
    pub fn root(&self) -> Option<&Root> {
        match &self.place {
            Place::Directory(root) | Place::Staged(root, _) => Some(root),
            Place::Dockerfile(_) => None,
        }
    }

    /// The Dockerfile that came in place of a context.
    pub fn dockerfile(&self) -> Option<&[u8]> {
        match &self.place {
            Place::Dockerfile(text) => Some(text),
            _ => None,
        }
    }

    /// Reads a regular file of at most `limit` bytes (a larger one is `FileTooLarge`): a Dockerfile, an ignore file.
    /// No link leads out. `None` if there is none.
    pub fn read(&self, path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(root) = self.root() else { return Ok(None) };
        match root.read(path, limit) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
