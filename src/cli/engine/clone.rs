//! `container clone`.

use clap::Args;

use super::flags::limits::Resources;
use super::{Failure, Globals, Outcome, run};
use crate::cli::{output, progress};
use crate::engine::Error;
use crate::engine::images::{self, PullOptions, PullPolicy};

/// Make a container as another one was made.
#[derive(Args, Debug, Clone)]
pub struct CloneArgs {
    /// Remove the original
    #[arg(long)]
    destroy: bool,
    /// Remove the original even if it runs
    #[arg(short, long, requires = "destroy")]
    force: bool,
    /// The clone's name
    #[arg(long = "name", value_name = "NAME")]
    given: Option<String>,
    /// Start the clone
    #[arg(long)]
    run: bool,
    #[command(flatten)]
    resources: Resources,
    /// The original, by name or ID
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// The clone's name
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// The clone's image, rather than the original's
    #[arg(value_name = "IMAGE")]
    image: Option<String>,
}

/// `container clone`: prints the clone's ID.
pub fn run(args: CloneArgs, globals: &Globals) -> Outcome {
    let name = match (args.name, args.given) {
        (Some(_), Some(_)) => return Err(Failure::new("the clone's name is given twice")),
        (name, given) => name.or(given),
    };
    let engine = globals.engine()?;
    let (original, status) = engine.lookup(&args.container)?;
    if args.destroy && !args.force && status.running().is_some() {
        return Err(Error::Running(original.name).into());
    }
    let image = match &args.image {
        Some(image) => {
            let progress = progress::for_pull(false);
            let found =
                images::ensure(&engine, image, PullPolicy::Missing, &PullOptions::default(), progress);
            Some(found.map_err(Error::from)?)
        }
        None => None,
    };
    let (record, lock) =
        engine.clone_container(&original, name.as_deref(), image.as_ref(), &args.resources.wanted())?;
    if args.destroy {
        engine.remove(&original.id, args.force, None)?;
    }
    let (id, name) = (record.id.to_string(), record.name.clone());
    if args.run {
        let started = engine.start(record, lock, false)?;
        run::wait_started(&started, &name)?;
    }
    output::println(&id)?;
    Ok(0)
}
