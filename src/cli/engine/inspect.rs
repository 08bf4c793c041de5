//! `inspect`.

use clap::Args;
use serde_json::Value;

use super::{Failure, Globals, Outcome};
use crate::cli::output;
use crate::engine;
use crate::engine::Engine;

/// Show everything about a container or an image.
#[derive(Args, Debug, Clone)]
pub struct InspectArgs {
    /// A template or json
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// The newest container
    #[arg(short, long, conflicts_with = "names")]
    latest: bool,
    /// Count what containers' files take
    #[arg(short, long)]
    size: bool,
    /// What NAME is: container, image, volume or all
    #[arg(short = 't', long = "type", value_name = "TYPE", default_value = "all")]
    kind: String,
    /// Containers, images or volumes, by name or ID
    #[arg(required_unless_present = "latest", value_name = "NAME")]
    names: Vec<String>,
}

/// `inspect`.
pub fn run(args: InspectArgs, globals: &Globals) -> Outcome {
    match args.kind.as_str() {
        "all" | "container" | "image" | "volume" => {}
        "network" | "pod" => {
            return Err(Failure::new(format!("--type {} is not supported yet", args.kind)));
        }
        other => return Err(Failure::new(format!("--type \"{other}\": there is no such type"))),
    }
    if args.latest && !matches!(args.kind.as_str(), "all" | "container") {
        return Err(Failure::new("--latest is for containers"));
    }
    if args.size && args.kind != "all" && args.kind != "container" {
        return Err(Failure::new("--size is for containers"));
    }
    let engine = globals.engine()?;
    let names = if args.latest { vec![super::diff::newest(&engine)?] } else { args.names };
    let mut found = Vec::new();
    let mut code = 0;
    for name in &names {
        match inspect(&engine, &args.kind, name, args.size) {
            Ok(value) => found.push(value),
            Err(failure) => {
                output::error_line(&failure.message, failure.hint.as_deref());
                code = failure.code;
            }
        }
    }
    output::print(&output::values(args.format.as_deref(), found)?)?;
    Ok(code)
}

fn inspect(engine: &Engine, kind: &str, name: &str, size: bool) -> Result<Value, Failure> {
    if matches!(kind, "all" | "container") {
        let found = if size { engine.inspect_with_size(name) } else { engine.inspect(name) };
        match found {
            Ok(value) => return Ok(value),
            Err(error) if super::selection::is_missing(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if matches!(kind, "all" | "image") {
        match engine::images::inspect(&engine.store, name) {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => {}
            Err(error) => return Err(engine::Error::from(error).into()),
        }
    }
    if matches!(kind, "all" | "volume") {
        match engine.volume(name) {
            Ok(volume) => return Ok(super::volume::details(engine, &volume)),
            Err(engine::Error::NoVolume(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let what = match kind {
        "volume" => "no such volume",
        "container" => "no such container",
        "image" => "no such image",
        _ => "no such object",
    };
    Err(Failure::new(format!("inspecting \"{name}\": {what}")))
}
