//! `healthcheck run`.

use clap::Args;

use super::{Failure, Globals, Outcome};
use crate::cli::output;
use crate::storage::containers::HealthStatus;

/// Check a container's health now.
#[derive(Args, Debug, Clone)]
pub struct HealthcheckArgs {
    /// Exit with 0 whatever the check says
    #[arg(long)]
    ignore_result: bool,
    /// The container, by name or ID
    container: String,
}

/// `healthcheck run`. Podman's exit codes: 0 if the check went well, 1 if not, 125 if there was none.
pub fn run(args: HealthcheckArgs, globals: &Globals) -> Outcome {
    let engine = globals.engine()?;
    let (status, good) = engine.check_now(&args.container).map_err(Failure::from)?;
    if good {
        return Ok(0);
    }
    // Whether it counts already or not, this one has failed.
    let word = if status == HealthStatus::Starting { "starting" } else { "unhealthy" };
    output::println(word)?;
    Ok(u8::from(!args.ignore_result))
}
