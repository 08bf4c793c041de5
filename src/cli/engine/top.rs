//! `top`.

use clap::Args;

use super::{Failure, Globals, Outcome};
use crate::cli::output;
use crate::engine::exec::ExecOptions;
use crate::engine::top;

/// List a container's processes.
#[derive(Args, Debug, Clone)]
#[command(after_help = format!("Columns: {}", top::column_names().join(" ")))]
pub struct TopArgs {
    /// The newest container
    #[arg(short, long)]
    latest: bool,
    /// The container, by name or ID, and columns; or options for the container's own ps
    #[arg(
        value_name = "CONTAINER [COLUMN…|PS-OPTION…]",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    words: Vec<String>,
}

/// `top`.
pub fn run(args: TopArgs, globals: &Globals) -> Outcome {
    let engine = globals.engine()?.by_prefix();
    let (container, words) = if args.latest {
        (Some(super::diff::newest(&engine)?), &args.words[..])
    } else {
        (args.words.first().cloned(), args.words.get(1..).unwrap_or_default())
    };
    let Some(container) = container else {
        return Err(Failure::new("you must name a container"));
    };
    let Some(columns) = top::columns(words) else {
        // As with Podman: what are no columns of ours are words for the container's own program.
        let command = [&["ps".to_owned()], words].concat();
        return Ok(engine.exec(&ExecOptions { container, command, ..ExecOptions::default() })?.unwrap_or(0));
    };
    let heading = columns.iter().map(|column| column.heading).collect::<Vec<_>>().join("\t");
    let rows = engine.top(&container, &columns)?;
    // A tab or newline of the container's must not make a cell or line of its own.
    let line =
        |cells: Vec<String>| cells.iter().map(|cell| output::one_line(cell)).collect::<Vec<_>>().join("\t");
    let lines: Vec<String> = std::iter::once(heading).chain(rows.into_iter().map(line)).collect();
    output::print(&output::table(&lines))?;
    Ok(0)
}
