//! `system df`, `system prune` and `image prune`.

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::prune::confirmed;
use super::{Failure, Globals, Outcome, builder};
use crate::base::{size, time};
use crate::cli::output::{self, Listing};
use crate::engine::build::prune::{CacheFilter, CacheUsage};
use crate::engine::list::Fields;
use crate::engine::prune::{ImageFilter, Pruned};
use crate::engine::usage::{ImageUsage, Usage};

/// Show what images, containers and volumes take.
#[derive(Args, Debug, Clone)]
pub struct DfArgs {
    /// Show in this form: json, table TEMPLATE or a Go template
    #[arg(long, value_name = "FORMAT", conflicts_with = "verbose")]
    format: Option<String>,
    /// Show every image, container and volume
    #[arg(short, long)]
    verbose: bool,
}

/// Remove images that nothing uses.
#[derive(Args, Debug, Clone)]
pub struct ImagePruneArgs {
    /// Remove images with names too
    #[arg(short, long)]
    all: bool,
    /// Remove also what builds keep for later ones
    #[arg(long)]
    build_cache: bool,
    /// Remove only those that fit: until, label, label!, dangling
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

/// Remove everything that nothing uses.
#[derive(Args, Debug, Clone)]
pub struct PruneArgs {
    /// Remove images with names too
    #[arg(short, long)]
    all: bool,
    /// Remove also what builds keep for later ones
    #[arg(long)]
    build: bool,
    /// Remove only what fits: until, label
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Remove volumes too
    #[arg(long)]
    volumes: bool,
}

/// `system df`.
pub fn df(args: DfArgs, globals: &Globals) -> Outcome {
    let engine = globals.engine()?;
    let usage = engine.usage()?;
    let cache = engine.build_cache()?;
    if args.verbose {
        return verbose(&usage, &cache);
    }
    let row = |kind: &str, total: usize, active: usize, bytes: u64, free: u64| {
        let percent = (free * 100).checked_div(bytes).unwrap_or(0);
        json!({
            "Type": kind, "Total": total, "TotalCount": total, "Active": active,
            "RawSize": bytes, "RawReclaimable": free,
            "Size": size::human(bytes), "Reclaimable": format!("{} ({percent}%)", size::human(free)),
        })
    };
    let containers = &usage.containers;
    let idle = containers.iter().filter(|container| !container.is_active());
    let unused = usage.volumes.iter().filter(|volume| volume.users == 0);
    let rows = [
        row(
            "Images",
            usage.images.len(),
            usage.images.iter().filter(|image| image.containers > 0).count(),
            usage.layers,
            usage.reclaimable,
        ),
        row(
            "Containers",
            containers.len(),
            containers.iter().filter(|container| container.is_active()).count(),
            containers.iter().map(|container| container.size).sum(),
            idle.map(|container| container.size).sum(),
        ),
        row(
            "Local Volumes",
            usage.volumes.len(),
            usage.volumes.iter().filter(|volume| volume.users > 0).count(),
            usage.volumes.iter().map(|volume| volume.size).sum(),
            unused.map(|volume| volume.size).sum(),
        ),
        row(
            "Build Cache",
            cache.kept.len(),
            cache.kept.iter().filter(|kept| !kept.own).count(),
            cache.bytes,
            cache.reclaimable,
        ),
    ];
    let listing =
        Listing { default: "{{.Type}}\t{{.Total}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}", headers: &[] };
    output::print(&listing.render(args.format.as_deref(), true, &rows)?)?;
    Ok(0)
}

fn verbose(usage: &Usage, cache: &CacheUsage) -> Outcome {
    let now = Timestamp::now();
    let images: Vec<Value> = usage.images.iter().flat_map(|image| image_rows(image, now)).collect();
    let default = "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.Created}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}";
    let table = |default, headers: &[(&str, &str)], rows: &[Value]| {
        Listing { default, headers }.render(None, true, rows)
    };
    let mut text = String::from("Images space usage:\n\n");
    text += &table(default, &[("ID", "IMAGE ID")], &images)?;
    let containers: Vec<Value> = usage
        .containers
        .iter()
        .map(|container| {
            let default = "ID Image Command Created Status Names";
            let mut row = container.listed.row(now, true, &Fields::of(default));
            let volumes = container.listed.record.config.mounts.iter().filter(|mount| mount.name.is_some());
            row["LocalVolumes"] = volumes.count().into();
            row["Size"] = size::human(container.size).into();
            row
        })
        .collect();
    text += "\nContainers space usage:\n\n";
    let default = "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.Created}}\t{{.Status}}\t{{.Names}}";
    text += &table(default, &[("ID", "CONTAINER ID")], &containers)?;
    let volumes: Vec<Value> = usage
        .volumes
        .iter()
        .map(|volume| {
            json!({ "VolumeName": volume.record.name, "Links": volume.users, "Size": size::human(volume.size) })
        })
        .collect();
    text += "\nLocal Volumes space usage:\n\n";
    text += &table("{{.VolumeName}}\t{{.Links}}\t{{.Size}}", &[], &volumes)?;
    text += "\nBuild cache usage:\n\n";
    text += &builder::LISTING.render(None, true, &builder::rows(&cache.kept, false))?;
    output::print(&text)?;
    Ok(0)
}

fn image_rows(usage: &ImageUsage, now: Timestamp) -> Vec<Value> {
    let image = &usage.image;
    let created = image.created.as_deref().and_then(|text| text.parse().ok());
    let row = |repository: &str, tag: &str| {
        json!({
            "Repository": repository, "Tag": tag, "ID": image.id.short(),
            "Created": created.map_or_else(|| "N/A".to_owned(), |created| time::ago(created, now)),
            "Size": size::human(image.size), "SharedSize": size::human(usage.shared),
            "UniqueSize": size::human(usage.unique), "Containers": usage.containers,
        })
    };
    if image.names.is_empty() {
        return vec![row("<none>", "<none>")];
    }
    let split = |name: &String| match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => row(repository, tag),
        _ => row(name, "<none>"),
    };
    image.names.iter().map(split).collect()
}

/// What of it goes that builds keep, together with other things that fit `filters`.
fn cache_filter(flag: &str, filters: &[String]) -> Result<CacheFilter, Failure> {
    match filters.iter().find(|filter| !filter.starts_with("until=")) {
        Some(filter) => {
            let why = format!("--filter \"{filter}\" says nothing of what builds keep: leave {flag} out");
            Err(Failure::new(why))
        }
        None => Ok(CacheFilter::parse(true, filters)?),
    }
}

/// `image prune`: prints the IDs of what it removed.
pub fn image_prune(args: ImagePruneArgs, globals: &Globals) -> Outcome {
    let filter = ImageFilter::parse(args.all, &args.filter)?;
    let cache = args.build_cache.then(|| cache_filter("--build-cache", &args.filter)).transpose()?;
    let what = if args.all { "all images that no container uses" } else { "all images without a name" };
    let kept = if args.build_cache { " and all that builds keep" } else { "" };
    if !args.force && !confirmed(&format!("{what}{kept}"))? {
        return Ok(0);
    }
    let engine = globals.engine()?;
    for id in engine.prune_images(&filter)?.images {
        output::println(&id.hex())?;
    }
    if let Some(filter) = cache {
        engine.prune_build_cache(&filter)?;
    }
    Ok(0)
}

/// `system prune`: prints what it removed, and how much that gave.
pub fn prune(args: PruneArgs, globals: &Globals) -> Outcome {
    for filter in &args.filter {
        if !["label=", "until="].iter().any(|known| filter.starts_with(known)) {
            return Err(Failure::new(format!("--filter \"{filter}\": it takes label=… or until=…")));
        }
    }
    if args.volumes && args.filter.iter().any(|filter| filter.starts_with("until=")) {
        return Err(Failure::new("--filter until=… says nothing of volumes: leave --volumes out"));
    }
    let filter = ImageFilter::parse(args.all, &args.filter)?;
    let cache = args.build.then(|| cache_filter("--build", &args.filter)).transpose()?;
    let images = if args.all { "all images that no container uses" } else { "all images without a name" };
    let volumes = if args.volumes { ", all volumes that no container uses" } else { "" };
    let kept = if args.build { ", all that builds keep" } else { "" };
    let what = format!(
        "all containers that do not run{volumes}{kept}, all networks that no container uses and {images}"
    );
    if !args.force && !confirmed(&what)? {
        return Ok(0);
    }
    let engine = globals.engine()?;
    let mut sum = engine.prune_containers(&args.filter)?;
    if args.volumes {
        let Pruned { volumes, bytes, .. } = engine.prune_volumes(&args.filter)?;
        sum.volumes = volumes;
        sum.bytes += bytes;
    }
    let networks = super::network::prune_those(&engine, &args.filter)?;
    let Pruned { images, bytes, .. } = engine.prune_images(&filter)?;
    sum.bytes += bytes;
    let mut steps = Vec::new();
    if let Some(filter) = cache {
        let (gone, bytes) = engine.prune_build_cache(&filter)?;
        sum.bytes += bytes;
        steps = gone;
    }
    let mut text = String::new();
    let mut section = |title: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            text += &format!("Deleted {title}\n{}\n", lines.join("\n"));
        }
    };
    section("Containers", sum.containers);
    section("Volumes", sum.volumes);
    section("Networks", networks);
    section("Images", images.iter().map(|id| id.hex()).collect());
    section("build cache objects", steps.into_iter().map(|kept| kept.id).collect());
    text += &format!("Total reclaimed space: {}\n", size::human(sum.bytes));
    output::print(&text)?;
    Ok(0)
}
