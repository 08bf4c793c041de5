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
    /// Without what each word means
    #[arg(long)]
    no_desc: bool,
    /// bash, zsh, fish, elvish or powershell
    shell: Shell,
}

/// `completion`.
pub fn run(args: CompletionArgs, _globals: &Globals) -> Outcome {
    if let Some(script) = super::complete::script(&args.shell.to_string(), !args.no_desc) {
        return write(args.file, script.into_bytes());
    }
    // These know the commands and their flags, and nothing of what is there.
    let mut script = Vec::new();
    let mut command = command();
    // The commands' own flags are put in only when a command is used.
    command.build();
    generate(args.shell, &mut command, "umiak", &mut script);
    write(args.file, script)
}

fn write(file: Option<PathBuf>, script: Vec<u8>) -> Outcome {
    match file {
        Some(path) => std::fs::write(&path, script)
            .map_err(|error| Failure::new(format!("writing \"{}\": {error}", path.display())))?,
        None => output::print_bytes(&script)?,
    }
    Ok(0)
}
