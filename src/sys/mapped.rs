//! Overlays whose files are shown with other ids than they have on disk ("ID-mapped mounts", mount_setattr(2)), so
//! that layers need not be copied for a container whose ids are not those that the layers were unpacked with.
//!
//! All layers are mapped, the upper one too: on disk there are the container's own ids, as if nothing were mapped,
//! and who reads its files there need not know with which mapping they were written. Overlayfs cannot be mapped as
//! a whole, so each layer is. Needs `CAP_SYS_ADMIN` in the user namespace that mounted the layers' file system, which
//! users of a machine do not have.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::mount::{self, Filesystem, Overlay, Propagation, PropagationKind};
use super::process::{self, CloneOptions};
use super::{ids, socket, userns};
use crate::base::idmap::IdMapping;

/// A detached overlay with the ids of a mapping. `upper` and `work` must lie in one directory. The caller must be
/// single-threaded.
///
/// `ErrorKind::Unsupported`: the kernel (before Linux 5.19) or the file system cannot map ids, or the mapping has no
/// root.
pub fn overlay(overlay: &Overlay, mapping: &IdMapping, attributes: u64) -> io::Result<OwnedFd> {
    let namespace = userns::hold(mapping).map_err(io::Error::other)?;
    let root = IdMapping::to_host(&mapping.uids, 0).zip(IdMapping::to_host(&mapping.gids, 0));
    let root = root.ok_or(io::ErrorKind::Unsupported)?;
    let (ours, theirs) = socket::packet_pair()?;
    let namespaces = libc::CLONE_NEWNS as u64;
    let options = CloneOptions { namespaces, close: Some(ours.as_fd()), ..Default::default() };
    // Overlayfs takes layers that are mounted in the mount namespace of who mounts it. It keeps mounts of its own
    // of them, so this one may go.
    let child = process::spawn(options, || {
        let made = make(overlay, &namespace, root, attributes);
        let errno = made.as_ref().err().map_or(0, |e| e.raw_os_error().unwrap_or(libc::EIO));
        u8::from(socket::send(&theirs, &errno.to_ne_bytes(), made.as_ref().ok().map(AsFd::as_fd)).is_err())
    })?;
    drop(theirs);
    let (answer, made) = socket::receive(&ours)?;
    process::wait(&child.pidfd)?;
    match (answer.first_chunk().map(|errno| i32::from_ne_bytes(*errno)), made) {
        (Some(0), Some(made)) => Ok(made),
        // EINVAL: this file system, or this overlayfs, does not know of it.
        (Some(libc::EINVAL | libc::ENOSYS | libc::EPERM | libc::EOPNOTSUPP), _) => {
            Err(io::ErrorKind::Unsupported.into())
        }
        (Some(errno), _) => Err(io::Error::from_raw_os_error(errno)),
        (None, _) => Err(io::ErrorKind::BrokenPipe.into()),
    }
}

/// A detached copy of the mount that a directory is in, from there on, with the ids of a mapping.
pub fn directory(path: &Path, mapping: &IdMapping, recursive: bool) -> io::Result<OwnedFd> {
    let copy = mount::detached_copy(mount::open_path(path)?, recursive)?;
    mount::map_ids(&copy, userns::hold(mapping).map_err(io::Error::other)?, recursive)?;
    Ok(copy)
}

fn make(
    overlay: &Overlay,
    namespace: &OwnedFd,
    (uid, gid): (u32, u32),
    attributes: u64,
) -> io::Result<OwnedFd> {
    let cut = Propagation { kind: PropagationKind::Private, recursive: true };
    mount::change_propagation(Path::new("/"), cut)?;
    // Covers the root of this namespace; what is opened by absolute paths lies below it still.
    let tmpfs = Filesystem { fstype: "tmpfs".to_owned(), ..Filesystem::default() };
    let place = mount::filesystem(&tmpfs, mount::open_path(Path::new("/"))?)?;
    let place = place.ok_or(io::ErrorKind::Unsupported)?;
    let open = |at: &OwnedFd, name: &Path| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(at, name, flags, Mode::empty())
    };
    let mut number = 0;
    let mut mapped = |path: &Path| -> io::Result<OwnedFd> {
        let copy = mount::detached_copy(mount::open_path(path)?, false)?;
        mount::map_ids(&copy, namespace, false)?;
        let name = number.to_string();
        number += 1;
        rustix::fs::mkdirat(&place, &name, Mode::from_raw_mode(0o700))?;
        mount::attach(copy, open(&place, name.as_ref())?)?;
        Ok(open(&place, name.as_ref())?)
    };
    let lower = overlay.lower.iter().map(|path| mapped(path)).collect::<io::Result<Vec<_>>>()?;
    let (Some(parent), Some(upper), Some(work)) =
        (overlay.upper.parent(), overlay.upper.file_name(), overlay.work.file_name())
    else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    if overlay.work.parent() != Some(parent) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // Overlayfs wants both of one mount.
    let own = mapped(parent)?;
    let (upper, work) = (open(&own, upper.as_ref())?, open(&own, work.as_ref())?);
    // Overlayfs makes files of its own as who has mounted it, and by the mapping the host's root is nobody.
    ids::set_file_ids(uid, gid)?;
    let overlay = Overlay {
        lower: lower.iter().map(mount::name_of).collect(),
        upper: mount::name_of(&upper),
        work: mount::name_of(&work),
        ..overlay.clone()
    };
    mount::overlay_mount(&overlay, attributes)
}
