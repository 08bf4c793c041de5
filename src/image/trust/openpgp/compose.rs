//! Making what `gpg --sign` makes: a text with one signature of version 4 (RFC 4880, sections 5.2, 5.4 and 5.9).
//! The private key is somebody else's: he is given a hash and gives numbers back.

use ring::digest;

use super::packet::tag;
use super::signature::{self, KeyMaterial, kind};
use super::{Fingerprint, Key};

/// A key that may sign, by its public half.
#[derive(Clone, Debug)]
pub struct SigningKey {
    fingerprint: Fingerprint,
    algorithm: u8,
    material: KeyMaterial,
}

/// A text whose hash is to be signed.
#[derive(Debug)]
pub struct Unsigned<'a> {
    key: &'a SigningKey,
    text: &'a [u8],
    created: u32,
    /// The part of the signature that it covers.
    covered: Vec<u8>,
    /// Which hash: the number that both OpenPGP and libgcrypt have for it.
    pub algorithm: u8,
    /// The hash.
    pub hash: Vec<u8>,
}

impl SigningKey {
    /// None for a kind of key that is only known by name.
    pub(super) fn of(key: &Key) -> Option<Self> {
        // A signature of the newest kind is no list of numbers, and the agents of today do not have such keys.
        let known = key.material.number().is_some() && key.algorithm != signature::ED25519;
        known.then(|| Self {
            fingerprint: key.fingerprint,
            algorithm: key.algorithm,
            material: key.material.clone(),
        })
    }

    /// What it is known by.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The number that is the key's alone: its modulus or its point.
    pub fn number(&self) -> &[u8] {
        self.material.number().unwrap_or_default()
    }

    /// Prepares the signing of a text at `created`, in seconds since the epoch.
    pub fn prepare<'a>(&'a self, text: &'a [u8], created: u32) -> Unsigned<'a> {
        let (algorithm, digest) = match self.material {
            KeyMaterial::P384(_) => (signature::SHA384, &digest::SHA384),
            _ => (signature::SHA256, &digest::SHA256),
        };
        let mut subpackets = vec![5, 2];
        subpackets.extend(created.to_be_bytes());
        // The issuer's fingerprint, behind the version of its key.
        subpackets.extend([22, 33, 4]);
        subpackets.extend(self.fingerprint.0);
        let mut covered = vec![4, kind::BINARY, self.algorithm, algorithm];
        covered.extend((subpackets.len() as u16).to_be_bytes());
        covered.extend(subpackets);
        let mut hash = digest::Context::new(digest);
        hash.update(text);
        hash.update(&covered);
        hash.update(&[4, 0xff]);
        hash.update(&(covered.len() as u32).to_be_bytes());
        let hash = hash.finish().as_ref().to_vec();
        Unsigned { key: self, text, created, covered, algorithm, hash }
    }
}

impl Unsigned<'_> {
    /// The message, with the numbers of its signature.
    pub fn finish(self, numbers: &[Vec<u8>]) -> Vec<u8> {
        let id = self.key.fingerprint.id().0;
        let mut one_pass = vec![3, kind::BINARY, self.algorithm, self.key.algorithm];
        one_pass.extend(id);
        one_pass.push(1);
        // Bytes, without a file's name.
        let mut literal = vec![b'b', 0];
        literal.extend(self.created.to_be_bytes());
        literal.extend(self.text);
        let mut signature = self.covered;
        signature.extend([0, 10, 9, 16]);
        signature.extend(id);
        signature.extend(&self.hash[..2]);
        for number in numbers {
            signature.extend(big(number));
        }
        [packet(tag::ONE_PASS, &one_pass), packet(tag::LITERAL, &literal), packet(tag::SIGNATURE, &signature)]
            .concat()
    }
}

/// A number behind its length in bits (RFC 4880, 3.2).
fn big(number: &[u8]) -> Vec<u8> {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    let number = &number[zeros..];
    let bits = number.first().map_or(0, |first| number.len() * 8 - first.leading_zeros() as usize);
    [&(bits as u16).to_be_bytes()[..], number].concat()
}

fn packet(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xc0 | tag, 255];
    bytes.extend((body.len() as u32).to_be_bytes());
    bytes.extend(body);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_packets() {
        assert_eq!(big(&[0, 0, 1, 255]), [0, 9, 1, 255]);
        assert_eq!(big(&[0x80]), [0, 8, 0x80]);
        assert_eq!(big(&[]), [0, 0]);
        let parsed = super::super::packet::packets(&packet(tag::LITERAL, b"text")).unwrap();
        assert_eq!((parsed[0].tag, &parsed[0].body[..]), (tag::LITERAL, &b"text"[..]));
    }
}
