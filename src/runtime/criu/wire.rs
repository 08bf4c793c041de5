//! The little of protobuf's encoding that talking with criu takes
//! (<https://protobuf.dev/programming-guides/encoding/>): numbers, texts and messages in messages.

/// A message that is being written.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Message(Vec<u8>);

impl Message {
    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// Adds a number (also a truth value or one of an enumeration).
    pub fn number(&mut self, field: u32, value: u64) -> &mut Self {
        self.varint(u64::from(field) << 3);
        self.varint(value);
        self
    }

    /// Adds a truth value.
    pub fn flag(&mut self, field: u32, value: bool) -> &mut Self {
        self.number(field, value.into())
    }

    /// Adds a text, or bytes.
    pub fn text(&mut self, field: u32, value: impl AsRef<[u8]>) -> &mut Self {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(value.as_ref().len() as u64);
        self.0.extend_from_slice(value.as_ref());
        self
    }

    /// Adds a message.
    pub fn message(&mut self, field: u32, value: &Self) -> &mut Self {
        self.text(field, &value.0)
    }
}

/// A field's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// Of a number, a truth value or an enumeration.
    Number(u64),
    /// Of a text or a message.
    Bytes(&'a [u8]),
}

/// The fields of a message in their order; `None` if the bytes are none. Values of fixed size, which
/// criu's answers have none of, are left out.
pub fn fields(mut bytes: &[u8]) -> Option<Vec<(u32, Value<'_>)>> {
    let mut list = Vec::new();
    while !bytes.is_empty() {
        let key = take_varint(&mut bytes)?;
        let field = u32::try_from(key >> 3).ok()?;
        match key & 7 {
            0 => list.push((field, Value::Number(take_varint(&mut bytes)?))),
            1 => drop(take(&mut bytes, 8)?),
            2 => {
                let length = usize::try_from(take_varint(&mut bytes)?).ok()?;
                list.push((field, Value::Bytes(take(&mut bytes, length)?)));
            }
            5 => drop(take(&mut bytes, 4)?),
            _ => return None,
        }
    }
    Some(list)
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = *take(bytes, 1)?.first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let mut inner = Message::default();
        inner.text(1, "key").number(2, 300);
        let mut outer = Message::default();
        outer.number(1, 2).message(23, &inner).flag(34, true).number(38, u64::MAX);
        let list = fields(outer.bytes()).unwrap();
        assert_eq!(
            list,
            [
                (1, Value::Number(2)),
                (23, Value::Bytes(inner.bytes())),
                (34, Value::Number(1)),
                (38, Value::Number(u64::MAX))
            ]
        );
        // The encoding guide's own example: 150 in field 1.
        assert_eq!(Message::default().number(1, 150).bytes(), [0x08, 0x96, 0x01]);
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [&[0x08][..], &[0x0a, 5, 1], &[0x0b], &[0xff; 12], &[0x09, 1, 2]] {
            assert_eq!(fields(bad), None, "{bad:?}");
        }
    }
}
