//! `rename`.

use clap::Args;

use super::{Globals, Outcome};
use crate::engine::Error;

/// Give a container another name.
#[derive(Args, Debug, Clone)]
pub struct RenameArgs {
    /// The container, by name or ID
    container: String,
    /// Its new name
    name: String,
}

/// `rename`.
pub fn run(args: RenameArgs, globals: &Globals) -> Outcome {
    let engine = globals.engine()?;
    crate::base::id::check_name(&args.name).map_err(Error::from)?;
    let (record, _) = engine.lookup(&args.container)?;
    engine.rename(&record, &args.name)?;
    Ok(0)
}
