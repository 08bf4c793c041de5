//! `image sign`.

use std::path::PathBuf;

use clap::Args;

use super::access::{Access, read_passphrase};
use super::{Failure, Globals, Outcome};
use crate::base::report;
use crate::engine::images::PullOptions;
use crate::engine::images::sign::{self, SignOptions};
use crate::image::trust::sign::User;

/// Sign images of a registry.
#[derive(Args, Debug, Clone)]
pub struct SignArgs {
    /// Sign each image of a list too
    #[arg(short, long)]
    all: bool,
    #[command(flatten)]
    access: Access,
    /// Put the signatures below this directory; otherwise where registries.d says
    #[arg(short, long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// Whose key signs: a fingerprint, or a part of the name
    #[arg(long, value_name = "KEY", required = true)]
    sign_by: String,
    /// The key's passphrase is in this file; GnuPG's agent asks for it otherwise
    #[arg(long, value_name = "FILE")]
    sign_passphrase_file: Option<PathBuf>,
    /// The images, as docker://HOST/NAME
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

/// Signs.
pub fn run(args: SignArgs, globals: &Globals) -> Outcome {
    let engine = globals.engine()?;
    let passphrase = args.sign_passphrase_file.as_deref().map(read_passphrase).transpose()?;
    let options = SignOptions {
        user: User { name: args.sign_by, passphrase },
        directory: args.directory,
        all: args.all,
        pull: PullOptions { reach: args.access.reach(None)?, ..PullOptions::default() },
    };
    let failure = |error: sign::Error| Failure { hint: error.hint(), ..Failure::new(report::chain(&error)) };
    sign::sign(&engine, &args.images, &options).map_err(failure)?;
    Ok(0)
}
