//! `unshare`.

use std::ffi::OsString;

use clap::Args;

use super::{Failure, Globals, Outcome};
use crate::engine::Error;

/// Run a program in the user namespace that the files of containers belong to.
#[derive(Args, Debug, Clone)]
pub struct UnshareArgs {
    /// The program and its words; without, $SHELL
    #[arg(value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// `unshare`: ends as the program does; 126 if that cannot be executed, 127 if it is not there.
pub fn run(args: UnshareArgs, globals: &Globals) -> Outcome {
    let engine = globals.engine()?;
    let shell = || vec![std::env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into())];
    let command = if args.command.is_empty() { shell() } else { args.command };
    let error = engine.unshare(&command);
    let code = match &error {
        Error::Program { source, .. } if source.kind() == std::io::ErrorKind::NotFound => 127,
        Error::Program { .. } => 126,
        _ => 125,
    };
    Err(Failure::from(error).with_code(code))
}
