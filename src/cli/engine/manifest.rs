//! `manifest`: lists of images for several platforms.

use std::path::PathBuf;

use clap::Args;

use super::access::{Access, Signing, Tls};
use super::push::{compression, form};
use super::{Failure, Globals, Outcome};
use crate::cli::{output, progress};
use crate::engine;
use crate::engine::artifacts::MakeArtifact;
use crate::engine::images::PullOptions;
use crate::engine::lists::{AddOptions, PushList};
use crate::engine::reach::Reach;
use crate::image::PushOptions;
use crate::image::list::Remarks;

/// Make a list of images.
#[derive(Args, Debug, Clone)]
pub struct CreateArgs {
    /// Add all images of a list that is added, not only the one for this machine
    #[arg(long)]
    all: bool,
    /// Take a list that is there already
    #[arg(short, long)]
    amend: bool,
    /// Say something of the list
    #[arg(long, value_name = "KEY=VALUE")]
    annotation: Vec<String>,
    #[command(flatten)]
    tls: Tls,
    /// The list's name
    list: String,
    /// Images to add
    images: Vec<String>,
}

/// Add an image to a list.
#[derive(Args, Debug, Clone)]
pub struct AddArgs {
    /// Add all images of a list that is added, not only the one for this machine
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    remarks: RemarkArgs,
    #[command(flatten)]
    access: Access,
    #[command(flatten)]
    artifact: ArtifactArgs,
    /// The list, by name or ID
    list: String,
    /// Images, here or at a transport; files with --artifact
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

/// An artifact that is made for a list.
#[derive(Args, Debug, Clone)]
struct ArtifactArgs {
    /// Add an artifact that is made of files
    #[arg(long)]
    artifact: bool,
    /// The artifact's configuration is in this file
    #[arg(long, value_name = "FILE", requires = "artifact")]
    artifact_config: Option<PathBuf>,
    /// What kind of configuration: a media type
    #[arg(long, value_name = "TYPE", requires = "artifact")]
    artifact_config_type: Option<String>,
    /// Do not tell the files' names
    #[arg(long, requires = "artifact")]
    artifact_exclude_titles: bool,
    /// What kind of files: a media type
    #[arg(long, value_name = "TYPE", requires = "artifact")]
    artifact_layer_type: Option<String>,
    /// The artifact is about this image
    #[arg(long, value_name = "IMAGE", requires = "artifact")]
    artifact_subject: Option<String>,
    /// What kind of artifact: a media type
    #[arg(long, value_name = "TYPE", requires = "artifact")]
    artifact_type: Option<String>,
}

/// Say something of an image in a list.
#[derive(Args, Debug, Clone)]
pub struct AnnotateArgs {
    #[command(flatten)]
    remarks: RemarkArgs,
    /// Features of the operating system
    #[arg(long, value_name = "FEATURE")]
    os_features: Vec<String>,
    /// Say it of the list itself
    #[arg(long)]
    index: bool,
    /// The list is about this image
    #[arg(long, value_name = "IMAGE", requires = "index")]
    subject: Option<String>,
    /// The list, by name or ID
    list: String,
    /// The image, by its digest or its name here
    #[arg(required_unless_present = "index")]
    image: Option<String>,
}

/// Show a list.
#[derive(Args, Debug, Clone)]
pub struct InspectArgs {
    /// The file with credentials
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    #[command(flatten)]
    tls: Tls,
    /// The list, here or at a registry
    list: String,
}

/// Upload a list, and its images.
#[derive(Args, Debug, Clone)]
pub struct PushArgs {
    /// Upload the images, too (the default)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    all: Option<bool>,
    #[command(flatten)]
    access: Access,
    /// How to compress layers that are not: gzip or zstd
    #[arg(long, value_name = "FORMAT")]
    compression_format: Option<String>,
    /// How hard to compress: 1 to 9
    #[arg(long, value_name = "LEVEL")]
    compression_level: Option<u32>,
    /// Compress anew what is compressed in another way
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    force_compression: Option<bool>,
    /// Write the digest of the list into this file
    #[arg(long, value_name = "FILE")]
    digestfile: Option<PathBuf>,
    /// Kind of the list and of its images: oci or v2s2
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
    /// Leave signatures behind; none are kept here
    #[arg(long)]
    remove_signatures: bool,
    /// Remove the list here when it is there
    #[arg(long)]
    rm: bool,
    #[command(flatten)]
    signing: Signing,
    /// The list, by name or ID
    list: String,
    /// Where to: REGISTRY/NAME[:TAG], docker://…, oci:DIR[:TAG], oci-archive:FILE[:TAG] or dir:DIR; what the
    /// list's name says by default
    destination: Option<String>,
}

/// Tell by the exit code whether a list is there.
#[derive(Args, Debug, Clone)]
pub struct ExistsArgs {
    /// The list, by name or ID
    list: String,
}

/// Take images out of a list.
#[derive(Args, Debug, Clone)]
pub struct RemoveArgs {
    /// The list, by name or ID
    list: String,
    /// The image, by its digest or its name here
    image: String,
}

/// Remove lists.
#[derive(Args, Debug, Clone)]
pub struct RmArgs {
    /// Do not mind lists that are not there
    #[arg(short, long)]
    ignore: bool,
    /// Lists, by name or ID
    #[arg(required = true)]
    lists: Vec<String>,
}

/// What can be said of an image.
#[derive(Args, Debug, Clone)]
struct RemarkArgs {
    /// Annotate the image
    #[arg(long, value_name = "KEY=VALUE")]
    annotation: Vec<String>,
    /// It is for this processor
    #[arg(long, value_name = "ARCHITECTURE")]
    arch: Option<String>,
    /// It needs these features of the processor
    #[arg(long, value_name = "FEATURE")]
    features: Vec<String>,
    /// It is for this operating system
    #[arg(long, value_name = "OS")]
    os: Option<String>,
    /// It is for this version of the operating system
    #[arg(long, value_name = "VERSION")]
    os_version: Option<String>,
    /// It is for this variant of the processor
    #[arg(long, value_name = "VARIANT")]
    variant: Option<String>,
}

impl RemarkArgs {
    fn remarks(self, os_features: Vec<String>) -> Remarks {
        Remarks {
            annotations: self.annotation,
            architecture: self.arch,
            os: self.os,
            os_version: self.os_version,
            variant: self.variant,
            features: self.features,
            os_features,
        }
    }
}

/// `manifest create`.
pub fn create(args: CreateArgs, globals: &Globals) -> Outcome {
    let engine = globals.engine()?;
    let reach = Reach { tls_verify: args.tls.tls_verify, ..Reach::default() };
    let pull = PullOptions { reach, ..PullOptions::default() };
    let list = engine.create_list(&args.list, args.amend)?;
    let options = AddOptions { all: args.all, pull, remarks: Remarks::default() };
    let fill = || -> Result<(), engine::Error> {
        if !args.annotation.is_empty() {
            engine.annotate_index(&args.list, &args.annotation, None)?;
        }
        args.images.iter().try_for_each(|image| engine.add_to_list(&args.list, image, &options).map(drop))
    };
    if let Err(error) = fill() {
        // One that was made for nothing goes again; one that was there stays as it is.
        if list.list.as_ref().is_some_and(|list| list.entries.is_empty()) && !args.amend {
            let _ = engine.remove_image(&args.list, true);
        }
        return Err(error.into());
    }
    output::println(&list.id.hex())?;
    Ok(0)
}

/// `manifest add`.
pub fn add(args: AddArgs, globals: &Globals) -> Outcome {
    let artifact = args.artifact;
    if artifact.artifact {
        let make = MakeArtifact {
            artifact_type: artifact.artifact_type,
            config: artifact.artifact_config,
            config_type: artifact.artifact_config_type,
            layer_type: artifact.artifact_layer_type,
            exclude_titles: artifact.artifact_exclude_titles,
            subject: artifact.artifact_subject,
        };
        let files: Vec<PathBuf> = args.images.into_iter().map(PathBuf::from).collect();
        let remarks = args.remarks.remarks(Vec::new());
        return tell(globals.engine()?.add_artifact_to_list(&args.list, &files, &make, &remarks)?);
    }
    let mut pull = PullOptions { reach: args.access.reach(None)?, ..PullOptions::default() };
    // Which image of a list at a registry is added; they also say what it is.
    pull.arch.clone_from(&args.remarks.arch);
    pull.os.clone_from(&args.remarks.os);
    pull.variant.clone_from(&args.remarks.variant);
    let options = AddOptions { all: args.all, pull, remarks: args.remarks.remarks(Vec::new()) };
    let engine = globals.engine()?;
    let mut list = None;
    for image in &args.images {
        list = Some(engine.add_to_list(&args.list, image, &options)?);
    }
    list.map_or(Ok(0), tell)
}

/// `manifest annotate`.
pub fn annotate(args: AnnotateArgs, globals: &Globals) -> Outcome {
    let engine = globals.engine()?;
    let Some(image) = args.image.filter(|_| !args.index) else {
        let others = Remarks { annotations: Vec::new(), ..args.remarks.clone().remarks(args.os_features) };
        if others != Remarks::default() {
            return Err(Failure::new(
                "--index: of the list itself nothing but annotations and its subject can be said",
            ));
        }
        return tell(engine.annotate_index(&args.list, &args.remarks.annotation, args.subject.as_deref())?);
    };
    tell(engine.annotate_list(&args.list, &image, &args.remarks.remarks(args.os_features))?)
}

/// `manifest inspect`.
pub fn inspect(args: InspectArgs, globals: &Globals) -> Outcome {
    let reach = Reach { authfile: args.authfile, tls_verify: args.tls.tls_verify, ..Reach::default() };
    let document =
        globals.engine()?.inspect_list(&args.list, &PullOptions { reach, ..PullOptions::default() })?;
    output::println(output::json(&document).trim_end())?;
    Ok(0)
}

/// `manifest push`.
pub fn push(args: PushArgs, globals: &Globals) -> Outcome {
    let engine = globals.engine()?;
    let push = PushList {
        all: args.all.unwrap_or(true),
        options: PushOptions {
            form: form(args.format.as_deref())?,
            compression: compression(args.compression_format.as_deref(), args.compression_level)?,
            force_compression: args.force_compression.unwrap_or(args.compression_format.is_some()),
            ..PushOptions::default()
        },
        sign: args.signing.keys()?,
    };
    let reach = args.access.reach(None)?;
    let progress = progress::for_pull(args.quiet);
    let digest = engine.push_list(&args.list, args.destination.as_deref(), &reach, &push, &progress)?;
    if let Some(path) = args.digestfile {
        std::fs::write(&path, digest.to_string()).map_err(|error| {
            Failure::new(format!("writing the digest to \"{}\": {error}", path.display()))
        })?;
    }
    if args.rm {
        engine.remove_image(&args.list, false)?;
        engine.collect_images()?;
    }
    if !args.quiet {
        output::println(&digest.to_string())?;
    }
    Ok(0)
}

/// `manifest exists`.
pub fn exists(args: ExistsArgs, globals: &Globals) -> Outcome {
    let image = globals.engine()?.store.image(&args.list).map_err(engine::Error::from)?;
    Ok(u8::from(image.is_none_or(|image| image.list.is_none())))
}

/// `manifest remove`.
pub fn remove(args: RemoveArgs, globals: &Globals) -> Outcome {
    tell(globals.engine()?.remove_from_list(&args.list, &args.image)?)
}

/// `manifest rm`.
pub fn rm(args: RmArgs, globals: &Globals) -> Outcome {
    let engine = globals.engine()?;
    let mut code = 0;
    for name in &args.lists {
        let removed = engine.find_list(name).and_then(|_| engine.remove_image(name, false));
        match removed {
            Ok(removed) => {
                for name in &removed.untagged {
                    output::println(&format!("Untagged: {name}"))?;
                }
                if let Some(id) = removed.deleted {
                    output::println(&format!("Deleted: {}", id.hex()))?;
                }
            }
            Err(engine::Error::Lists(engine::lists::Error::NoList(_))) if args.ignore => {}
            Err(error) => {
                output::error_line(&crate::base::report::chain(&error), error.hint().as_deref());
                code = 1;
            }
        }
    }
    engine.collect_images()?;
    Ok(code)
}

fn tell(id: crate::base::digest::Digest) -> Outcome {
    output::println(&id.hex())?;
    Ok(0)
}
