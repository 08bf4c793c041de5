//! The part of YAML that `registries.d` is written in: mappings within mappings, of texts and truth
//! values, with comments. Lists, anchors, tags, several lines of text and documents are refused by
//! name, not misread.

use std::collections::BTreeMap;

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A text, a number, a truth value: as written, without its quotes.
    Text(String),
    /// Keys and values.
    Map(BTreeMap<String, Value>),
}

impl Value {
    /// The mapping; empty for a key without a value.
    pub fn map(&self) -> Option<&BTreeMap<String, Value>> {
        static EMPTY: BTreeMap<String, Value> = BTreeMap::new();
        match self {
            Self::Map(map) => Some(map),
            Self::Text(text) if matches!(text.as_str(), "" | "~" | "null" | "{}") => Some(&EMPTY),
            Self::Text(_) => None,
        }
    }
}

/// Where and why a text is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct Error {
    /// From 1.
    pub line: usize,
    /// Why.
    pub what: String,
}

struct Line<'a> {
    number: usize,
    indent: usize,
    text: &'a str,
}

/// Deeper than anybody writes.
const DEPTH: usize = 16;

/// Parses a whole file.
pub fn parse(text: &str) -> Result<Value, Error> {
    let mut lines = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let number = at + 1;
        let bare = line.trim_start_matches(' ');
        let indent = line.len() - bare.len();
        let bare = bare.trim_end();
        if bare.is_empty() || bare.starts_with('#') || (indent == 0 && bare == "---" && lines.is_empty()) {
            continue;
        }
        if bare.starts_with('\t') {
            return Err(Error { line: number, what: "a tab cannot indent".into() });
        }
        lines.push(Line { number, indent, text: bare });
    }
    let mut at = 0;
    let Some(first) = lines.first() else { return Ok(Value::Map(BTreeMap::new())) };
    let value = mapping(&lines, &mut at, first.indent, DEPTH)?;
    match lines.get(at) {
        Some(line) => {
            Err(Error { line: line.number, what: "it is indented otherwise than its neighbours".into() })
        }
        None => Ok(value),
    }
}

fn mapping(lines: &[Line<'_>], at: &mut usize, indent: usize, depth: usize) -> Result<Value, Error> {
    let mut map = BTreeMap::new();
    while let Some(line) = lines.get(*at).filter(|line| line.indent == indent) {
        let error = |what: &str| Error { line: line.number, what: what.to_owned() };
        let (key, rest) = key(line.text).ok_or_else(|| error("it is not \"key: value\""))?;
        *at += 1;
        let value = match (rest, lines.get(*at)) {
            ("", Some(next)) if next.indent > indent => {
                let depth = depth.checked_sub(1).ok_or_else(|| error("it is nested too deeply"))?;
                mapping(lines, at, next.indent, depth)?
            }
            (rest, _) => Value::Text(
                scalar(rest).ok_or_else(|| error("its value is of a kind that is not supported"))?,
            ),
        };
        if map.insert(key, value).is_some() {
            return Err(error("its key occurs twice"));
        }
    }
    Ok(Value::Map(map))
}

/// Splits at the colon behind the key: the first one that a space or the line's end follows.
fn key(text: &str) -> Option<(String, &str)> {
    if let quote @ (b'"' | b'\'') = *text.as_bytes().first()? {
        let end = text[1..].find(char::from(quote))? + 1;
        let rest = text[end + 1..].trim_start().strip_prefix(':')?;
        let whole = rest.is_empty() || rest.starts_with(' ');
        return (whole && !text[1..end].contains('\\')).then(|| (text[1..end].to_owned(), uncommented(rest)));
    }
    let end = text
        .match_indices(':')
        .map(|(at, _)| at)
        .find(|at| matches!(text.as_bytes().get(at + 1), None | Some(b' ')))?;
    let name = text[..end].trim_end();
    let plain = !name.is_empty() && !name.starts_with(SPECIAL) && !name.contains(" #");
    plain.then(|| (name.to_owned(), uncommented(&text[end + 1..])))
}

/// What gives a value another meaning if it stands first.
const SPECIAL: [char; 14] = ['-', '?', '[', ']', '{', '}', ',', '&', '*', '!', '|', '>', '%', '@'];

fn uncommented(text: &str) -> &str {
    let text = text.trim();
    if text.starts_with('#') { "" } else { text }
}

fn scalar(text: &str) -> Option<String> {
    if let Some(quote @ (b'"' | b'\'')) = text.as_bytes().first().copied() {
        let end = text[1..].find(char::from(quote))? + 1;
        let (inner, rest) = (&text[1..end], text[end + 1..].trim_start());
        let escaped = inner.contains('\\') || rest.starts_with(char::from(quote));
        return (!escaped && (rest.is_empty() || rest.starts_with('#'))).then(|| inner.to_owned());
    }
    let text = text.split(" #").next().unwrap_or(text).trim_end();
    let plain = text == "{}" || !(text.starts_with(SPECIAL) || text.contains(": ") || text.ends_with(':'));
    plain.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_registries_d_is_written_in() {
        let text = "# comment\n---\ndocker:\n    localhost:5000:\n        lookaside: https://x/y#z # why\n        \
                    use-sigstore-attachments: true\n\n    \"quoted.io\":\n      sigstore: 'file:///a b'\n    *x: 1\n";
        assert!(parse(text).is_err(), "an alias");
        let value = parse(&text.replace("    *x: 1\n", "default-docker: {}\n")).unwrap();
        let map = value.map().unwrap();
        let docker = map["docker"].map().unwrap();
        let local = docker["localhost:5000"].map().unwrap();
        assert_eq!(local["lookaside"], Value::Text("https://x/y#z".into()));
        assert_eq!(local["use-sigstore-attachments"], Value::Text("true".into()));
        assert_eq!(docker["quoted.io"].map().unwrap()["sigstore"], Value::Text("file:///a b".into()));
        assert!(map["default-docker"].map().unwrap().is_empty());
        assert!(parse("# nothing\n").unwrap().map().unwrap().is_empty());
    }

    #[test]
    fn what_is_not_understood() {
        for (text, line) in [
            ("a:\n  - b", 2),
            ("a: [b]", 1),
            ("a: {b: c}", 1),
            ("a: |\n  b", 1),
            ("a: &x b", 1),
            ("a: b\n  c: d", 2),
            ("a:\n    b: c\n  d: e", 3),
            ("a: b: c", 1),
            ("a", 1),
            ("a: \"b\\n\"", 1),
            ("a: 'it''s'", 1),
            ("a: 1\na: 2", 2),
            ("\ta: 1", 1),
            ("a: 1\n---\nb: 2", 2),
            ("a:\n", 0),
        ] {
            match parse(text) {
                Err(error) => assert_eq!(error.line, line, "{text}: {error}"),
                Ok(value) => assert!(line == 0, "{text}: {value:?}"),
            }
        }
        let deep: String = (0..100).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
        assert!(parse(&deep).unwrap_err().what.contains("deeply"));
    }
}
