//! `exec`.

use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::{Process, Spec};

use super::args::{Known, Parsed, UsageError};
use super::common::{container, preserved, stdio, stored_spec, write_pid_file};
use super::{Done, Error, Global};
use crate::runtime::state::{Record, Status};
use crate::runtime::{self, ExecRequest};
use crate::sys::process::{self, ExitStatus};

pub(super) const OPTIONS: &[Known] = &[
    ("process", Some('p'), true),
    ("console-socket", None, true),
    ("pid-file", None, true),
    ("preserve-fds", None, true),
    ("detach", Some('d'), false),
    ("tty", Some('t'), false),
    ("cwd", None, true),
    ("env", Some('e'), true),
    ("user", Some('u'), true),
    ("additional-gids", Some('g'), true),
    ("no-new-privs", None, false),
    ("ignore-paused", None, false),
    ("cgroup", None, true),
];

pub(super) fn exec(global: &Global, parsed: &Parsed) -> Done {
    let dir = container(global, parsed, usize::MAX)?;
    let record = dir.read()?;
    match dir.status(&record)?.0 {
        Status::Running => {}
        Status::Paused if parsed.has("ignore-paused") => {}
        Status::Paused => return Err(Error::Paused),
        _ => return Err(Error::NotRunning),
    }
    let spec = stored_spec(&dir)?;
    let process = exec_process(parsed, &spec)?;
    process::ensure_standard_fds()
        .map_err(|source| Error::Io { action: "opening /dev/null".to_owned(), source })?;
    let foreground = !parsed.has("detach");
    let stdio = stdio(parsed, process.terminal().unwrap_or(false), foreground)?;
    let mut executed = runtime::exec(ExecRequest {
        pid: record.pid,
        start_time: record.start_time,
        process,
        user_by_name: None,
        stdio,
        cgroup: exec_cgroup(parsed, &record)?,
        seccomp: spec.linux().as_ref().and_then(|linux| linux.seccomp().clone()),
        preserve_fds: preserved(parsed)?,
        no_new_keyring: false,
        clamp_limits: true,
    })?;
    write_pid_file(parsed, executed.pid)?;
    if !foreground {
        return Ok(0);
    }
    let status: ExitStatus = super::foreground::wait(&executed.pidfd, executed.terminal.take())?;
    Ok(status.code())
}

/// The container's group, or with `--cgroup` one below it that is there already.
fn exec_cgroup(parsed: &Parsed, record: &Record) -> Result<Option<PathBuf>, Error> {
    let Some(value) = parsed.value("cgroup") else { return Ok(record.cgroup.clone()) };
    let invalid = || UsageError::Invalid { option: "--cgroup", value: value.to_owned() };
    // runc's form for v1 names controllers before a colon; v2 has one tree for all.
    let path = Path::new(value.strip_prefix(':').unwrap_or(value));
    let mut below = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) if !name.as_encoded_bytes().contains(&b':') => below.push(name),
            Component::RootDir | Component::CurDir => {}
            _ => return Err(invalid().into()),
        }
    }
    let none = || Error::NoCgroup { id: record.id.clone(), what: "exec --cgroup" };
    Ok(Some(record.cgroup.as_ref().ok_or_else(none)?.join(below)))
}

/// The process of an exec: from a file, or the container's own with other arguments.
fn exec_process(parsed: &Parsed, spec: &Spec) -> Result<Process, Error> {
    if let Some(file) = parsed.value("process") {
        let path = PathBuf::from(file);
        let bytes = std::fs::read(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
        return serde_json::from_slice(&bytes).map_err(|source| Error::Parse { path, source });
    }
    let arguments = parsed.arguments.get(1..).unwrap_or_default();
    if arguments.is_empty() {
        return Err(UsageError::Missing("the program").into());
    }
    let mut process = spec.process().clone().ok_or(Error::NotRunning)?;
    process.set_args(Some(arguments.to_vec()));
    process.set_terminal(Some(parsed.has("tty")));
    if let Some(cwd) = parsed.value("cwd") {
        process.set_cwd(cwd.into());
    }
    if parsed.has("no-new-privs") {
        process.set_no_new_privileges(Some(true));
    }
    let mut env = process.env().clone().unwrap_or_default();
    env.extend(parsed.values("env").map(str::to_owned));
    process.set_env(Some(env));
    if let Some(user) = parsed.value("user") {
        let invalid = || UsageError::Invalid { option: "--user", value: user.to_owned() };
        let (uid, gid) = user.split_once(':').unwrap_or((user, "0"));
        process.user_mut().set_uid(uid.parse().map_err(|_| invalid())?);
        process.user_mut().set_gid(gid.parse().map_err(|_| invalid())?);
    }
    let gids = parsed.values("additional-gids").map(|gid| {
        gid.parse().map_err(|_| UsageError::Invalid { option: "--additional-gids", value: gid.to_owned() })
    });
    let gids: Vec<u32> = gids.collect::<Result<_, _>>()?;
    if !gids.is_empty() {
        process.user_mut().set_additional_gids(Some(gids));
    }
    Ok(process)
}
