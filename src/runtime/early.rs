//! What a container's maker does before there is an init: bind mounts that the init could not open
//! or give other ids, because it has less power over the host's files.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::Error;
use super::plan::{Ids, InitPlan, MountKind, MountOp, Op};
use crate::base::idmap::IdMapping;
use crate::sys::mount::{self, Propagation, PropagationKind};
use crate::sys::userns;

/// Copies of the sources of all mounts that are to be made early, in the plan's order. `None` where
/// the init has to try by itself.
pub(super) fn prepare(plan: &InitPlan) -> Result<Vec<Option<OwnedFd>>, Error> {
    let shared = plan.ops.iter().any(|op| matches!(op, Op::SurroundingPrivate(_)));
    let mut namespaces: Vec<(IdMapping, OwnedFd)> = Vec::new();
    let mut copies = Vec::new();
    for op in &plan.ops {
        if let Op::Mount(mount @ MountOp { kind: MountKind::Bind { early: true, .. }, .. }) = op {
            copies.push(copy(mount, shared, &mut namespaces)?);
        }
    }
    Ok(copies)
}

fn copy(
    op: &MountOp,
    shared: bool,
    namespaces: &mut Vec<(IdMapping, OwnedFd)>,
) -> Result<Option<OwnedFd>, Error> {
    let MountKind::Bind { source, recursive, links, ids, .. } = &op.kind else { return Ok(None) };
    let action = || format!("binding \"{}\" to \"{}\"", source.display(), op.target.display());
    let mut flags = OFlags::PATH | OFlags::CLOEXEC;
    if links.source || links.copy {
        flags |= OFlags::NOFOLLOW;
    }
    let from = rustix::fs::open(source, flags, Mode::empty()).map_err(|e| Error::host(action(), e))?;
    let stat = rustix::fs::fstat(&from).map_err(|e| Error::host(action(), e))?;
    if links.copy && rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Symlink {
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
