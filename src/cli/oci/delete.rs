//! `delete`.

use super::args::{Known, Parsed};
use super::common::{containers, for_each, run_poststop, stored_hooks, stored_spec};
use super::{Done, Error, Global};
use crate::runtime::state::{self, Dir, Record, Status};
use crate::sys::{mount, process};

pub(super) const OPTIONS: &[Known] = &[("force", Some('f'), false), ("regex", Some('r'), false)];

pub(super) fn delete(global: &Global, parsed: &Parsed) -> Done {
    let dirs = containers(global, parsed, 1)?;
    for_each(global, &dirs, |dir| delete_one(global, dir, parsed.has("force")))
}

fn delete_one(global: &Global, dir: &Dir, force: bool) -> Result<(), Error> {
    let record = match dir.read() {
        Err(state::Error::NotFound(_)) if force || dir.exists() => return sweep(dir),
        other => other?,
    };
    match dir.status(&record)? {
        (Status::Stopped, _) => {}
        (status @ (Status::Running | Status::Paused), _) if !force => {
            return Err(Error::NotStopped { id: record.id, status: status.as_str() });
        }
        (_, Some(pidfd)) => {
            // It may end by itself just now.
            let _ = process::pidfd_signal(&pidfd, libc::SIGKILL);
            let io =
                |source| Error::Io { action: format!("waiting for container \"{}\"", record.id), source };
            if !process::wait_end(&pidfd, 10_000).map_err(io)? {
                return Err(Error::NotStopped { id: record.id, status: "running" });
            }
        }
        (_, None) => {}
    }
    forget(global, dir, &record)
}

/// Removes what a killed `create` left: its init has ended with it, and nothing is recorded.
fn sweep(dir: &Dir) -> Result<(), Error> {
    if let Ok(spec) = stored_spec(dir) {
        let wanted = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().clone());
        if let Some(cgroup) = crate::cgroup::place(wanted.as_deref(), dir.id()) {
            // One that is not empty is another's.
            let _ = crate::cgroup::remove(&cgroup);
        }
    }
    Ok(dir.remove()?)
}

/// Removes what is left of a stopped container; every step may have been done already.
pub(super) fn forget(global: &Global, dir: &Dir, record: &Record) -> Result<(), Error> {
    if let Some(cgroup) = &record.cgroup {
        crate::cgroup::destroy(cgroup, record.unit.as_ref())?;
    }
    record.cache.remove().map_err(|source| Error::Io {
        action: "removing the container's groups of resctrl".to_owned(),
        source,
    })?;
    if let Some(rootfs) = &record.outside {
        mount::release(rootfs).map_err(|source| Error::Io {
            action: format!("unmounting the rootfs \"{}\"", rootfs.display()),
            source,
        })?;
    }
    let spec = stored_hooks(dir, "poststop");
    dir.remove()?;
    if let Ok(Some(spec)) = spec {
        run_poststop(global, &spec, record);
    }
    Ok(())
}
