//! Signatures of version 4 (RFC 4880, section 5.2), and the keys that check them.

use ring::signature as ring;

use super::Error;
use super::packet::Bytes;

/// Kinds of signatures (RFC 4880, 5.2.1).
pub mod kind {
    pub const BINARY: u8 = 0x00;
    pub const CERTIFICATION_FIRST: u8 = 0x10;
    pub const CERTIFICATION_LAST: u8 = 0x13;
    pub const SUBKEY_BINDING: u8 = 0x18;
    pub const PRIMARY_KEY_BINDING: u8 = 0x19;
    pub const DIRECT_KEY: u8 = 0x1f;
    pub const KEY_REVOCATION: u8 = 0x20;
    pub const SUBKEY_REVOCATION: u8 = 0x28;
    pub const CERTIFICATION_REVOCATION: u8 = 0x30;
}

/// The flag of a key that may sign data (RFC 4880, 5.2.3.21).
const MAY_SIGN: u8 = 0x02;

/// A signature.
#[derive(Clone, Debug)]
pub struct Signature {
    /// What is signed.
    pub kind: u8,
    /// When, in seconds since the epoch.
    pub created: u64,
    /// After how many seconds it is worth nothing, if ever.
    expires: Option<u64>,
    /// After how many seconds the key is worth nothing, if ever.
    pub key_expires: Option<u64>,
    /// What the key may be used for, if it is said.
    flags: Option<u8>,
    /// The last 8 bytes of the signing key's fingerprint, if they are said.
    pub issuer: Option<[u8; 8]>,
    /// The subkey's own signature over its primary key.
    pub embedded: Option<Vec<u8>>,
    algorithm: u8,
    hash: u8,
    /// What is hashed behind the data: the part of the signature that it covers.
    trailer: Vec<u8>,
    numbers: Vec<Vec<u8>>,
    native: Vec<u8>,
}

impl Signature {
    /// Reads a signature packet.
    pub fn parse(body: &[u8]) -> Result<Self, Error> {
        let mut bytes = Bytes(body);
        let version = bytes.byte()?;
        if version != 4 {
            return Err(Error::Version(version));
        }
        let (kind, algorithm, hash) = (bytes.byte()?, bytes.byte()?, bytes.byte()?);
        let count = bytes.number(2)?;
        let hashed = bytes.take(count)?;
        let mut trailer = body[..6 + count].to_vec();
        trailer.extend([4, 0xff]);
        trailer.extend(u32::try_from(6 + count).map_err(|_| Error::Cut)?.to_be_bytes());
        let count = bytes.number(2)?;
        let unhashed = bytes.take(count)?;
        bytes.take(2)?;
        let mut signature = Self {
            kind,
            created: 0,
            expires: None,
            key_expires: None,
            flags: None,
            issuer: None,
            embedded: None,
            algorithm,
            hash,
            trailer,
            numbers: Vec::new(),
            native: bytes.0.to_vec(),
        };
        signature.subpackets(hashed, true)?;
        signature.subpackets(unhashed, false)?;
        if algorithm != ED25519 {
            while !bytes.is_empty() {
                signature.numbers.push(bytes.big()?.to_vec());
            }
        }
        Ok(signature)
    }

    /// Reads subpackets (RFC 4880, 5.2.3.1). Of those that the signature does not cover only hints are
    /// taken.
    fn subpackets(&mut self, bytes: &[u8], hashed: bool) -> Result<(), Error> {
        let mut bytes = Bytes(bytes);
        while !bytes.is_empty() {
            let length = match bytes.byte()? {
                short @ 0..=191 => usize::from(short),
                255 => bytes.number(4)?,
                middle => ((usize::from(middle) - 192) << 8) + bytes.number(1)? + 192,
            };
            let mut body = Bytes(bytes.take(length)?);
            let first = body.byte()?;
            let (id, critical) = (first & 0x7f, first & 0x80 != 0);
            match (id, hashed) {
                (2, true) => self.created = body.number(4)? as u64,
                (3, true) => self.expires = Some(body.number(4)? as u64).filter(|seconds| *seconds > 0),
                (9, true) => self.key_expires = Some(body.number(4)? as u64).filter(|seconds| *seconds > 0),
                (27, true) => self.flags = Some(body.0.first().copied().unwrap_or(0)),
                (16, _) => self.issuer = body.0.try_into().ok(),
                (33, _) => {
                    // A fingerprint behind its version.
                    let tail = body.0.len().checked_sub(8).filter(|_| body.0.first() == Some(&4));
                    self.issuer = tail.and_then(|at| body.0[at..].try_into().ok()).or(self.issuer);
                }
                (32, _) => self.embedded = Some(body.0.to_vec()),
                // Exportable, trust, regular expression, revocable, preferences, revocation keys,
                // notations, key server, primary user id, policy, signer, reason, features, target.
                (4..=7 | 11 | 12 | 20..=26 | 28..=31 | 34, _) if !(critical && id == 20) => {}
                // What is not understood, and is said to matter (RFC 4880, 5.2.3.1).
                _ if critical && hashed => return Err(Error::Critical(id)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether the key that the signature speaks of may sign data.
    pub fn lets_sign(&self) -> bool {
        self.flags.is_none_or(|flags| flags & MAY_SIGN != 0)
    }

    /// Whether its own time is over at `now`, or has not come.
    pub fn check_time(&self, now: u64) -> Result<(), Error> {
        if self.expires.is_some_and(|seconds| self.created.saturating_add(seconds) <= now) {
            return Err(Error::SignatureExpired);
        }
        // A day for clocks that differ.
        if self.created > now.saturating_add(24 * 3600) { Err(Error::Future) } else { Ok(()) }
    }

    /// Whether `key` made this signature over `data`.
    pub fn check(&self, key: &KeyMaterial, data: &[u8]) -> Result<(), Error> {
        self.check_with(key, data, false)
    }

    /// As [`Signature::check`], for what a key says of itself: there SHA-1 is taken too. Keys of vendors
    /// are as old as that, and the whole file that they stand in is trusted anyway.
    pub fn check_own(&self, key: &KeyMaterial, data: &[u8]) -> Result<(), Error> {
        self.check_with(key, data, true)
    }

    fn check_with(&self, key: &KeyMaterial, data: &[u8], legacy: bool) -> Result<(), Error> {
        let mut message = data.to_vec();
        message.extend_from_slice(&self.trailer);
        let bad = |_| Error::Bad;
        match (self.algorithm, key) {
            (RSA | RSA_SIGN, KeyMaterial::Rsa { n, e }) => {
                let [number] = self.numbers.as_slice() else { return Err(Error::Bad) };
                let parameters = match self.hash {
                    SHA1 if legacy => &ring::RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
                    SHA256 => &ring::RSA_PKCS1_2048_8192_SHA256,
                    SHA384 => &ring::RSA_PKCS1_2048_8192_SHA384,
                    SHA512 => &ring::RSA_PKCS1_2048_8192_SHA512,
                    other => return Err(Error::Hash(other)),
                };
                let signature = padded(number, n.len())?;
                ring::RsaPublicKeyComponents { n, e }.verify(parameters, &message, &signature).map_err(bad)
            }
            (ECDSA, KeyMaterial::P256(point)) => self.ecdsa(point, &message, SHA256, 32),
            (ECDSA, KeyMaterial::P384(point)) => self.ecdsa(point, &message, SHA384, 48),
            (EDDSA, KeyMaterial::Ed25519(point)) => {
                let [r, s] = self.numbers.as_slice() else { return Err(Error::Bad) };
                let signature = [padded(r, 32)?, padded(s, 32)?].concat();
                self.ed25519(point, &message, &signature)
            }
            (ED25519, KeyMaterial::Ed25519(point)) => self.ed25519(point, &message, &self.native),
            (RSA | RSA_SIGN | ECDSA | EDDSA | ED25519, _) => Err(Error::Bad),
            (other, _) => Err(Error::Algorithm(other)),
        }
    }

    fn ecdsa(&self, point: &[u8], message: &[u8], hash: u8, size: usize) -> Result<(), Error> {
        // The pairs that the specification asks for (RFC 6637, 13) and that there is code for.
        if self.hash != hash {
            return Err(Error::Hash(self.hash));
        }
        let [r, s] = self.numbers.as_slice() else { return Err(Error::Bad) };
        let signature = [padded(r, size)?, padded(s, size)?].concat();
        let algorithm =
            if size == 32 { &ring::ECDSA_P256_SHA256_FIXED } else { &ring::ECDSA_P384_SHA384_FIXED };
        ring::UnparsedPublicKey::new(algorithm, point).verify(message, &signature).map_err(|_| Error::Bad)
    }

    /// Signs the hash, not the message (RFC 9580, 5.2.3.3).
    fn ed25519(&self, point: &[u8], message: &[u8], signature: &[u8]) -> Result<(), Error> {
        use ::ring::digest;
        let algorithm = match self.hash {
            SHA256 => &digest::SHA256,
            SHA384 => &digest::SHA384,
            SHA512 => &digest::SHA512,
            other => return Err(Error::Hash(other)),
        };
        let hash = digest::digest(algorithm, message);
        let key = ring::UnparsedPublicKey::new(&ring::ED25519, point);
        key.verify(hash.as_ref(), signature).map_err(|_| Error::Bad)
    }
}

/// A number with as many leading zeros as its place is wide.
fn padded(number: &[u8], size: usize) -> Result<Vec<u8>, Error> {
    let zeros = size.checked_sub(number.len()).ok_or(Error::Bad)?;
    Ok([&vec![0; zeros], number].concat())
}

pub const RSA: u8 = 1;
pub const RSA_SIGN: u8 = 3;
pub const ECDSA: u8 = 19;
pub const EDDSA: u8 = 22;
pub const ED25519: u8 = 27;

const SHA1: u8 = 2;
pub const SHA256: u8 = 8;
pub const SHA384: u8 = 9;
pub const SHA512: u8 = 10;

/// The part of a public key that checks signatures.
#[derive(Clone, Debug)]
pub enum KeyMaterial {
    /// Modulus and exponent.
    Rsa {
        /// Modulus.
        n: Vec<u8>,
        /// Exponent.
        e: Vec<u8>,
    },
    /// A point, uncompressed.
    P256(Vec<u8>),
    /// A point, uncompressed.
    P384(Vec<u8>),
    /// A point.
    Ed25519(Vec<u8>),
    /// One of another kind, such as a subkey for encryption.
    Other,
}

impl KeyMaterial {
    /// The number that is the key's alone: the modulus, or the point as its packet has it.
    pub fn number(&self) -> Option<&[u8]> {
        match self {
            Self::Rsa { n, .. } => Some(n),
            Self::P256(point) | Self::P384(point) | Self::Ed25519(point) => Some(point),
            Self::Other => None,
        }
    }

    /// Reads what follows a key packet's algorithm (RFC 4880, 5.5.2; RFC 6637, 9; RFC 9580, 5.5.5).
    pub fn parse(algorithm: u8, bytes: &mut Bytes<'_>) -> Result<Self, Error> {
        const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
        const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
        const CURVE: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0xda, 0x47, 0x0f, 0x01];
        match algorithm {
            RSA | RSA_SIGN => Ok(Self::Rsa { n: bytes.big()?.to_vec(), e: bytes.big()?.to_vec() }),
            ECDSA | EDDSA => {
                let count = bytes.number(1)?;
                let curve = bytes.take(count)?;
                let point = bytes.big()?;
                Ok(match (algorithm, curve, point) {
                    (ECDSA, P256, point) => Self::P256(point.to_vec()),
                    (ECDSA, P384, point) => Self::P384(point.to_vec()),
                    // The prefix says: as the curve's own specification writes it.
                    (EDDSA, CURVE, [0x40, point @ ..]) => Self::Ed25519(point.to_vec()),
                    _ => Self::Other,
                })
            }
            ED25519 => Ok(Self::Ed25519(bytes.take(32)?.to_vec())),
            _ => Ok(Self::Other),
        }
    }
}
