//! `mount` and `unmount` of containers.

use clap::Args;
use serde_json::{Value, json};

use super::selection::{Selection, for_each};
use super::{Failure, Globals, Outcome};
use crate::cli::output;
use crate::engine::{Engine, Error};

/// Mount containers' files, or list those that are mounted.
#[derive(Args, Debug, Clone)]
pub struct MountArgs {
    /// Mount all containers
    #[arg(short, long, conflicts_with = "containers")]
    all: bool,
    /// Show in this form: json
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Mount the newest container
    #[arg(short, long, conflicts_with_all = ["containers", "all"])]
    latest: bool,
    /// Shorten nothing
    #[arg(long)]
    no_trunc: bool,
    /// Containers, by name or ID
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Unmount containers' files.
#[derive(Args, Debug, Clone)]
pub struct UnmountArgs {
    /// Unmount all containers
    #[arg(short, long, conflicts_with = "containers")]
    all: bool,
    /// Unmount them however often they were mounted
    #[arg(short, long)]
    force: bool,
    /// Unmount the newest container
    #[arg(short, long, conflicts_with_all = ["containers", "all"])]
    latest: bool,
    /// Containers, by name or ID
    #[arg(value_name = "CONTAINER", required_unless_present_any = ["all", "latest"])]
    containers: Vec<String>,
}

/// `mount`: prints where a container's files are.
pub fn mount(args: MountArgs, globals: &Globals) -> Outcome {
    if args.format.as_deref().is_some_and(|format| format != "json") {
        return Err(Failure::new("--format takes json"));
    }
    let engine = globals.engine()?;
    let names = if args.latest {
        Selection::newest().resolve(&engine, &[], true)?
    } else if args.all {
        engine.containers.ids().map_err(Error::from)?.iter().map(ToString::to_string).collect()
    } else {
        args.containers
    };
    if names.is_empty() && !args.all {
        return list(&engine, args.format.is_some(), args.no_trunc);
    }
    if args.format.is_some() {
        return Err(Failure::new("--format is for listing what is mounted: name no containers"));
    }
    let several = names.len() > 1 || args.all;
    for_each(&names, |name| {
        let path = engine.mount_container(name)?.display().to_string();
        Ok(Some(if several { format!("{name} {path}") } else { path }))
    })
}

fn list(engine: &Engine, as_json: bool, whole: bool) -> Outcome {
    let mounted = engine.mounted_containers()?;
    if as_json {
        let row = |(record, path): &(crate::storage::containers::ContainerRecord, std::path::PathBuf)| json!({ "id": record.id, "Names": [record.name], "mountpoint": path.display().to_string() });
        output::print(&output::json(&mounted.iter().map(row).collect::<Vec<Value>>().into()))?;
        return Ok(0);
    }
    for (record, path) in mounted {
        let id = if whole { record.id.to_string() } else { record.id.short().to_owned() };
        output::println(&format!("{id} {}", path.display()))?;
    }
    Ok(0)
}

/// `unmount`: prints what was named.
pub fn unmount(args: UnmountArgs, globals: &Globals) -> Outcome {
    let engine = globals.engine()?;
    let names = if args.latest {
        Selection::newest().resolve(&engine, &[], true)?
    } else if args.all {
        engine.mounted_containers()?.into_iter().map(|(record, _)| record.id.to_string()).collect()
    } else {
        args.containers
    };
    for_each(&names, |name| {
        engine.unmount_container(name, args.force)?;
        Ok(Some(name.to_owned()))
    })
}
