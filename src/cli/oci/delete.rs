//! `delete`.

use super::args::{Known, Parsed};
use super::common::{container, run_hooks, stored_hooks};
use super::{Done, Error, Global};
use crate::runtime::state::{self, Dir, Record, Status};
use crate::sys::process;

pub(super) const OPTIONS: &[Known] = &[("force", Some('f'), false)];

pub(super) fn delete(global: &Global, parsed: &Parsed) -> Done {
    let dir = container(global, parsed, 1)?;
    let force = parsed.has("force");
    let record = match dir.read() {
        Err(state::Error::NotFound(_)) if force || dir.exists() => {
            dir.remove()?;
            return Ok(0);
        }
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
    forget(&dir, &record)?;
    Ok(0)
}

/// Removes what is left of a stopped container; every step may have been done already.
pub(super) fn forget(dir: &Dir, record: &Record) -> Result<(), Error> {
    if let Some(cgroup) = &record.cgroup {
        crate::cgroup::destroy(cgroup, record.unit.as_ref())?;
    }
    let spec = stored_hooks(dir, "poststop");
    dir.remove()?;
    if let Ok(Some(spec)) = spec {
        run_hooks(&spec, record, "stopped", |hooks| hooks.poststop().clone());
    }
    Ok(())
}
