//! What a container's maker does before there is an init, because the init has less power: bind
//! mounts of what it could not open or show with other ids, and device nodes.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::plan::{Ids, InitPlan, MountKind, MountOp, Node, NodeKind, Op};
use super::{Borrowed, Error, OverlayDetails, Rootfs};
use crate::base::idmap::IdMapping;
use crate::sys::mount::{self, Filesystem, Propagation, PropagationKind};
use crate::sys::path::Root;
use crate::sys::process::{self, CloneOptions};
use crate::sys::{mapped, namespace, socket, userns};

/// Copies of the sources of all mounts that are to be made early, in the plan's order. `None` where
/// the init has to try by itself.
pub(super) fn prepare(plan: &InitPlan) -> Result<Vec<Option<OwnedFd>>, Error> {
    let shared = plan.ops.iter().any(|op| matches!(op, Op::SurroundingPrivate(_)));
    let mut namespaces: Vec<(IdMapping, OwnedFd)> = Vec::new();
    let mut nodes = make_nodes(plan)?.into_iter();
    let mut copies = Vec::new();
    for op in &plan.ops {
        match op {
            Op::Rootfs { rootfs, attributes, ids: Some(ids) } => {
                copies.push(Some(mapped_rootfs(rootfs, ids, *attributes)?));
            }
            Op::Mount(mount) if mount.is_early() => copies.push(copy(mount, shared, &mut namespaces)?),
            Op::MadeNode { .. } => copies.push(nodes.next().flatten()),
            _ => {}
        }
    }
    Ok(copies)
}

/// The rootfs, with the ids of a mapping.
fn mapped_rootfs(rootfs: &Rootfs, ids: &IdMapping, attributes: u64) -> Result<OwnedFd, Error> {
    let (place, made) = match rootfs {
        Rootfs::Dir(path) => (path, mapped::directory(path, ids, true)),
        Rootfs::Overlay(overlay) => (&overlay.upper, mapped::overlay(overlay, ids, attributes)),
    };
    made.map_err(|e| {
        let action = format!("mounting the rootfs \"{}\" with the container's ids", place.display());
        Error::host(action, e)
    })
}

/// Copies of what these mounts bind, for a container that is there already.
pub(super) fn copies(ops: &[MountOp]) -> Result<Vec<Option<OwnedFd>>, Error> {
    let mut namespaces = Vec::new();
    ops.iter().map(|op| copy(op, false, &mut namespaces)).collect()
}

/// Makes device nodes on a tmpfs in a mount namespace of a short-lived process, which hands out a
/// copy of each; `None` where it may not make them.
fn make_nodes(plan: &InitPlan) -> Result<Vec<Option<OwnedFd>>, Error> {
    let wanted: Vec<(&Node, (u32, u32))> = plan
        .ops
        .iter()
        .filter_map(|op| match op {
            Op::MadeNode { node, owner } => Some((node, *owner)),
            _ => None,
        })
        .collect();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let failed = |e: io::Error| Error::host("making the container's devices", e);
    let (ours, theirs) = socket::packet_pair().map_err(failed)?;
    let namespaces = libc::CLONE_NEWNS as u64;
    let options = CloneOptions { namespaces, close: Some(ours.as_fd()), ..Default::default() };
    let child = process::spawn(options, || {
        let sent = make_and_send(&wanted, &theirs);
        u8::from(sent.is_err())
    })
    .map_err(failed)?;
    drop(theirs);
    let mut nodes = Vec::new();
    for _ in &wanted {
        let (_, node) = socket::receive(&ours).map_err(failed)?;
        nodes.push(node);
    }
    process::wait(&child.pidfd).map_err(failed)?;
    Ok(nodes)
}

fn make_and_send(wanted: &[(&Node, (u32, u32))], to: &OwnedFd) -> io::Result<()> {
    rustix::process::umask(Mode::empty());
    let cut = Propagation { kind: PropagationKind::Private, recursive: true };
    mount::change_propagation(Path::new("/"), cut)?;
    let tmpfs = Filesystem { fstype: "tmpfs".to_owned(), ..Filesystem::default() };
    // Covers the root of this namespace, of which nothing else is wanted.
    let place = mount::filesystem(&tmpfs, mount::open_path(Path::new("/"))?)?;
    let place = place.ok_or(io::ErrorKind::Unsupported)?;
    for (index, (node, owner)) in wanted.iter().enumerate() {
        let made = make_node(&place, &index.to_string(), node, *owner);
        socket::send(to, b"D", made.as_ref().ok().map(AsFd::as_fd))?;
    }
    Ok(())
}

fn make_node(place: &OwnedFd, name: &str, node: &Node, (uid, gid): (u32, u32)) -> io::Result<OwnedFd> {
    let kind = match node.kind {
        NodeKind::Char => FileType::CharacterDevice,
        NodeKind::Block => FileType::BlockDevice,
        NodeKind::Fifo => FileType::Fifo,
    };
    let device = rustix::fs::makedev(node.major, node.minor);
    rustix::fs::mknodat(place, name, kind, Mode::from_raw_mode(node.mode), device)?;
    let owner = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::chownat(place, name, Some(owner.0), Some(owner.1), flags)?;
    let made =
        rustix::fs::openat(place, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    mount::detached_copy(made, false)
}

/// A copy of what a running container has mounted at a place, made by a short-lived process in there:
/// the kernel copies no mount of a mount namespace that one is not in.
fn borrow(from: &Borrowed) -> Result<OwnedFd, Error> {
    let action = || format!("taking the mount \"{}\" of another container", from.path.display());
    let failed = |e: io::Error| Error::host(action(), e);
    let container = process::open_alive(from.pid, from.start_time).ok_or(Error::NotRunning)?;
    let kinds = (libc::CLONE_NEWUSER | libc::CLONE_NEWNS) as u64;
    let namespaces = namespace::differing(from.pid, 0).map_err(failed)? & kinds;
    let (ours, theirs) = socket::packet_pair().map_err(failed)?;
    let options = CloneOptions { close: Some(ours.as_fd()), ..Default::default() };
    let child = process::spawn(options, || {
        let made = namespace::join(&container, namespaces).and_then(|()| {
            let root = Root::open(Path::new("/"))?;
            mount::detached_copy(root.open_in(&from.path, OFlags::PATH, 0)?, true)
        });
        let errno = made.as_ref().err().map_or(0, |e| e.raw_os_error().unwrap_or(libc::EIO));
        u8::from(socket::send(&theirs, &errno.to_ne_bytes(), made.as_ref().ok().map(AsFd::as_fd)).is_err())
    })
    .map_err(failed)?;
    drop(theirs);
    let (answer, made) = socket::receive(&ours).map_err(failed)?;
    process::wait(&child.pidfd).map_err(failed)?;
    match (<[u8; 4]>::try_from(answer.as_slice()).map(i32::from_ne_bytes), made) {
        (Ok(0), Some(made)) => Ok(made),
        (Ok(errno), _) if errno != 0 => Err(failed(io::Error::from_raw_os_error(errno))),
        _ => Err(Error::Died),
    }
}

fn copy(
    op: &MountOp,
    shared: bool,
    namespaces: &mut Vec<(IdMapping, OwnedFd)>,
) -> Result<Option<OwnedFd>, Error> {
    let MountKind::Bind { source, recursive, links, ids, .. } = &op.kind else { return Ok(None) };
    if let Some(borrowed) = &op.details().borrowed {
        return borrow(borrowed).map(Some);
    }
    if let Some(OverlayDetails { overlay, ids: Some(ids) }) = &op.details().overlay {
        let action = || format!("mounting \"{}\" with other ids", op.target.display());
        return mapped::overlay(overlay, ids, 0).map(Some).map_err(|e| Error::host(action(), e));
    }
    let action = || format!("binding \"{}\" to \"{}\"", source.display(), op.target.display());
    let mut flags = OFlags::PATH | OFlags::CLOEXEC;
    if links.source || links.copy {
        flags |= OFlags::NOFOLLOW;
    }
    let from = rustix::fs::open(source, flags, Mode::empty()).map_err(|e| Error::host(action(), e))?;
    let stat = rustix::fs::fstat(&from).map_err(|e| Error::host(action(), e))?;
    if links.copy && FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
        return Ok(None);
    }
    let made = match mount::detached_copy(&from, *recursive) {
        // Root of a container that may not mount, or a kernel before 5.2.
        Err(error)
            if ids.is_none()
                && matches!(
                    Errno::from_io_error(&error),
                    Some(Errno::PERM | Errno::NOSYS | Errno::INVAL)
                ) =>
        {
            return Ok(None);
        }
        other => other.map_err(|e| Error::host(action(), e))?,
    };
    if !shared {
        // As in the init's own copy of the mounts: nothing goes out.
        let slave = Propagation { kind: PropagationKind::Slave, recursive: true };
        mount::change_propagation_fd(&made, slave).map_err(|e| Error::host(action(), e))?;
    }
    if let Some(Ids { mapping, recursive }) = ids {
        let known = namespaces.iter().position(|(known, _)| known == mapping);
        let at = match known {
            Some(at) => at,
            None => {
                namespaces.push((mapping.clone(), userns::hold(mapping)?));
                namespaces.len() - 1
            }
        };
        mount::map_ids(&made, &namespaces[at].1, *recursive).map_err(|e| {
            Error::host(
                format!("mapping the ids of \"{}\" at \"{}\"", source.display(), op.target.display()),
                e,
            )
        })?;
    }
    Ok(Some(made))
}
