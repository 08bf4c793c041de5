//! Unpacked layers: `layers/<chain id>/` holds `diff/`, the tree as overlayfs wants it (whiteouts
//! as 0:0 character devices, opaque directories as an attribute; else [`Store::layer_tree`]),
//! `layer.json`, `recipe` and sometimes `aside/`, which with the tree give the archive back, and
//! `files`, by which other layers find what they can share ([`super::share`]).
//!
//! A layer whose files all belong to the one id that is mapped lies in `layers/<chain id>-single/`:
//! the same layer unpacked for more ids is another tree, and containers of both kinds may exist.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::store::parse;
use super::{Error, FORMAT, IoContext, Result, Store};
use crate::base::digest::{ChainId, Digest};
use crate::sys::atomic::{self, Durability};
use crate::sys::host;
use crate::sys::implied;
use crate::sys::lock::Lock;
use crate::sys::merged::Tree;

/// Whose the unpacked files are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ownership {
    /// The ids of the archive, as root on the host.
    Host,
    /// The ids of the archive, mapped by a user namespace with subordinate ids.
    Mapped,
    /// All files belong to the one id that is mapped: the archive's ids are lost.
    Single,
}

/// `layer.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// Format version.
    pub version: u32,
    /// Digest of the uncompressed archive.
    pub diff_id: Digest,
    /// Digest of the blob that it was unpacked from.
    pub blob: Digest,
    /// Size of the uncompressed archive in bytes.
    pub size: u64,
    /// Number of entries in the archive.
    pub entries: u64,
    /// How many device nodes were left out because only root can make them.
    pub skipped_devices: u64,
    /// How many extended attributes were left out (not permitted, not supported, or overlayfs' own).
    pub skipped_xattrs: u64,
    /// Whose the files are.
    pub ownership: Ownership,
    /// The tree is not for overlayfs: see [`Store::layer_tree`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub plain_whiteouts: bool,
    /// Bytes of files that shared their content with other layers when this one was made.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub shared: u64,
    /// The boot during which it was unpacked (`/proc/sys/kernel/random/boot_id`): until it is
    /// marked as synced the layer counts only during this boot.
    pub boot_id: String,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What [`Store::reserve_layer`] finds.
#[derive(Debug)]
pub enum LayerSlot {
    /// The layer is there.
    Ready(LayerRecord),
    /// The caller has to make it.
    Vacant(StagedLayer),
}

/// A layer that is being made: a locked directory in `staging`. Dropping it without
/// [`StagedLayer::publish`] removes it.
#[derive(Debug)]
pub struct StagedLayer {
    store: Store,
    chain_id: ChainId,
    path: PathBuf,
    lock: Lock,
    published: bool,
}

const SYNCED: &str = "synced";
const PLAIN: &str = "plain";
const RECIPE: &str = "recipe";
const ASIDE: &str = "aside";
const IMPLIED: &str = "implied";

/// What the directories of layers with [`Ownership::Single`] end with.
pub(super) const SINGLE: &str = "-single";

impl Store {
    /// The directory that holds a layer's tree, for overlayfs.
    pub fn layer_dir(&self, chain_id: &ChainId) -> PathBuf {
        self.layer_path(chain_id).join("diff")
    }

    /// The directory that holds a layer's tree, for reading: where the file system refused
    /// overlayfs's whiteouts they are files as in the archive, and the tree has another name, so
    /// that no overlay can be mounted of it.
    pub fn layer_tree(&self, chain_id: &ChainId) -> PathBuf {
        tree_in(&self.layer_path(chain_id))
    }

    /// The directories that may hold this layer, unpacked for whichever mapping of ids, the one that
    /// this store would use first: whatever they are worth, the files in them can be looked at.
    pub fn layer_kinds(&self, chain_id: &ChainId) -> Vec<LayerFiles> {
        let own = self.layer_path(chain_id);
        let (plain, single) = self.layer_places(chain_id);
        let other = if own == plain { single } else { plain };
        let foreign = self.roots().skip(1).flat_map(|root| <[PathBuf; 2]>::from(places_in(root, chain_id)));
        let mut dirs: Vec<PathBuf> =
            [own, other].into_iter().chain(foreign).filter(|dir| dir.exists()).collect();
        dirs.dedup();
        dirs.into_iter().map(|dir| LayerFiles { dir }).collect()
    }

    fn layer_path(&self, chain_id: &ChainId) -> PathBuf {
        let own = self.own_layer_path(chain_id);
        if self.paths().additional.is_empty() || own.exists() {
            return own;
        }
        self.foreign_layer(chain_id).unwrap_or(own)
    }

    fn own_layer_path(&self, chain_id: &ChainId) -> PathBuf {
        let (plain, single) = self.layer_places(chain_id);
        match self.ownership {
            Some(Ownership::Host | Ownership::Mapped) => plain,
            // Stores had one place for both kinds once.
            Some(Ownership::Single) if single.exists() || !plain.exists() => single,
            None if !plain.exists() && single.exists() => single,
            Some(Ownership::Single) | None => plain,
        }
    }

    fn layer_places(&self, chain_id: &ChainId) -> (PathBuf, PathBuf) {
        places_in(&self.paths().root, chain_id)
    }

    /// The layer's record, or `None` if the layer is not there, was unpacked for another mapping of
    /// ids, or was unpacked before a reboot without having been written to the disk, so that its
    /// content cannot be trusted.
    pub fn layer(&self, chain_id: &ChainId) -> Result<Option<LayerRecord>> {
        let record = layer_at(&self.layer_path(chain_id))?;
        let single = |ownership| ownership == Ownership::Single;
        let fits = |record: &LayerRecord| {
            self.ownership.is_none_or(|wanted| single(wanted) == single(record.ownership))
        };
        Ok(record.filter(fits))
    }

    /// Finds the layer or reserves its making. While another process or thread is making the same
    /// layer this waits for it, and then finds it ready, unless the other failed.
    pub fn reserve_layer(&self, chain_id: ChainId) -> Result<LayerSlot> {
        let single = self.ownership == Some(Ownership::Single);
        let name = chain_id.0.hex() + if single { SINGLE } else { "" };
        let path = self.path("staging").join(name);
        loop {
            if let Some(record) = self.layer(&chain_id)? {
                return Ok(LayerSlot::Ready(record));
            }
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(error).context("creating", &path);
                }
                _ => {}
            }
            let lock = match open_lock(&path)? {
                Some(lock) if lock.is_at(&path) => lock,
                // Published, failed or swept while this waited for the lock.
                _ => continue,
            };
            if fs::read_dir(&path).context("listing", &path)?.next().is_some() {
                // Of somebody who died: emptied by starting anew.
                self.discard(&path)?;
                continue;
            }
            if self.layer(&chain_id)?.is_some() {
                let _ = fs::remove_dir(&path);
                continue;
            }
            let staged = StagedLayer { store: self.clone(), chain_id, path, lock, published: false };
            let diff = staged.diff();
            fs::DirBuilder::new().mode(0o755).create(&diff).context("creating", &diff)?;
            return Ok(LayerSlot::Vacant(staged));
        }
    }

    /// Whether [`Store::sync_layers`] has anything to do.
    pub fn lacks_sync(&self, layers: &[ChainId]) -> bool {
        layers
            .iter()
            .map(|id| self.own_layer_path(id))
            .any(|path| !path.join(SYNCED).exists() && path.exists())
    }

    /// Writes all that was pulled to the disk and marks the layers as durable.
    pub fn sync_layers(&self, layers: &[ChainId]) -> Result<()> {
        // Open, so that what takes a layer's place meanwhile is not marked for it.
        let unsynced: Vec<(PathBuf, fs::File)> = layers
            .iter()
            .map(|id| self.own_layer_path(id))
            .filter(|path| path.exists() && !path.join(SYNCED).exists())
            .filter_map(|path| fs::File::open(&path).ok().map(|opened| (path, opened)))
            .collect();
        if unsynced.is_empty() {
            return Ok(());
        }
        let dir = self.path("layers");
        let fd = fs::File::open(&dir).context("opening", &dir)?;
        rustix::fs::syncfs(&fd).context("syncing", &dir)?;
        for (path, opened) in unsynced {
            // Found to be damaged since: a mark would make it count again.
            if layer_at(&path)?.is_none() {
                continue;
            }
            use rustix::fs::{Mode, OFlags};
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
            let mode = Mode::RUSR | Mode::WUSR;
            rustix::fs::openat(&opened, SYNCED, flags, mode).context("creating", &path.join(SYNCED))?;
        }
        Ok(())
    }
}

impl Store {
    /// Gives the directories for which the archive of the last of these layers had no entry what the layers
    /// below say of them (`chain`: lowest first). To be called once they are all there, and before an image
    /// shows them; may be called by several at the same time, and again.
    pub fn settle_layer(&self, chain: &[ChainId]) -> Result<()> {
        let Some((layer, below)) = chain.split_last() else { return Ok(()) };
        let dir = self.layer_path(layer);
        if !self.is_own(&dir) {
            return Ok(());
        }
        let list = dir.join(IMPLIED);
        let bytes = match fs::read(&list) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.context("reading", &list)?,
        };
        let paths: Vec<PathBuf> =
            bytes.split(|byte| *byte == 0).map(|path| OsStr::from_bytes(path).into()).collect();
        let tree = |id: &ChainId| {
            let path = self.layer_tree(id);
            Tree { plain: path.ends_with(PLAIN), path }
        };
        let lower: Vec<Tree> = below.iter().rev().map(tree).collect();
        let tree = tree_in(&dir);
        implied::settle(&tree, &paths, &lower).context("finishing", &tree)?;
        match fs::remove_file(&list) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).context("removing", &list),
            _ => Ok(()),
        }
    }
}

/// The files of a layer that is there.
#[derive(Clone, Debug)]
pub struct LayerFiles {
    dir: PathBuf,
}

impl LayerFiles {
    pub(super) fn at(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The directory of it all.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Takes the marks away by which the layer is trusted.
    pub(super) fn distrust(&self, write: impl Fn(&Path, &[u8]) -> Result<()>) -> Result<()> {
        let path = self.dir.join("layer.json");
        let record = self.record().map(|record| LayerRecord { boot_id: "damaged".to_owned(), ..record });
        let bytes = record.and_then(|record| serde_json::to_vec(&record).ok()).unwrap_or_default();
        write(&path, &bytes)?;
        let marker = self.dir.join(SYNCED);
        match fs::remove_file(&marker) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).context("removing", &marker),
            _ => Ok(()),
        }
    }

    /// The unpacked tree.
    pub fn tree(&self) -> PathBuf {
        tree_in(&self.dir)
    }

    /// What gives the archive back with the tree; layers of old stores have none, but a blob.
    pub fn recipe(&self) -> PathBuf {
        self.dir.join(RECIPE)
    }

    /// Files that a later entry of the archive took the place of; exists only if there are any.
    pub fn aside(&self) -> PathBuf {
        self.dir.join(ASIDE)
    }

    /// The layer's record, if it can be read, whether its content can be trusted or not.
    pub fn record(&self) -> Option<LayerRecord> {
        serde_json::from_slice(&fs::read(self.dir.join("layer.json")).ok()?).ok()
    }
}

pub(super) fn tree_in(dir: &Path) -> PathBuf {
    let plain = dir.join(PLAIN);
    if plain.exists() { plain } else { dir.join("diff") }
}

impl StagedLayer {
    /// The directory to unpack into.
    pub fn diff(&self) -> PathBuf {
        self.path.join("diff")
    }

    /// The file for what the tree does not hold of the archive.
    pub fn recipe(&self) -> PathBuf {
        self.path.join(RECIPE)
    }

    /// The directory for files that a later entry takes the place of.
    pub fn aside(&self) -> PathBuf {
        self.path.join(ASIDE)
    }

    /// The file for the list by which files are shared.
    pub(super) fn files(&self) -> PathBuf {
        self.path.join("files")
    }

    /// A name for what is on its way.
    pub(super) fn scratch(&self) -> PathBuf {
        self.path.join("scratch")
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    pub(super) fn is_single(&self) -> bool {
        self.store.ownership == Some(Ownership::Single)
    }

    /// Notes the directories of the tree for which the archive has no entry, for [`Store::settle_layer`].
    pub fn note_implied(&self, paths: &[PathBuf]) -> io::Result<()> {
        if paths.is_empty() {
            return Ok(());
        }
        let paths: Vec<&[u8]> = paths.iter().map(|path| path.as_os_str().as_bytes()).collect();
        fs::write(self.path.join(IMPLIED), paths.join(&0))
    }

    /// A file to download the layer's blob into; published with the layer if it is there.
    pub fn blob(&self) -> PathBuf {
        self.path.join("blob")
    }

    /// Gives the layer its place, and its blob. Nothing is synced: see [`Store::sync_layers`].
    pub fn publish(mut self, record: &LayerRecord) -> Result<()> {
        let file = self.path.join("layer.json");
        let bytes =
            serde_json::to_vec(record).map_err(|source| Error::Damaged { path: file.clone(), source })?;
        atomic::write(&file, &bytes, 0o600, Durability::Volatile).context("writing", &file)?;
        if record.plain_whiteouts {
            fs::rename(self.diff(), self.path.join(PLAIN)).context("publishing", &self.path)?;
        }
        if self.blob().exists() {
            self.store.publish_blob(&self.blob(), &record.blob)?;
        }
        let (plain, single) = self.store.layer_places(&self.chain_id);
        let place = if self.store.ownership == Some(Ownership::Single) { &single } else { &plain };
        if place.exists() {
            // Only a layer that `layer` calls absent can be here: this one's lock is held.
            let old = layer_at(place)?;
            if place == &plain
                && !single.exists()
                && old.is_some_and(|old| old.ownership == Ownership::Single)
            {
                // From before the kinds had places of their own: containers may stand on it.
                fs::rename(place, &single).context("moving", place)?;
            } else {
                self.store.discard(place)?;
            }
        }
        fs::rename(&self.path, place).context("publishing", place)?;
        self.published = true;
        Ok(())
    }
}

impl Drop for StagedLayer {
    fn drop(&mut self) {
        if !self.published && self.lock.is_at(&self.path) {
            // What cannot be removed now is swept later: the lock is free from here on.
            let _ = self.store.discard(&self.path);
        }
    }
}

impl LayerRecord {
    /// A record with everything zero but what names the layer.
    pub fn new(diff_id: Digest, blob: Digest, ownership: Ownership) -> Result<Self> {
        Ok(Self {
            version: FORMAT,
            diff_id,
            blob,
            size: 0,
            entries: 0,
            skipped_devices: 0,
            skipped_xattrs: 0,
            ownership,
            plain_whiteouts: false,
            shared: 0,
            boot_id: host::boot_id().to_owned(),
        })
    }
}

/// Where a layer can be in the store `root`: with the owners of many ids, and with one.
pub(super) fn places_in(root: &Path, chain_id: &ChainId) -> (PathBuf, PathBuf) {
    let dir = root.join("layers");
    let hex = chain_id.0.hex();
    (dir.join(&hex), dir.join(hex + SINGLE))
}

/// The record in a layer's directory, if its content can be trusted.
pub(super) fn layer_at(path: &Path) -> Result<Option<LayerRecord>> {
    let file = path.join("layer.json");
    let bytes = match fs::read(&file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.context("reading", &file)?,
    };
    let record: LayerRecord = match parse(&file, &bytes) {
        Ok(record) => record,
        // A power cut before the sync may have left anything in it.
        Err(Error::Damaged { .. }) if !path.join(SYNCED).exists() => return Ok(None),
        Err(error) => return Err(error),
    };
    // A boot that cannot be told apart is another one.
    let boot = host::boot_id();
    let usable = (!boot.is_empty() && record.boot_id == boot) || path.join(SYNCED).exists();
    Ok(usable.then_some(record))
}

/// Locks a directory of `staging`, or `None` if it went away before it was opened.
fn open_lock(path: &Path) -> Result<Option<Lock>> {
    match Lock::exclusive_existing(path) {
        Ok(lock) => Ok(Some(lock)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context("locking", path),
    }
}
