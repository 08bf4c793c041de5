//! `start`.

use super::args::Parsed;
use super::common::{container, run_poststart, stored_hooks};
use super::{Done, Error, Global};
use crate::runtime;
use crate::runtime::state::Status;
use crate::sys::process;

pub(super) fn start(global: &Global, parsed: &Parsed) -> Done {
    let dir = container(global, parsed, 1)?;
    let record = dir.read()?;
    match dir.status(&record)?.0 {
        Status::Created => {}
        status => return Err(Error::WrongState { action: "start", status: status.as_str() }),
    }
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
    Ok(0)
}
