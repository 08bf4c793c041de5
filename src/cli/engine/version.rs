//! `version`.

use clap::Args;
use serde_json::json;

use super::{Globals, Outcome};
use crate::cli::output;
use crate::engine::info;
use crate::image::manifest::own_architecture;

/// Show the version.
#[derive(Args, Debug, Clone)]
pub struct VersionArgs {
    /// A template or json
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

/// `version`.
pub fn run(args: VersionArgs, _globals: &Globals) -> Outcome {
    let version = env!("CARGO_PKG_VERSION");
    let text = match args.format.as_deref() {
        None => format!("Version:      {version}\nOS/Arch:      linux/{}\n", own_architecture()),
        // A template may ask for the server, which this is too; in JSON there is one only if it is another.
        Some(format) if format.contains("{{") => {
            let own = info::version_value();
            output::value(Some(format), &json!({ "Client": own, "Server": own }))?
        }
        format => output::value(format, &json!({ "Client": info::version_value() }))?,
    };
    output::print(&text)?;
    Ok(0)
}
