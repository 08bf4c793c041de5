//! How Go's `fmt` prints values: `%v` and the verbs of `printf`.

use serde_json::{Number, Value};

/// Widths and precisions beyond this are cut: they come from the user's template and would
/// otherwise ask for gigabytes.
const MAX_WIDTH: usize = 10_000;

/// The kind of a value, as error messages name it.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nil",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "list",
        Value::Object(_) => "map",
    }
}

/// A pipeline's result as the template prints it.
pub fn result(value: &Value) -> String {
    if value.is_null() { "<no value>".to_owned() } else { plain(value) }
}

/// `%v`.
pub fn plain(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::Bool(b) => b.to_string(),
        Value::Number(n) => number(n),
        Value::String(s) => s.clone(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(plain).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Object(map) => {
            let mut pairs: Vec<_> = map.iter().collect();
            pairs.sort_by_key(|(key, _)| *key);
            let pairs: Vec<String> =
                pairs.iter().map(|(key, value)| format!("{key}:{}", plain(value))).collect();
            format!("map[{}]", pairs.join(" "))
        }
    }
}

fn number(number: &Number) -> String {
    match number.as_f64() {
        Some(float) if number.is_f64() => general(float),
        _ => number.to_string(),
    }
}

/// Go's `%v` of a float: the shortest digits, with an exponent below 1e-4 and from 1e21 on.
fn general(float: f64) -> String {
    let size = float.abs();
    if size != 0.0 && !(1e-4..1e21).contains(&size) {
        exponent(&format!("{float:e}"))
    } else {
        float.to_string()
    }
}

/// Rust writes `1e-7`, Go `1e-07`.
fn exponent(text: &str) -> String {
    let Some((digits, power)) = text.split_once('e') else { return text.to_owned() };
    let (sign, power) = match power.strip_prefix('-') {
        Some(power) => ('-', power),
        None => ('+', power),
    };
    format!("{digits}e{sign}{power:0>2}")
}

/// Go's `print`: a space between two values of which neither is a string.
pub fn print(values: &[&Value]) -> String {
    let mut text = String::new();
    for (i, value) in values.iter().enumerate() {
        if i > 0 && !value.is_string() && !values[i - 1].is_string() {
            text.push(' ');
        }
        text.push_str(&plain(value));
    }
    text
}

/// Go's `println`: spaces between all.
pub fn println(values: &[&Value]) -> String {
    let values: Vec<String> = values.iter().map(|value| plain(value)).collect();
    values.join(" ") + "\n"
}

#[derive(Default)]
struct Flags {
    minus: bool,
    plus: bool,
    zero: bool,
    space: bool,
    sharp: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

/// Go's `printf`, with its own notation for what is wrong: `%!d(string=x)`, `%!s(MISSING)`.
pub fn printf(format: &str, values: &[&Value]) -> String {
    let mut text = String::new();
    let mut values_left = values.iter().copied();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            text.push(c);
            continue;
        }
        let mut flags = Flags::default();
        while let Some(flag) = chars.next_if(|c| "-+0 #".contains(*c)) {
            match flag {
                '-' => flags.minus = true,
                '+' => flags.plus = true,
                '0' => flags.zero = true,
                ' ' => flags.space = true,
                _ => flags.sharp = true,
            }
        }
        flags.width = count(&mut chars, &mut values_left, &mut flags.minus);
        if chars.next_if_eq(&'.').is_some() {
            flags.precision = Some(count(&mut chars, &mut values_left, &mut false).unwrap_or(0));
        }
        match chars.next() {
            None => text.push_str("%!(NOVERB)"),
            Some('%') => text.push('%'),
            Some(verb) => match values_left.next() {
                Some(value) => text.push_str(&formatted(verb, value, &flags)),
                None => text.push_str(&format!("%!{verb}(MISSING)")),
            },
        }
    }
    let extra: Vec<String> =
        values_left.map(|value| format!("{}={}", go_type(value), plain(value))).collect();
    if !extra.is_empty() {
        text.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
    }
    text
}

/// A width or precision: digits, or `*` for the next argument (negative: left-aligned).
fn count<'v>(
    chars: &mut std::iter::Peekable<std::str::Chars<'_>>,
    values: &mut impl Iterator<Item = &'v Value>,
    minus: &mut bool,
) -> Option<usize> {
    if chars.next_if_eq(&'*').is_some() {
        let given = values.next().and_then(Value::as_i64)?;
        *minus |= given < 0;
        return Some((given.unsigned_abs() as usize).min(MAX_WIDTH));
    }
    let mut number: Option<usize> = None;
    while let Some(digit) = chars.next_if(char::is_ascii_digit) {
        let digit = digit as usize - '0' as usize;
        number = Some((number.unwrap_or(0) * 10 + digit).min(MAX_WIDTH));
    }
    number
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float64",
        Value::Number(_) => "int",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

fn formatted(verb: char, value: &Value, flags: &Flags) -> String {
    let body = match (verb, value) {
        // Go applies a verb to each element of a list or map.
        ('d' | 's' | 'q' | 'x' | 'X', Value::Array(items)) => {
            let items: Vec<String> = items.iter().map(|item| formatted(verb, item, flags)).collect();
            return format!("[{}]", items.join(" "));
        }
        ('v', Value::String(s)) if flags.sharp => Some(quoted(s)),
        ('v', Value::String(s)) | ('s', Value::String(s)) => Some(cut(s, flags)),
        ('v', Value::Number(n)) => Some(signed(number(n), flags)),
        ('v', value) => Some(plain(value)),
        ('T', value) => Some(go_type(value).to_owned()),
        ('q', Value::String(s)) => Some(quoted(&cut(s, flags))),
        ('q', Value::Number(n)) => n.as_u64().and_then(character).map(|c| format!("{c:?}")),
        ('c', Value::Number(n)) => n.as_u64().and_then(character).map(String::from),
        ('U', Value::Number(n)) => n.as_u64().map(|n| format!("U+{n:04X}")),
        ('t', Value::Bool(b)) => Some(b.to_string()),
        ('x' | 'X', Value::String(s)) => Some(s.bytes().map(|b| in_case(verb, format!("{b:02x}"))).collect()),
        ('d' | 'b' | 'o' | 'O' | 'x' | 'X', Value::Number(n)) => integer(verb, n, flags),
        ('e' | 'E' | 'f' | 'F' | 'g' | 'G', Value::Number(n)) if n.is_f64() => {
            n.as_f64().map(|n| float(verb, n, flags))
        }
        _ => None,
    };
    let body = body.unwrap_or_else(|| match value {
        Value::Null => format!("%!{verb}(<nil>)"),
        _ => format!("%!{verb}({}={})", go_type(value), plain(value)),
    });
    padded(body, value.is_number(), flags)
}

fn character(code: u64) -> Option<char> {
    u32::try_from(code).ok().and_then(char::from_u32)
}

fn in_case(verb: char, text: String) -> String {
    if verb.is_ascii_uppercase() { text.to_uppercase() } else { text }
}

fn cut(text: &str, flags: &Flags) -> String {
    text.chars().take(flags.precision.unwrap_or(usize::MAX)).collect()
}

fn signed(text: String, flags: &Flags) -> String {
    match (text.starts_with('-'), flags.plus, flags.space) {
        (false, true, _) => format!("+{text}"),
        (false, false, true) => format!(" {text}"),
        _ => text,
    }
}

fn integer(verb: char, number: &Number, flags: &Flags) -> Option<String> {
    let value = number.as_i128()?;
    let size = value.unsigned_abs();
    let (prefix, digits) = match verb {
        'b' => ("0b", format!("{size:b}")),
        'o' | 'O' => ("0", format!("{size:o}")),
        'x' => ("0x", format!("{size:x}")),
        'X' => ("0X", format!("{size:X}")),
        _ => ("", size.to_string()),
    };
    let prefix = match (verb, flags.sharp) {
        ('O', _) => "0o",
        (_, true) => prefix,
        _ => "",
    };
    let least = flags.precision.unwrap_or(0);
    let sign = if value < 0 { "-" } else { "" };
    Some(signed(format!("{sign}{prefix}{digits:0>least$}"), flags))
}

fn float(verb: char, value: f64, flags: &Flags) -> String {
    let precision = flags.precision.unwrap_or(6);
    let text = match verb {
        'f' | 'F' => format!("{value:.precision$}"),
        'e' | 'E' => exponent(&format!("{value:.precision$e}")),
        _ => general(value),
    };
    signed(in_case(if verb == 'F' { 'f' } else { verb }, text), flags)
}

fn padded(body: String, numeric: bool, flags: &Flags) -> String {
    let width = flags.width.unwrap_or(0);
    let missing = width.saturating_sub(body.chars().count());
    if flags.minus {
        return body + &" ".repeat(missing);
    }
    if flags.zero && numeric {
        // The zeros stand behind the sign.
        let sign = body.len() - body.trim_start_matches(['-', '+']).len();
        return format!("{}{}{}", &body[..sign], "0".repeat(missing), &body[sign..]);
    }
    " ".repeat(missing) + &body
}

/// Go's `strconv.Quote`.
pub fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || c == '\u{7f}' => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
