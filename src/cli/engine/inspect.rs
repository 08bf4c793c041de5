//! `inspect`.

use clap::Args;
use serde_json::Value;

use super::{Failure, Globals, Outcome, fields};
use crate::cli::output;
use crate::engine;
use crate::engine::Engine;

/// Show everything about a container, an image, a volume or a network.
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
    /// What NAME is: container, image, volume, network or all
    #[arg(short = 't', long = "type", value_name = "TYPE", default_value = "all")]
    kind: String,
    /// Containers, images, volumes or networks, by name or ID
    #[arg(required_unless_present = "latest", value_name = "NAME")]
    names: Vec<String>,
}

/// `inspect`.
pub fn run(args: InspectArgs, globals: &Globals) -> Outcome {
    match args.kind.as_str() {
        "all" | "container" | "image" | "volume" | "network" => {}
        "pod" => {
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
    let names = if args.latest { vec![super::diff::newest(&engine)?] } else { args.names.clone() };
    let mut found = Vec::new();
    let mut code = 0;
    for name in &names {
        match inspect(&engine, &args, name) {
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

fn inspect(engine: &Engine, args: &InspectArgs, name: &str) -> Result<Value, Failure> {
    let (kind, format) = (args.kind.as_str(), args.format.as_deref());
    if matches!(kind, "all" | "container") {
        let found = if args.size { engine.inspect_with_size(name) } else { engine.inspect(name) };
        match found {
            Ok(value) => return Ok(fields::complete(value, fields::CONTAINER, format)),
            Err(error) if super::selection::is_missing(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if matches!(kind, "all" | "image") {
        match engine::images::inspect(&engine.store, name) {
            Ok(Some(value)) => return Ok(fields::complete(value, fields::IMAGE, format)),
            Ok(None) => {}
            Err(error) => return Err(engine::Error::from(error).into()),
        }
    }
    if matches!(kind, "all" | "volume") {
        match engine.volume(name) {
            Ok(volume) => return Ok(super::volume::details(engine, &volume, format)),
            Err(engine::Error::NoVolume(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if matches!(kind, "all" | "network") {
        match engine.find_network(name) {
            Ok(network) => return Ok(super::network::details(engine, &network, format)),
            Err(engine::Error::Network(engine::network::Error::Unknown(_))) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let what = match kind {
        "network" => "no such network",
        "volume" => "no such volume",
        "container" => "no such container",
        "image" => "no such image",
        _ => "no such object",
    };
    Err(Failure::new(format!("inspecting \"{name}\": {what}")))
}
