//! `COPY`, `ADD` and `WORKDIR`: the archive of a layer, made of the files themselves. Nothing is mounted, nothing
//! is written but the archive.
//!
//! Sources and the image so far are read through directory descriptors ([`crate::sys::merged`]), by which no link
//! of theirs is followed that is not followed here, inside the tree that it is in. What is here runs as whoever the
//! layers' files belong to ([`crate::sys::child`]).

mod error;
mod fetch;
mod owner;

use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

pub use self::error::Error;
pub use self::fetch::{Fetched, Remote, fetch, remote};
pub use self::owner::user_of;
use super::request::Times;
use crate::base::digest::Digest;
use crate::image::dockerfile::Copy;
use crate::sys::merged::Tree;
use crate::sys::path::Root;

/// What an ignore file says of something in the context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is there.
    Kept,
    /// It is not there; of a directory: neither is anything in it.
    Hidden,
    /// A directory that is not there unless something in it is.
    Sifted,
}

/// Says what an ignore file says of a path below the context, and whether that is a directory.
pub type Ignored<'a> = dyn Fn(&Path, bool) -> Verdict + 'a;

/// Where sources are.
#[derive(Clone, Copy)]
pub enum Origin<'a> {
    /// In the context, or another one (`--from` of `--build-context NAME=DIRECTORY`). Whose its files are counts for
    /// nothing: the copies are root's.
    Context {
        /// It.
        root: &'a Root,
        /// What of it is not there.
        ignored: &'a Ignored<'a>,
    },
    /// In a stage or an image (`--from`).
    Trees {
        /// Its layers, the topmost first.
        trees: &'a [Tree],
        /// All files are one user's, and whose they are meant to be is kept beside them
        /// ([`crate::sys::owners`]; layers with `Ownership::Single`).
        remembered: bool,
    },
    /// Nowhere: a Dockerfile alone was given.
    Nothing,
}

/// What one instruction copies.
pub struct Job<'a> {
    /// The instruction, without variables.
    pub copy: &'a Copy,
    /// Where its sources are.
    pub origin: Origin<'a>,
    /// What was fetched of those that are addresses.
    pub fetched: &'a [Fetched],
    /// The image so far, the topmost layer first; none for `scratch`.
    pub below: &'a [Tree],
    /// The working directory; empty is `/`.
    pub workdir: &'a str,
    /// How times are told.
    pub times: Times,
    /// The time of what is made here: directories on the way, files of the Dockerfile. Seconds since 1970.
    pub now: u64,
}

/// What was read, and what of it is in the archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copied {
    /// Digest of the archive with all times zero: what the build's cache knows the step by.
    pub digest: Digest,
    /// Digest of what the kernel said of all files that were read: where it is the same, nothing has changed.
    pub seen: Digest,
    /// Entries in the archive.
    pub entries: u64,
    /// Bytes of files in it.
    pub bytes: u64,
    /// What was left out, one line each.
    pub warnings: Vec<String>,
}

impl Job<'_> {
    /// Reads everything once, and says what it is. May start threads (`ADD` of a compressed archive).
    pub fn examine(&self) -> Result<Copied, Error> {
        unreachable!()
    }

    /// Writes the archive of a layer. `before` is what [`Job::examine`] said: it is an error if files have changed
    /// since. May start threads.
    pub fn write<W: Write>(&self, out: W, before: Option<&Copied>) -> Result<W, Error> {
        let _ = (&out, before);
        unreachable!()
    }
}

/// A directory that an instruction wants (`WORKDIR`).
#[derive(Clone, Copy, Debug)]
pub struct Directory<'a> {
    /// Its absolute path in the image.
    pub path: &'a str,
    /// The image so far, the topmost layer first.
    pub below: &'a [Tree],
    /// Whose it, and what is missing above it, will be.
    pub owner: (u32, u32),
    /// How times are told.
    pub times: Times,
    /// The time of what is made. Seconds since 1970.
    pub now: u64,
}

impl Directory<'_> {
    /// Writes the archive of a layer with this directory and those above it that are missing; `None`, and nothing
    /// is written, if it is there.
    pub fn write<W: Write>(&self, out: W) -> Result<Option<W>, Error> {
        let _ = &out;
        unreachable!()
    }
}
