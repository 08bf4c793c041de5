//! `info`.

use clap::Args;

use super::{Globals, Outcome, fields};
use crate::cli::output;

/// Tell what this machine gives containers.
#[derive(Args, Debug, Clone)]
pub struct InfoArgs {
    /// A template or json
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

/// `info`.
pub fn run(args: InfoArgs, globals: &Globals) -> Outcome {
    let info = globals.engine()?.info()?;
    let text = match args.format.as_deref() {
        None => yaml(&info, 0),
        format => output::value(format, &complete(info, format))?,
    };
    output::print(&text)?;
    Ok(0)
}

/// With what a template finds in Podman, whose structures do not always call it as its JSON does.
fn complete(mut info: serde_json::Value, format: Option<&str>) -> serde_json::Value {
    if format.is_some_and(|format| format.contains("CgroupsVersion")) {
        info["host"]["CgroupsVersion"] = info["host"]["cgroupVersion"].clone();
    }
    fields::complete(info, fields::INFO, format)
}

/// The way that people read it: indented names and values.
fn yaml(value: &serde_json::Value, depth: usize) -> String {
    use serde_json::Value;
    let indent = "  ".repeat(depth);
    let scalar = |value: &Value| match value {
        Value::String(text) if text.is_empty() => "\"\"".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match value {
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| match value {
                Value::Object(inner) if !inner.is_empty() => {
                    format!("{indent}{key}:\n{}", yaml(value, depth + 1))
                }
                Value::Array(inner) if !inner.is_empty() => format!("{indent}{key}:\n{}", yaml(value, depth)),
                value => format!("{indent}{key}: {}\n", scalar(value)),
            })
            .collect(),
        Value::Array(items) => items
            .iter()
            .map(|item| match item {
                Value::Object(_) => {
                    let text = yaml(item, depth + 1);
                    format!("{indent}- {}", text.trim_start())
                }
                item => format!("{indent}- {}\n", scalar(item)),
            })
            .collect(),
        other => format!("{indent}{}\n", scalar(other)),
    }
}
