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
mod kill;
mod list;
mod log;
mod pause;
mod ps;
mod spec;
mod start;
mod state;
mod update;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

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
    #[error("parsing \"{}\"", path.display())]
    Parse {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
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
    NoCgroup { id: String, what: &'static str },
    #[error("cannot exec in a paused container (use --ignore-paused to override)")]
    Paused,
    #[error("{0}")]
    Unsupported(String),
}

impl Error {
    /// How to mend it, where the layer below knows.
    fn hint(&self) -> Option<String> {
        match self {
            Self::Runtime(error) => error.hint(),
            Self::Cgroup(error) => error.hint(),
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
}

/// Runs one command of the runtime; `args` without the binary's name.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let args: Vec<String> = args.into_iter().map(|a| a.to_string_lossy().into_owned()).collect();
    let (global, rest) = match args::parse(&args, GLOBAL, true, None) {
        Ok(parsed) => parsed,
        Err(error) => return log::Log::default().report(&error.into(), 1),
    };
    let log = log::Log::new(global.value("log"), global.value("log-format"), global.has("debug"));
    let command = rest.first().map(String::as_str).unwrap_or_default();
    let failed = if command == "exec" { 255 } else { 1 };
    match dispatch(&global, command, rest.get(1..).unwrap_or_default(), &log) {
        Ok(code) => ExitCode::from(code),
        Err(error) => log.report(&error, failed),
    }
}

fn dispatch(global: &args::Parsed, command: &str, rest: &[String], log: &log::Log) -> Done {
    if global.has("version") {
        return version();
    }
    if global.has("help") || matches!(command, "" | "help") {
        return help();
    }
    log.debug(command);
    let context = Global {
        root: global.value("root").map_or_else(default_root, PathBuf::from),
        cgroups: match global.value("cgroup-manager") {
            Some("disabled") => Manager::Disabled,
            Some("systemd") => Manager::Systemd,
            None if global.has("systemd-cgroup") => Manager::Systemd,
            None | Some("cgroupfs") => Manager::Cgroupfs,
            Some(other) => {
                return Err(
                    UsageError::Invalid { option: "--cgroup-manager", value: other.to_owned() }.into()
                );
            }
        },
    };
    commands::run(&context, command, rest)
}

fn default_root() -> PathBuf {
    let euid = crate::sys::ids::euid();
    // Root of a user namespace, as under a rootless engine, is a user of the machine.
    if euid == 0 && !crate::sys::userns::is_inside() {
        return "/run/umiak/runtime".into();
    }
    match std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute()) {
        Some(dir) => dir.join("umiak/runtime"),
        None => format!("/tmp/umiak-{euid}-run/runtime").into(),
    }
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

fn version() -> Done {
    print(&format!("umiak-runtime version {}\nspec: 1.2.1\n", env!("CARGO_PKG_VERSION")))
}

fn help() -> Done {
    print(
        "Usage: umiak-runtime [--root DIR] [--log FILE] [--log-format text|json] COMMAND [OPTIONS] [ID]\n\n\
         Commands:\n  \
         create    make a container that waits to be started\n  \
         start     start a created container\n  \
         run       create, start, wait and delete a container\n  \
         exec      run a further process in a container\n  \
         state     print a container's state as JSON\n  \
         list      list containers\n  \
         kill      send a signal to a container's init\n  \
         delete    forget a stopped container\n  \
         pause     stop a container's processes for a while\n  \
         resume    let them go on\n  \
         update    change a container's limits\n  \
         events    tell what a container uses, and when it lacks memory\n  \
         ps        list a container's processes\n  \
         features  print what this runtime can do as JSON\n  \
         spec      write an example config.json\n",
    )
}
