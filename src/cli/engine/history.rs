//! `history`, `image tree`.

use clap::{ArgAction, Args};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::{Failure, Globals, Outcome};
use crate::base::{size, time};
use crate::cli::output::{self, Listing};
use crate::engine::images::{HistoryEntry, TreeLayer};

/// Show how an image was made.
#[derive(Args, Debug, Clone)]
pub struct HistoryArgs {
    /// Show in this form: json, table TEMPLATE or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show sizes and times for people
    #[arg(short = 'H', long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value = "true",
          default_missing_value = "true", action = ArgAction::Set)]
    human: bool,
    /// Do not shorten IDs and commands
    #[arg(long)]
    no_trunc: bool,
    /// Show only IDs
    #[arg(short, long)]
    quiet: bool,
    /// The image, by name or ID
    image: String,
}

/// Show an image's layers.
#[derive(Args, Debug, Clone)]
pub struct TreeArgs {
    /// Show the layers that stand on the image instead
    #[arg(long)]
    whatrequires: bool,
    /// The image, by name or ID
    image: String,
}

/// What stands for the id of a step whose image is not here.
const MISSING: &str = "<missing>";

/// The characters of a command that are shown.
const COMMAND: usize = 45;

/// Podman's JSON of a step, with its two times.
#[derive(Serialize)]
struct Step<'a> {
    id: String,
    created: &'a str,
    #[serde(rename = "CreatedBy", skip_serializing_if = "str::is_empty")]
    created_by: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    tags: &'a [String],
    size: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    comment: &'a str,
    #[serde(rename = "Created")]
    created_to_the_second: String,
}

/// Shows an image's history.
pub fn run(args: HistoryArgs, globals: &Globals) -> Outcome {
    let entries = globals.engine()?.image_history(&args.image);
    let entries = entries.map_err(|error| Failure::from(error).with_code(125))?;
    let format = args.format.as_deref().map(str::trim);
    if !args.quiet && matches!(format, Some("json" | "{{json .}}" | "{{ json . }}")) {
        let steps: Vec<Step<'_>> = entries.iter().map(step).collect();
        let text = serde_json::to_string(&steps).map_err(|error| Failure::new(error.to_string()))?;
        output::println(&text)?;
        return Ok(0);
    }
    let now = Timestamp::now();
    let rows: Vec<Value> = entries.iter().map(|entry| row(entry, &args, now)).collect();
    let default = "{{.ID}}\t{{.Created}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}";
    let listing = Listing { default, headers: &[("Tags", "TAGS")] };
    let format = if args.quiet { Some("{{.ID}}") } else { args.format.as_deref() };
    output::print(&listing.render(format, true, &rows)?)?;
    Ok(0)
}

fn id(entry: &HistoryEntry) -> String {
    entry.image.map_or_else(|| MISSING.to_owned(), |id| id.hex())
}

/// The zero of Go's clock stands for a time that is not known.
const UNKNOWN: &str = "0001-01-01T00:00:00Z";

fn to_the_second(created: Option<&str>) -> String {
    let time = created.and_then(|text| text.parse::<Timestamp>().ok());
    time.map_or_else(|| UNKNOWN.to_owned(), |time| format!("{time:.0}"))
}

fn step(entry: &HistoryEntry) -> Step<'_> {
    Step {
        id: id(entry),
        created: entry.created.as_deref().unwrap_or(UNKNOWN),
        created_by: &entry.created_by,
        tags: &entry.names,
        size: entry.size,
        comment: &entry.comment,
        created_to_the_second: to_the_second(entry.created.as_deref()),
    }
}

fn row(entry: &HistoryEntry, args: &HistoryArgs, now: Timestamp) -> Value {
    let whole = id(entry);
    let short = |text: &str, length: usize| text.chars().take(length).collect::<String>();
    let id = if args.no_trunc || entry.image.is_none() { whole } else { short(&whole, 12) };
    // A step may be a script of many lines.
    let by = output::one_line(&entry.created_by);
    let whole = args.no_trunc || by.chars().count() <= COMMAND;
    let command = if whole { by } else { short(&by, COMMAND - 3) + "..." };
    let exact = to_the_second(entry.created.as_deref());
    let created = match entry.created.as_deref().and_then(|text| text.parse::<Timestamp>().ok()) {
        Some(time) if args.human => time::ago(time, now),
        _ => exact.clone(),
    };
    json!({
        "ID": id,
        "Created": created,
        "CreatedSince": created,
        "CreatedAt": exact,
        "CreatedBy": command,
        "Size": size::human(entry.size),
        "Comment": entry.comment,
        "Tags": entry.names,
    })
}

/// Draws an image's layers.
pub fn tree(args: TreeArgs, globals: &Globals) -> Outcome {
    let found = globals.engine()?.image_tree(&args.image, args.whatrequires);
    let (image, layers) = found.map_err(|error| Failure::from(error).with_code(125))?;
    let mut text = format!(
        "Image ID: {}\nTags:     [{}]\nSize:     {}\n{}\n",
        image.id.short(),
        image.names.join(" "),
        size::human_exact(image.size),
        if layers.is_empty() { "No Image Layers" } else { "Image Layers" },
    );
    draw(&layers, "", &mut text);
    // Podman leaves a line empty.
    output::println(&output::visible(&text))?;
    Ok(0)
}

/// Draws layers as a tree. One that stands alone on another is drawn beside it, not deeper: else a
/// pile of a hundred layers would walk out of the screen.
fn draw(layers: &[TreeLayer], indent: &str, text: &mut String) {
    let mut row: Vec<&TreeLayer> = Vec::new();
    for layer in layers {
        let mut layer = layer;
        row.push(layer);
        while let [only] = layer.children.as_slice() {
            row.push(only);
            layer = only;
        }
    }
    for (place, layer) in row.iter().enumerate() {
        let last = place + 1 == row.len();
        let top = match layer.names.as_slice() {
            [] => String::new(),
            names => format!(" Top Layer of: [{}]", names.join(" ")),
        };
        let size = size::human_exact(layer.size);
        let id = &layer.chain_id.0.hex()[..12];
        let branch = if last { "└── " } else { "├── " };
        text.push_str(&format!("{indent}{branch}ID: {id} Size: {size:>7}{top}\n"));
        if layer.children.len() > 1 {
            let deeper = format!("{indent}{}", if last { "    " } else { "│   " });
            draw(&layer.children, &deeper, text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::digest::{ChainId, Digest};

    #[test]
    fn a_tree_is_drawn() {
        let layer = |name: &str, children| TreeLayer {
            chain_id: ChainId(Digest::of(name.as_bytes())),
            size: 1234,
            names: if name.len() > 1 { vec![name.to_owned()] } else { Vec::new() },
            children,
        };
        let forked = layer("a", vec![layer("b", vec![layer("top", vec![])]), layer("other", vec![])]);
        let mut text = String::new();
        draw(&[layer("0", vec![forked])], "", &mut text);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 5);
        assert!(lines[0].starts_with("├── ID: ") && lines[0].ends_with(" Size: 1.234kB"), "{text}");
        assert!(lines[1].starts_with("└── ID: "), "{text}");
        assert!(lines[2].starts_with("    ├── ID: "), "{text}");
        assert!(lines[3].ends_with(" Top Layer of: [top]"), "{text}");
        assert!(
            lines[4].starts_with("    └── ID: ") && lines[4].ends_with(" Top Layer of: [other]"),
            "{text}"
        );
    }
}
