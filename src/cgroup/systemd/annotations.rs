//! Properties of the container's unit that its configuration asks for by annotations, as runc reads
//! them: `org.systemd.property.NAME` with a value in GVariant's text form. Pure.

use std::collections::HashMap;

use super::Error;
use super::message::Value;

const PREFIX: &str = "org.systemd.property.";

/// The properties, sorted by name.
pub(super) fn properties(annotations: &HashMap<String, String>) -> Result<Vec<(String, Value)>, Error> {
    let mut list = Vec::new();
    for (key, text) in annotations {
        let Some(name) = key.strip_prefix(PREFIX) else { continue };
        let error = |reason| Error::Annotation { name: key.clone(), reason };
        let letters = name.bytes().all(|b| b.is_ascii_alphabetic());
        if name.len() < 3 || !letters || !name.starts_with(|c: char| c.is_ascii_uppercase()) {
            return Err(error("it is not the name of a property"));
        }
        let value = parse(text.trim()).ok_or_else(|| error("its value is not in GVariant's text form"))?;
        list.push(match name.strip_suffix("Sec").filter(|_| !name.ends_with("USec")) {
            None => (name.to_owned(), value),
            // systemd itself takes microseconds only.
            Some(stem) => {
                let seconds = match value {
                    Value::I32(seconds) => u64::try_from(seconds).ok(),
                    Value::U32(seconds) => Some(u64::from(seconds)),
                    Value::U64(seconds) => Some(seconds),
                    _ => None,
                };
                let microseconds = seconds.and_then(|seconds| seconds.checked_mul(1_000_000));
                let microseconds = microseconds.ok_or_else(|| error("it is no number of seconds"))?;
                (format!("{stem}USec"), Value::U64(microseconds))
            }
        });
    }
    list.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(list)
}

/// Texts, truth values, whole numbers, and lists of texts.
fn parse(text: &str) -> Option<Value> {
    match text {
        "true" => return Some(Value::Bool(true)),
        "false" => return Some(Value::Bool(false)),
        "@as []" => return Some(Value::Array("s", Vec::new())),
        _ => {}
    }
    if let Some((kind, number)) = text.split_once(' ')
        && let Some(value) = match kind {
            "uint64" => number.trim().parse().ok().map(Value::U64),
            "uint32" => number.trim().parse().ok().map(Value::U32),
            "int32" => number.trim().parse().ok().map(Value::I32),
            _ => None,
        }
    {
        return Some(value);
    }
    if let Ok(number) = text.parse() {
        return Some(Value::I32(number));
    }
    if let Some(inside) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let mut items = Vec::new();
        let mut rest = inside.trim();
        while !rest.is_empty() {
            let (item, after) = quoted(rest)?;
            items.push(Value::Text(item));
            rest = after.trim_start();
            match rest.strip_prefix(',') {
                Some(next) if !next.trim().is_empty() => rest = next.trim_start(),
                Some(_) => return None,
                None if rest.is_empty() => {}
                None => return None,
            }
        }
        // An empty one has no type.
        return (!items.is_empty()).then_some(Value::Array("s", items));
    }
    quoted(text).filter(|(_, rest)| rest.is_empty()).map(|(text, _)| Value::Text(text))
}

/// A text in quotes at the start, and what comes after it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let mut result = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => result.push(match chars.next()?.1 {
                'n' => '\n',
                't' => '\t',
                other => other,
            }),
            c if c == quote => return Some((result, &text[at + c.len_utf8()..])),
            c => result.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, value: &str) -> Result<Vec<(String, Value)>, Error> {
        properties(&HashMap::from([(format!("{PREFIX}{name}"), value.to_owned()), ("x".into(), "y".into())]))
    }

    #[test]
    fn values_are_read() {
        let text = |text: &str| Value::text(text);
        for (value, expected) in [
            ("true", Value::Bool(true)),
            ("uint64 123", Value::U64(123)),
            ("7", Value::I32(7)),
            ("'inactive-or-failed'", text("inactive-or-failed")),
            (r#""it\'s""#, text("it's")),
            ("['a', 'b']", Value::Array("s", vec![text("a"), text("b")])),
            ("@as []", Value::Array("s", vec![])),
        ] {
            assert_eq!(of("CollectMode", value).unwrap(), [("CollectMode".to_owned(), expected)], "{value}");
        }
        assert_eq!(
            of("TimeoutStopSec", "3").unwrap(),
            [("TimeoutStopUSec".to_owned(), Value::U64(3_000_000))]
        );
        assert_eq!(
            of("TimeoutStopUSec", "uint64 3").unwrap(),
            [("TimeoutStopUSec".to_owned(), Value::U64(3))]
        );
    }

    #[test]
    fn nonsense_is_refused() {
        for (name, value) in [
            ("collectMode", "'x'"),
            ("Co", "'x'"),
            ("Collect-Mode", "'x'"),
            ("CollectMode", "x"),
            ("CollectMode", "'x"),
            ("CollectMode", "'x' y"),
            ("CollectMode", "['x',]"),
            ("CollectMode", "[]"),
            ("TimeoutStopSec", "'x'"),
            ("TimeoutStopSec", "-3"),
        ] {
            assert!(of(name, value).is_err(), "{name}={value}");
        }
    }
}
