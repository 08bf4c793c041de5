//! `kill`.

use super::args::{Known, Parsed, UsageError};
use super::common::container;
use super::{Done, Error, Global};
use crate::base::signal;
use crate::runtime::processes;
use crate::sys::process;

pub(super) const OPTIONS: &[Known] = &[("all", Some('a'), false)];

pub(super) fn kill(global: &Global, parsed: &Parsed) -> Done {
    let dir = container(global, parsed, 2)?;
    let record = dir.read()?;
    let text = parsed.arguments.get(1).map_or("TERM", String::as_str);
    let signal = signal::parse(text)
        .ok_or_else(|| UsageError::Invalid { option: "the signal", value: text.to_owned() })?;
    let io = |source| Error::Io { action: format!("signalling container \"{}\"", record.id), source };
    if parsed.has("all")
        && let Some(cgroup) = &record.cgroup
    {
        if signal == libc::SIGKILL {
            crate::cgroup::kill(cgroup).map_err(io)?;
            return Ok(0);
        }
        crate::cgroup::signal_each(&crate::cgroup::processes(cgroup).unwrap_or_default(), signal);
        return Ok(0);
    }
    if parsed.has("all")
        && let Some(list) = processes::of(&record).map_err(io)?
    {
        crate::cgroup::signal_each(&list, signal);
        return Ok(0);
    }
    match dir.status(&record)?.1 {
        Some(pidfd) => process::pidfd_signal(pidfd, signal).map_err(io)?,
        None if parsed.has("all") => {}
        None => return Err(Error::NotRunning),
    }
    Ok(0)
}
