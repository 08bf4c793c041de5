//! The functions that a template may call. `and` and `or` stand in `eval`: they do not evaluate
//! all their arguments.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde_json::Value;

use super::error::RenderProblem;
use super::print;

type Result<T = Value> = std::result::Result<T, RenderProblem>;

const NAMES: &[&str] = &[
    "and", "or", "not", "eq", "ne", "lt", "le", "gt", "ge", "len", "index", "slice", "print", "printf",
    "println", "html", "urlquery", "json", "join", "split", "lower", "upper", "title", "truncate", "pad",
];

/// What `.Label "NAME"` becomes, called with the map of labels: its entry, or the empty text.
pub const LABEL: &str = ".Label";

/// Whether a function of this name exists.
pub fn is_known(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Go's truth: not the zero value, not empty.
pub fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(b) => *b,
        Value::Number(n) => n.as_f64() != Some(0.0),
        Value::String(s) => !s.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// Calls a function.
pub fn call(name: &str, arguments: &[Cow<'_, Value>]) -> Result {
    let values: Vec<&Value> = arguments.iter().map(AsRef::as_ref).collect();
    match name {
        LABEL => {
            let (labels, name) = two(&values)?;
            let found = labels.get(string(name)?);
            Ok(found.cloned().unwrap_or_else(|| "".into()))
        }
        "not" => one(&values).map(|value| Value::Bool(!truth(value))),
        "eq" => {
            let Some((first, others)) = values.split_first().filter(|(_, others)| !others.is_empty()) else {
                return Err(count("two arguments or more", &values));
            };
            for other in others {
                if equal(first, other)? {
                    return Ok(Value::Bool(true));
                }
            }
            Ok(Value::Bool(false))
        }
        "ne" => two(&values).and_then(|(a, b)| equal(a, b)).map(|equal| Value::Bool(!equal)),
        "lt" | "le" | "gt" | "ge" => {
            let (a, b) = two(&values)?;
            let order = order(a, b)?;
            Ok(Value::Bool(match name {
                "lt" => order.is_lt(),
                "le" => order.is_le(),
                "gt" => order.is_gt(),
                _ => order.is_ge(),
            }))
        }
        "len" => length(one(&values)?),
        "index" => index(&values),
        "slice" => slice(&values),
        "print" => Ok(print::print(&values).into()),
        "println" => Ok(print::println(&values).into()),
        "printf" => match values.split_first() {
            Some((format, values)) => Ok(print::printf(string(format)?, values).into()),
            None => Err(count("a format and values", &values)),
        },
        "html" => Ok(escape_html(&print::print(&values)).into()),
        "urlquery" => Ok(escape_query(&print::print(&values)).into()),
        "json" => one(&values).map(|value| value.to_string().into()),
        "join" => {
            let (list, separator) = two(&values)?;
            let Value::Array(items) = list else { return Err(wrong("list", list)) };
            let items: Vec<String> = items.iter().map(print::plain).collect();
            Ok(items.join(string(separator)?).into())
        }
        "split" => {
            let (text, separator) = two(&values)?;
            Ok(split(string(text)?, string(separator)?))
        }
        "lower" => one(&values).and_then(string).map(|text| text.to_lowercase().into()),
        "upper" => one(&values).and_then(string).map(|text| text.to_uppercase().into()),
        "title" => one(&values).and_then(string).map(|text| title(text).into()),
        "truncate" => {
            let (text, length) = two(&values)?;
            let (text, length) = (string(text)?, size(length)?);
            Ok(text.chars().take(length).collect::<String>().into())
        }
        "pad" => match values.as_slice() {
            [text, before, after] => {
                let (text, before, after) = (string(text)?, size(before)?, size(after)?);
                // Podman leaves an empty text empty.
                let padded = format!("{}{text}{}", " ".repeat(before), " ".repeat(after));
                Ok(if text.is_empty() { "".into() } else { padded.into() })
            }
            _ => Err(count("a text and two numbers", &values)),
        },
        // The parser lets only the names above through.
        _ => Ok(Value::Null),
    }
}

fn count(want: &'static str, values: &[&Value]) -> RenderProblem {
    RenderProblem::ArgumentCount { want, got: values.len() }
}

fn wrong(want: &'static str, value: &Value) -> RenderProblem {
    RenderProblem::ArgumentKind { want, got: print::kind(value) }
}

fn one<'v>(values: &[&'v Value]) -> Result<&'v Value> {
    match values {
        [value] => Ok(value),
        _ => Err(count("one argument", values)),
    }
}

fn two<'v>(values: &[&'v Value]) -> Result<(&'v Value, &'v Value)> {
    match values {
        [a, b] => Ok((a, b)),
        _ => Err(count("two arguments", values)),
    }
}

fn string(value: &Value) -> Result<&str> {
    value.as_str().ok_or_else(|| wrong("string", value))
}

/// A count of characters; more than any column is wide makes no sense.
fn size(value: &Value) -> Result<usize> {
    let size = value.as_u64().ok_or_else(|| wrong("number, not negative", value))?;
    Ok(usize::try_from(size).unwrap_or(usize::MAX).min(10_000))
}

fn equal(a: &Value, b: &Value) -> Result<bool> {
    match (a, b) {
        (Value::Number(_), Value::Number(_)) => order(a, b).map(Ordering::is_eq),
        (Value::String(a), Value::String(b)) => Ok(a == b),
        (Value::Bool(a), Value::Bool(b)) => Ok(a == b),
        // A missing key compares like nil.
        (Value::Null, _) | (_, Value::Null) => Ok(a == b),
        _ => Err(RenderProblem::Incomparable(print::kind(a), print::kind(b))),
    }
}

fn order(a: &Value, b: &Value) -> Result<Ordering> {
    let incomparable = || RenderProblem::Incomparable(print::kind(a), print::kind(b));
    match (a, b) {
        (Value::String(a), Value::String(b)) => Ok(a.cmp(b)),
        (Value::Number(x), Value::Number(y)) => match (x.as_i128(), y.as_i128()) {
            (Some(x), Some(y)) => Ok(x.cmp(&y)),
            _ => x.as_f64().zip(y.as_f64()).and_then(|(x, y)| x.partial_cmp(&y)).ok_or_else(incomparable),
        },
        _ => Err(incomparable()),
    }
}

fn length(value: &Value) -> Result {
    match value {
        Value::String(s) => Ok(s.len().into()),
        Value::Array(items) => Ok(items.len().into()),
        Value::Object(map) => Ok(map.len().into()),
        _ => Err(wrong("string, list or map", value)),
    }
}

fn index(values: &[&Value]) -> Result {
    let Some((first, keys)) = values.split_first() else {
        return Err(count("a list or map and its keys", values));
    };
    let mut value = *first;
    for key in keys {
        value = match value {
            Value::Array(items) => {
                let index = key.as_i64().ok_or_else(|| wrong("number", key))?;
                let out_of_range = RenderProblem::IndexOutOfRange { index, len: items.len() };
                usize::try_from(index).ok().and_then(|at| items.get(at)).ok_or(out_of_range)?
            }
            Value::Object(map) => match map.get(string(key)?) {
                Some(value) => value,
                // In Go the missing element of a map of strings is an empty string.
                None if !map.is_empty() && map.values().all(Value::is_string) => return Ok("".into()),
                None => return Ok(Value::Null),
            },
            Value::String(text) => {
                let index = key.as_i64().ok_or_else(|| wrong("number", key))?;
                let out_of_range = RenderProblem::IndexOutOfRange { index, len: text.len() };
                let byte = usize::try_from(index).ok().and_then(|at| text.as_bytes().get(at));
                return byte.map(|byte| (*byte).into()).ok_or(out_of_range);
            }
            other => return Err(wrong("list or map", other)),
        };
    }
    Ok(value.clone())
}

fn slice(values: &[&Value]) -> Result {
    let Some((value, bounds)) = values.split_first().filter(|(_, bounds)| bounds.len() <= 2) else {
        return Err(count("a list or string and two bounds", values));
    };
    let len = match value {
        Value::Array(items) => items.len(),
        Value::String(text) => text.len(),
        _ => return Err(wrong("list or string", value)),
    };
    let bound = |at: usize, default: usize| match bounds.get(at) {
        None => Ok(default),
        Some(value) => {
            let index = value.as_i64().ok_or_else(|| wrong("number", value))?;
            let out_of_range = RenderProblem::IndexOutOfRange { index, len };
            usize::try_from(index).ok().filter(|at| *at <= len).ok_or(out_of_range)
        }
    };
    let (from, to) = (bound(0, 0)?, bound(1, len)?);
    if from > to {
        return Err(RenderProblem::IndexOutOfRange { index: from as i64, len: to });
    }
    Ok(match value {
        Value::Array(items) => Value::Array(items[from..to].to_vec()),
        Value::String(text) => String::from_utf8_lossy(&text.as_bytes()[from..to]).into(),
        _ => Value::Null,
    })
}

/// Go's `strings.Split`: an empty separator splits into characters.
fn split(text: &str, separator: &str) -> Value {
    if separator.is_empty() {
        return text.chars().map(String::from).collect();
    }
    text.split(separator).map(str::to_owned).collect()
}

/// Each word's first letter in upper case.
fn title(text: &str) -> String {
    let mut start = true;
    text.chars()
        .flat_map(|c| {
            let upper = start && c.is_lowercase();
            start = !(c.is_alphanumeric() || c == '_' || c == '\'');
            if upper { c.to_uppercase().collect::<Vec<_>>() } else { vec![c] }
        })
        .collect()
}

fn escape_html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            '\0' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

fn escape_query(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' ' => out.push('+'),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte as char),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
