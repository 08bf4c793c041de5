//! `update` and `container cleanup`.

use clap::Args;

use super::flags::limits::Resources;
use super::selection::{Selection, for_each};
use super::supervision::Supervision;
use super::{Failure, Globals, Outcome};
use crate::cli::output;
use crate::engine::update::Changes;

/// Change a container.
#[derive(Args, Debug, Clone)]
pub struct UpdateArgs {
    /// Set a variable of the environment of programs started from now on
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Take a variable from that environment
    #[arg(long, value_name = "NAME")]
    unsetenv: Vec<String>,
    /// The newest container
    #[arg(short, long)]
    latest: bool,
    /// A resource limit of each process started from now on
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    ulimit: Vec<String>,
    #[command(flatten)]
    resources: Resources,
    #[command(flatten)]
    supervision: Supervision,
    /// The container, by name or ID
    #[arg(value_name = "CONTAINER")]
    container: Option<String>,
}

/// `update`.
pub fn update(args: UpdateArgs, globals: &Globals) -> Outcome {
    let engine = globals.engine()?;
    let named = args.container.clone().into_iter().collect();
    let words = Selection::of(false, args.latest, named).resolve(&engine, &[], true)?;
    let changes = Changes {
        supervision: args.supervision.wanted(),
        env: args.env.clone(),
        unset_env: args.unsetenv.clone(),
        limits: args.resources.wanted(),
        ulimits: args.ulimit.clone(),
    };
    if changes == Changes::default() {
        return Err(Failure::new("nothing to change was named").with_hint("see umiak update --help"));
    }
    for word in &words {
        output::println(engine.update(word, &changes)?.id.as_str())?;
    }
    Ok(0)
}

/// Finish what is left of containers that do not run.
#[derive(Args, Debug, Clone)]
pub struct CleanupArgs {
    /// Remove the containers, too
    #[arg(long)]
    rm: bool,
    #[command(flatten)]
    selection: Selection,
}

/// `container cleanup`.
pub fn cleanup(args: CleanupArgs, globals: &Globals) -> Outcome {
    let engine = globals.engine()?;
    let words = args.selection.resolve(&engine, &[], true)?;
    for_each(&words, |word| {
        let record = match engine.cleanup(word) {
            Err(crate::engine::Error::Running(_)) if args.selection.all => return Ok(None),
            other => other?,
        };
        if args.rm {
            engine.remove(&record.id, false, None)?;
        }
        Ok(Some(word.to_owned()))
    })
}
