//! Enough of OpenPGP (RFC 4880, and EdDSA of RFC 9580) to check what `gpg --sign` makes: a message
//! with one signature of version 4, against keys of a file. Nothing else is trusted: no keyring of
//! the user, no key server, no web of trust.
//!
//! The arithmetic is ring's, which TLS brings anyway (docs/dependencies.md).

pub mod compose;
mod packet;
mod signature;

use std::fmt;

use packet::{Bytes, Packet, tag};
use signature::{KeyMaterial, Signature, kind};

/// A message or a key that is not to be trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It ends too soon.
    #[error("it is cut off")]
    Cut,
    /// It is something else.
    #[error("it is not in the format of OpenPGP")]
    NotOpenPgp,
    /// Keys, none of which is of use.
    #[error("it holds no key that can check signatures and has a valid signature of its own")]
    NoKey,
    /// More than anybody needs.
    #[error("it is too large")]
    TooLarge,
    /// A compression that cannot be undone here.
    #[error("it is compressed by method {0}, which is not supported")]
    Compression(u8),
    /// A version of the format.
    #[error("it has version {0}, supported is 4")]
    Version(u8),
    /// A hash that is not trusted any more, or not known.
    #[error("it is made with the hash algorithm {0}, which is not accepted")]
    Hash(u8),
    /// A kind of key.
    #[error("it is made with the key algorithm {0}, which is not supported")]
    Algorithm(u8),
    /// A subpacket that is not understood and must be.
    #[error("it demands something that is not understood (subpacket {0})")]
    Critical(u8),
    /// The numbers do not fit.
    #[error("it does not fit what it signs")]
    Bad,
    /// Not exactly one signature over one text.
    #[error("it is not one text with one signature")]
    Form,
    /// The signature has a date of its own.
    #[error("it has expired")]
    SignatureExpired,
    /// It is from the future.
    #[error("it is from the future")]
    Future,
    /// No key fits.
    #[error("it was made by the key {0}, which is not trusted")]
    UnknownKey(KeyId),
    /// The key's time is over.
    #[error("the key {0} has expired")]
    KeyExpired(KeyId),
    /// The key was called back.
    #[error("the key {0} is revoked")]
    KeyRevoked(KeyId),
    /// The key is for something else.
    #[error("the key {0} is not for signing")]
    KeyUse(KeyId),
}

/// The last 8 bytes of a key's fingerprint, as people compare them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyId([u8; 8]);

/// What a key of version 4 is known by: a SHA-1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint([u8; 20]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02X}"))
    }
}

impl Fingerprint {
    fn id(self) -> KeyId {
        let mut id = [0; 8];
        id.copy_from_slice(&self.0[12..]);
        KeyId(id)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02X}"))
    }
}

/// A key packet.
#[derive(Clone, Debug)]
struct Key {
    created: u64,
    algorithm: u8,
    material: KeyMaterial,
    fingerprint: Fingerprint,
    /// What signatures over the key hash.
    hashed: Vec<u8>,
}

impl Key {
    fn parse(body: &[u8]) -> Result<Self, Error> {
        let mut bytes = Bytes(body);
        let version = bytes.byte()?;
        if version != 4 {
            return Err(Error::Version(version));
        }
        let created = bytes.number(4)? as u64;
        let algorithm = bytes.byte()?;
        let material = KeyMaterial::parse(algorithm, &mut bytes)?;
        let length = u16::try_from(body.len()).map_err(|_| Error::TooLarge)?;
        let mut hashed = vec![0x99];
        hashed.extend(length.to_be_bytes());
        hashed.extend_from_slice(body);
        let digest = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, &hashed);
        let mut fingerprint = [0; 20];
        fingerprint.copy_from_slice(digest.as_ref());
        Ok(Self { created, algorithm, material, fingerprint: Fingerprint(fingerprint), hashed })
    }
}

/// A key that may have signed something, with all that is needed to say whether it may.
#[derive(Clone, Debug)]
struct Signer {
    key: Key,
    expires: Option<u64>,
    revoked: bool,
    may_sign: bool,
}

/// The keys of a file.
#[derive(Clone, Debug, Default)]
pub struct Keyring {
    signers: Vec<Signer>,
    /// The people's names on the keys.
    pub users: Vec<String>,
}

/// Packets of one primary key.
#[derive(Default)]
struct Certificate {
    primary: Option<Key>,
    /// What was said about the primary key, directly or by its users' names.
    about: Vec<(Option<Vec<u8>>, Signature)>,
    subkeys: Vec<(Key, Vec<Signature>)>,
}

impl Keyring {
    /// Reads keys as `gpg --export` writes them, armoured or not. A key whose own signatures do not
    /// hold counts for nothing.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let mut keyring = Self::default();
        let mut current = Certificate::default();
        let mut user: Option<Vec<u8>> = None;
        for Packet { tag, body } in packet::packets(&packet::dearmour(bytes)?)? {
            match tag {
                tag::PUBLIC_KEY => {
                    keyring.add(std::mem::take(&mut current));
                    user = None;
                    // A key of another version takes its subkeys and signatures with it.
                    current.primary = Key::parse(&body).ok();
                }
                tag::PUBLIC_SUBKEY => {
                    if let (Some(_), Ok(key)) = (&current.primary, Key::parse(&body)) {
                        current.subkeys.push((key, Vec::new()));
                    }
                }
                tag::USER_ID => {
                    keyring.users.extend(String::from_utf8(body.clone()));
                    user = Some(hashed_user(0xb4, &body));
                }
                tag::USER_ATTRIBUTE => user = Some(hashed_user(0xd1, &body)),
                tag::SIGNATURE => {
                    // Others' certifications may be of any age and kind.
                    let Ok(signature) = Signature::parse(&body) else { continue };
                    match current.subkeys.last_mut() {
                        Some((_, signatures)) => signatures.push(signature),
                        None => current.about.push((user.clone(), signature)),
                    }
                }
                tag::TRUST | tag::MARKER => {}
                _ => return Err(Error::NotOpenPgp),
            }
        }
        keyring.add(current);
        if keyring.signers.is_empty() { Err(Error::NoKey) } else { Ok(keyring) }
    }

    fn add(&mut self, certificate: Certificate) {
        let Certificate { primary: Some(primary), about, subkeys } = certificate else { return };
        let mut latest: Option<&Signature> = None;
        let mut revoked = false;
        for (user, signature) in &about {
            let data = match (signature.kind, user) {
                (kind::DIRECT_KEY | kind::KEY_REVOCATION, _) => primary.hashed.clone(),
                (kind::CERTIFICATION_FIRST..=kind::CERTIFICATION_LAST, Some(user)) => {
                    [&primary.hashed[..], user].concat()
                }
                // A name that was taken back makes its certification worth nothing, at worst the key:
                // keys with a name taken back and another left are rare.
                (kind::CERTIFICATION_REVOCATION, Some(user)) => [&primary.hashed[..], user].concat(),
                _ => continue,
            };
            if signature.check_own(&primary.material, &data).is_err() {
                continue;
            }
            match signature.kind {
                kind::KEY_REVOCATION => revoked = true,
                kind::CERTIFICATION_REVOCATION => {}
                _ if latest.is_none_or(|known| known.created <= signature.created) => {
                    latest = Some(signature);
                }
                _ => {}
            }
        }
        let ends = |key: &Key, signature: &Signature| {
            signature.key_expires.map(|seconds| key.created.saturating_add(seconds))
        };
        let Some(latest) = latest else { return };
        let expires = ends(&primary, latest);
        for (key, signatures) in subkeys {
            let data = [&primary.hashed[..], &key.hashed].concat();
            let held = |s: &&Signature| s.check_own(&primary.material, &data).is_ok();
            let revoked_too =
                signatures.iter().filter(|s| s.kind == kind::SUBKEY_REVOCATION).any(|s| held(&s));
            let binding = signatures.iter().filter(|s| s.kind == kind::SUBKEY_BINDING).filter(held);
            let Some(binding) = binding.max_by_key(|s| s.created) else { continue };
            // A signing subkey must say itself whose it is (RFC 4880, 5.2.1, 0x19): else anybody
            // could take another's signatures for his own.
            let own = binding.embedded.as_deref().and_then(|body| Signature::parse(body).ok());
            let own = own.filter(|own| own.kind == kind::PRIMARY_KEY_BINDING);
            let may_sign =
                binding.lets_sign() && own.is_some_and(|own| own.check_own(&key.material, &data).is_ok());
            let own_end = ends(&key, binding);
            let expires = expires.into_iter().chain(own_end).min();
            self.signers.push(Signer { key, expires, revoked: revoked || revoked_too, may_sign });
        }
        let may_sign = latest.lets_sign();
        self.signers.push(Signer { key: primary, expires, revoked, may_sign });
    }

    /// The certificates of a file, one a keyring. Those that cannot be used at all are left out.
    pub fn split(bytes: &[u8]) -> Result<Vec<Self>, Error> {
        let mut rings = Vec::new();
        let mut rest = bytes;
        let mut start = bytes;
        let mut ended = |certificate: &[u8]| rings.extend(Self::parse(certificate).ok());
        while !rest.is_empty() {
            let (packet, after) = packet::first(rest)?;
            let before = start.len() - rest.len();
            if packet.tag == tag::PUBLIC_KEY && before > 0 {
                ended(&start[..before]);
                start = rest;
            }
            rest = after;
        }
        ended(start);
        Ok(rings)
    }

    /// The newest key that may sign at `now` (seconds since the epoch) of the certificate that `wanted` means: a
    /// fingerprint or its last 16 or 8 digits, or a part of a user's name and address.
    pub fn signing_key(&self, wanted: &str, now: u64) -> Option<compose::SigningKey> {
        let digits = wanted.strip_prefix("0x").unwrap_or(wanted).replace(' ', "").to_uppercase();
        let is_id = matches!(digits.len(), 8 | 16 | 40) && digits.bytes().all(|b| b.is_ascii_hexdigit());
        let named = |signer: &Signer| is_id && signer.key.fingerprint.to_string().ends_with(&digits);
        let lower = wanted.to_lowercase();
        let of_user = || self.users.iter().any(|user| user.to_lowercase().contains(&lower));
        if wanted.is_empty() || !(self.signers.iter().any(named) || of_user()) {
            return None;
        }
        let usable = self.signers.iter().filter(|signer| {
            signer.may_sign && !signer.revoked && signer.expires.is_none_or(|end| end > now)
        });
        let keys =
            usable.filter_map(|signer| Some((signer.key.created, compose::SigningKey::of(&signer.key)?)));
        keys.max_by_key(|(created, _)| *created).map(|(_, key)| key)
    }

    fn signers(&self, id: &[u8; 8]) -> impl Iterator<Item = &Signer> {
        self.signers.iter().filter(move |signer| signer.key.fingerprint.id().0 == *id)
    }
}

/// What signatures over a user's name hash (RFC 4880, 5.2.4).
fn hashed_user(prefix: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    [&[prefix][..], &length.to_be_bytes(), body].concat()
}

/// Checks a signed message (`gpg --sign`, `skopeo copy --sign-by`) at the time `now`, in seconds since
/// the epoch, and gives the text that was signed.
pub fn verify(message: &[u8], keyrings: &[Keyring], now: u64) -> Result<Vec<u8>, Error> {
    let packets: Vec<Packet> =
        packet::message(message)?.into_iter().filter(|packet| packet.tag != tag::MARKER).collect();
    let (literal, signature) = match packets.as_slice() {
        [one, literal, signature]
            if one.tag == tag::ONE_PASS && literal.tag == tag::LITERAL && signature.tag == tag::SIGNATURE =>
        {
            (literal, signature)
        }
        // The old form, the signature before the text.
        [signature, literal] if literal.tag == tag::LITERAL && signature.tag == tag::SIGNATURE => {
            (literal, signature)
        }
        _ => return Err(Error::Form),
    };
    let signature = Signature::parse(&signature.body)?;
    // Binary only: a text signature covers other bytes than those that are read.
    if signature.kind != kind::BINARY {
        return Err(Error::Form);
    }
    let text = literal_text(&literal.body)?;
    let issuer = signature.issuer.ok_or(Error::Form)?;
    let mut known = keyrings.iter().flat_map(|keyring| keyring.signers(&issuer)).peekable();
    if known.peek().is_none() {
        return Err(Error::UnknownKey(KeyId(issuer)));
    }
    let mut failure = Error::Bad;
    for signer in known {
        match check(signer, &signature, text, now) {
            Ok(()) => return Ok(text.to_vec()),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn check(signer: &Signer, signature: &Signature, text: &[u8], now: u64) -> Result<(), Error> {
    let id = signer.key.fingerprint.id();
    signature.check(&signer.key.material, text)?;
    signature.check_time(now)?;
    if signer.revoked {
        return Err(Error::KeyRevoked(id));
    }
    if !signer.may_sign {
        return Err(Error::KeyUse(id));
    }
    if signer.expires.is_some_and(|end| end <= now) || signature.created < signer.key.created {
        return Err(Error::KeyExpired(id));
    }
    Ok(())
}

/// The text in a literal packet: behind its format, its file name and its date (RFC 4880, 5.9).
fn literal_text(body: &[u8]) -> Result<&[u8], Error> {
    let mut bytes = Bytes(body);
    bytes.byte()?;
    let name = bytes.number(1)?;
    bytes.take(name + 4)?;
    Ok(bytes.0)
}

#[cfg(test)]
mod tests;
