//! The part of Go's `text/template` that `--format` needs, over JSON values.
//!
//! Supported: text, fields (`.A.B`, `$x.A`), variables, pipelines, `if`/`else if`, `range` (with
//! `break`, `continue`, `else`), `with`, comments, trim markers, Go's constants, and the functions
//! of [`text/template`](https://pkg.go.dev/text/template) and of Podman: `json`, `join`, `split`,
//! `lower`, `upper`, `title`, `truncate`, `pad`. Not supported, and refused at parse time:
//! `define`, `template`, `block`.
//!
//! JSON has no types, so two of Go's rules are kept by looking at the value. Field names match
//! exactly, or else (for a capitalised name, which in Go names a struct's field) without regard
//! to case, since Go's names and the JSON keys of one field may differ (`.ID` and `"Id"`). A
//! capitalised name that is missing from an object whose keys are all plain identifiers is an
//! error, as it is with a struct in Go; any other missing name is a map's missing key and prints
//! `<no value>`.

mod error;
mod eval;
mod functions;
mod lex;
mod parse;
mod print;

pub use error::{Error, ParseProblem, RenderProblem};

use serde_json::Value;

/// A parsed template.
#[derive(Debug, Clone)]
pub struct Template {
    nodes: Vec<parse::Node>,
}

impl Template {
    /// Parses `text`; the error tells line and column (from 1, in characters).
    pub fn parse(text: &str) -> Result<Self, Error> {
        Ok(Self { nodes: parse::parse(text)? })
    }

    /// Renders with `data` as `.` and `$`.
    pub fn render(&self, data: &Value) -> Result<String, Error> {
        eval::render(&self.nodes, data)
    }
}

#[cfg(test)]
mod tests;
