//! `exec`.

use std::path::PathBuf;

use clap::Args;

use super::{Failure, Globals, Outcome};
use crate::engine::attach::DetachKeys;
use crate::engine::exec::ExecOptions;

/// Run a program in a running container.
#[derive(Args, Debug, Clone)]
pub struct ExecArgs {
    /// Leave the program running
    #[arg(short, long)]
    detach: bool,
    /// The keys that leave the program's terminal
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Keep standard input open
    #[arg(short, long)]
    interactive: bool,
    /// Give the program a terminal
    #[arg(short, long)]
    tty: bool,
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
    /// The container, by name or ID
    container: String,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<String>,
}

/// `exec`.
pub fn run(args: ExecArgs, globals: &Globals) -> Outcome {
    let detach_keys = match &args.detach_keys {
        None => DetachKeys::default(),
        Some(text) => DetachKeys::parse(text)
            .ok_or_else(|| Failure::new(format!("--detach-keys \"{text}\" is no sequence of keys")))?,
    };
    if let Some(dir) = args.workdir.as_deref().filter(|dir| !dir.starts_with('/')) {
        return Err(Failure::new(format!("--workdir \"{dir}\": it must be an absolute path")));
    }
    let options = ExecOptions {
        container: args.container,
        command: args.command,
        detach: args.detach,
        interactive: args.interactive,
        tty: args.tty,
        env: args.env,
        env_files: args.env_file,
        user: args.user,
        workdir: args.workdir,
        detach_keys,
    };
    let engine = globals.engine()?;
    match engine.exec(&options)? {
        Some(code) => Ok(code),
        None => Ok(0),
    }
}
