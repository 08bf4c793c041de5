//! `list`.

use serde_json::Value;

use super::args::{Known, Parsed, UsageError};
use super::common::state_value;
use super::{Done, Global, print};
use crate::runtime::state::{self, Dir};

pub(super) const OPTIONS: &[Known] = &[("format", Some('f'), true), ("quiet", Some('q'), false)];

pub(super) fn list(global: &Global, parsed: &Parsed) -> Done {
    let mut values = Vec::new();
    for id in state::list(&global.root)? {
        let dir = Dir::new(&global.root, &id)?;
        match dir.read() {
            Ok(record) => values.push(state_value(&dir, &record)?),
            // Deleted just now.
            Err(state::Error::NotFound(_)) => {}
            // One that cannot be read does not hide the others.
            Err(error) => global.log.warn(&crate::base::report::chain(&error)),
        }
    }
    let field = |value: &Value, name: &str| {
        value[name].as_str().map_or_else(|| value[name].to_string(), str::to_owned)
    };
    match (parsed.has("quiet"), parsed.value("format")) {
        (true, _) => print(&values.iter().map(|v| field(v, "id") + "\n").collect::<String>()),
        (false, Some("json")) => print(&format!("{}\n", Value::Array(values))),
        (false, None | Some("table")) => {
            let names = ["id", "pid", "status", "bundle", "created"];
            let rows: Vec<Vec<String>> = std::iter::once(names.map(str::to_uppercase).to_vec())
                .chain(values.iter().map(|v| names.map(|name| field(v, name)).to_vec()))
                .collect();
            let widths: Vec<usize> = (0..names.len())
                .map(|i| rows.iter().map(|row| row[i].len()).max().unwrap_or(0).max(8))
                .collect();
            let line = |row: &Vec<String>| {
                let cells: String =
                    row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}   ")).collect();
                cells.trim_end().to_owned() + "\n"
            };
            print(&rows.iter().map(line).collect::<String>())
        }
        (false, Some(other)) => {
            Err(UsageError::Invalid { option: "--format", value: other.to_owned() }.into())
        }
    }
}
