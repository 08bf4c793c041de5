//! Stores of somebody else's making that are read beside one's own: images in them can be run, their layers
//! are used where they lie. Nothing is ever written to them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::images::image_file;
use super::layers::{layer_at, places_in};
use super::store::{Version, parse};
use super::{Error, IoContext, Ownership, Result, Store};
use crate::base::digest::{ChainId, Digest};

/// Looks whether a store can be read, and was written by a program no newer than this one.
pub(super) fn check(root: &Path) -> Result<()> {
    let format = root.join("format.json");
    let bytes = match fs::read(&format) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::NotAStore(root.to_owned()));
        }
        other => other.context("reading", &format)?,
    };
    parse::<Version>(&format, &bytes).map(drop)
}

impl Store {
    /// This store's directory, then those of the additional ones.
    pub(super) fn roots(&self) -> impl Iterator<Item = &Path> {
        let paths = self.paths();
        std::iter::once(&paths.root).chain(&paths.additional).map(PathBuf::as_path)
    }

    /// Where something is: in this store, else in the first additional one that has it, else where it
    /// would be in this one.
    pub(super) fn find(&self, relative: &Path) -> PathBuf {
        let own = self.path(relative);
        if self.paths().additional.is_empty() || own.exists() {
            return own;
        }
        let mut elsewhere = self.paths().additional.iter().map(|root| root.join(relative));
        elsewhere.find(|path| path.exists()).unwrap_or(own)
    }

    /// The additional store that an image is in, if it is not in this one.
    pub fn foreign_image(&self, id: &Digest) -> Option<&Path> {
        let file = image_file(id);
        if self.paths().additional.is_empty() || self.path(&file).exists() {
            return None;
        }
        self.paths().additional.iter().map(PathBuf::as_path).find(|root| root.join(&file).exists())
    }

    /// The directory of a layer in an additional store that containers of this one can stand on: unpacked for
    /// the same kind of ids, by the same user. What is anybody else's would be nobody's in a container.
    pub(super) fn foreign_layer(&self, chain_id: &ChainId) -> Option<PathBuf> {
        let euid = rustix::process::geteuid().as_raw();
        let of_many = matches!(self.ownership, Some(Ownership::Host | Ownership::Mapped));
        let roots = self.paths().additional.iter();
        let mut places = roots.flat_map(|root| {
            let (plain, single) = places_in(root, chain_id);
            (!of_many).then_some(single).into_iter().chain([plain])
        });
        places.find(|place| {
            let record = layer_at(place).ok().flatten();
            let fits = record.is_some_and(|record| self.ownership.is_none_or(|own| own == record.ownership));
            fits && fs::metadata(place).is_ok_and(|stat| stat.uid() == euid)
        })
    }

    /// Whether a path is one of this store's, which may be written to.
    pub(super) fn is_own(&self, path: &Path) -> bool {
        path.starts_with(&self.paths().root)
    }
}
