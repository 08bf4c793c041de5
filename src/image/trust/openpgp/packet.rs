//! Packets of OpenPGP (RFC 4880, sections 3 and 4): lengths, numbers, armour.

use std::io::Read;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Error;

/// Tags of packets (RFC 4880, 4.3).
pub mod tag {
    pub const SIGNATURE: u8 = 2;
    pub const ONE_PASS: u8 = 4;
    pub const PUBLIC_KEY: u8 = 6;
    pub const COMPRESSED: u8 = 8;
    pub const MARKER: u8 = 10;
    pub const LITERAL: u8 = 11;
    pub const TRUST: u8 = 12;
    pub const USER_ID: u8 = 13;
    pub const PUBLIC_SUBKEY: u8 = 14;
    pub const USER_ATTRIBUTE: u8 = 17;
}

/// What a signed message may unpack to: its text is a few hundred bytes of JSON.
const MAX_MESSAGE: u64 = 1 << 20;

/// One packet.
#[derive(Debug, PartialEq, Eq)]
pub struct Packet {
    /// Its kind.
    pub tag: u8,
    /// Its content.
    pub body: Vec<u8>,
}

/// Bytes that are read from the front.
#[derive(Clone, Copy)]
pub struct Bytes<'a>(pub &'a [u8]);

impl<'a> Bytes<'a> {
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Error::Cut)?;
        self.0 = rest;
        Ok(taken)
    }

    pub fn byte(&mut self) -> Result<u8, Error> {
        Ok(self.take(1)?[0])
    }

    pub fn number(&mut self, bytes: usize) -> Result<usize, Error> {
        Ok(self.take(bytes)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    /// A number of any length (RFC 4880, 3.2), without leading zeros.
    pub fn big(&mut self) -> Result<&'a [u8], Error> {
        let bits = self.number(2)?;
        let number = self.take(bits.div_ceil(8))?;
        let zeros = number.iter().take_while(|byte| **byte == 0).count();
        Ok(&number[zeros..])
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Takes a sequence of packets apart.
pub fn packets(bytes: &[u8]) -> Result<Vec<Packet>, Error> {
    let mut bytes = Bytes(bytes);
    let mut packets = Vec::new();
    while !bytes.is_empty() {
        packets.push(packet(&mut bytes)?);
    }
    Ok(packets)
}

/// The first packet, and what is behind it.
pub fn first(bytes: &[u8]) -> Result<(Packet, &[u8]), Error> {
    let mut bytes = Bytes(bytes);
    let packet = packet(&mut bytes)?;
    Ok((packet, bytes.0))
}

fn packet(bytes: &mut Bytes<'_>) -> Result<Packet, Error> {
    let first = bytes.byte()?;
    if first & 0x80 == 0 {
        return Err(Error::NotOpenPgp);
    }
    if first & 0x40 == 0 {
        let tag = first >> 2 & 0xf;
        let length = match first & 3 {
            3 => bytes.0.len(),
            size => bytes.number(1 << size)?,
        };
        return Ok(Packet { tag, body: bytes.take(length)?.to_vec() });
    }
    let tag = first & 0x3f;
    let mut body = Vec::new();
    loop {
        let (length, last) = match bytes.byte()? {
            short @ 0..=191 => (usize::from(short), true),
            middle @ 192..=223 => (((usize::from(middle) - 192) << 8) + bytes.number(1)? + 192, true),
            255 => (bytes.number(4)?, true),
            // Only data may come in parts (RFC 4880, 4.2.2.4).
            _ if !matches!(tag, tag::COMPRESSED | tag::LITERAL) => return Err(Error::NotOpenPgp),
            part => (1 << (part & 0x1f), false),
        };
        body.extend_from_slice(bytes.take(length)?);
        if last {
            return Ok(Packet { tag, body });
        }
    }
}

/// The packets of a message, with a compression around all of it taken away.
pub fn message(bytes: &[u8]) -> Result<Vec<Packet>, Error> {
    let packets = packets(bytes)?;
    let [Packet { tag: tag::COMPRESSED, body }] = packets.as_slice() else { return Ok(packets) };
    let (&method, data) = body.split_first().ok_or(Error::Cut)?;
    let reader: Box<dyn Read + '_> = match method {
        0 => Box::new(data),
        1 => Box::new(flate2::read::DeflateDecoder::new(data)),
        2 => Box::new(flate2::read::ZlibDecoder::new(data)),
        other => return Err(Error::Compression(other)),
    };
    let mut plain = Vec::new();
    reader.take(MAX_MESSAGE + 1).read_to_end(&mut plain).map_err(|_| Error::Cut)?;
    if plain.len() as u64 > MAX_MESSAGE {
        return Err(Error::TooLarge);
    }
    self::packets(&plain)
}

/// The bytes of keys in a file, which may be armoured (RFC 4880, 6.2).
pub fn dearmour(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    const BEGIN: &str = "-----BEGIN PGP PUBLIC KEY BLOCK-----";
    const END: &str = "-----END PGP PUBLIC KEY BLOCK-----";
    if bytes.first().is_some_and(|first| first & 0x80 != 0) {
        return Ok(bytes.to_vec());
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Error::NotOpenPgp)?;
    let mut keys = Vec::new();
    let mut lines = text.lines().map(str::trim);
    while lines.by_ref().any(|line| line == BEGIN) {
        let mut block = String::new();
        // Headers, up to an empty line.
        lines.by_ref().find(|line| line.is_empty());
        let ended = lines.by_ref().any(|line| {
            // A line that begins with `=` is a checksum against slips of the line, not of people.
            if line != END && !line.starts_with('=') {
                block.push_str(line);
            }
            line == END
        });
        if !ended {
            return Err(Error::Cut);
        }
        keys.extend(STANDARD.decode(&block).map_err(|_| Error::NotOpenPgp)?);
    }
    if keys.is_empty() { Err(Error::NotOpenPgp) } else { Ok(keys) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths() {
        let body = |length: usize| vec![7; length];
        let long = |header: &[u8], length| [header, &body(length)].concat();
        for (bytes, tag, length) in [
            (long(&[0x88, 3], 3), 2, 3),
            (long(&[0x89, 1, 0], 256), 2, 256),
            (long(&[0xa3], 9), 8, 9),
            (long(&[0xc2, 191], 191), 2, 191),
            (long(&[0xc2, 192, 1], 193), 2, 193),
            (long(&[0xc2, 255, 0, 0, 0, 5], 5), 2, 5),
        ] {
            assert_eq!(packets(&bytes).unwrap(), [Packet { tag, body: body(length) }], "{:?}", &bytes[..2]);
        }
        // Literal data in two parts: of 2 bytes, then 1.
        let parts = [0xcb, 0xe1, 7, 7, 1, 7];
        assert_eq!(packets(&parts).unwrap(), [Packet { tag: tag::LITERAL, body: body(3) }]);
        for bad in [&[0x08, 1][..], &[0x88, 3, 1], &[0xc2, 0xe1, 7, 7, 0], &[0xc2], &[0x89, 1]] {
            assert!(packets(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn armour() {
        let text = "-----BEGIN PGP PUBLIC KEY BLOCK-----\nVersion: 1\n\niAMH\nBwc=\n=abcd\n-----END PGP PUBLIC KEY BLOCK-----\n";
        assert_eq!(dearmour(text.as_bytes()).unwrap(), [0x88, 3, 7, 7, 7]);
        assert_eq!(dearmour(&[text, text].concat().into_bytes()).unwrap().len(), 10);
        for bad in ["", "x", &text[..60], &text.replace("iAMH", "iAM!")] {
            assert!(dearmour(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
