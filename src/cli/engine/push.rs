//! `push`.

use std::path::PathBuf;

use clap::{ArgAction, Args};

use super::access::{Access, Retry, Signing};
use super::{Failure, Globals, Outcome};
use crate::cli::{output, progress};
use crate::engine;
use crate::image::PushOptions;
use crate::image::compress::Format;
use crate::image::rewrite::Form;

/// Upload an image.
#[derive(Args, Debug, Clone)]
pub struct PushArgs {
    #[command(flatten)]
    access: Access,
    /// Compress layers that are not, also for a directory
    #[arg(long)]
    compress: bool,
    /// How to compress: gzip or zstd
    #[arg(long, value_name = "FORMAT")]
    compression_format: Option<String>,
    /// How hard to compress: 1 to 9
    #[arg(long, value_name = "LEVEL")]
    compression_level: Option<u32>,
    /// Write the digest of the manifest into this file
    #[arg(long, value_name = "FILE")]
    digestfile: Option<PathBuf>,
    /// Does nothing: there is no content trust of Docker's
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          action = ArgAction::Set, hide = true)]
    disable_content_trust: Option<bool>,
    /// Compress anew what is compressed in another way than --compression-format says (then the default)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          action = ArgAction::Set)]
    force_compression: Option<bool>,
    /// Kind of the manifest: oci or v2s2
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
    /// Leave signatures behind; none are kept here
    #[arg(long)]
    remove_signatures: bool,
    #[command(flatten)]
    retry: Retry,
    #[command(flatten)]
    signing: Signing,
    /// The image, by name or ID
    image: String,
    /// Where to: REGISTRY/NAME[:TAG], docker://…, oci:DIR[:TAG], oci-archive:FILE[:TAG],
    /// docker-archive:FILE[:NAME] or dir:DIR; the registry in the image's name by default
    destination: Option<String>,
}

/// What `--compression-format` and `--compression-level` say.
pub fn compression(format: Option<&str>, level: Option<u32>) -> Result<Option<Format>, Failure> {
    match (format, level) {
        (None, None) => Ok(None),
        (None | Some("gzip"), level @ (None | Some(1..=9))) => {
            Ok(Some(level.map_or(Format::GZIP, Format::Gzip)))
        }
        (None | Some("gzip"), Some(level)) => {
            Err(Failure::new(format!("--compression-level: gzip has the levels 1 to 9, not {level}")))
        }
        (Some("zstd"), None) => Ok(Some(Format::Zstd)),
        (Some("zstd" | "zstd:chunked"), Some(_)) => {
            Err(Failure::new("--compression-level is not supported yet together with zstd"))
        }
        (Some("zstd:chunked"), None) => Ok(Some(Format::Chunked)),
        (Some(other), _) => Err(Failure::new(format!(
            "--compression-format: \"{other}\" is neither gzip, zstd nor zstd:chunked"
        ))),
    }
}

/// What `--format` says.
pub fn form(text: Option<&str>) -> Result<Option<Form>, Failure> {
    match text {
        None => Ok(None),
        Some("oci") => Ok(Some(Form::Oci)),
        Some("v2s2" | "docker") => Ok(Some(Form::Docker)),
        Some("v2s1") => Err(Failure::new("--format: v2s1 is obsolete, no registry needs it any more")),
        Some(other) => Err(Failure::new(format!("--format: \"{other}\" is neither oci nor v2s2"))),
    }
}

/// Says so if an image has another digest than it had, and nobody asked for that.
pub fn tell_renewed(handed: &[engine::push::Handed], quiet: bool) {
    let renewed: usize = handed.iter().map(|one| one.renewed).sum();
    if renewed > 0 && !quiet {
        let layers = if renewed == 1 { "a layer was".to_owned() } else { format!("{renewed} layers were") };
        output::warning(&format!(
            "{layers} compressed anew, for the blob is neither kept nor to be had where it came from: the digest changes"
        ));
    }
}

/// Pushes.
pub fn run(args: PushArgs, globals: &Globals) -> Outcome {
    let engine = globals.engine()?;
    let compression = compression(args.compression_format.as_deref(), args.compression_level)?;
    let options = PushOptions {
        form: form(args.format.as_deref())?,
        compression,
        force_compression: args.force_compression.unwrap_or(args.compression_format.is_some()),
        compress: args.compress,
        ..PushOptions::default()
    };
    let reach = args.access.reach(Some(&args.retry))?;
    let keys = args.signing.keys()?;
    let progress = progress::for_push(args.quiet);
    let pushed = engine.push(&args.image, args.destination.as_deref(), &reach, options, keys, &progress);
    let pushed = pushed.map_err(engine::Error::from)?;
    tell_renewed(&[pushed], args.quiet);
    if let Some(path) = args.digestfile {
        std::fs::write(&path, pushed.manifest.to_string()).map_err(|error| {
            Failure::new(format!("writing the digest to \"{}\": {error}", path.display()))
        })?;
    }
    Ok(0)
}
