//! `exec`.

use std::path::PathBuf;

use clap::Args;

use super::{Failure, Globals, Outcome};
use crate::base::id::ContainerId;
use crate::engine::attach::DetachKeys;
use crate::engine::exec::ExecOptions;
use crate::engine::request::RunRequest;
use crate::engine::{self, config};

/// Run a program in a running container.
#[derive(Args, Debug, Clone)]
#[command(override_usage = "umiak exec [OPTIONS] CONTAINER COMMAND [ARGUMENT]...")]
pub struct ExecArgs {
    /// Leave the program running
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    detach: Option<bool>,
    /// The keys that leave the program's terminal
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Keep standard input open
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    interactive: Option<bool>,
    /// Give the program a terminal
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    tty: Option<bool>,
    /// Set a variable of the environment; without a value it takes ours
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Read variables of the environment from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Run as this user of the image
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// The program's working directory
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Give the program all capabilities
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    privileged: Option<bool>,
    /// Keep no record of the program: none is ever kept
    #[arg(long, conflicts_with = "detach")]
    no_session: bool,
    /// Pass on as many descriptors from 3 on
    #[arg(long, value_name = "NUMBER")]
    preserve_fds: Option<u32>,
    /// Pass on these descriptors
    #[arg(long, value_name = "FD", value_delimiter = ',')]
    preserve_fd: Vec<u32>,
    /// Read the container's ID from a file
    #[arg(long, value_name = "FILE")]
    cidfile: Option<PathBuf>,
    /// The container that was made last
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    latest: Option<bool>,
    /// The container, by name or ID, then the program and its arguments
    // One list, so that what stands behind the container is never looked at for flags of ours.
    #[arg(trailing_var_arg = true, value_name = "CONTAINER COMMAND")]
    words: Vec<String>,
}

/// `exec`.
pub fn run(args: ExecArgs, globals: &Globals) -> Outcome {
    let fds = RunRequest {
        preserve_fds: args.preserve_fds,
        preserve_fd: args.preserve_fd,
        ..RunRequest::default()
    };
    fds.check()?;
    let detach_keys = match &args.detach_keys {
        None => DetachKeys::default(),
        Some(text) => DetachKeys::parse(text)
            .ok_or_else(|| Failure::new(format!("--detach-keys \"{text}\" is no sequence of keys")))?,
    };
    if let Some(dir) = args.workdir.as_deref().filter(|dir| !dir.starts_with('/')) {
        return Err(Failure::new(format!("--workdir \"{dir}\": it must be an absolute path")));
    }
    let engine = globals.engine()?.by_prefix();
    let mut words = args.words.into_iter();
    let container = match (&args.cidfile, args.latest.unwrap_or(false)) {
        (Some(_), true) => return Err(Failure::new("--cidfile and --latest cannot be used together")),
        (Some(path), false) => {
            let failed = |error: &dyn std::fmt::Display| {
                Failure::new(format!("--cidfile: reading \"{}\": {error}", path.display()))
            };
            let text = std::fs::read_to_string(path).map_err(|error| failed(&error))?;
            text.trim().parse::<ContainerId>().map_err(|error| failed(&error))?.to_string()
        }
        (None, true) => super::diff::newest(&engine)?,
        (None, false) => words.next().ok_or_else(|| missing("a container"))?,
    };
    let command: Vec<String> = words.collect();
    if command.is_empty() {
        return Err(missing("a command"));
    }
    let options = ExecOptions {
        container,
        command,
        detach: args.detach.unwrap_or(false),
        interactive: args.interactive.unwrap_or(false),
        tty: args.tty.unwrap_or(false),
        env: args.env,
        env_files: args.env_file,
        user: args.user,
        workdir: args.workdir,
        detach_keys,
        privileged: args.privileged.unwrap_or(false),
        preserve: config::preserved(&fds).map_err(engine::Error::from)?,
    };
    match engine.exec(&options) {
        Ok(code) => Ok(code.unwrap_or(0)),
        // Podman's, for what it can run nothing in.
        Err(error @ (engine::Error::NotRunning { .. } | engine::Error::Paused(_))) => {
            Err(Failure::from(error).with_code(255))
        }
        Err(error) => Err(error.into()),
    }
}

fn missing(what: &str) -> Failure {
    Failure::new(format!("{what} is missing")).with_hint("see umiak exec --help")
}
