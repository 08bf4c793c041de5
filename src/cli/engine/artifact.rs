//! `artifact`: any files under a name.

use std::path::PathBuf;

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::access::{Access, Retry, Signing};
use super::selection::for_each;
use super::{Failure, Globals, Outcome};
use crate::base::{size, time};
use crate::cli::output::{self, Listing};
use crate::cli::progress;
use crate::engine::artifacts::AddFiles;
use crate::engine::{self, Engine, artifacts};
use crate::image::list;
use crate::storage::ArtifactRecord;

/// Make an artifact of files, or add files to one.
#[derive(Args, Debug, Clone)]
pub struct AddArgs {
    /// Say something of the files
    #[arg(long, value_name = "KEY=VALUE")]
    annotation: Vec<String>,
    /// Add to an artifact that is there
    #[arg(short, long, conflicts_with_all = ["replace", "kind"])]
    append: bool,
    /// The files' media type; else what they look like
    #[arg(long, value_name = "TYPE")]
    file_type: Option<String>,
    /// Make anew an artifact that is there
    #[arg(long)]
    replace: bool,
    /// What kind of artifact it is, as a media type
    #[arg(id = "kind", long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// The artifact's name
    artifact: String,
    /// The files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// Write an artifact's files.
#[derive(Args, Debug, Clone)]
pub struct ExtractArgs {
    /// Only the file with this digest
    #[arg(long, value_name = "DIGEST", conflicts_with = "title")]
    digest: Option<String>,
    /// Only the file of this name
    #[arg(long, value_name = "NAME")]
    title: Option<String>,
    /// The artifact, by name or digest
    artifact: String,
    /// The directory for the files, or the name for a single one
    path: PathBuf,
}

/// Show everything about an artifact.
#[derive(Args, Debug, Clone)]
pub struct InspectArgs {
    /// A template or json
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// The artifact, by name or digest
    artifact: String,
}

/// List artifacts.
#[derive(Args, Debug, Clone)]
pub struct LsArgs {
    /// Show in this form: json, table TEMPLATE or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Do not shorten digests
    #[arg(long)]
    no_trunc: bool,
    /// Leave the headings out
    #[arg(short, long)]
    noheading: bool,
}

/// Fetch an artifact.
#[derive(Args, Debug, Clone)]
pub struct PullArgs {
    #[command(flatten)]
    access: Access,
    #[command(flatten)]
    retry: Retry,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
    /// The artifact's name at a registry
    artifact: String,
}

/// Upload an artifact.
#[derive(Args, Debug, Clone)]
pub struct PushArgs {
    #[command(flatten)]
    access: Access,
    #[command(flatten)]
    retry: Retry,
    /// Write the digest of the manifest into this file
    #[arg(long, value_name = "FILE")]
    digestfile: Option<PathBuf>,
    #[command(flatten)]
    signing: Signing,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
    /// The artifact, by name or digest
    artifact: String,
    /// Where to; what its name says by default
    destination: Option<String>,
}

/// Remove artifacts.
#[derive(Args, Debug, Clone)]
pub struct RmArgs {
    /// Remove all
    #[arg(short, long, conflicts_with = "artifacts")]
    all: bool,
    /// Do not mind artifacts that are not there
    #[arg(short, long)]
    ignore: bool,
    /// Artifacts, by name or digest
    #[arg(value_name = "ARTIFACT", required_unless_present = "all")]
    artifacts: Vec<String>,
}

/// `artifact add`.
pub fn add(args: AddArgs, globals: &Globals) -> Outcome {
    let annotations = list::annotations(&args.annotation)
        .map_err(|error| Failure::new(format!("--annotation: {error}")))?;
    let add = AddFiles {
        append: args.append,
        replace: args.replace,
        artifact_type: args.kind,
        file_type: args.file_type,
        annotations,
    };
    let digest = globals.engine()?.add_artifact(&args.artifact, &args.files, &add)?;
    output::println(&digest.hex())?;
    Ok(0)
}

/// `artifact extract`.
pub fn extract(args: ExtractArgs, globals: &Globals) -> Outcome {
    let engine = globals.engine()?;
    let (digest, title) = (args.digest.as_deref(), args.title.as_deref());
    engine.extract_artifact(&args.artifact, &args.path, digest, title).map_err(engine::Error::from)?;
    Ok(0)
}

/// `artifact inspect`.
pub fn inspect(args: InspectArgs, globals: &Globals) -> Outcome {
    let engine = globals.engine()?;
    let show = || -> Result<Value, artifacts::Error> {
        let record = engine.find_artifact(&args.artifact)?;
        let manifest = engine.artifact_manifest(&record)?;
        Ok(json!({ "Manifest": manifest, "Name": record.name, "Digest": record.manifest }))
    };
    let value = show().map_err(engine::Error::from)?;
    output::println(output::value(args.format.as_deref(), &value)?.trim_end())?;
    Ok(0)
}

fn row(engine: &Engine, record: &ArtifactRecord, whole: bool, now: Timestamp) -> Value {
    let (repository, tag) = record.name.rsplit_once(':').unwrap_or((&record.name, ""));
    // What cannot be read is listed, and told by inspect.
    let bytes = engine.artifact_manifest(record).map(|manifest| manifest.size()).unwrap_or_default();
    let created = Timestamp::from_nanosecond(record.created.into()).unwrap_or_default();
    json!({
        "Repository": repository,
        "Tag": tag,
        "Digest": if whole { record.manifest.hex() } else { record.manifest.short() },
        "Created": time::ago(created, now),
        "Size": size::human(bytes),
        "VirtualSize": bytes,
    })
}

/// `artifact ls`.
pub fn ls(args: LsArgs, globals: &Globals) -> Outcome {
    let engine = globals.engine()?;
    let mut records = engine.store.artifacts().map_err(engine::Error::from)?;
    records.sort_by(|a, b| a.name.cmp(&b.name));
    let now = Timestamp::now();
    let rows: Vec<Value> = records.iter().map(|record| row(&engine, record, args.no_trunc, now)).collect();
    let listing = Listing {
        default: "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.Created}}\t{{.Size}}",
        headers: &[("VirtualSize", "VIRTUAL SIZE")],
    };
    output::print(&listing.render(args.format.as_deref(), !args.noheading, &rows)?)?;
    Ok(0)
}

/// `artifact pull`.
pub fn pull(args: PullArgs, globals: &Globals) -> Outcome {
    let engine = globals.engine()?;
    let name = args.artifact.strip_prefix("docker://").unwrap_or(&args.artifact);
    let digest = engine.pull_artifact(
        name,
        &args.access.reach(Some(&args.retry))?,
        &progress::for_pull(args.quiet),
    )?;
    output::println(&digest.hex())?;
    Ok(0)
}

/// `artifact push`.
pub fn push(args: PushArgs, globals: &Globals) -> Outcome {
    let engine = globals.engine()?;
    let (destination, reach) = (args.destination.as_deref(), args.access.reach(Some(&args.retry))?);
    let progress = progress::for_pull(args.quiet);
    let keys = args.signing.keys()?;
    let digest = engine.push_artifact(&args.artifact, destination, &reach, &keys, &progress)?;
    if let Some(path) = args.digestfile {
        std::fs::write(&path, digest.to_string()).map_err(|error| {
            Failure::new(format!("writing the digest to \"{}\": {error}", path.display()))
        })?;
    }
    Ok(0)
}

/// `artifact rm`: prints the digests of what it removed.
pub fn rm(args: RmArgs, globals: &Globals) -> Outcome {
    let engine = globals.engine()?;
    let names = if args.all {
        let all = engine.store.artifacts().map_err(engine::Error::from)?;
        all.into_iter().map(|record| record.name).collect()
    } else {
        args.artifacts
    };
    let code = for_each(&names, |name| match engine.remove_artifact(name) {
        Ok(digest) => Ok(Some(digest.hex())),
        Err(engine::Error::Artifacts(artifacts::Error::NotFound(_))) if args.ignore || args.all => Ok(None),
        Err(error) => Err(error.into()),
    })?;
    engine.collect_images()?;
    Ok(code)
}
