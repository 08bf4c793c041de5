//! Text to tokens.

use serde_json::{Number, Value};

use super::error::{Error, ParseProblem};

/// One token and where it starts (byte offset).
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    pub kind: Kind,
    pub at: usize,
    /// Whether white space stands before it: `.A.B` is one operand, `.A .B` are two.
    pub spaced: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// Text outside of actions, trimmed already.
    Text(String),
    /// `{{`
    Open,
    /// `}}`
    Close,
    /// `.`
    Dot,
    /// `.Name`
    Field(String),
    /// `$` or `$name`, with the dollar sign.
    Variable(String),
    /// A function's name or a keyword.
    Word(String),
    /// A string, number, character, `true`, `false` or `nil`.
    Constant(Value),
    /// `|`
    Pipe,
    /// `(`
    Left,
    /// `)`
    Right,
    /// `:=`
    Declare,
    /// `=`
    Assign,
    /// `,`
    Comma,
}

impl Kind {
    /// The token as an error message names it.
    pub fn describe(&self) -> String {
        match self {
            Self::Text(_) => "text".to_owned(),
            Self::Open => "\"{{\"".to_owned(),
            Self::Close => "\"}}\"".to_owned(),
            Self::Dot => "\".\"".to_owned(),
            Self::Field(name) => format!("\".{name}\""),
            Self::Variable(name) | Self::Word(name) => format!("\"{name}\""),
            Self::Constant(value) => value.to_string(),
            Self::Pipe => "\"|\"".to_owned(),
            Self::Left => "\"(\"".to_owned(),
            Self::Right => "\")\"".to_owned(),
            Self::Declare => "\":=\"".to_owned(),
            Self::Assign => "\"=\"".to_owned(),
            Self::Comma => "\",\"".to_owned(),
        }
    }
}

/// Makes a parse error at a byte offset of `text`.
pub fn error_at(text: &str, at: usize, problem: ParseProblem) -> Error {
    let before = &text[..at.min(text.len())];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    Error::Parse { line, column, problem }
}

/// Go trims these and no other white space.
const SPACE: &[char] = &[' ', '\t', '\r', '\n'];

/// Splits a template into tokens.
pub fn lex(text: &str) -> Result<Vec<Token>, Error> {
    let mut tokens = Vec::new();
    let mut at = 0;
    let mut trim_next = false;
    while at < text.len() {
        let rest = &text[at..];
        let open = rest.find("{{");
        let mut plain = &rest[..open.unwrap_or(rest.len())];
        if trim_next {
            plain = plain.trim_start_matches(SPACE);
        }
        let Some(open) = open else {
            push_text(&mut tokens, plain, at);
            return Ok(tokens);
        };
        let mut inside = at + open + 2;
        let trims = text[inside..].starts_with('-') && text[inside + 1..].starts_with(SPACE);
        if trims {
            plain = plain.trim_end_matches(SPACE);
            inside += 1;
        }
        push_text(&mut tokens, plain, at);
        let start = at + open;
        let lead = text[inside..].len() - text[inside..].trim_start_matches(SPACE).len();
        // A comment may stand only right behind "{{" or "{{- ".
        if text[inside + if trims { lead } else { 0 }..].starts_with("/*") {
            (at, trim_next) = skip_comment(text, start, inside + if trims { lead } else { 0 })?;
            continue;
        }
        tokens.push(Token { kind: Kind::Open, at: start, spaced: false });
        (at, trim_next) = Action { text, at: inside, start }.lex(&mut tokens)?;
    }
    Ok(tokens)
}

fn push_text(tokens: &mut Vec<Token>, plain: &str, at: usize) {
    if !plain.is_empty() {
        tokens.push(Token { kind: Kind::Text(plain.to_owned()), at, spaced: false });
    }
}

/// Returns where the comment's action ends and whether it trims the text behind it.
fn skip_comment(text: &str, start: usize, at: usize) -> Result<(usize, bool), Error> {
    let unclosed = || error_at(text, start, ParseProblem::UnclosedComment);
    let end = at + 2 + text[at + 2..].find("*/").ok_or_else(unclosed)? + 2;
    if text[end..].starts_with("}}") {
        return Ok((end + 2, false));
    }
    let rest = text[end..].trim_start_matches(SPACE);
    if rest.len() < text[end..].len() && rest.starts_with("-}}") {
        return Ok((text.len() - rest.len() + 3, true));
    }
    Err(unclosed())
}

struct Action<'t> {
    text: &'t str,
    at: usize,
    start: usize,
}

impl Action<'_> {
    /// Lexes up to and with `}}`; returns where it ends and whether it trims.
    fn lex(mut self, tokens: &mut Vec<Token>) -> Result<(usize, bool), Error> {
        loop {
            let rest = &self.text[self.at..];
            let trimmed = rest.trim_start_matches(SPACE);
            let spaced = trimmed.len() < rest.len();
            self.at = self.text.len() - trimmed.len();
            let at = self.at;
            if trimmed.starts_with("}}") {
                tokens.push(Token { kind: Kind::Close, at, spaced });
                return Ok((at + 2, false));
            }
            if spaced && trimmed.starts_with("-}}") {
                tokens.push(Token { kind: Kind::Close, at, spaced });
                return Ok((at + 3, true));
            }
            let kind = self.token()?;
            tokens.push(Token { kind, at, spaced });
        }
    }

    fn error(&self, at: usize, problem: ParseProblem) -> Error {
        error_at(self.text, at, problem)
    }

    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn name(&mut self) -> String {
        let name: String = self.rest().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        self.at += name.len();
        name
    }

    fn token(&mut self) -> Result<Kind, Error> {
        let mut chars = self.rest().chars();
        let Some(first) = chars.next() else {
            return Err(self.error(self.start, ParseProblem::UnclosedAction));
        };
        let second = chars.next().unwrap_or(' ');
        let single = |kind| Ok(kind);
        match first {
            '|' | '(' | ')' | ',' | '=' => {
                self.at += 1;
                single(match first {
                    '|' => Kind::Pipe,
                    '(' => Kind::Left,
                    ')' => Kind::Right,
                    ',' => Kind::Comma,
                    _ => Kind::Assign,
                })
            }
            ':' if second == '=' => {
                self.at += 2;
                single(Kind::Declare)
            }
            '"' => self.quoted(),
            '`' => self.raw(),
            '\'' => self.character(),
            '$' => {
                self.at += 1;
                Ok(Kind::Variable(format!("${}", self.name())))
            }
            '.' if !second.is_ascii_digit() => {
                self.at += 1;
                let name = self.name();
                single(if name.is_empty() { Kind::Dot } else { Kind::Field(name) })
            }
            '0'..='9' | '.' | '+' | '-' => self.number(),
            c if c.is_alphabetic() || c == '_' => {
                let name = self.name();
                Ok(match name.as_str() {
                    "true" => Kind::Constant(Value::Bool(true)),
                    "false" => Kind::Constant(Value::Bool(false)),
                    "nil" => Kind::Constant(Value::Null),
                    _ => Kind::Word(name),
                })
            }
            c => Err(self.error(self.at, ParseProblem::UnexpectedCharacter(c))),
        }
    }

    fn raw(&mut self) -> Result<Kind, Error> {
        let body = &self.rest()[1..];
        let Some(end) = body.find('`') else {
            return Err(self.error(self.at, ParseProblem::UnclosedQuote));
        };
        let value = Value::String(body[..end].to_owned());
        self.at += end + 2;
        Ok(Kind::Constant(value))
    }

    fn quoted(&mut self) -> Result<Kind, Error> {
        let start = self.at;
        self.at += 1;
        // Bytes, for "\xc3\xa9" is one letter.
        let mut bytes = Vec::new();
        loop {
            match self.rest().chars().next() {
                None | Some('\n') => return Err(self.error(start, ParseProblem::UnclosedQuote)),
                Some('"') => {
                    self.at += 1;
                    return Ok(Kind::Constant(Value::String(String::from_utf8_lossy(&bytes).into_owned())));
                }
                Some('\\') => self.escape('"', &mut bytes)?,
                Some(c) => {
                    self.at += c.len_utf8();
                    bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                }
            }
        }
    }

    fn character(&mut self) -> Result<Kind, Error> {
        let start = self.at;
        self.at += 1;
        let mut bytes = Vec::new();
        match self.rest().chars().next() {
            None | Some('\n') => return Err(self.error(start, ParseProblem::UnclosedQuote)),
            Some('\\') => self.escape('\'', &mut bytes)?,
            Some(c) => {
                self.at += c.len_utf8();
                bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        let code = match (std::str::from_utf8(&bytes), bytes.as_slice()) {
            (Ok(text), _) => text.chars().next().map(u32::from),
            (Err(_), [byte]) => Some(u32::from(*byte)),
            (Err(_), _) => None,
        };
        // `''` holds nothing: its second quote was taken for the character.
        let empty = bytes == b"'" && self.at == start + 2;
        match code {
            Some(code) if !empty && self.rest().starts_with('\'') => {
                self.at += 1;
                Ok(Kind::Constant(Value::from(code)))
            }
            _ => Err(self.error(start, ParseProblem::BadCharacter)),
        }
    }

    /// One backslash escape of Go's string and rune literals.
    fn escape(&mut self, quote: char, into: &mut Vec<u8>) -> Result<(), Error> {
        let start = self.at;
        let body = &self.text[start + 1..];
        let bad = |length: usize| {
            let text: String = self.text[start..].chars().take(length).collect();
            self.error(start, ParseProblem::BadEscape(text))
        };
        let digits = |skip: usize, length: usize, radix: u32| {
            body.get(skip..skip + length)
                .filter(|digits| digits.chars().all(|c| c.is_digit(radix)))
                .and_then(|digits| u32::from_str_radix(digits, radix).ok())
                .ok_or_else(|| bad(1 + skip + length))
        };
        let (length, simple) = match body.chars().next().ok_or_else(|| bad(1))? {
            'a' => (1, 7),
            'b' => (1, 8),
            'f' => (1, 12),
            'n' => (1, b'\n'),
            'r' => (1, b'\r'),
            't' => (1, b'\t'),
            'v' => (1, 11),
            '\\' => (1, b'\\'),
            c if c == quote => (1, c as u8),
            'x' => (3, digits(1, 2, 16)? as u8),
            '0'..='7' => (3, u8::try_from(digits(0, 3, 8)?).map_err(|_| bad(4))?),
            c @ ('u' | 'U') => {
                let length = if c == 'u' { 4 } else { 8 };
                let c = char::from_u32(digits(1, length, 16)?).ok_or_else(|| bad(2 + length))?;
                into.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                self.at += 2 + length;
                return Ok(());
            }
            _ => return Err(bad(2)),
        };
        into.push(simple);
        self.at += 1 + length;
        Ok(())
    }

    fn number(&mut self) -> Result<Kind, Error> {
        let mut previous = ' ';
        let word: String = self
            .rest()
            .chars()
            .take_while(|&c| {
                let sign = matches!(c, '+' | '-') && (previous == ' ' || matches!(previous, 'e' | 'E'));
                previous = c;
                sign || c.is_alphanumeric() || matches!(c, '.' | '_')
            })
            .collect();
        let Some(number) = parse_number(&word) else {
            return Err(self.error(self.at, ParseProblem::BadNumber(word)));
        };
        self.at += word.len();
        Ok(Kind::Constant(Value::Number(number)))
    }
}

/// Go's number literals: decimal, hexadecimal, octal, binary, with `_`, and decimal floats.
fn parse_number(word: &str) -> Option<Number> {
    let (negative, digits) = match word.as_bytes().first()? {
        b'-' => (true, &word[1..]),
        b'+' => (false, &word[1..]),
        _ => (false, word),
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let clean = digits.replace('_', "");
    let lower = clean.to_ascii_lowercase();
    let radix = match lower.get(..2) {
        Some("0x") => Some((16, 2)),
        Some("0o") => Some((8, 2)),
        Some("0b") => Some((2, 2)),
        _ if clean.len() > 1 && clean.starts_with('0') && clean.bytes().all(|b| b.is_ascii_digit()) => {
            Some((8, 1))
        }
        _ if clean.bytes().all(|b| b.is_ascii_digit()) => Some((10, 0)),
        _ => None,
    };
    if let Some((radix, skip)) = radix {
        let value = i128::from_str_radix(&clean[skip..], radix).ok()?;
        return Number::from_i128(if negative { -value } else { value });
    }
    let value: f64 = clean.parse().ok().filter(|v: &f64| v.is_finite())?;
    Number::from_f64(if negative { -value } else { value })
}
