//! `cp`.

use std::io::IsTerminal;

use clap::{ArgAction, Args};

use super::{Failure, Globals, Outcome};
use crate::cli::{output, progress};
use crate::engine::copy::Options;

/// Copy files between containers, the host and archives.
#[derive(Args, Debug, Clone)]
pub struct CpArgs {
    /// Give the copies in a container to the user that its program runs as; =false keeps their owners
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value = "true",
        default_missing_value = "true", action = ArgAction::Set)]
    archive: bool,
    /// Copy what a link that is named as the source leads to; =false copies the link
    #[arg(short = 'L', long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_value = "true", default_missing_value = "true", action = ArgAction::Set)]
    follow_link: bool,
    /// Let files take the place of directories, and directories that of files
    #[arg(long)]
    overwrite: bool,
    /// What to copy: CONTAINER:PATH, a path of the host, or - for an archive on standard input
    #[arg(value_name = "SOURCE")]
    source: String,
    /// Where to: CONTAINER:PATH, a path of the host, or - for an archive on standard output
    #[arg(value_name = "DESTINATION")]
    destination: String,
}

/// `cp`.
pub fn run(args: CpArgs, globals: &Globals) -> Outcome {
    if args.destination == "-" && std::io::stdout().is_terminal() {
        return Err(Failure::new("an archive is not written to a terminal")
            .with_hint("redirect the output, or name a place"));
    }
    if args.source == "-" && std::io::stdin().is_terminal() {
        return Err(Failure::new("an archive is not read from a terminal").with_hint("redirect the input"));
    }
    let options = Options {
        archive: args.archive,
        overwrite: args.overwrite,
        follow: args.follow_link,
        progress: |_| {},
    };
    let progress = if std::io::stderr().is_terminal() { progress::copied } else { |_| {} };
    let options = Options { progress, ..options };
    let copied = globals.engine()?.copy(&args.source, &args.destination, options);
    progress::copying_ended();
    let written = copied?;
    if written.devices > 0 {
        output::warning(&format!("{} device files were left out", written.devices));
    }
    Ok(0)
}
