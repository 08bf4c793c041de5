//! D-Bus messages as bytes (D-Bus specification, "Marshaling" and "Message Protocol"). Pure. Written
//! in little-endian order; read in either.

/// A value of a D-Bus type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// `y`
    Byte(u8),
    /// `b`
    Bool(bool),
    /// `i`
    I32(i32),
    /// `u`
    U32(u32),
    /// `t`
    U64(u64),
    /// `s`
    Text(String),
    /// `o`
    Path(String),
    /// `g`
    Signature(String),
    /// `v`
    Variant(Box<Value>),
    /// `(…)`
    Struct(Vec<Value>),
    /// `a…`, with the elements' signature, which an empty one needs.
    Array(&'static str, Vec<Value>),
    /// An array that was read and whose elements nobody here asks for.
    Skipped,
}

impl Value {
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    pub fn variant(value: Self) -> Self {
        Self::Variant(Box::new(value))
    }

    /// `a(sv)`: named properties.
    pub fn properties(list: &[(String, Value)]) -> Self {
        let pair = |(name, value): &(String, Value)| {
            Self::Struct(vec![Self::text(name), Self::variant(value.clone())])
        };
        Self::Array("(sv)", list.iter().map(pair).collect())
    }

    /// Its type.
    pub fn signature(&self) -> String {
        match self {
            Self::Byte(_) => "y".into(),
            Self::Bool(_) => "b".into(),
            Self::I32(_) => "i".into(),
            Self::U32(_) => "u".into(),
            Self::U64(_) => "t".into(),
            Self::Text(_) => "s".into(),
            Self::Path(_) => "o".into(),
            Self::Signature(_) => "g".into(),
            Self::Variant(_) => "v".into(),
            Self::Struct(fields) => format!("({})", fields.iter().map(Self::signature).collect::<String>()),
            Self::Array(element, _) => format!("a{element}"),
            Self::Skipped => "ay".into(),
        }
    }
}

fn alignment(kind: u8) -> usize {
    match kind {
        b'b' | b'i' | b'u' | b's' | b'o' | b'a' | b'h' => 4,
        b't' | b'x' | b'd' | b'(' | b'{' => 8,
        b'n' | b'q' => 2,
        _ => 1,
    }
}

fn pad(bytes: &mut Vec<u8>, alignment: usize) {
    bytes.resize(bytes.len().next_multiple_of(alignment), 0);
}

fn put(bytes: &mut Vec<u8>, value: &Value) {
    let text = |bytes: &mut Vec<u8>, text: &str| {
        pad(bytes, 4);
        bytes.extend((text.len() as u32).to_le_bytes());
        bytes.extend(text.as_bytes());
        bytes.push(0);
    };
    let signature = |bytes: &mut Vec<u8>, text: &str| {
        bytes.push(text.len() as u8);
        bytes.extend(text.as_bytes());
        bytes.push(0);
    };
    match value {
        Value::Byte(value) => bytes.push(*value),
        Value::Bool(value) => put(bytes, &Value::U32(u32::from(*value))),
        Value::I32(value) => put(bytes, &Value::U32(*value as u32)),
        Value::U32(value) => {
            pad(bytes, 4);
            bytes.extend(value.to_le_bytes());
        }
        Value::U64(value) => {
            pad(bytes, 8);
            bytes.extend(value.to_le_bytes());
        }
        Value::Text(value) | Value::Path(value) => text(bytes, value),
        Value::Signature(value) => signature(bytes, value),
        Value::Variant(value) => {
            signature(bytes, &value.signature());
            put(bytes, value);
        }
        Value::Struct(fields) => {
            pad(bytes, 8);
            fields.iter().for_each(|field| put(bytes, field));
        }
        Value::Array(element, items) => {
            pad(bytes, 4);
            let at = bytes.len();
            bytes.extend([0; 4]);
            // What stands between the length and the first element does not count.
            pad(bytes, alignment(element.as_bytes()[0]));
            let start = bytes.len();
            items.iter().for_each(|item| put(bytes, item));
            let length = (bytes.len() - start) as u32;
            bytes[at..at + 4].copy_from_slice(&length.to_le_bytes());
        }
        Value::Skipped => put(bytes, &Value::Array("y", Vec::new())),
    }
}

/// A method call.
#[derive(Debug, Clone)]
pub(super) struct Call<'a> {
    pub destination: &'a str,
    pub path: &'a str,
    pub interface: &'a str,
    pub member: &'a str,
    pub arguments: Vec<Value>,
}

impl Call<'_> {
    /// The message.
    pub fn encode(&self, serial: u32) -> Vec<u8> {
        let mut body = Vec::new();
        self.arguments.iter().for_each(|argument| put(&mut body, argument));
        let signature: String = self.arguments.iter().map(Value::signature).collect();
        let field = |code: u8, value: Value| Value::Struct(vec![Value::Byte(code), Value::variant(value)]);
        let mut fields = vec![
            field(1, Value::Path(self.path.to_owned())),
            field(2, Value::text(self.interface)),
            field(3, Value::text(self.member)),
            field(6, Value::text(self.destination)),
        ];
        if !signature.is_empty() {
            fields.push(field(8, Value::Signature(signature)));
        }
        // Little-endian, a method call, no flags, version 1.
        let mut bytes = vec![b'l', 1, 0, 1];
        put(&mut bytes, &Value::U32(body.len() as u32));
        put(&mut bytes, &Value::U32(serial));
        put(&mut bytes, &Value::Array("(yv)", fields));
        pad(&mut bytes, 8);
        bytes.extend(body);
        bytes
    }
}

/// An answer, as the other side would write it.
#[cfg(test)]
pub(super) fn answer(reply_to: u32, arguments: &[Value]) -> Vec<u8> {
    let mut body = Vec::new();
    arguments.iter().for_each(|argument| put(&mut body, argument));
    let signature: String = arguments.iter().map(Value::signature).collect();
    let field = |code: u8, value: Value| Value::Struct(vec![Value::Byte(code), Value::variant(value)]);
    let fields = vec![field(5, Value::U32(reply_to)), field(8, Value::Signature(signature))];
    let mut bytes = vec![b'l', 2, 1, 1];
    put(&mut bytes, &Value::U32(body.len() as u32));
    put(&mut bytes, &Value::U32(1));
    put(&mut bytes, &Value::Array("(yv)", fields));
    pad(&mut bytes, 8);
    bytes.extend(body);
    bytes
}

/// What kind of message it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Call,
    Return,
    Error,
    Signal,
}

/// A message that was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Received {
    pub kind: Kind,
    /// Which of our calls it answers.
    pub reply_to: Option<u32>,
    /// A signal's or an error's name.
    pub name: String,
    pub arguments: Vec<Value>,
}

impl Received {
    /// The argument of this index, if it is a text or a path.
    pub fn text(&self, index: usize) -> Option<&str> {
        match self.arguments.get(index)? {
            Value::Text(text) | Value::Path(text) => Some(text),
            _ => None,
        }
    }
}

/// The length of the fixed part of a message.
pub(super) const HEAD: usize = 16;
/// What a message may have at most (the specification's own limit is 128 MiB).
const LIMIT: usize = 1 << 24;

/// How long the whole message is that begins with these [`HEAD`] bytes; `None` if it is none.
pub(super) fn length(head: &[u8]) -> Option<usize> {
    let big = big_endian(head)?;
    let body = number(head.get(4..8)?, big)? as usize;
    let fields = number(head.get(12..16)?, big)? as usize;
    (body <= LIMIT && fields <= LIMIT).then(|| (HEAD + fields).next_multiple_of(8) + body)
}

fn big_endian(head: &[u8]) -> Option<bool> {
    match head.first()? {
        b'l' => Some(false),
        b'B' => Some(true),
        _ => None,
    }
}

fn number(bytes: &[u8], big: bool) -> Option<u32> {
    let bytes: [u8; 4] = bytes.try_into().ok()?;
    Some(if big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
}

/// Reads a whole message.
pub(super) fn decode(bytes: &[u8]) -> Option<Received> {
    let total = length(bytes)?;
    if bytes.len() != total {
        return None;
    }
    let big = big_endian(bytes)?;
    let kind = match bytes[1] {
        1 => Kind::Call,
        2 => Kind::Return,
        3 => Kind::Error,
        4 => Kind::Signal,
        _ => return None,
    };
    let fields = number(&bytes[12..16], big)? as usize;
    let mut reader = Reader { bytes: bytes.get(..HEAD + fields)?, at: HEAD, big, depth: 0 };
    let (mut reply_to, mut name, mut signature) = (None, String::new(), String::new());
    while reader.at < reader.bytes.len() {
        reader.align(8)?;
        let code = reader.byte()?;
        match (code, reader.variant()?) {
            (3 | 4, Value::Text(text)) => name = text,
            (5, Value::U32(serial)) => reply_to = Some(serial),
            (8, Value::Signature(text)) => signature = text,
            _ => {}
        }
    }
    let mut arguments = Vec::new();
    let start = (HEAD + fields).next_multiple_of(8);
    // Positions count from the body's start, which is aligned.
    let mut reader = Reader { bytes: bytes.get(start..)?, at: 0, big, depth: 0 };
    let mut rest = signature.as_bytes();
    while !rest.is_empty() {
        let (first, others) = split_type(rest)?;
        arguments.push(reader.value(first)?);
        rest = others;
    }
    Some(Received { kind, reply_to, name, arguments })
}

/// The first complete type of a signature, and the rest.
fn split_type(signature: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut at = 0;
    while *signature.get(at)? == b'a' {
        at += 1;
    }
    let mut depth = 0_usize;
    loop {
        match *signature.get(at)? {
            b'(' | b'{' => depth += 1,
            b')' | b'}' => depth = depth.checked_sub(1)?,
            _ => {}
        }
        at += 1;
        if depth == 0 {
            return Some(signature.split_at(at));
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    big: bool,
    depth: u8,
}

impl Reader<'_> {
    fn align(&mut self, alignment: usize) -> Option<()> {
        self.at = self.at.next_multiple_of(alignment);
        (self.at <= self.bytes.len()).then_some(())
    }

    fn take(&mut self, length: usize) -> Option<&[u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    fn number(&mut self) -> Option<u32> {
        self.align(4)?;
        let big = self.big;
        number(self.take(4)?, big)
    }

    fn string(&mut self, length: usize) -> Option<String> {
        let text = String::from_utf8(self.take(length)?.to_vec()).ok()?;
        (self.byte()? == 0).then_some(text)
    }

    fn variant(&mut self) -> Option<Value> {
        let length = usize::from(self.byte()?);
        let signature = self.string(length)?;
        let (first, rest) = split_type(signature.as_bytes())?;
        if rest.is_empty() { self.value(first) } else { None }
    }

    fn value(&mut self, signature: &[u8]) -> Option<Value> {
        self.depth += 1;
        // The specification's own limit.
        if self.depth > 64 {
            return None;
        }
        let value = self.shallow(signature);
        self.depth -= 1;
        value
    }

    fn shallow(&mut self, signature: &[u8]) -> Option<Value> {
        Some(match *signature.first()? {
            b'y' => Value::Byte(self.byte()?),
            b'b' => Value::Bool(self.number()? != 0),
            b'i' => Value::I32(self.number()? as i32),
            b'u' | b'h' => Value::U32(self.number()?),
            b't' | b'x' | b'd' => {
                self.align(8)?;
                let big = self.big;
                let bytes: [u8; 8] = self.take(8)?.try_into().ok()?;
                Value::U64(if big { u64::from_be_bytes(bytes) } else { u64::from_le_bytes(bytes) })
            }
            b'n' | b'q' => {
                self.align(2)?;
                let big = self.big;
                let bytes: [u8; 2] = self.take(2)?.try_into().ok()?;
                Value::U32(u32::from(if big { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }))
            }
            b's' => {
                let length = self.number()? as usize;
                Value::Text(self.string(length)?)
            }
            b'o' => {
                let length = self.number()? as usize;
                Value::Path(self.string(length)?)
            }
            b'g' => {
                let length = usize::from(self.byte()?);
                Value::Signature(self.string(length)?)
            }
            b'v' => Value::variant(self.variant()?),
            b'a' => {
                let length = self.number()? as usize;
                self.align(alignment(*signature.get(1)?))?;
                self.take(length)?;
                Value::Skipped
            }
            b'(' => {
                self.align(8)?;
                let mut fields = Vec::new();
                let mut rest = signature.get(1..signature.len() - 1)?;
                while !rest.is_empty() {
                    let (first, others) = split_type(rest)?;
                    fields.push(self.value(first)?);
                    rest = others;
                }
                Value::Struct(fields)
            }
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_as_the_specification_says() {
        let call = Call {
            destination: "a.b",
            path: "/p",
            interface: "c.d",
            member: "M",
            arguments: vec![Value::text("x"), Value::Bool(true)],
        };
        #[rustfmt::skip]
        let expected: &[u8] = &[
            b'l', 1, 0, 1, 12, 0, 0, 0, 7, 0, 0, 0, 72, 0, 0, 0,
            1, 1, b'o', 0, 2, 0, 0, 0, b'/', b'p', 0, 0, 0, 0, 0, 0,
            2, 1, b's', 0, 3, 0, 0, 0, b'c', b'.', b'd', 0, 0, 0, 0, 0,
            3, 1, b's', 0, 1, 0, 0, 0, b'M', 0, 0, 0, 0, 0, 0, 0,
            6, 1, b's', 0, 3, 0, 0, 0, b'a', b'.', b'b', 0, 0, 0, 0, 0,
            8, 1, b'g', 0, 2, b's', b'b', 0,
            1, 0, 0, 0, b'x', 0, 0, 0, 1, 0, 0, 0,
        ];
        assert_eq!(call.encode(7), expected);
    }

    #[test]
    fn properties_are_aligned() {
        let value = Value::properties(&[
            ("A".into(), Value::U64(5)),
            ("B".into(), Value::Array("u", vec![Value::U32(9)])),
        ]);
        let mut bytes = Vec::new();
        put(&mut bytes, &value);
        #[rustfmt::skip]
        let expected: &[u8] = &[
            44, 0, 0, 0, 0, 0, 0, 0,
            1, 0, 0, 0, b'A', 0, 1, b't', 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0,
            1, 0, 0, 0, b'B', 0, 2, b'a', b'u', 0, 0, 0, 4, 0, 0, 0, 9, 0, 0, 0,
        ];
        assert_eq!(bytes[4..], expected[4..], "{bytes:?}");
        assert_eq!(usize::from(bytes[0]), bytes.len() - 8);
        assert_eq!(value.signature(), "a(sv)");
    }

    /// A signal `M` with a body of `uoss`, in either order of bytes.
    fn signal(big: bool) -> Vec<u8> {
        let n = |value: u32| if big { value.to_be_bytes() } else { value.to_le_bytes() };
        let mut bytes = vec![if big { b'B' } else { b'l' }, 4, 1, 1];
        bytes.extend([n(33), n(3), n(26)].concat());
        bytes.extend([3, 1, b's', 0]);
        bytes.extend(n(1));
        bytes.extend([b'M', 0, 0, 0, 0, 0, 0, 0, 8, 1, b'g', 0, 4, b'u', b'o', b's', b's', 0, 0, 0, 0, 0]);
        bytes.truncate(16 + 26);
        bytes.resize(48, 0);
        bytes.extend(n(7));
        bytes.extend(n(2));
        bytes.extend([b'/', b'j', 0, 0]);
        bytes.extend(n(7));
        bytes.extend(*b"a.scope\0");
        bytes.extend(n(4));
        bytes.extend(*b"done\0");
        bytes
    }

    #[test]
    fn signals_are_read_in_either_order() {
        for big in [false, true] {
            let bytes = signal(big);
            assert_eq!(length(&bytes), Some(bytes.len()));
            let message = decode(&bytes).unwrap();
            assert_eq!((message.kind, message.name.as_str()), (Kind::Signal, "M"));
            assert_eq!(message.arguments[0], Value::U32(7));
            assert_eq!(
                [message.text(1), message.text(2), message.text(3)],
                [Some("/j"), Some("a.scope"), Some("done")]
            );
        }
    }

    #[test]
    fn rubbish_is_no_message() {
        let good = signal(false);
        for at in 0..good.len() {
            assert!(decode(&good[..at]).is_none());
            for value in [0, 1, 0x7f, 0xff] {
                let mut bad = good.clone();
                bad[at] = value;
                // Whatever it is, it is read without a panic.
                let _ = decode(&bad);
            }
        }
        assert!(length(b"l\x01\0\x01\xff\xff\xff\xff\x01\0\0\0\0\0\0\0").is_none());
    }

    #[test]
    fn types_are_told_apart() {
        assert_eq!(split_type(b"a{sv}u"), Some((&b"a{sv}"[..], &b"u"[..])));
        assert_eq!(split_type(b"(s(uu))s"), Some((&b"(s(uu))"[..], &b"s"[..])));
        assert_eq!(split_type(b"(s"), None);
        assert_eq!(split_type(b")"), None);
    }
}
