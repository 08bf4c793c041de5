//! What several commands of the runtime's face share: ids, descriptors, stored configurations, hooks.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::{LinuxNamespaceType, Process, Spec};
use serde_json::{Value, json};

use super::args::{Parsed, UsageError};
use super::log::Log;
use super::{Done, Error, Global};
use crate::runtime::filters::{self, Prepared};
use crate::runtime::hooks::{self, HookState};
use crate::runtime::state::{self, Dir, Record, Status};
use crate::runtime::{Stdio, config};
use crate::sys::{capability, ids, socket};

pub(super) fn container(global: &Global, parsed: &Parsed, most: usize) -> Result<Dir, Error> {
    let id = parsed.arguments.first().ok_or(UsageError::Missing("the container id"))?;
    if let Some(extra) = parsed.arguments.get(most) {
        return Err(UsageError::Extra(extra.clone()).into());
    }
    Ok(Dir::new(&global.root, id)?)
}

/// The containers of a command that takes one, or with `--regex` all whose ids match.
pub(super) fn containers(global: &Global, parsed: &Parsed, most: usize) -> Result<Vec<Dir>, Error> {
    if !parsed.has("regex") {
        return Ok(vec![container(global, parsed, most)?]);
    }
    let text = parsed.arguments.first().ok_or(UsageError::Missing("the regular expression"))?;
    if let Some(extra) = parsed.arguments.get(most) {
        return Err(UsageError::Extra(extra.clone()).into());
    }
    let regex = regex::Regex::new(text)
        .map_err(|_| UsageError::Invalid { option: "--regex", value: text.clone() })?;
    let ids = state::list(&global.root)?.into_iter().filter(|id| regex.is_match(id));
    ids.map(|id| Ok(Dir::new(&global.root, &id)?)).collect()
}

/// Does the same to each, and goes on where one fails; the last error is the command's.
pub(super) fn for_each(
    global: &Global,
    dirs: &[Dir],
    mut work: impl FnMut(&Dir) -> Result<(), Error>,
) -> Done {
    let mut last = None;
    for dir in dirs {
        if let Err(error) = work(dir)
            && let Some(earlier) = last.replace(error)
        {
            global.log.warn(&crate::base::report::chain(&earlier));
        }
    }
    last.map_or(Ok(0), Err)
}

fn number(parsed: &Parsed, option: &'static str) -> Result<u32, Error> {
    match parsed.value(option) {
        None => Ok(0),
        Some(text) => text.parse().map_err(|_| UsageError::Invalid { option, value: text.to_owned() }.into()),
    }
}

/// How many listening sockets socket activation handed down (sd_listen_fds(3)).
pub(super) fn listening() -> u32 {
    std::env::var("LISTEN_FDS").ok().and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// How many descriptors from 3 on go through. One that is not open cannot, which harms nobody.
pub(super) fn preserved(parsed: &Parsed) -> Result<u32, Error> {
    Ok(number(parsed, "preserve-fds")?.saturating_add(listening()).min(1 << 20))
}

/// Reads a container's configuration and tells what was left out of it. What was left out of a stored one was told when it was stored: no `log`.
pub(super) fn parse_spec(log: Option<&Log>, path: &Path, bytes: &[u8]) -> Result<Spec, Error> {
    let config = config::parse(bytes).map_err(|source| Error::Config { path: path.to_owned(), source })?;
    if let Some(log) = log {
        config.warnings.iter().for_each(|warning| log.warn(warning));
    }
    Ok(config.value)
}

/// Reads a configuration of which the filter is needed, too.
pub(super) fn prepare(path: &Path, bytes: &[u8]) -> Result<Prepared, Error> {
    // Not in a directory that others could have made before us.
    let kept = super::own_directory().map(|own| own.join("filters"));
    filters::prepare(bytes, kept.as_deref()).map_err(|error| match error {
        filters::Error::Config(source) => Error::Config { path: path.to_owned(), source },
        filters::Error::Seccomp(source) => Error::Runtime(source.into()),
    })
}

/// Whether root's container has only the capabilities that root itself has: no user namespace gives it
/// others. Any other caller's has one.
pub(super) fn only_has_ours(spec: &Spec) -> bool {
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    ids::euid() == 0 && !namespaces.into_iter().flatten().any(|n| n.typ() == LinuxNamespaceType::User)
}

/// Leaves out, with a word, the capabilities that this process has not got to give.
pub(super) fn leave_out_capabilities(log: &Log, process: &mut Process) {
    // If the kernel does not tell, it will refuse.
    let held = capability::permitted().unwrap_or(u64::MAX);
    config::leave_out_capabilities(process, held).iter().for_each(|warning| log.warn(warning));
}

pub(super) fn stdio(parsed: &Parsed, terminal: bool, foreground: bool) -> Result<Stdio, Error> {
    match (terminal, parsed.value("console-socket").filter(|s| !s.is_empty())) {
        (true, Some(socket)) => Ok(Stdio::ConsoleSocket(socket.into())),
        (true, None) if foreground => Ok(Stdio::Terminal),
        (true, None) => {
            Err(Error::Contradiction("process.terminal: a detached terminal needs --console-socket"))
        }
        (false, Some(_)) => {
            Err(Error::Contradiction("--console-socket needs a terminal: process.terminal, or --tty"))
        }
        (false, None) => Ok(Stdio::Inherit),
    }
}

pub(super) fn write_pid_file(parsed: &Parsed, pid: i32) -> Result<(), Error> {
    let Some(path) = parsed.value("pid-file").filter(|p| !p.is_empty()) else { return Ok(()) };
    let bytes = pid.to_string();
    crate::sys::atomic::write(
        Path::new(path),
        bytes.as_bytes(),
        0o644,
        crate::sys::atomic::Durability::Volatile,
    )
    .map_err(|source| Error::Io { action: format!("writing \"{path}\""), source })
}

/// Gives a handle of the process to who listens at `--pidfd-socket`.
pub(super) fn send_pidfd(parsed: &Parsed, pidfd: &OwnedFd) -> Result<(), Error> {
    let Some(path) = parsed.value("pidfd-socket").filter(|p| !p.is_empty()) else { return Ok(()) };
    let error = |source| Error::Io { action: format!("sending the pidfd to \"{path}\""), source };
    let socket = socket::connect_stream(Path::new(path)).map_err(error)?;
    socket::send(&socket, b"pidfd", Some(pidfd.as_fd())).map_err(error)
}

pub(super) fn hook_state(record: &Record, status: &'static str) -> HookState {
    HookState {
        oci_version: record.oci_version.clone(),
        id: record.id.clone(),
        status,
        pid: if status == "stopped" { 0 } else { record.pid },
        bundle: record.bundle.clone(),
        annotations: record.annotations.clone(),
    }
}

/// Runs poststart hooks; the first that fails fails the start (`runtime.md`, "Lifecycle", step 10).
pub(super) fn run_poststart(spec: &Spec, record: &Record) -> Result<(), Error> {
    let list = spec.hooks().as_ref().and_then(|hooks| hooks.poststart().clone()).unwrap_or_default();
    hooks::run(&list, &hook_state(record, "running")).map_err(Error::Poststart)
}

/// Runs poststop hooks, whose failure is only worth a warning (`runtime.md`, "Lifecycle", step 14).
pub(super) fn run_poststop(global: &Global, spec: &Spec, record: &Record) {
    let list = spec.hooks().as_ref().and_then(|hooks| hooks.poststop().clone()).unwrap_or_default();
    for hook in &list {
        if let Err(error) = hooks::run(std::slice::from_ref(hook), &hook_state(record, "stopped")) {
            global.log.warn(&crate::base::report::chain(&error));
        }
    }
}

pub(super) fn stored_spec(dir: &Dir) -> Result<Spec, Error> {
    parse_spec(None, Path::new("config.json"), &dir.config()?)
}

/// The stored configuration if it may have hooks of this name: parsing it takes longer than
/// everything else that `start` and `delete` do.
pub(super) fn stored_hooks(dir: &Dir, name: &str) -> Result<Option<Spec>, Error> {
    let bytes = dir.config()?;
    let quoted = format!("\"{name}\"");
    let mentioned = bytes.windows(quoted.len()).any(|window| window == quoted.as_bytes());
    mentioned.then(|| parse_spec(None, Path::new("config.json"), &bytes)).transpose()
}

pub(super) fn state_value(dir: &Dir, record: &Record) -> Result<Value, Error> {
    let (status, _) = dir.status(record)?;
    let pid = if status == Status::Stopped { 0 } else { record.pid };
    Ok(json!({
        "ociVersion": record.oci_version,
        "id": record.id,
        "pid": pid,
        "status": status.as_str(),
        "bundle": record.bundle,
        "rootfs": record.rootfs,
        "created": record.created,
        "annotations": record.annotations,
        "owner": dir.owner(),
    }))
}
