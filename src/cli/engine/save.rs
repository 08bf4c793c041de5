//! `save` and `load`.

use std::fs::File;
use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use clap::Args;

use super::{Failure, Globals, Outcome};
use crate::cli::{output, progress};
use crate::engine::push::{Outgoing, Output, Target, full_name};
use crate::engine::reach::Reach;
use crate::engine::{self, Engine};
use crate::image::rewrite::Form;
use crate::image::{PushOptions, Transport};

/// Write images as an archive.
#[derive(Args, Debug, Clone)]
pub struct SaveArgs {
    /// Compress layers that are not (docker-dir)
    #[arg(long)]
    compress: bool,
    /// docker-archive, oci-archive, oci-dir or docker-dir
    #[arg(long, value_name = "FORMAT", default_value = "docker-archive")]
    format: String,
    /// Several images in one archive
    #[arg(short, long)]
    multi_image_archive: bool,
    /// Write to this file or directory rather than to standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
    /// Leave layers uncompressed (oci-archive, oci-dir)
    #[arg(long)]
    uncompressed: bool,
    /// The image, by name or ID; further names for it, or further images with -m
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

/// `save`.
pub fn save(args: SaveArgs, globals: &Globals) -> Outcome {
    let engine = globals.engine()?;
    let format = args.format.as_str();
    let wrong = |flag: &str| Failure::new(format!("{flag} makes no sense with --format {format}"));
    match format {
        "docker-archive" | "oci-archive" | "oci-dir" | "docker-dir" => {}
        other => {
            return Err(Failure::new(format!("--format: \"{other}\" is not known"))
                .with_hint("there are docker-archive, oci-archive, oci-dir and docker-dir"));
        }
    }
    if args.compress && format != "docker-dir" {
        return Err(wrong("--compress").with_hint("it is for docker-dir"));
    }
    if args.uncompressed && !format.starts_with("oci") {
        return Err(wrong("--uncompressed").with_hint("it is for oci-archive and oci-dir"));
    }
    if args.images.len() > 1 && format != "docker-archive" {
        return Err(Failure::new("only a docker-archive takes several images or names"));
    }
    let options = PushOptions {
        form: (format == "docker-dir").then_some(Form::Docker),
        compress: args.compress,
        uncompressed: args.uncompressed,
        ..PushOptions::default()
    };
    let outgoing = outgoing(&engine, &args, &options)?;
    let tag = outgoing[0].options.names.first().cloned();
    let dir = || {
        let none = || {
            Failure::new(format!("--format {format} needs --output")).with_hint("a directory is no stream")
        };
        args.output.clone().ok_or_else(none)
    };
    let target = match format {
        "oci-dir" => Target::Directory(Transport::Oci { path: dir()?, tag }),
        "docker-dir" => Target::Directory(Transport::Dir(dir()?)),
        "oci-archive" => Target::OciArchive(file(args.output.as_deref())?, tag),
        _ => Target::DockerArchive(file(args.output.as_deref())?),
    };
    let progress = progress::for_push(args.quiet);
    let saved = engine.hand_out("saving", &outgoing, target, &Reach::default(), &progress);
    super::push::tell_renewed(&saved.map_err(engine::Error::from)?, args.quiet);
    Ok(0)
}

/// The images, with the names that they get.
fn outgoing(engine: &Engine, args: &SaveArgs, options: &PushOptions) -> Result<Vec<Outgoing>, Failure> {
    let one = |name: &String| -> Result<Outgoing, Failure> {
        let image = engine.image_to_push(name).map_err(engine::Error::from)?;
        let names = full_name(&image, name).into_iter().collect();
        Ok(Outgoing {
            name: name.clone(),
            image,
            options: PushOptions { names, ..options.clone() },
            sign: Vec::new(),
        })
    };
    if args.multi_image_archive {
        return args.images.iter().map(one).collect();
    }
    let mut first = one(&args.images[0])?;
    for name in &args.images[1..] {
        let reference: crate::image::Reference =
            name.parse().map_err(|error| Failure::new(crate::base::report::chain(&error)))?;
        let reference = if reference.is_short() { reference.at("localhost") } else { reference };
        let tagged = reference.tagged();
        first.options.names.push(tagged.ok_or_else(|| Failure::new(format!("\"{name}\" has no tag")))?);
    }
    Ok(vec![first])
}

fn file(path: Option<&Path>) -> Result<Output, Failure> {
    if let Some(path) = path {
        return Ok(Output::create(path).map_err(engine::Error::from)?);
    }
    let stdout = std::io::stdout();
    if stdout.is_terminal() {
        return Err(Failure::new("an archive is not written to a terminal")
            .with_hint("name a file with -o, or redirect the output"));
    }
    let file = stdout
        .as_fd()
        .try_clone_to_owned()
        .map_err(|error| Failure::new(format!("duplicating standard output: {error}")))?;
    Ok(Output::to(File::from(file), "standard output"))
}

/// Read images from an archive.
#[derive(Args, Debug, Clone)]
pub struct LoadArgs {
    /// Read this file or directory rather than standard input
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
}

/// `load`.
pub fn load(args: LoadArgs, globals: &Globals) -> Outcome {
    let engine = globals.engine()?;
    if args.input.is_none() && std::io::stdin().is_terminal() {
        return Err(Failure::new("an archive is not read from a terminal")
            .with_hint("name a file with -i, or redirect the input"));
    }
    let progress = progress::for_pull(args.quiet);
    let loaded = engine.load_images(args.input.as_deref(), &progress).map_err(engine::Error::from)?;
    for image in loaded {
        if image.names.is_empty() {
            output::println(&format!("Loaded image: {}", image.id))?;
        }
        for name in image.names {
            output::println(&format!("Loaded image: {name}"))?;
        }
    }
    Ok(0)
}
