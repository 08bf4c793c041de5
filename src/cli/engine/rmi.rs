//! `rmi`.

use clap::Args;

use super::{Failure, Globals, Outcome};
use crate::base::report;
use crate::cli::output;
use crate::engine::{self, images};

/// Remove images.
#[derive(Args, Debug, Clone)]
pub struct RmiArgs {
    /// Remove all images
    #[arg(short, long)]
    all: bool,
    /// Remove containers that use the image, and all its names
    #[arg(short, long)]
    force: bool,
    /// Do not mind images that are not there
    #[arg(short, long)]
    ignore: bool,
    /// Images, by name or ID
    #[arg(value_name = "IMAGE", required_unless_present = "all")]
    images: Vec<String>,
}

/// Removes images. Podman's exit codes: 1 for one that is not there, 2 for one that is in use.
pub fn run(args: RmiArgs, globals: &Globals) -> Outcome {
    let engine = globals.engine()?;
    if args.all && !args.images.is_empty() {
        return Err(Failure::new("--all takes no images"));
    }
    let names = if args.all {
        let images = engine.store.images().map_err(engine::Error::from)?;
        let own = images.into_iter().filter(|image| engine.store.foreign_image(&image.id).is_none());
        own.map(|image| image.id.hex()).collect()
    } else {
        args.images.clone()
    };
    let mut code = 0;
    for name in &names {
        // All images means all their names as well.
        match remove(&engine, name, args.force, args.all) {
            Ok(removed) => {
                for name in &removed.untagged {
                    output::println(&format!("Untagged: {name}"))?;
                }
                if let Some(id) = removed.deleted {
                    output::println(&format!("Deleted: {}", id.hex()))?;
                }
            }
            Err(engine::Error::Images(images::Error::NoSuchImage(_))) if args.ignore || args.force => {}
            Err(error) => {
                let (one, hint) = match &error {
                    engine::Error::Images(error) => (error.exit_code(), error.hint()),
                    other => (other.exit_code(), other.hint()),
                };
                let hint = super::similar(&error).or(hint);
                output::error_line(&report::chain(&error), hint.as_deref());
                code = if code == 0 || code == one { one } else { 125 };
            }
        }
    }
    engine.collect_images()?;
    Ok(code)
}

fn remove(
    engine: &engine::Engine,
    name: &str,
    force: bool,
    all_names: bool,
) -> Result<images::Removed, engine::Error> {
    match engine.remove_image(name, force) {
        Err(engine::Error::Images(images::Error::SeveralNames { names, .. })) if all_names => {
            let mut sum = images::Removed::default();
            for name in names {
                let removed = engine.remove_image(&name, force)?;
                sum.untagged.extend(removed.untagged);
                sum.deleted = removed.deleted.or(sum.deleted);
            }
            Ok(sum)
        }
        other => other,
    }
}
