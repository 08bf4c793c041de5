//! `COPY`, `ADD` and `WORKDIR`: the archive of a layer, made of the files themselves. Nothing is mounted, nothing
//! is written but the archive.
//!
//! Sources and the image so far are read through directory descriptors ([`crate::sys::merged`]), by which no link
//! of theirs is followed that is not followed here, inside the tree that it is in. What is here runs as whoever the
//! layers' files belong to ([`crate::sys::child`]).

mod error;
mod fetch;
mod files;
mod layer;
mod mode;
mod owner;
mod pattern;
mod sources;
#[cfg(test)]
mod tests;
mod unpack;
pub(super) mod view;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

pub use self::error::Error;
pub use self::fetch::{Fetched, Remote, fetch, remote};
use self::files::{Destination, Files};
pub(super) use self::layer::At;
use self::layer::{Facts, Layer, Stamp};
use self::mode::Chmod;
pub use self::owner::user_of;
pub use self::pattern::verdict;
use self::sources::{Match, Sources};
use self::view::{Child, View};
use super::request::Times;
use crate::base::digest::Digest;
use crate::image::dockerfile::ignore::Ignore;
use crate::image::dockerfile::{Copy, Heredoc};
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

/// What a source stands for.
enum Item<'a> {
    Path(Box<Match>),
    Fetched(&'a Fetched),
    Inline(&'a Heredoc),
}

impl Job<'_> {
    /// Reads everything once, and says what it is. May start threads (`ADD` of an archive).
    pub fn examine(&self) -> Result<Copied, Error> {
        let (hash, mut copied) = self.run(Hash(Sha256::new()), Stamp::Zero)?;
        copied.digest = Digest::from_bytes(hash.0.finalize().into());
        Ok(copied)
    }

    /// Writes the archive of a layer. `before` is what [`Job::examine`] said: it is an error if files have changed
    /// since. May start threads.
    pub fn write<W: Write>(&self, out: W, before: Option<&Copied>) -> Result<W, Error> {
        let (out, now) = self.run(out, Stamp::Real { times: self.times, now: self.now })?;
        match before {
            Some(before) if before.seen != now.seen || before.entries != now.entries => {
                Err(Error::AnyChanged)
            }
            _ => Ok(out),
        }
    }

    /// Writes the archive; the digest of what it says is left to others.
    fn run<W: Write>(&self, out: W, stamp: Stamp) -> Result<(W, Copied), Error> {
        let copy = self.copy;
        let chown = copy.chown.as_deref().map(|text| user_of(self.below, text)).transpose()?;
        let chmod = copy.chmod.as_deref().map(Chmod::parse).transpose()?;
        let image = |source| Error::Image { path: "/".into(), source };
        let view = View::of_trees(self.below).map_err(image)?.blind(copy.link);
        let excludes = Ignore::patterns(&copy.exclude).map_err(Error::Exclude)?;
        let sources = Sources::open(self.origin)?;
        let items = self.items(sources.as_ref())?;
        let mut files = Files {
            layer: Layer::new(out, view, stamp, chown, chmod),
            destination: Destination::new(self.workdir, &copy.destination),
            excludes: &excludes,
            blind: copy.link,
            unpacks: copy.add && copy.unpack != Some(false),
            links: HashMap::new(),
        };
        if items.len() > 1 && !copy.parents {
            files.check_several(items.len(), &copy.destination)?;
        }
        for item in items {
            match (item, &sources) {
                (Item::Path(found), Some(sources)) => files.copy(sources, *found)?,
                (Item::Path(found), None) => return Err(Error::NoContext(found.path.display().to_string())),
                (Item::Fetched(fetched), _) => self.fetched(&mut files, fetched)?,
                (Item::Inline(text), _) => {
                    let name = sources::names(&text.name).pop().unwrap_or_default();
                    let to = files.place_for(&name, &text.name)?;
                    let facts = Facts { mode: 0o644, ..Facts::default() };
                    let bytes = text.text.as_bytes();
                    files.layer.put_file(&to, &facts, bytes.len() as u64, &mut &*bytes, Error::Write)?;
                }
            }
        }
        let mut layer = files.layer;
        let warnings = std::mem::take(&mut layer.warnings);
        let (entries, bytes) = (layer.entries, layer.bytes);
        let (out, seen) = layer.finish()?;
        let seen = Digest::from_bytes(seen);
        Ok((out, Copied { digest: seen, seen, entries, bytes, warnings }))
    }

    /// What there is to copy, in the order of the sources.
    fn items(&self, sources: Option<&Sources<'_>>) -> Result<Vec<Item<'_>>, Error> {
        let mut items = Vec::new();
        let (mut ignored, mut paths) = (false, 0);
        for source in &self.copy.sources {
            match remote(source).filter(|_| self.copy.add) {
                Some(Remote::Git) => return Err(Error::Git(source.clone())),
                Some(Remote::File) => {
                    let fetched = self.fetched.iter().find(|fetched| fetched.url == *source);
                    items.push(Item::Fetched(fetched.ok_or_else(|| Error::NotFetched(source.clone()))?));
                }
                None => {
                    paths += 1;
                    let sources = sources.ok_or_else(|| Error::NoContext(source.clone()))?;
                    let found = sources.find(source, self.copy.parents)?;
                    ignored |= found.ignored;
                    items.extend(found.matches.into_iter().map(|found| Item::Path(Box::new(found))));
                }
            }
        }
        if self.copy.checksum.is_some() && paths > 0 {
            return Err(Error::Flag { flag: "--checksum", only: "ADD of addresses" });
        }
        items.extend(self.copy.inline.iter().map(Item::Inline));
        match sources {
            Some(sources) if items.is_empty() => {
                let patterns: Vec<String> =
                    self.copy.sources.iter().map(|source| format!("\"{source}\"")).collect();
                Err(Error::NoMatch { patterns: patterns.join(" or "), place: sources.place, ignored })
            }
            _ => Ok(items),
        }
    }

    fn fetched<W: Write>(&self, files: &mut Files<'_, W>, fetched: &Fetched) -> Result<(), Error> {
        if self.copy.unpack == Some(true)
            && unpack::unpack(&mut files.layer, &fetched.file, &fetched.url, &files.destination.path)?
        {
            return Ok(());
        }
        // Only a directory has to be told it.
        let to = match &fetched.name {
            Some(name) => files.place_for(OsStr::new(name), &fetched.url)?,
            None if files.is_directory()? => return Err(Error::NoName(fetched.url.clone())),
            None => files.place_for(OsStr::new(""), &fetched.url)?,
        };
        let mtime = Some((fetched.modified.unwrap_or(0), 0));
        let facts = Facts { mode: 0o600, mtime, ..Facts::default() };
        let mut content = At { file: &fetched.file, offset: 0 };
        let failed = |error: io::Error| Error::Fetch { url: fetched.url.clone(), message: error.to_string() };
        files.layer.put_file(&to, &facts, fetched.size, &mut content, failed)
    }
}

/// Hashes what is written.
struct Hash(Sha256);

impl Write for Hash {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
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
        let image = |source| Error::Image { path: "/".into(), source };
        let view = View::of_trees(self.below).map_err(image)?;
        let stamp = Stamp::Real { times: self.times, now: self.now };
        let mut layer = Layer::new(out, view, stamp, Some(self.owner), None);
        let path = Destination::new("/", self.path).path;
        if let Child::Directory(_) = layer.find(&path, true)?.child {
            return Ok(None);
        }
        layer.directory(&path, self.path)?;
        Ok(Some(layer.finish()?.0))
    }
}
