//! `kill`.

use super::args::{Known, Parsed, UsageError};
use super::common::{containers, for_each};
use super::{Done, Error, Global};
use crate::base::signal;
use crate::runtime::processes;
use crate::runtime::state::Dir;
use crate::sys::process;

pub(super) const OPTIONS: &[Known] = &[("all", Some('a'), false), ("regex", Some('r'), false)];

pub(super) fn kill(global: &Global, parsed: &Parsed) -> Done {
    let text = parsed.arguments.get(1).map_or("TERM", String::as_str);
    // Signal 0 asks whether the process is there.
    let signal = if text == "0" { Some(0) } else { signal::parse(text) };
    let signal =
        signal.ok_or_else(|| UsageError::Invalid { option: "the signal", value: text.to_owned() })?;
    let dirs = containers(global, parsed, 2)?;
    for_each(global, &dirs, |dir| kill_one(dir, signal, parsed.has("all")))
}

fn kill_one(dir: &Dir, signal: i32, all: bool) -> Result<(), Error> {
    let record = dir.read()?;
    let io = |source| Error::Io { action: format!("signalling container \"{}\"", record.id), source };
    let (_, pidfd) = dir.status(&record)?;
    // In a pid namespace that is not its own, the init's end would leave the others running.
    let end = signal == libc::SIGKILL && pidfd.is_some() && !process::is_namespace_init(record.pid);
    if (all || end)
        && let Some(cgroup) = &record.cgroup
    {
        if signal == libc::SIGKILL {
            return crate::cgroup::kill(cgroup).map_err(io);
        }
        crate::cgroup::signal_each(&crate::cgroup::processes(cgroup).unwrap_or_default(), signal);
        return Ok(());
    }
    if (all || end)
        && let Some(list) = processes::of(record.pid, record.cgroup.as_deref()).map_err(io)?
    {
        crate::cgroup::signal_each(&list, signal);
        return Ok(());
    }
    match pidfd {
        Some(pidfd) => process::pidfd_signal(pidfd, signal).map_err(io),
        None if all => Ok(()),
        None => Err(Error::NotRunning),
    }
}
