//! The store (L2): blobs, layers, images and containers on disk. The layout, and why it is safe
//! against crashes, stands in `docs/adr/0002-state-layout.md`; in short:
//!
//! - what is being made lives in `staging/` under a lock; a name outside of `staging` and `trash`
//!   always means something whole;
//! - publishing is a rename; deleting is a rename into `trash/`, then removal;
//! - a lock that nobody holds marks rubbish, which anybody may sweep;
//! - counts of references are computed, never stored.

pub mod additional;
mod artifacts;
pub mod blobs;
pub mod builds;
pub mod containers;
pub mod events;
pub mod images;
pub mod layers;
pub mod names;
pub mod networks;
pub mod paths;
pub mod share;
mod store;
pub mod survey;

use std::io;
use std::path::{Path, PathBuf};

use crate::base::digest::Digest;

pub use artifacts::ArtifactRecord;
pub use images::{ContainerConfig, ImageList, ImageRecord, LayerRef, ListEntry};
pub use layers::{LayerFiles, LayerRecord, LayerSlot, Ownership, StagedLayer};
pub use paths::Paths;
pub use store::{BUILDING, FORMAT, Pins, Store, StoreLock};

/// What can go wrong with the store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call on a file of the store failed.
    #[error("{operation} \"{}\"", path.display())]
    Io {
        /// What was being done, as in "creating".
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A record cannot be understood.
    #[error("the store's file \"{}\" is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A record was written by a newer Umiak.
    #[error("\"{}\" has format version {found}, this program knows up to {known}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest known here.
        known: u32,
    },
    /// The directory holds something else.
    #[error("\"{}\" is not empty and not a store of Umiak", .0.display())]
    Foreign(PathBuf),
    /// The directory of the store or of its volatile part belongs to somebody else.
    #[error("\"{}\" belongs to user {owner}, not to user {expected}", path.display())]
    Owner {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Whose it should be.
        expected: u32,
    },
    /// There is no store where an additional one was said to be.
    #[error("\"{}\" is no store of Umiak: it has no format.json", .0.display())]
    NotAStore(PathBuf),
    /// It lies in a store that is only read.
    #[error("\"{name}\" lies in the additional store \"{}\", which is only read", store.display())]
    ReadOnly {
        /// The image, or the file.
        name: String,
        /// The store.
        store: PathBuf,
    },
    /// Others may write to the directory of sockets and facts.
    #[error("\"{}\" has the mode {mode:o}: others may write to it", path.display())]
    Open {
        /// The directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The containers cannot be listed.
    #[error(transparent)]
    Containers(Box<containers::Error>),
    /// Neither `XDG_DATA_HOME` nor `HOME` says where the store is.
    #[error("neither $XDG_DATA_HOME nor $HOME is an absolute path: where the store is cannot be known")]
    NoHome,
    /// The process that was to remove files of subordinate ids failed.
    #[error("removing \"{}\"", path.display())]
    Child {
        /// The tree.
        path: PathBuf,
        /// Why.
        #[source]
        source: crate::sys::child::Error,
    },
    /// The content is not what its name says.
    #[error("blob {expected} has the content of {found}")]
    Digest {
        /// The digest in the name.
        expected: Digest,
        /// The digest of the content.
        found: Digest,
    },
    /// Several images fit.
    #[error("\"{name}\" fits several images: {}", matches.join(", "))]
    Ambiguous {
        /// What was looked for.
        name: String,
        /// Names or ids of what fits.
        matches: Vec<String>,
    },
}

/// The result of a store operation.
pub type Result<T> = std::result::Result<T, Error>;

/// Attaches what was being done to which path.
pub(crate) trait IoContext<T> {
    fn context(self, operation: &'static str, path: &Path) -> Result<T>;
}

impl<T, E: Into<io::Error>> IoContext<T> for std::result::Result<T, E> {
    fn context(self, operation: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| Error::Io { operation, path: path.to_owned(), source: source.into() })
    }
}
