//! `tag`, `untag`.

use clap::Args;

use super::{Failure, Globals, Outcome};
use crate::engine;

/// Give an image further names.
#[derive(Args, Debug, Clone)]
pub struct TagArgs {
    /// The image, by name or ID
    image: String,
    /// The names to give it
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
}

/// Take names from an image.
#[derive(Args, Debug, Clone)]
pub struct UntagArgs {
    /// The image, by name or ID
    image: String,
    /// The names to take from it; all if none is given
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

/// Gives names.
pub fn tag(args: TagArgs, globals: &Globals) -> Outcome {
    globals.engine()?.tag_image(&args.image, &args.names).map_err(failure)?;
    Ok(0)
}

/// Takes names.
pub fn untag(args: UntagArgs, globals: &Globals) -> Outcome {
    globals.engine()?.untag_image(&args.image, &args.names).map_err(failure)?;
    Ok(0)
}

/// Podman's exit code, also for an image that is not there.
fn failure(error: engine::Error) -> Failure {
    Failure::from(error).with_code(125)
}
