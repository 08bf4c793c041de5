//! `export`.

use std::fs::File;
use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::path::PathBuf;

use clap::Args;

use super::{Failure, Globals, Outcome};
use crate::engine::export::Archive;

/// Write a container's files as an archive.
#[derive(Args, Debug, Clone)]
pub struct ExportArgs {
    /// Write to this file rather than to standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The container, by name or ID
    container: String,
}

/// `export`.
pub fn run(args: ExportArgs, globals: &Globals) -> Outcome {
    let engine = globals.engine()?;
    let Some(path) = args.output else {
        let stdout = std::io::stdout();
        if stdout.is_terminal() {
            return Err(Failure::new("an archive is not written to a terminal")
                .with_hint("name a file with -o, or redirect the output"));
        }
        let file = stdout
            .as_fd()
            .try_clone_to_owned()
            .map_err(|error| Failure::new(format!("duplicating standard output: {error}")))?;
        engine.export(&args.container, &File::from(file))?;
        return Ok(0);
    };
    // Before a file is emptied for nothing.
    engine.lookup(&args.container)?;
    let archive = Archive::create(&path)?;
    engine.export(&args.container, &archive.file)?;
    archive.finish();
    Ok(0)
}
