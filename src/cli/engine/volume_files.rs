//! `volume export`, `import`, `mount`, `reload` and `unmount`.

use std::fs::File;
use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::path::PathBuf;

use clap::Args;

use super::selection::for_each;
use super::{Failure, Globals, Outcome};
use crate::engine::export::Archive;
use crate::engine::volume_files::standard_input;

/// Write a volume's files as an archive.
#[derive(Args, Debug, Clone)]
pub struct ExportArgs {
    /// Write to this file rather than to standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The volume, by name
    volume: String,
}

/// Unpack an archive into a volume.
#[derive(Args, Debug, Clone)]
pub struct ImportArgs {
    /// The volume, by name
    volume: String,
    /// The archive, which may be compressed; - is standard input
    #[arg(default_value = "-")]
    source: PathBuf,
}

/// Mount volumes.
#[derive(Args, Debug, Clone)]
pub struct NamesArgs {
    /// Volumes, by name
    #[arg(value_name = "VOLUME", required = true)]
    volumes: Vec<String>,
}

/// Take notice of what plugins for volumes have made.
#[derive(Args, Debug, Clone)]
pub struct ReloadArgs {}

/// `volume export`.
pub fn export(args: ExportArgs, globals: &Globals) -> Outcome {
    let engine = globals.engine()?;
    let Some(path) = args.output else {
        let stdout = std::io::stdout();
        if stdout.is_terminal() {
            return Err(Failure::new("an archive is not written to a terminal")
                .with_hint("name a file with -o, or redirect the output"));
        }
        let file = stdout.as_fd().try_clone_to_owned();
        let file = file.map_err(|error| Failure::new(format!("duplicating standard output: {error}")))?;
        engine.export_volume(&args.volume, &File::from(file))?;
        return Ok(0);
    };
    // Before a file is emptied for nothing.
    engine.volume(&args.volume)?;
    let archive = Archive::create(&path)?;
    engine.export_volume(&args.volume, &archive.file)?;
    archive.finish();
    Ok(0)
}

/// `volume import`.
pub fn import(args: ImportArgs, globals: &Globals) -> Outcome {
    let engine = globals.engine()?;
    let name = args.source.display().to_string();
    let input = if name == "-" {
        if std::io::stdin().is_terminal() {
            return Err(Failure::new("an archive is not read from a terminal"));
        }
        standard_input()
    } else {
        File::open(&args.source)
    };
    let input = input.map_err(|error| Failure::new(format!("opening \"{name}\": {error}")))?;
    engine.import_volume(&args.volume, input)?;
    Ok(0)
}

/// `volume mount`: a volume's files are where they are; prints where.
pub fn mount(args: NamesArgs, globals: &Globals) -> Outcome {
    let engine = globals.engine()?;
    for_each(&args.volumes, |name| {
        let volume = engine.volume(name)?;
        Ok(Some(engine.volume_place(&volume)?.display().to_string()))
    })
}

/// `volume unmount`: nothing was mounted; prints the names.
pub fn unmount(args: NamesArgs, globals: &Globals) -> Outcome {
    let engine = globals.engine()?;
    for_each(&args.volumes, |name| Ok(Some(engine.volume(name)?.name)))
}

/// `volume reload`: there is no plugin that could have made one.
pub fn reload(_args: ReloadArgs, globals: &Globals) -> Outcome {
    globals.engine()?;
    Ok(0)
}
