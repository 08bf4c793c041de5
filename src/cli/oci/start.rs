//! `start`.

use super::args::Parsed;
use super::common::{container, run_poststart, stored_hooks};
use super::notify::Notify;
use super::{Done, Error, Global};
use crate::runtime;
use crate::runtime::state::Status;
use crate::sys::process;

pub(super) fn start(global: &Global, parsed: &Parsed) -> Done {
    let dir = container(global, parsed, 1)?;
    let record = dir.read()?;
    let (status, pidfd) = dir.status(&record)?;
    if status != Status::Created {
        return Err(Error::WrongState { action: "start", status: status.as_str() });
    }
    let listening = Notify::wanted(&dir).map_or(Ok(None), |notify| notify.listen(record.pid))?;
    let result = runtime::start(&dir.gate());
    dir.mark_started();
    result?;
    if let Some(spec) = stored_hooks(&dir, "poststart")?
        && let Err(error) = run_poststart(&spec, &record)
    {
        // It is stopped; it stays, for its caller to delete.
        if let (_, Some(pidfd)) = dir.status(&record)? {
            let _ = process::pidfd_signal(&pidfd, libc::SIGKILL);
            let _ = process::wait_end(&pidfd, 10_000);
        }
        return Err(error);
    }
    if let (Some(listening), Some(pidfd)) = (listening, pidfd) {
        listening.wait(&pidfd)?;
    }
    Ok(0)
}
