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
    /// What NAME is: container, image or all
    #[arg(short = 't', long = "type", value_name = "TYPE", default_value = "all")]
    kind: String,
    /// Containers or images, by name or ID
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// `inspect`.
pub fn run(args: InspectArgs, globals: &Globals) -> Outcome {
    if !["all", "container", "image"].contains(&args.kind.as_str()) {
        return Err(Failure::new(format!("--type {} is not supported yet", args.kind)));
    }
    let engine = globals.engine()?;
    let mut found = Vec::new();
    let mut code = 0;
    for name in &args.names {
        match inspect(&engine, &args.kind, name) {
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

fn inspect(engine: &Engine, kind: &str, name: &str) -> Result<Value, Failure> {
    if kind != "image" {
        match engine.inspect(name) {
            Ok(value) => return Ok(value),
            Err(error) if super::selection::is_missing(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if kind != "container" {
        match engine::images::inspect(&engine.store, name) {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => {}
            Err(error) => return Err(engine::Error::from(error).into()),
        }
    }
    let what = match kind {
        "container" => "no such container",
        "image" => "no such image",
        _ => "no such object",
    };
    Err(Failure::new(format!("inspecting \"{name}\": {what}")))
}
