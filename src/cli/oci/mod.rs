//! The OCI runtime's face (`umiak-runtime`, `umiak runtime`): what containerd, podman and others call.

mod args;
mod commands;
mod common;
mod create;
mod delete;
mod events;
mod exec;
mod features;
mod foreground;
mod help;
mod kill;
mod list;
mod log;
mod notify;
mod pause;
mod ps;
mod spec;
mod start;
mod state;
mod update;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;

use args::{GLOBAL, UsageError};

use crate::cgroup::Manager;

/// What can go wrong on this command line.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Usage(#[from] UsageError),
    #[error(transparent)]
    State(#[from] crate::runtime::state::Error),
    #[error(transparent)]
    Runtime(#[from] crate::runtime::Error),
    #[error("reading \"{}\"", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("configuration \"{}\"", path.display())]
    Config {
        path: PathBuf,
        #[source]
        source: crate::runtime::config::Error,
    },
    #[error("root.path: there is no directory \"{}\"", .0.display())]
    Rootfs(PathBuf),
    #[error("{0}")]
    Contradiction(&'static str),
    #[error("running the poststart hooks")]
    Poststart(#[source] crate::runtime::hooks::Error),
    #[error("--rootless=false: the container has no control group: {0}")]
    Rootless(String),
    #[error("{action}")]
    Io {
        action: String,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot {action} a container in the {status} state")]
    WrongState { action: &'static str, status: &'static str },
    #[error("cannot delete container {id} that is not stopped: {status}")]
    NotStopped { id: String, status: &'static str },
    #[error("container not running")]
    NotRunning,
    #[error(transparent)]
    Cgroup(#[from] crate::cgroup::Error),
    #[error("container \"{id}\" has no control group of its own, which {what} needs")]
    Ungrouped { id: String, what: &'static str },
    #[error("cannot exec in a paused container (use --ignore-paused to override)")]
    Paused,
    #[error("{0} is not supported yet")]
    Unsupported(String),
}

impl Error {
    /// How to mend it, where that is known.
    fn hint(&self) -> Option<String> {
        match self {
            Self::Runtime(error) => error.hint(),
            Self::Cgroup(error) => error.hint(),
            Self::Unsupported(what) if matches!(what.as_str(), "checkpoint" | "restore") => {
                Some("stop the container and start it anew".to_owned())
            }
            _ => None,
        }
    }
}

/// How a command ends: with this exit status.
type Done = Result<u8, Error>;

/// What stands before the command.
struct Global {
    root: PathBuf,
    cgroups: Manager,
    /// `--rootless`: false if the container must have a control group.
    rootless: Option<bool>,
    log: log::Log,
}

/// Runs one command of the runtime; `args` without the binary's name. Returns the exit code.
pub fn main(args: Vec<OsString>) -> u8 {
    let args: Vec<String> = args.into_iter().map(|a| a.to_string_lossy().into_owned()).collect();
    let parsed = args::parse(&args, GLOBAL, true, None).map_err(Error::from);
    let (global, options, rest) =
        match parsed.and_then(|(options, rest)| Ok((global(&options)?, options, rest))) {
            Ok(understood) => understood,
            Err(error) => return log::Log::default().report(&error, 1),
        };
    let command = rest.first().map(String::as_str).unwrap_or_default();
    let failed = if command == "exec" { 255 } else { 1 };
    match dispatch(&global, &options, command, rest.get(1..).unwrap_or_default()) {
        Ok(code) => code,
        Err(error) => global.log.report(&error, failed),
    }
}

fn global(options: &args::Parsed) -> Result<Global, Error> {
    let invalid = |option: &'static str, value: &str| UsageError::Invalid { option, value: value.to_owned() };
    let json = match options.value("log-format") {
        None | Some("" | "text") => false,
        Some("json") => true,
        Some(other) => return Err(invalid("--log-format", other).into()),
    };
    let level = match options.value("log-level") {
        _ if options.has("debug") => log::Level::Debug,
        None => log::Level::default(),
        Some(word) => log::Level::parse(word).ok_or_else(|| invalid("--log-level", word))?,
    };
    let rootless = match options.value("rootless") {
        None | Some("" | "auto") => None,
        Some("true" | "1" | "yes") => Some(true),
        Some("false" | "0" | "no") => Some(false),
        Some(other) => return Err(invalid("--rootless", other).into()),
    };
    // crun's other kinds of logs are daemons'.
    let file = options.value("log").filter(|file| !file.is_empty());
    if let Some(other) = file.filter(|file| file.starts_with("journald:") || file.starts_with("syslog:")) {
        return Err(Error::Unsupported(format!("--log {other}")));
    }
    let file = file.map(|file| PathBuf::from(file.strip_prefix("file:").unwrap_or(file)));
    if let Some(path) = &file {
        // Who asks for a log reads there why a command failed; without one he would learn nothing.
        std::fs::OpenOptions::new().append(true).create(true).open(path).map_err(|source| Error::Io {
            action: format!("opening the log \"{}\"", path.display()),
            source,
        })?;
    }
    Ok(Global {
        root: options.value("root").filter(|root| !root.is_empty()).map_or_else(default_root, PathBuf::from),
        cgroups: match options.value("cgroup-manager") {
            Some("disabled") => Manager::Disabled,
            Some("systemd") => Manager::Systemd,
            None | Some("") if options.has("systemd-cgroup") => Manager::Systemd,
            None | Some("" | "cgroupfs") => Manager::Cgroupfs,
            Some(other) => return Err(invalid("--cgroup-manager", other).into()),
        },
        rootless,
        log: log::Log::new(file, json, level),
    })
}

fn dispatch(global: &Global, options: &args::Parsed, command: &str, rest: &[String]) -> Done {
    if options.has("version") {
        return version();
    }
    if options.has("help") || matches!(command, "" | "help") {
        return help::print_for(rest.first().map(String::as_str).filter(|_| command == "help"));
    }
    global.log.debug(command);
    commands::run(global, command, rest)
}

fn default_root() -> PathBuf {
    let own = own_directory().unwrap_or_else(|| format!("/tmp/umiak-{}-run", crate::sys::ids::euid()).into());
    own.join("runtime")
}

/// What belongs to this user alone, and is gone after a reboot.
fn own_directory() -> Option<PathBuf> {
    // Root of a user namespace, as under a rootless engine, is a user of the machine.
    if crate::sys::ids::euid() == 0 && !crate::sys::userns::is_inside() {
        return Some("/run/umiak".into());
    }
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute())?;
    Some(runtime.join("umiak"))
}

fn print(text: &str) -> Done {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(0),
        // The reader has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(0),
        Err(source) => Err(Error::Io { action: "writing to standard output".to_owned(), source }),
    }
}

/// The newest version of the specification whose fields are carried out.
const SPEC_VERSION: &str = "1.3.0";

fn version() -> Done {
    // The last line is crun's, whose callers look there for what they may ask for.
    let parts = "+SYSTEMD +SELINUX +APPARMOR +CAP +SECCOMP";
    let version = env!("CARGO_PKG_VERSION");
    print(&format!("umiak-runtime version {version}\nspec: {SPEC_VERSION}\n{parts}\n"))
}
