//! Lines of a Dockerfile: directives, comments, instructions that go on over several lines.

use super::{Error, Problem};

/// An instruction in one line.
pub(super) struct Logical {
    /// Its first line, from 1.
    pub line: usize,
    pub text: String,
    /// A line within it is empty, which may be an oversight.
    pub gap: bool,
}

/// Reads a text line by line.
pub(super) struct Lines<'t> {
    rest: &'t str,
    /// How many lines are read.
    read: usize,
    pub escape: char,
}

impl<'t> Lines<'t> {
    /// Begins with a text that is known to be one: reads its directives.
    pub fn new(text: &'t str) -> Result<Self, Error> {
        let mut lines = Self { rest: text.strip_prefix('\u{feff}').unwrap_or(text), read: 0, escape: '\\' };
        lines.directives()?;
        Ok(lines)
    }

    /// Those of one instruction, which has no directives.
    pub fn plain(text: &'t str, escape: char) -> Self {
        Self { rest: text, read: 0, escape }
    }

    /// How many lines are read, at least 1: where an error belongs that is the whole file's.
    pub fn line(&self) -> usize {
        self.read.max(1)
    }

    /// The next line with its end.
    pub fn next_raw(&mut self) -> Option<&'t str> {
        if self.rest.is_empty() {
            return None;
        }
        let end = self.rest.find('\n').map_or(self.rest.len(), |at| at + 1);
        let (line, rest) = self.rest.split_at(end);
        self.rest = rest;
        self.read += 1;
        Some(line)
    }

    /// `# name=value` before everything else. The first line that is none, or that nobody knows, ends them, as does
    /// an empty one.
    fn directives(&mut self) -> Result<(), Error> {
        let mut seen: Vec<String> = Vec::new();
        loop {
            let before = (self.rest, self.read);
            let Some((name, value)) = self.next_raw().and_then(directive) else {
                (self.rest, self.read) = before;
                return Ok(());
            };
            let error = |problem| Error { line: before.1 + 1, problem };
            if seen.contains(&name) {
                return Err(error(Problem::DirectiveTwice(name)));
            }
            if name == "escape" {
                self.escape = match value {
                    "\\" => '\\',
                    "`" => '`',
                    other => return Err(error(Problem::Escape(other.to_owned()))),
                };
            }
            seen.push(name);
        }
    }

    /// The next instruction. Comments are skipped, also between its lines.
    pub fn next(&mut self) -> Option<Logical> {
        loop {
            let first = self.next_raw()?.trim();
            if first.is_empty() || first.starts_with('#') {
                continue;
            }
            let line = self.read;
            let (start, mut goes_on) = continued(first, self.escape);
            let mut logical = Logical { line, text: start.to_owned(), gap: false };
            while goes_on {
                let Some(raw) = self.next_raw() else { break };
                let raw = raw.trim_end_matches(['\n', '\r']);
                let begin = raw.trim_start();
                if begin.starts_with('#') {
                    continue;
                }
                if begin.is_empty() {
                    logical.gap = true;
                    continue;
                }
                let part;
                (part, goes_on) = continued(raw, self.escape);
                logical.text.push_str(part);
            }
            // A lone escape character is nothing.
            if !logical.text.trim().is_empty() {
                return Some(logical);
            }
        }
    }
}

/// Name (in small letters) and value of a directive that is known. `syntax` names another builder's parser and `check`
/// another's advice: neither changes what the file means.
fn directive(line: &str) -> Option<(String, &str)> {
    let (name, value) = line.trim().strip_prefix('#')?.split_once('=')?;
    let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
    (matches!(&*name, "escape" | "syntax" | "check") && !value.is_empty()).then_some((name, value))
}

/// A line without the escape character that makes it go on, and whether it has one. Two of them are one that is
/// protected.
fn continued(line: &str, escape: char) -> (&str, bool) {
    let trimmed = line.trim_end_matches([' ', '\t', '\r']);
    match trimmed.strip_suffix(escape) {
        Some(part) if !part.ends_with(escape) => (part, true),
        _ => (line, false),
    }
}
