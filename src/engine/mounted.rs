//! `mount`: a container's files at a place of the host.
//!
//! ```text
//! <runroot>/mounts/container-<id>/merged   where they are mounted
//!                                 count    how often that was asked for
//! ```
//!
//! As with images ([`super::images`]) the kernel says what is mounted.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Engine, Error};
use crate::base::id::ContainerId;
use crate::storage::containers::ContainerRecord;
use crate::sys::lock::Lock;
use crate::sys::mount;
use crate::sys::mountinfo;

/// How the directory of a mounted container begins; what follows is its id.
const PREFIX: &str = "container-";

impl Engine {
    fn container_mount(&self, id: &ContainerId) -> PathBuf {
        self.paths.runroot.join("mounts").join(format!("{PREFIX}{id}"))
    }

    /// The containers that are mounted in this mount namespace, and where.
    pub fn mounted_containers(&self) -> Result<Vec<(ContainerRecord, PathBuf)>, Error> {
        let dir = self.paths.runroot.join("mounts");
        let failed = |source| Error::File { action: "listing", path: dir.clone(), source };
        let entries = match fs::read_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(failed)?,
        };
        let real = fs::canonicalize(&dir).map_err(failed)?;
        let points = mountinfo::of(0).map_err(failed)?;
        let mut mounted = Vec::new();
        for entry in entries.flatten() {
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
            let Some(id) = name.strip_prefix(PREFIX).and_then(|id| id.parse::<ContainerId>().ok()) else {
                continue;
            };
            if points.iter().any(|mount| mount.point == real.join(&name).join("merged"))
                && let Ok(record) = self.containers.record(&id)
            {
                mounted.push((record, dir.join(name).join("merged")));
            }
        }
        mounted.sort_by_key(|(record, _)| record.created);
        Ok(mounted)
    }

    /// Mounts a container's root, without what is mounted in it, or counts once more that it is; tells where.
    pub fn mount_container(&self, text: &str) -> Result<PathBuf, Error> {
        if !rustix::process::geteuid().is_root() {
            return Err(Error::MountAsUser);
        }
        let access = self.access(text)?;
        let name = access.record.name.clone();
        let failed = |action: &'static str| {
            let name = name.clone();
            move |source: io::Error| Error::Mount { action, name, source }
        };
        let dir = self.container_mount(&access.record.id);
        let _own = lock(&dir).map_err(failed("mounting"))?;
        let merged = dir.join("merged");
        let count = self.container_mount_count(&access.record.id)?;
        if count == 0 {
            fs::create_dir_all(&merged).map_err(failed("mounting"))?;
            let root = access.detached().map_err(failed("mounting"))?;
            let target = mount::open_path(&merged).map_err(|e| failed("mounting")(e.into()))?;
            mount::attach(root, target).map_err(failed("mounting"))?;
        }
        fs::write(dir.join("count"), (count + 1).to_string()).map_err(failed("mounting"))?;
        Ok(merged)
    }

    /// Takes back one mount of a container, or with `force` all; says whether it is unmounted now.
    pub fn unmount_container(&self, text: &str, force: bool) -> Result<(ContainerId, bool), Error> {
        let id = self.containers.find(text)?;
        let dir = self.container_mount(&id);
        let failed = |source: io::Error| Error::Mount { action: "unmounting", name: text.to_owned(), source };
        if !dir.exists() {
            return Err(Error::NotMounted(text.to_owned()));
        }
        let _own = lock(&dir).map_err(failed)?;
        let count = self.container_mount_count(&id)?;
        if count == 0 {
            return Err(Error::NotMounted(text.to_owned()));
        }
        if count > 1 && !force {
            fs::write(dir.join("count"), (count - 1).to_string()).map_err(failed)?;
            return Ok((id, false));
        }
        take_away(&dir).map_err(failed)?;
        Ok((id, true))
    }

    /// Unmounts a container that is removed. Costs one system call where it is not mounted.
    pub(super) fn forget_mount(&self, id: &ContainerId) {
        let dir = self.container_mount(id);
        if dir.exists() {
            // What is in use goes with its last user.
            let _ = take_away(&dir);
        }
    }

    fn container_mount_count(&self, id: &ContainerId) -> Result<u64, Error> {
        if !self.mounted_containers()?.iter().any(|(record, _)| record.id == *id) {
            return Ok(0);
        }
        let count = fs::read_to_string(self.container_mount(id).join("count"));
        Ok(count.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(1))
    }
}

fn lock(dir: &Path) -> io::Result<Lock> {
    let file = dir.join("lock");
    loop {
        fs::create_dir_all(dir)?;
        match Lock::exclusive(&file) {
            Ok(own) if own.is_at(&file) => return Ok(own),
            // Unmounted, and removed, while this waited.
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
}

fn take_away(dir: &Path) -> io::Result<()> {
    let merged = dir.join("merged");
    let opened = mount::open_path(&merged)?;
    if let Err(error) = mount::detach(&opened)
        && error.raw_os_error() != Some(libc::EINVAL)
    {
        return Err(error);
    }
    drop(opened);
    // Not what is in it, should it be mounted still.
    fs::remove_dir(&merged)?;
    fs::remove_dir_all(dir)
}
