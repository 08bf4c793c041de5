//! The store as a whole: its directories, its format, its lock, its rubbish.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::additional;
use super::containers::{self, Containers, RootfsSource};
use super::{Error, IoContext, Ownership, Paths, Result};
use crate::base::digest::{ChainId, Digest};
use crate::base::idmap::IdMapping;
use crate::sys::atomic::{self, Durability};
use crate::sys::lock::Lock;
use crate::sys::{child, tree};

/// The version of the layout and of every record.
pub const FORMAT: u32 = 1;

/// Directories below the root. Layers hold files of subordinate ids, so nobody else may look in.
const DIRECTORIES: [&str; 9] =
    ["blobs/sha256", "layers", "images", "tags", "names", "containers", "volumes", "staging", "trash"];

/// An opened store.
#[derive(Clone, Debug)]
pub struct Store {
    paths: Paths,
    mapping: Option<IdMapping>,
    pub(super) ownership: Option<Ownership>,
}

/// In the volatile part: a locked directory for each build that goes on, with the secrets of its steps.
pub const BUILDING: &str = "builds";

/// A held lock of the whole store; dropping it releases it.
#[derive(Debug)]
pub struct StoreLock {
    _lock: Lock,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Version {
    version: u32,
}

impl Store {
    /// Opens the store, making it where there is none. Costs two system calls when all is there.
    pub fn open(paths: &Paths) -> Result<Self> {
        let store = Self { paths: paths.clone(), mapping: None, ownership: None };
        let format = paths.root.join("format.json");
        match fs::read(&format) {
            Ok(bytes) => {
                parse::<Version>(&format, &bytes)?;
                // Who owns a store decides what is in it: root must not run a user's layers.
                check_owner(&paths.root, &fs::metadata(&paths.root).context("looking at", &paths.root)?)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => store.initialise(&format)?,
            Err(error) => return Err(error).context("reading", &format),
        }
        paths.additional.iter().try_for_each(|root| additional::check(root))?;
        store.prepare_runroot()?;
        Ok(store)
    }

    fn initialise(&self, format: &Path) -> Result<()> {
        let root = &self.paths.root;
        make_dir(root)?;
        // Another process may be initialising too, so its directories are no strangers.
        for entry in fs::read_dir(root).context("listing", root)? {
            let name = entry.context("listing", root)?.file_name();
            let known = |dir: &&str| dir.split('/').next() == name.to_str();
            let own = name.to_str().is_some_and(|n| n.starts_with(".format.json") || n == "lock");
            if !own && name != "lost+found" && name != "format.json" && !DIRECTORIES.iter().any(known) {
                return Err(Error::Foreign(root.clone()));
            }
        }
        for name in DIRECTORIES {
            make_dir(&root.join(name))?;
        }
        // Last, so that the file's presence means that all directories are there.
        let bytes = serde_json::to_vec(&Version { version: FORMAT }).unwrap_or_default();
        atomic::write(format, &bytes, 0o600, Durability::Synced).context("writing", format)
    }

    /// `/tmp` is everybody's: a directory that somebody else made there first must not be used.
    fn prepare_runroot(&self) -> Result<()> {
        let path = &self.paths.runroot;
        let stat = match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_dir(path)?;
                fs::symlink_metadata(path)
            }
            other => other,
        }
        .context("looking at", path)?;
        if !stat.is_dir() {
            return Err(io::Error::from(io::ErrorKind::NotADirectory)).context("using", path);
        }
        check_owner(path, &stat)?;
        if stat.mode() & 0o022 != 0 {
            return Err(Error::Open { path: path.clone(), mode: stat.mode() & 0o7777 });
        }
        Ok(())
    }

    /// Says how the ids of layers' files are mapped, so that what belongs to subordinate ids can
    /// be removed. Without it such a removal fails with "permission denied".
    pub fn with_mapping(mut self, mapping: Option<IdMapping>) -> Self {
        self.mapping = mapping;
        self
    }

    /// Says whose layers' files have to be: one that was unpacked for another mapping of ids then
    /// counts as absent. Without it any will do.
    pub fn with_ownership(mut self, ownership: Ownership) -> Self {
        self.ownership = Some(ownership);
        self
    }

    /// What [`Store::with_ownership`] said.
    pub fn ownership(&self) -> Option<Ownership> {
        self.ownership
    }

    /// The two directories.
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// A path below the persistent root.
    pub fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.paths.root.join(relative)
    }

    /// Takes the store together with others: what is there stays while this is held. Not to be
    /// held across a download, a hook or a wait.
    pub fn lock_shared(&self) -> Result<StoreLock> {
        let path = self.path("lock");
        Ok(StoreLock { _lock: Lock::shared(&path).context("locking", &path)? })
    }

    /// Takes the store alone, to remove what nothing refers to.
    pub fn lock_exclusive(&self) -> Result<StoreLock> {
        let path = self.path("lock");
        Ok(StoreLock { _lock: Lock::exclusive(&path).context("locking", &path)? })
    }

    /// Removes a file or tree of the store: first out of the way by a rename, then for good. A
    /// tree that belongs to subordinate ids is removed by a child inside the user namespace, for
    /// which the caller must be single-threaded.
    pub fn discard(&self, path: &Path) -> Result<()> {
        if let Some(store) = self.paths.additional.iter().find(|root| path.starts_with(root)) {
            return Err(Error::ReadOnly { name: path.display().to_string(), store: store.clone() });
        }
        let grave = self.path("trash").join(format!("{:016x}", random()?));
        match fs::rename(path, &grave) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.context("removing", path)?,
        }
        self.bury(&grave)
    }

    fn bury(&self, grave: &Path) -> Result<()> {
        match tree::remove_all(grave) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let Some(mapping) = &self.mapping else { return Err(error).context("removing", grave) };
                let removed = child::call(Some(mapping), || {
                    tree::remove_all(grave).map_err(|error| error.raw_os_error().unwrap_or(libc::EIO))
                });
                match removed {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(errno)) => Err(io::Error::from_raw_os_error(errno)).context("removing", grave),
                    Err(source) => Err(Error::Child { path: grave.to_owned(), source }),
                }
            }
            other => other.context("removing", grave),
        }
    }

    /// Removes what killed processes left: trash, and staging whose lock is free. What cannot be
    /// removed now is left for the next one.
    pub fn sweep(&self) -> Result<()> {
        let trash = self.path("trash");
        for entry in fs::read_dir(&trash).context("listing", &trash)?.flatten() {
            // Somebody may be removing the same tree this moment.
            let _ = self.bury(&entry.path());
        }
        let staging = self.path("staging");
        let staged = fs::read_dir(&staging).context("listing", &staging)?;
        // That of builds may not be there.
        let building = fs::read_dir(self.paths.runroot.join(BUILDING)).into_iter().flatten();
        for entry in staged.chain(building).flatten() {
            let path = entry.path();
            // Not one that would make the file: this entry may have been published since.
            let Ok(Some(lock)) = Lock::try_exclusive_existing(&path) else { continue };
            if lock.is_at(&path) {
                let _ = self.discard(&path);
            }
        }
        Ok(())
    }

    /// Announces what a pull is about to use, so that [`Store::collect`] spares it although no
    /// image refers to it yet.
    pub fn pin(&self, layers: &[ChainId], blobs: &[Digest]) -> Result<Pins> {
        // Shared, so that a collection either sees these pins or is over before the caller looks
        // which of the layers are there.
        let _lock = self.lock_shared()?;
        let bytes = serde_json::to_vec(&PinFile { layers: layers.to_vec(), blobs: blobs.to_vec() })
            .unwrap_or_default();
        let (path, lock) = loop {
            let path = self.path("staging").join(format!("pins-{:016x}", random()?));
            // A sweeper may take the new file, still without a lock, for rubbish.
            let lock = atomic::write(&path, &bytes, 0o600, Durability::Volatile)
                .and_then(|()| Lock::exclusive_existing(&path));
            match lock {
                Ok(lock) if lock.is_at(&path) => break (path, lock),
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).context("writing", &path);
                }
                _ => {}
            }
        };
        Ok(Pins { path, _lock: lock })
    }

    /// Removes the layers and blobs that neither an image, a step of a build nor a running pull refers to.
    pub fn collect(&self) -> Result<()> {
        let _lock = self.lock_exclusive()?;
        let mut layers = HashSet::new();
        let mut blobs = HashSet::new();
        for image in self.images()? {
            blobs.extend([image.id, image.manifest]);
            blobs.extend(image.index);
            blobs.extend(image.list.iter().flat_map(|list| &list.entries).flat_map(|entry| &entry.blobs));
            for layer in &image.layers {
                layers.insert(layer.chain_id);
                blobs.extend(layer.blob);
            }
        }
        for artifact in self.artifacts()? {
            blobs.insert(artifact.manifest);
            blobs.extend(artifact.blobs);
        }
        layers.extend(self.kept_steps()?.iter().filter_map(|kept| Some(kept.built.layer.as_ref()?.chain_id)));
        // A container keeps its layers even if its image went by some other way.
        let of_store = Containers::new(&self.paths.root, &self.paths.runroot);
        let mut all_known = true;
        for id in of_store.ids().map_err(|e| Error::Containers(Box::new(e)))? {
            match of_store.record(&id) {
                Ok(record) => {
                    if let RootfsSource::Image { layers: used, .. } = record.rootfs {
                        layers.extend(used);
                    }
                }
                Err(containers::Error::NotFound(_)) => {}
                // What a container with a damaged record stands on cannot be known: all layers stay.
                Err(_) => all_known = false,
            }
        }
        let staging = self.path("staging");
        for entry in fs::read_dir(&staging).context("listing", &staging)?.flatten() {
            let path = entry.path();
            let pins = entry.file_name().to_str().is_some_and(|name| name.starts_with("pins-"));
            if !pins || matches!(Lock::try_exclusive_existing(&path), Ok(Some(_)) | Err(_)) {
                continue;
            }
            if let Some(pins) = fs::read(&path).ok().and_then(|b| serde_json::from_slice::<PinFile>(&b).ok())
            {
                layers.extend(pins.layers);
                blobs.extend(pins.blobs);
            }
        }
        let keep_layers: HashSet<String> = layers.iter().map(|id| id.0.hex()).collect();
        let keep_blobs: HashSet<String> = blobs.iter().map(Digest::hex).collect();
        if all_known {
            self.discard_others("layers", &keep_layers)?;
        }
        self.discard_others("blobs/sha256", &keep_blobs)
    }

    fn discard_others(&self, dir: &str, keep: &HashSet<String>) -> Result<()> {
        let dir = self.path(dir);
        for entry in fs::read_dir(&dir).context("listing", &dir)? {
            let entry = entry.context("listing", &dir)?;
            // A layer is kept for either mapping of ids: a stopped container may stand on the other.
            let kept = |name: &str| keep.contains(name.strip_suffix(super::layers::SINGLE).unwrap_or(name));
            if entry.file_name().to_str().is_none_or(|name| !kept(name)) {
                self.discard(&entry.path())?;
            }
        }
        Ok(())
    }
}

#[derive(Serialize, Deserialize)]
struct PinFile {
    layers: Vec<ChainId>,
    blobs: Vec<Digest>,
}

/// What a running pull uses; dropping it ends the protection.
#[derive(Debug)]
pub struct Pins {
    path: PathBuf,
    _lock: Lock,
}

impl Drop for Pins {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn check_owner(path: &Path, stat: &fs::Metadata) -> Result<()> {
    let expected = rustix::process::geteuid().as_raw();
    if stat.uid() == expected {
        Ok(())
    } else {
        Err(Error::Owner { path: path.to_owned(), owner: stat.uid(), expected })
    }
}

pub(super) fn random() -> Result<u64> {
    atomic::random().context("reading random bytes from", Path::new("getrandom"))
}

fn make_dir(path: &Path) -> Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).context("creating", path)
}

/// Parses a record after a look at its version, so that a newer format is named as such and not
/// as damage.
pub(super) fn parse<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T> {
    let damaged = |source| Error::Damaged { path: path.to_owned(), source };
    let Version { version } = serde_json::from_slice(bytes).map_err(damaged)?;
    if version > FORMAT {
        return Err(Error::Version { path: path.to_owned(), found: version, known: FORMAT });
    }
    serde_json::from_slice(bytes).map_err(damaged)
}
