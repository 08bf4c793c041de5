//! What several commands of the runtime's face share: ids, descriptors, stored configurations, hooks.

use std::path::Path;

use oci_spec::runtime::Spec;
use serde_json::{Value, json};

use super::args::{Parsed, UsageError};
use super::{Error, Global};
use crate::runtime::Stdio;
use crate::runtime::hooks::{self, HookState};
use crate::runtime::state::{Dir, Record, Status};
use crate::sys::process;

pub(super) fn container(global: &Global, parsed: &Parsed, most: usize) -> Result<Dir, Error> {
    let id = parsed.arguments.first().ok_or(UsageError::Missing("the container id"))?;
    if let Some(extra) = parsed.arguments.get(most) {
        return Err(UsageError::Extra(extra.clone()).into());
    }
    Ok(Dir::new(&global.root, id)?)
}

fn number(parsed: &Parsed, option: &'static str) -> Result<u32, Error> {
    match parsed.value(option) {
        None => Ok(0),
        Some(text) => text.parse().map_err(|_| UsageError::Invalid { option, value: text.to_owned() }.into()),
    }
}

/// Services handed down by socket activation (sd_listen_fds(3)) go through, too.
pub(super) fn preserved(parsed: &Parsed) -> Result<u32, Error> {
    let listen = std::env::var("LISTEN_FDS").ok().and_then(|n| n.parse::<u32>().ok()).unwrap_or(0);
    let count = number(parsed, "preserve-fds")?.saturating_add(listen);
    for fd in 3..3_u32.saturating_add(count) {
        if i32::try_from(fd).map_or(true, |fd| !process::is_open(fd)) {
            let value = count.to_string();
            return Err(UsageError::Invalid { option: "preserve-fds", value }.into());
        }
    }
    Ok(count)
}

pub(super) fn parse_spec(path: &Path, bytes: &[u8]) -> Result<Spec, Error> {
    let error = |source| Error::Parse { path: path.to_owned(), source };
    match serde_json::from_slice(bytes) {
        Ok(spec) => Ok(spec),
        Err(first) => {
            // Architectures that the parser has no name for are none of ours: left out, they are denied.
            let mut value: Value = serde_json::from_slice(bytes).map_err(|_| error(first))?;
            if let Some(Value::Array(list)) = value.pointer_mut("/linux/seccomp/architectures") {
                list.retain(|arch| serde_json::from_value::<oci_spec::runtime::Arch>(arch.clone()).is_ok());
            }
            serde_json::from_value(value).map_err(error)
        }
    }
}

pub(super) fn stdio(parsed: &Parsed, terminal: bool, foreground: bool) -> Result<Stdio, Error> {
    match (terminal, parsed.value("console-socket").filter(|s| !s.is_empty())) {
        (true, Some(socket)) => Ok(Stdio::ConsoleSocket(socket.into())),
        (true, None) if foreground => Ok(Stdio::Terminal),
        (true, None) => Err(Error::Unsupported("a detached terminal needs --console-socket".to_owned())),
        (false, Some(_)) => Err(Error::Unsupported("--console-socket needs process.terminal".to_owned())),
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

fn hook_state(record: &Record, status: &'static str) -> HookState {
    HookState {
        oci_version: record.oci_version.clone(),
        id: record.id.clone(),
        status,
        pid: if status == "stopped" { 0 } else { record.pid },
        bundle: record.bundle.clone(),
        annotations: record.annotations.clone(),
    }
}

/// Runs poststart or poststop hooks, whose failure is only worth a warning (`runtime.md`, "Lifecycle").
pub(super) fn run_hooks(
    spec: &Spec,
    record: &Record,
    status: &'static str,
    which: impl Fn(&oci_spec::runtime::Hooks) -> Option<Vec<oci_spec::runtime::Hook>>,
) {
    let list = spec.hooks().as_ref().and_then(which).unwrap_or_default();
    for hook in &list {
        if let Err(error) = hooks::run(std::slice::from_ref(hook), &hook_state(record, status)) {
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "warning: {}", crate::base::report::chain(&error));
        }
    }
}

pub(super) fn stored_spec(dir: &Dir) -> Result<Spec, Error> {
    parse_spec(Path::new("config.json"), &dir.config()?)
}

/// The stored configuration if it may have hooks of this name: parsing it takes longer than
/// everything else that `start` and `delete` do.
pub(super) fn stored_hooks(dir: &Dir, name: &str) -> Result<Option<Spec>, Error> {
    let bytes = dir.config()?;
    let quoted = format!("\"{name}\"");
    let mentioned = bytes.windows(quoted.len()).any(|window| window == quoted.as_bytes());
    mentioned.then(|| parse_spec(Path::new("config.json"), &bytes)).transpose()
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
        "owner": "",
    }))
}
