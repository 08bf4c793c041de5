//! `completion`.

use std::path::PathBuf;

use clap::Args;
use clap_complete::{Shell, generate};

use super::{Failure, Globals, Outcome, command};
use crate::cli::output;

/// Print a shell's completion script.
#[derive(Args, Debug, Clone)]
pub struct CompletionArgs {
    /// Write the script to a file
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// bash, zsh, fish, elvish or powershell
    shell: Shell,
}

/// `completion`.
pub fn run(args: CompletionArgs, _globals: &Globals) -> Outcome {
    let mut script = Vec::new();
    let mut command = command();
    // The commands' own flags are put in only when a command is used.
    command.build();
    generate(args.shell, &mut command, "umiak", &mut script);
    match args.file {
        Some(path) => std::fs::write(&path, script)
            .map_err(|error| Failure::new(format!("writing \"{}\": {error}", path.display())))?,
        None => output::print_bytes(&script)?,
    }
    Ok(0)
}
