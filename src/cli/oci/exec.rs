//! `exec`.

use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::{Capabilities, LinuxCapabilities, Process, Spec};

use super::args::{Known, Parsed, UsageError};
use super::common::{
    container, hook_state, leave_out_capabilities, only_has_ours, prepare, preserved, send_pidfd, stdio,
    write_pid_file,
};
use super::{Done, Error, Global};
use crate::runtime::filters::Prepared;
use crate::runtime::state::{Record, Status};
use crate::runtime::{self, ExecRequest, config, plan};
use crate::sys::ids;
use crate::sys::process::{self, ExitStatus};

pub(super) const OPTIONS: &[Known] = &[
    ("process", Some('p'), true),
    ("console-socket", None, true),
    ("pidfd-socket", None, true),
    ("pid-file", None, true),
    ("process-label", None, true),
    ("apparmor", None, true),
    ("cap", Some('c'), true),
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
    let (status, pidfd) = dir.status(&record)?;
    match status {
        Status::Created if ids::euid() != 0 => return Err(Error::NotStarted { action: "exec in" }),
        // Also before it is started, as with runc and crun.
        Status::Running | Status::Created => {}
        Status::Paused if parsed.has("ignore-paused") => {}
        Status::Paused => return Err(Error::Paused),
        _ => return Err(Error::NotRunning),
    }
    let Prepared { spec, filter, .. } = prepare(Path::new("config.json"), &dir.config()?)?;
    let (mut process, user_by_name) = exec_process(global, parsed, &spec)?;
    if only_has_ours(&spec) {
        leave_out_capabilities(&global.log, &mut process);
    }
    let foreground = !parsed.has("detach");
    let stdio = stdio(parsed, process.terminal().unwrap_or(false), foreground)?;
    let mut executed = runtime::exec(ExecRequest {
        pid: record.pid,
        start_time: record.start_time,
        process,
        user_by_name,
        stdio,
        cgroup: exec_cgroup(parsed, &record)?,
        pidfd,
        own_namespaces: spec.linux().as_ref().map_or(0, plan::own_kinds),
        seccomp: spec.linux().as_ref().and_then(|linux| linux.seccomp().clone()),
        filter,
        answerer: None,
        preserve_fds: preserved(parsed)?,
        preserve_list: Vec::new(),
        groups_by_name: Vec::new(),
        keep_groups: false,
        no_new_keyring: false,
        clamp_limits: true,
        memory_policy: spec.linux().as_ref().and_then(|linux| linux.memory_policy().clone()),
        personality: spec.linux().as_ref().and_then(|linux| linux.personality().clone()),
        state: Some(hook_state(&record, "running")),
    })?;
    let told = write_pid_file(parsed, executed.pid).and_then(|()| send_pidfd(parsed, &executed.pidfd));
    if let Err(error) = told {
        // Nobody would know of it.
        let _ = process::pidfd_signal(&executed.pidfd, libc::SIGKILL);
        let _ = process::wait(&executed.pidfd);
        return Err(error);
    }
    if !foreground {
        return Ok(0);
    }
    let status: ExitStatus = super::foreground::wait(&executed.pidfd, executed.terminal.take(), None)?;
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
    let none = || Error::Ungrouped { id: record.id.clone(), what: "exec --cgroup" };
    Ok(Some(record.cgroup.as_ref().ok_or_else(none)?.join(below)))
}

/// The process of an exec: from a file, or the container's own with other arguments; and a user
/// that is to be looked up in the container.
fn exec_process(global: &Global, parsed: &Parsed, spec: &Spec) -> Result<(Process, Option<String>), Error> {
    if let Some(file) = parsed.value("process") {
        let path = PathBuf::from(file);
        let bytes = std::fs::read(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
        let config = config::parse_process(&bytes).map_err(|source| Error::Config { path, source })?;
        config.warnings.iter().for_each(|warning| global.log.warn(warning));
        return Ok((config.value, None));
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
    // Given as `=false`, it takes off what the configuration asks for; else that holds.
    if parsed.value("no-new-privs").is_some() {
        process.set_no_new_privileges(Some(parsed.has("no-new-privs")));
    }
    if let Some(label) = parsed.value("process-label") {
        process.set_selinux_label(Some(label.to_owned()));
    }
    if let Some(profile) = parsed.value("apparmor") {
        process.set_apparmor_profile(Some(profile.to_owned()));
    }
    set_environment(parsed, &mut process);
    add_capabilities(global, parsed, &mut process);
    let by_name = set_user(parsed, &mut process)?;
    let gids = parsed.values("additional-gids").flat_map(|list| list.split(',')).map(|gid| {
        gid.parse().map_err(|_| UsageError::Invalid { option: "--additional-gids", value: gid.to_owned() })
    });
    let gids: Vec<u32> = gids.collect::<Result<_, _>>()?;
    if !gids.is_empty() {
        process.user_mut().set_additional_gids(Some(gids));
    }
    Ok((process, by_name))
}

/// A variable that is given takes the place of the container's own.
fn set_environment(parsed: &Parsed, process: &mut Process) {
    let mut env = process.env().clone().unwrap_or_default();
    let name = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    for entry in parsed.values("env") {
        env.retain(|other| name(other) != name(entry));
        env.push(entry.to_owned());
    }
    process.set_env(Some(env));
}

fn add_capabilities(global: &Global, parsed: &Parsed, process: &mut Process) {
    let mut added = Capabilities::new();
    for text in parsed.values("cap").flat_map(|list| list.split(',')) {
        match serde_json::from_value(text.into()) {
            Ok(capability) => drop(added.insert(capability)),
            Err(_) => global.log.warn(&format!("--cap: \"{text}\" is unknown and left out")),
        }
    }
    if added.is_empty() {
        return;
    }
    let mut sets = process.capabilities().clone().unwrap_or_else(no_capabilities);
    let more = |set: &Option<Capabilities>| Some(set.iter().flatten().chain(&added).copied().collect());
    let (bounding, effective, permitted) =
        (more(sets.bounding()), more(sets.effective()), more(sets.permitted()));
    sets.set_bounding(bounding).set_effective(effective).set_permitted(permitted);
    process.set_capabilities(Some(sets));
}

/// The crate's own default has some.
fn no_capabilities() -> LinuxCapabilities {
    let mut none = LinuxCapabilities::default();
    none.set_bounding(None).set_effective(None).set_permitted(None).set_inheritable(None).set_ambient(None);
    none
}

/// `UID[:GID]` as runc takes it; a name is looked up in the container.
fn set_user(parsed: &Parsed, process: &mut Process) -> Result<Option<String>, Error> {
    let Some(user) = parsed.value("user") else { return Ok(None) };
    let (uid, gid) = user.split_once(':').unwrap_or((user, "0"));
    if let (Ok(uid), Ok(gid)) = (uid.parse(), gid.parse()) {
        process.user_mut().set_uid(uid).set_gid(gid);
        return Ok(None);
    }
    if user.is_empty() || user.starts_with(':') || user.bytes().any(|b| b.is_ascii_control()) {
        return Err(UsageError::Invalid { option: "--user", value: user.to_owned() }.into());
    }
    Ok(Some(user.to_owned()))
}
