//! `commit`, `import`.

use std::fs::File;
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use clap::Args;

use super::{Failure, Globals, Outcome};
use crate::cli::output;
use crate::engine::commit::{self, CommitOptions, NewImage};
use crate::image::instruction::Instruction;
use crate::image::rewrite::Form;
use crate::image::{Platform, registry};
use crate::storage::ImageRecord;

/// Make an image of a container's files.
#[derive(Args, Debug, Clone)]
pub struct CommitArgs {
    /// Who made it
    #[arg(short, long, value_name = "AUTHOR")]
    author: Option<String>,
    /// Change the configuration: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME or WORKDIR with its value
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// Merge a configuration (JSON: Cmd, Env, Labels, …) into the image's, before --change
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How the image is described: oci or docker
    #[arg(short, long, value_name = "FORMAT", default_value = "oci")]
    format: String,
    /// Write the image's ID to this file
    #[arg(long, value_name = "FILE")]
    iidfile: Option<PathBuf>,
    /// Have the container's volumes in the configuration
    #[arg(long)]
    include_volumes: bool,
    /// A word about it, for the history
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// Let the container stand still meanwhile
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pause: Option<bool>,
    /// Tell nothing but the ID
    #[arg(short, long)]
    quiet: bool,
    /// Make all layers one
    #[arg(short, long)]
    squash: bool,
    /// The container, by name or ID
    container: String,
    /// The image's name
    image: Option<String>,
}

/// Make an image of an archive of files.
#[derive(Args, Debug, Clone)]
pub struct ImportArgs {
    /// For this processor
    #[arg(long, value_name = "ARCHITECTURE")]
    arch: Option<String>,
    /// Change the configuration: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME or WORKDIR with its value
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// A word about it, for the history
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// For this operating system
    #[arg(long, value_name = "OS")]
    os: Option<String>,
    /// Tell nothing but the ID
    #[arg(short, long)]
    quiet: bool,
    /// For this variant of the processor
    #[arg(long, value_name = "VARIANT")]
    variant: Option<String>,
    /// The archive, compressed or not; - is standard input, http://… and https://… are fetched
    #[arg(value_name = "FILE")]
    path: PathBuf,
    /// The image's name
    image: Option<String>,
}

/// What the file of `--config` sets.
fn merged(path: Option<&Path>) -> Result<Vec<Instruction>, Failure> {
    let Some(path) = path else { return Ok(Vec::new()) };
    let failed = |error: &dyn std::error::Error| {
        Failure::new(format!("--config \"{}\": {}", path.display(), crate::base::report::chain(error)))
    };
    let bytes = std::fs::read(path).map_err(|error| failed(&error))?;
    let config = serde_json::from_slice(&bytes).map_err(|error| failed(&error))?;
    Instruction::of_config(&config).map_err(|error| failed(&error))
}

fn changes(lines: &[String]) -> Result<Vec<Instruction>, Failure> {
    let parse = |line: &String| Instruction::parse(line);
    lines
        .iter()
        .map(parse)
        .collect::<Result<_, _>>()
        .map_err(|error| Failure::new(format!("--change: {error}")))
}

/// `commit`.
pub fn run(args: CommitArgs, globals: &Globals) -> Outcome {
    let format = match &*args.format {
        "oci" => Form::Oci,
        "docker" | "v2s2" => Form::Docker,
        other => return Err(Failure::new(format!("--format \"{other}\": choose oci or docker"))),
    };
    let new = NewImage {
        name: args.image,
        author: args.author,
        message: args.message,
        changes: [merged(args.config.as_deref())?, changes(&args.change)?].concat(),
        format,
    };
    let options = CommitOptions {
        pause: args.pause.unwrap_or(false),
        squash: args.squash,
        volumes: args.include_volumes,
    };
    let engine = globals.engine()?;
    // Before there is an image whose ID cannot be written down.
    let iidfile = args.iidfile.as_deref().map(create).transpose()?;
    let image = engine.commit(&args.container, &new, options)?;
    tell(&image, iidfile, args.iidfile.as_deref())
}

/// `import`.
pub fn import(args: ImportArgs, globals: &Globals) -> Outcome {
    let new = NewImage {
        name: args.image,
        message: args.message,
        changes: changes(&args.change)?,
        ..NewImage::default()
    };
    let mut platform = Platform::host();
    if let Some(architecture) = args.arch {
        platform = Platform { architecture, variant: None, ..platform };
    }
    platform.os = args.os.unwrap_or(platform.os);
    platform.variant = args.variant.or(platform.variant);
    let text = args.path.to_string_lossy();
    let mut source: Box<dyn Read + Send> = if registry::is_address(&text) {
        Box::new(registry::Download::new(&text))
    } else if args.path == Path::new("-") {
        if std::io::stdin().is_terminal() {
            return Err(Failure::new("an archive is not read from a terminal")
                .with_hint("name a file, or redirect the input"));
        }
        Box::new(std::io::stdin())
    } else {
        let failed = |source| commit::Error::Source { path: args.path.clone(), source };
        Box::new(File::open(&args.path).map_err(|error| crate::engine::Error::from(failed(error)))?)
    };
    let image = globals.engine()?.import(&args.path, &mut *source, &new, &platform)?;
    tell(&image, None, None)
}

fn create(path: &Path) -> Result<File, Failure> {
    File::create(path).map_err(|error| Failure::new(format!("writing \"{}\": {error}", path.display())))
}

fn tell(image: &ImageRecord, file: Option<File>, path: Option<&Path>) -> Outcome {
    use std::io::Write;
    if let (Some(mut file), Some(path)) = (file, path) {
        let failed = |error| Failure::new(format!("writing \"{}\": {error}", path.display()));
        file.write_all(image.id.hex().as_bytes()).map_err(failed)?;
    }
    output::println(&image.id.hex())?;
    Ok(0)
}
