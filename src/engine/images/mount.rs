//! `image mount`: an image's files, read-only, at a place of the host.
//!
//! ```text
//! <runroot>/mounts/<id>/merged   where it is mounted
//!                       count    how often that was asked for
//!                       upper work
//! ```
//!
//! What is mounted is known from the kernel, not from these files: they go with a reboot, as mounts do.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Error;
use crate::base::digest::Digest;
use crate::engine::{self, Engine};
use crate::storage::{ImageRecord, Store};
use crate::sys::lock::Lock;
use crate::sys::mount::{self, Overlay, attr};
use crate::sys::mountinfo;

/// An image that is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountedImage {
    /// The image.
    pub id: Digest,
    /// Where.
    pub path: PathBuf,
}

fn doing(action: &'static str, path: &Path) -> impl Fn(io::Error) -> Error {
    move |source| Error::Mount { action, path: path.to_owned(), source }
}

impl Engine {
    fn mounts_dir(&self) -> PathBuf {
        self.paths.runroot.join("mounts")
    }

    /// The images that are mounted in this mount namespace.
    pub fn mounted_images(&self) -> Result<Vec<MountedImage>, engine::Error> {
        let dir = self.mounts_dir();
        let entries = match fs::read_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(doing("listing", &dir))?,
        };
        // The kernel tells paths without links.
        let real = fs::canonicalize(&dir).map_err(doing("listing", &dir))?;
        let points = mountinfo::of(0).map_err(doing("listing the mounts below", &dir))?;
        let mut mounted = Vec::new();
        for entry in entries.flatten() {
            let Some(hex) = entry.file_name().to_str().map(str::to_owned) else { continue };
            let Ok(id) = format!("sha256:{hex}").parse::<Digest>() else { continue };
            if points.iter().any(|mount| mount.point == real.join(&hex).join("merged")) {
                mounted.push(MountedImage { id, path: dir.join(hex).join("merged") });
            }
        }
        mounted.sort_by_key(|mounted| mounted.id);
        Ok(mounted)
    }

    /// Mounts an image, or counts once more that it is mounted, and tells where.
    pub fn mount_image(&self, name: &str) -> Result<PathBuf, engine::Error> {
        if !rustix::process::geteuid().is_root() {
            return Err(Error::MountAsUser.into());
        }
        let store = self.store.clone().with_ownership(self.ownership());
        // While this is held nothing is removed.
        let _lock = self.store.lock_shared()?;
        let image = self.store.image(name)?.ok_or_else(|| Error::NoSuchImage(name.to_owned()))?;
        let dir = self.mounts_dir().join(image.id.hex());
        let file = dir.join("lock");
        let _own = loop {
            fs::create_dir_all(&dir).map_err(doing("making", &dir))?;
            match Lock::exclusive(&file) {
                Ok(own) if own.is_at(&file) => break own,
                // Unmounted, and removed, while this waited.
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(doing("locking", &dir)(error).into()),
            }
        };
        let count = self.mount_count(&image.id)?;
        let merged = dir.join("merged");
        if count == 0 {
            mount_layers(&store, &image, &dir)?;
        }
        let file = dir.join("count");
        fs::write(&file, (count + 1).to_string()).map_err(doing("writing", &file))?;
        Ok(merged)
    }

    /// Takes back one mount of an image, or with `force` all; says whether it is unmounted now.
    pub fn unmount_image(&self, name: &str, force: bool) -> Result<(Digest, bool), engine::Error> {
        let image = self.store.image(name)?.ok_or_else(|| Error::NoSuchImage(name.to_owned()))?;
        let dir = self.mounts_dir().join(image.id.hex());
        if !dir.exists() {
            return Err(Error::NotMounted(name.to_owned()).into());
        }
        let own = Lock::exclusive(&dir.join("lock")).map_err(doing("locking", &dir))?;
        let count = self.mount_count(&image.id)?;
        if count == 0 {
            return Err(Error::NotMounted(name.to_owned()).into());
        }
        if count > 1 && !force {
            let file = dir.join("count");
            fs::write(&file, (count - 1).to_string()).map_err(doing("writing", &file))?;
            return Ok((image.id, false));
        }
        let merged = dir.join("merged");
        let opened = mount::open_path(&merged).map_err(|errno| doing("opening", &merged)(errno.into()))?;
        mount::detach(&opened).map_err(doing("unmounting", &merged))?;
        drop(opened);
        fs::remove_dir_all(&dir).map_err(doing("removing", &dir))?;
        drop(own);
        Ok((image.id, true))
    }

    fn mount_count(&self, id: &Digest) -> Result<u64, engine::Error> {
        if !self.mounted_images()?.iter().any(|mounted| mounted.id == *id) {
            return Ok(0);
        }
        let count = fs::read_to_string(self.mounts_dir().join(id.hex()).join("count"));
        Ok(count.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(1))
    }
}

fn mount_layers(store: &Store, image: &ImageRecord, dir: &Path) -> Result<(), Error> {
    let name = image.display_name();
    let mut lower: Vec<PathBuf> = Vec::new();
    for layer in image.layers.iter().rev() {
        let tree = store.layer_dir(&layer.chain_id);
        if store.layer(&layer.chain_id)?.is_none() || tree != store.layer_tree(&layer.chain_id) {
            return Err(Error::NoOverlay(name));
        }
        lower.push(tree);
    }
    // Nothing is ever written into the upper directory: overlayfs wants one, or two layers.
    for part in ["merged", "upper", "work"] {
        let path = dir.join(part);
        match fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(doing("making", &path)(error));
            }
            _ => {}
        }
    }
    let merged = dir.join("merged");
    let target = mount::open_path(&merged).map_err(|errno| doing("opening", &merged)(errno.into()))?;
    let overlay = Overlay {
        lower,
        upper: dir.join("upper"),
        work: dir.join("work"),
        volatile: true,
        userxattr: store.ownership() != Some(crate::storage::Ownership::Host),
    };
    mount::overlay(&overlay, attr::RDONLY, &target).map(drop).map_err(doing("mounting", &merged))
}
