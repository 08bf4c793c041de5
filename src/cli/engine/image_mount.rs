//! `image mount` and `image unmount`.

use clap::Args;
use serde_json::{Value, json};

use super::selection::for_each;
use super::{Failure, Globals, Outcome};
use crate::cli::output;
use crate::engine::{Engine, Error};

/// Mount images read-only, or list those that are mounted.
#[derive(Args, Debug, Clone)]
pub struct MountArgs {
    /// Mount all images
    #[arg(short, long, conflicts_with = "images")]
    all: bool,
    /// Show in this form: json
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Images, by name or ID
    #[arg(value_name = "IMAGE")]
    images: Vec<String>,
}

/// Unmount images.
#[derive(Args, Debug, Clone)]
pub struct UnmountArgs {
    /// Unmount all images
    #[arg(short, long, conflicts_with = "images")]
    all: bool,
    /// Unmount them however often they were mounted
    #[arg(short, long)]
    force: bool,
    /// Images, by name or ID
    #[arg(value_name = "IMAGE", required_unless_present = "all")]
    images: Vec<String>,
}

/// `image mount`: prints where an image is.
pub fn mount(args: MountArgs, globals: &Globals) -> Outcome {
    if args.format.as_deref().is_some_and(|format| format != "json") {
        return Err(Failure::new("--format takes json"));
    }
    let engine = globals.engine()?;
    let names = if args.all {
        let images = engine.store.images().map_err(Error::from)?;
        images.into_iter().filter(|image| image.list.is_none()).map(|image| image.id.hex()).collect()
    } else {
        args.images.clone()
    };
    if names.is_empty() && !args.all {
        return list(&engine, args.format.is_some());
    }
    if args.format.is_some() {
        return Err(Failure::new("--format is for listing what is mounted: name no images"));
    }
    let several = names.len() > 1;
    for_each(&names, |name| {
        let path = engine.mount_image(name)?.display().to_string();
        Ok(Some(if several { format!("{name} {path}") } else { path }))
    })
}

fn list(engine: &Engine, as_json: bool) -> Outcome {
    let mut rows: Vec<Value> = Vec::new();
    for mounted in engine.mounted_images()? {
        let image = engine.store.image_by_id(&mounted.id).map_err(Error::from)?;
        let names = image.map(|image| image.names).unwrap_or_default();
        let path = mounted.path.display().to_string();
        rows.push(json!({ "id": mounted.id.hex(), "Repositories": names, "mountpoint": path }));
    }
    if as_json {
        output::print(&output::json(&rows.into()))?;
        return Ok(0);
    }
    for row in rows {
        let name = row["Repositories"][0].as_str().or(row["id"].as_str()).unwrap_or_default();
        output::println(&format!("{name} {}", row["mountpoint"].as_str().unwrap_or_default()))?;
    }
    Ok(0)
}

/// `image unmount`: prints the IDs of what is unmounted.
pub fn unmount(args: UnmountArgs, globals: &Globals) -> Outcome {
    let engine = globals.engine()?;
    let names = if args.all {
        engine.mounted_images()?.into_iter().map(|mounted| mounted.id.hex()).collect()
    } else {
        args.images.clone()
    };
    for_each(&names, |name| Ok(Some(engine.unmount_image(name, args.force)?.0.hex())))
}
