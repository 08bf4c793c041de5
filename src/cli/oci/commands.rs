//! The commands of the runtime's face.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Process, Spec};
use serde_json::{Value, json};

use super::args::{self, Known, Parsed, UsageError};
use super::{Done, Error, Global, print};
use crate::base::signal;
use crate::runtime::hooks::{self, HookState};
use crate::runtime::state::{self, Dir, Record, Status};
use crate::runtime::{self, CreateRequest, Created, ExecRequest, Gate, Rootfs, Stdio};
use crate::sys::process::{self, ExitStatus};

const CREATE: &[Known] = &[
    ("bundle", Some('b'), true),
    ("config", Some('f'), true),
    ("console-socket", None, true),
    ("pid-file", None, true),
    ("preserve-fds", None, true),
    ("no-pivot", None, false),
    ("no-new-keyring", None, false),
    ("no-subreaper", None, false),
    ("detach", Some('d'), false),
    ("keep", None, false),
];
const KILL: &[Known] = &[("all", Some('a'), false)];
const DELETE: &[Known] = &[("force", Some('f'), false)];
const LIST: &[Known] = &[("format", Some('f'), true), ("quiet", Some('q'), false)];
const SPEC: &[Known] = &[("bundle", Some('b'), true), ("rootless", None, false)];
const EXEC: &[Known] = &[
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

pub(super) fn run(global: &Global, command: &str, rest: &[String]) -> Done {
    let parse = |known: &[Known], tail| args::parse(rest, known, false, tail).map(|(parsed, _)| parsed);
    match command {
        "create" => create(global, &parse(CREATE, None)?, false),
        "run" => create(global, &parse(CREATE, None)?, true),
        "start" => start(global, &parse(&[], None)?),
        "state" => show_state(global, &parse(&[], None)?),
        "kill" => kill(global, &parse(KILL, None)?),
        "delete" => delete(global, &parse(DELETE, None)?),
        "list" => list(global, &parse(LIST, None)?),
        "exec" => exec(global, &parse(EXEC, Some(1))?),
        "features" => features(),
        "spec" => super::spec::write(&parse(SPEC, None)?),
        other => Err(UsageError::Command(other.to_owned()).into()),
    }
}

fn container(global: &Global, parsed: &Parsed, most: usize) -> Result<Dir, Error> {
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
fn preserved(parsed: &Parsed) -> Result<u32, Error> {
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

fn parse_spec(path: &Path, bytes: &[u8]) -> Result<Spec, Error> {
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

fn create(global: &Global, parsed: &Parsed, run: bool) -> Done {
    let id = container(global, parsed, 1).map(|_| parsed.arguments[0].clone())?;
    let bundle = std::path::absolute(parsed.value("bundle").unwrap_or("."))
        .and_then(std::fs::canonicalize)
        .map_err(|source| Error::Io {
        action: format!("opening bundle \"{}\"", parsed.value("bundle").unwrap_or(".")),
        source,
    })?;
    let config_path = bundle.join(parsed.value("config").unwrap_or("config.json"));
    let config =
        std::fs::read(&config_path).map_err(|source| Error::Read { path: config_path.clone(), source })?;
    let spec = parse_spec(&config_path, &config)?;
    process::ensure_standard_fds()
        .map_err(|source| Error::Io { action: "opening /dev/null".to_owned(), source })?;
    let preserve_fds = preserved(parsed)?;

    let (dir, lock) = Dir::claim(&global.root, &id)?;
    let foreground = run && !parsed.has("detach");
    let result = (|| {
        let (created, record) =
            make(global, parsed, &id, spec.clone(), bundle, preserve_fds, &dir, foreground, run)?;
        dir.write(&record, &config)?;
        write_pid_file(parsed, created.pid)?;
        Ok::<_, Error>((created, record))
    })();
    let (mut created, record) = match result {
        Ok(made) => made,
        Err(error) => {
            // The id is free again; what cannot be removed is taken over by the next create.
            let _ = dir.remove();
            return Err(error);
        }
    };
    drop(lock);
    if !run {
        return created.detach().map(|()| 0).map_err(Error::from);
    }
    if let Err(error) = created.start() {
        drop(created);
        let _ = dir.remove();
        return Err(error.into());
    }
    run_hooks(&spec, &record, "running", |hooks| hooks.poststart().clone());
    if !foreground {
        return Ok(0);
    }
    let status = super::foreground::wait(&created.pidfd, created.terminal.take())?;
    if !parsed.has("keep") {
        forget(&dir, &record)?;
    }
    Ok(status.code())
}

#[allow(clippy::too_many_arguments)]
fn make(
    global: &Global,
    parsed: &Parsed,
    id: &str,
    spec: Spec,
    bundle: PathBuf,
    preserve_fds: u32,
    dir: &Dir,
    foreground: bool,
    run: bool,
) -> Result<(Created, Record), Error> {
    let root = spec.root().as_ref().map(|root| bundle.join(root.path()));
    let rootfs = root.ok_or_else(|| Error::Unsupported("the configuration has no root".to_owned()))?;
    let terminal = spec.process().as_ref().and_then(|p| p.terminal()).unwrap_or(false);
    let mut request = CreateRequest::new(id.to_owned(), spec, bundle, Rootfs::Dir(rootfs.clone()));
    request.clamp_limits = true;
    request.stdio = stdio(parsed, terminal, foreground)?;
    request.gate = if run { Gate::Held } else { Gate::Path(dir.gate()) };
    request.preserve_fds = preserve_fds;
    request.no_pivot = parsed.has("no-pivot");
    request.no_new_keyring = parsed.has("no-new-keyring");
    request.cgroup = global.cgroups;
    request.complete_cgroup = true;
    let annotations: BTreeMap<String, String> =
        request.spec.annotations().clone().unwrap_or_default().into_iter().collect();
    let oci_version = request.spec.version().clone();
    let bundle = request.bundle.clone();
    let created = runtime::create(request)?;
    let record = Record {
        format: 1,
        oci_version,
        id: id.to_owned(),
        pid: created.pid,
        start_time: created.start_time,
        boot_id: state::boot_id(),
        bundle,
        rootfs,
        created: jiff::Timestamp::now().to_string(),
        annotations,
        cgroup: created.cgroup.clone(),
    };
    Ok((created, record))
}

fn stdio(parsed: &Parsed, terminal: bool, foreground: bool) -> Result<Stdio, Error> {
    match (terminal, parsed.value("console-socket").filter(|s| !s.is_empty())) {
        (true, Some(socket)) => Ok(Stdio::ConsoleSocket(socket.into())),
        (true, None) if foreground => Ok(Stdio::Terminal),
        (true, None) => Err(Error::Unsupported("a detached terminal needs --console-socket".to_owned())),
        (false, Some(_)) => Err(Error::Unsupported("--console-socket needs process.terminal".to_owned())),
        (false, None) => Ok(Stdio::Inherit),
    }
}

fn write_pid_file(parsed: &Parsed, pid: i32) -> Result<(), Error> {
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
fn run_hooks(
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

fn stored_spec(dir: &Dir) -> Result<Spec, Error> {
    parse_spec(Path::new("config.json"), &dir.config()?)
}

/// The stored configuration if it may have hooks of this name: parsing it takes longer than
/// everything else that `start` and `delete` do.
fn stored_hooks(dir: &Dir, name: &str) -> Result<Option<Spec>, Error> {
    let bytes = dir.config()?;
    let quoted = format!("\"{name}\"");
    let mentioned = bytes.windows(quoted.len()).any(|window| window == quoted.as_bytes());
    mentioned.then(|| parse_spec(Path::new("config.json"), &bytes)).transpose()
}

fn start(global: &Global, parsed: &Parsed) -> Done {
    let dir = container(global, parsed, 1)?;
    let record = dir.read()?;
    match dir.status(&record)?.0 {
        Status::Created => {}
        status => return Err(Error::WrongState { action: "start", status: status.as_str() }),
    }
    let result = runtime::start(&dir.gate());
    dir.mark_started();
    result?;
    if let Some(spec) = stored_hooks(&dir, "poststart")? {
        run_hooks(&spec, &record, "running", |hooks| hooks.poststart().clone());
    }
    Ok(0)
}

fn show_state(global: &Global, parsed: &Parsed) -> Done {
    let dir = container(global, parsed, 1)?;
    let value = state_value(&dir, &dir.read()?)?;
    print(&format!("{value:#}\n"))
}

fn state_value(dir: &Dir, record: &Record) -> Result<Value, Error> {
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

fn kill(global: &Global, parsed: &Parsed) -> Done {
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
        for pid in crate::cgroup::processes(cgroup).unwrap_or_default() {
            // One that ended meanwhile needs no signal.
            let _ = process::pidfd_open(pid).and_then(|pidfd| process::pidfd_signal(pidfd, signal));
        }
        return Ok(0);
    }
    match dir.status(&record)?.1 {
        Some(pidfd) => process::pidfd_signal(pidfd, signal).map_err(io)?,
        None if parsed.has("all") => {}
        None => return Err(Error::NotRunning),
    }
    Ok(0)
}

fn delete(global: &Global, parsed: &Parsed) -> Done {
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
        (Status::Running, _) if !force => {
            return Err(Error::NotStopped { id: record.id, status: "running" });
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
fn forget(dir: &Dir, record: &Record) -> Result<(), Error> {
    if let Some(cgroup) = &record.cgroup {
        // Processes that outlived an init without a pid namespace of its own.
        let _ = crate::cgroup::kill(cgroup);
        crate::cgroup::remove(cgroup)
            .map_err(|source| Error::Io { action: format!("removing \"{}\"", cgroup.display()), source })?;
    }
    let spec = stored_hooks(dir, "poststop");
    dir.remove()?;
    if let Ok(Some(spec)) = spec {
        run_hooks(&spec, record, "stopped", |hooks| hooks.poststop().clone());
    }
    Ok(())
}

fn list(global: &Global, parsed: &Parsed) -> Done {
    let mut values = Vec::new();
    for id in state::list(&global.root)? {
        let dir = Dir::new(&global.root, &id)?;
        match dir.read() {
            Ok(record) => values.push(state_value(&dir, &record)?),
            // Deleted just now.
            Err(state::Error::NotFound(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let field = |value: &Value, name: &str| {
        value[name].as_str().map_or_else(|| value[name].to_string(), str::to_owned)
    };
    match (parsed.has("quiet"), parsed.value("format")) {
        (true, _) => print(&values.iter().map(|v| field(v, "id") + "\n").collect::<String>()),
        (false, Some("json")) => print(&format!("{}\n", Value::Array(values))),
        (false, None | Some("table")) => {
            let names = ["id", "pid", "status", "bundle", "created"];
            let rows: Vec<Vec<String>> = std::iter::once(names.map(str::to_uppercase).to_vec())
                .chain(values.iter().map(|v| names.map(|name| field(v, name)).to_vec()))
                .collect();
            let widths: Vec<usize> = (0..names.len())
                .map(|i| rows.iter().map(|row| row[i].len()).max().unwrap_or(0).max(8))
                .collect();
            let line = |row: &Vec<String>| {
                let cells: String =
                    row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}   ")).collect();
                cells.trim_end().to_owned() + "\n"
            };
            print(&rows.iter().map(line).collect::<String>())
        }
        (false, Some(other)) => {
            Err(UsageError::Invalid { option: "--format", value: other.to_owned() }.into())
        }
    }
}

fn exec(global: &Global, parsed: &Parsed) -> Done {
    let dir = container(global, parsed, usize::MAX)?;
    let record = dir.read()?;
    if dir.status(&record)?.0 != Status::Running {
        return Err(Error::NotRunning);
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
        cgroup: record.cgroup.clone(),
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

fn features() -> Done {
    let capabilities: Vec<String> =
        crate::security::capability::names(u64::MAX >> (63 - crate::sys::capability::last()));
    let value = json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.2.1",
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": capabilities,
            "cgroup": {"v1": false, "v2": true, "systemd": false, "systemdUser": false, "rdma": true},
            "seccomp": {"enabled": true},
            "apparmor": {"enabled": false},
            "selinux": {"enabled": false},
            "intelRdt": {"enabled": false},
            "mountExtensions": {"idmap": {"enabled": false}},
        },
    });
    print(&format!("{value:#}\n"))
}
