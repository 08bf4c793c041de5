//! `diff`.

use clap::Args;
use serde_json::{Map, Value};

use super::selection::{Selection, is_missing};
use super::{Failure, Globals, Outcome};
use crate::cli::output;
use crate::engine::{Engine, Error};
use crate::sys::merged::{Change, Kind};

/// Tell which files a container or an image's last layer has changed.
#[derive(Args, Debug, Clone)]
pub struct DiffArgs {
    /// json
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// The newest container
    #[arg(short, long)]
    latest: bool,
    /// A container or an image, by name or ID
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

/// Tell which files an image's last layer has changed.
#[derive(Args, Debug, Clone)]
pub struct ImageArgs {
    /// json
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// The image, by name or ID
    image: String,
}

/// `diff`: of a container, or of an image where there is no such container.
pub fn run(args: DiffArgs, globals: &Globals) -> Outcome {
    let engine = globals.engine()?;
    let name = name(&args, &engine)?;
    let changes = match engine.diff_container(&name) {
        Err(error) if is_missing(&error) => engine.diff_image(&name)?.ok_or(Error::NoObject(name))?,
        other => other?,
    };
    show(&changes, args.format.as_deref())
}

/// `container diff`.
pub fn container(args: DiffArgs, globals: &Globals) -> Outcome {
    let engine = globals.engine()?;
    show(&engine.diff_container(&name(&args, &engine)?)?, args.format.as_deref())
}

/// `image diff`.
pub fn image(args: ImageArgs, globals: &Globals) -> Outcome {
    let missing = || Failure::new(format!("comparing the files of \"{}\": no such image", args.image));
    let changes = globals.engine()?.diff_image(&args.image)?.ok_or_else(missing)?;
    show(&changes, args.format.as_deref())
}

fn name(args: &DiffArgs, engine: &Engine) -> Result<String, Failure> {
    let none = || Failure::new("you must name a container or an image");
    match (&args.name, args.latest) {
        (Some(_), true) => Err(Failure::new("nothing can be named together with --latest")),
        (Some(name), false) => Ok(name.clone()),
        (None, true) => newest(engine),
        (None, false) => Err(none()),
    }
}

/// The newest container.
pub(super) fn newest(engine: &Engine) -> Result<String, Failure> {
    Selection::newest().resolve(engine, &[], true)?.pop().ok_or_else(|| Failure::new("there is no container"))
}

fn show(changes: &[Change], format: Option<&str>) -> Outcome {
    match format {
        None | Some("") => {
            let line = |change: &Change| {
                let letter = match change.kind {
                    Kind::Added => 'A',
                    Kind::Changed => 'C',
                    Kind::Deleted => 'D',
                };
                format!("{letter} {}\n", output::one_line(&path(change)))
            };
            output::print(&changes.iter().map(line).collect::<String>())?;
        }
        Some("json") => {
            let mut value = Map::new();
            for (key, kind) in
                [("changed", Kind::Changed), ("added", Kind::Added), ("deleted", Kind::Deleted)]
            {
                let paths: Vec<Value> =
                    changes.iter().filter(|c| c.kind == kind).map(|c| path(c).into()).collect();
                if !paths.is_empty() {
                    value.insert(key.to_owned(), paths.into());
                }
            }
            output::print(&output::json(&value.into()))?;
        }
        Some(other) => return Err(Failure::new(format!("--format \"{other}\": it can only be json"))),
    }
    Ok(0)
}

fn path(change: &Change) -> String {
    String::from_utf8_lossy(&change.path).into_owned()
}
