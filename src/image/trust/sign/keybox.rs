//! GnuPG's public keys: the keybox `pubring.kbx` (`kbx/keybox-blob.c` describes it), or the plain
//! `pubring.gpg` of before.

use std::io;
use std::path::{Path, PathBuf};

use crate::image::trust::openpgp::Keyring;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file.
    #[error("reading the keys in \"{}\"", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The keys are in a database that belongs to another program.
    #[error("the keys of \"{}\" are kept by keyboxd, which is not supported", .0.display())]
    Keyboxd(PathBuf),
    /// The file is not whole.
    #[error("the keys in \"{}\" cannot be read: it is damaged", .0.display())]
    Damaged(PathBuf),
}

/// The length of what is read of a blob's head: length, type, version, flags, offset and length of the keys.
const HEAD: usize = 16;
const OPENPGP: u8 = 2;

/// The certificates in GnuPG's directory `home`, one a keyring. Those that cannot be used at all are left out.
pub fn read(home: &Path) -> Result<Vec<Keyring>, Error> {
    let open = |name: &str| {
        let path = home.join(name);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some((path, bytes))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::Read { path, source }),
        }
    };
    if let Some((path, bytes)) = open("pubring.kbx")? {
        let blobs = blobs(&bytes).ok_or(Error::Damaged(path))?;
        return Ok(blobs.into_iter().filter_map(|keys| Keyring::parse(keys).ok()).collect());
    }
    if home.join("public-keys.d/pubring.db").exists() {
        return Err(Error::Keyboxd(home.to_owned()));
    }
    match open("pubring.gpg")? {
        Some((path, bytes)) => Keyring::split(&bytes).map_err(|_| Error::Damaged(path)),
        None => Ok(Vec::new()),
    }
}

/// The OpenPGP certificates of a keybox.
fn blobs(mut bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let number = |bytes: &[u8], at: usize| {
        bytes.get(at..at + 4)?.try_into().ok().map(|four| u32::from_be_bytes(four) as usize)
    };
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let length = number(bytes, 0)?;
        let (blob, rest) = bytes.split_at_checked(length)?;
        // The shortest blob is an empty one, of length and type.
        let kind = *blob.get(4)?;
        if kind == OPENPGP && blob.len() >= HEAD {
            let (start, length) = (number(blob, 8)?, number(blob, 12)?);
            found.push(blob.get(start..start.checked_add(length)?)?);
        }
        bytes = rest;
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blobs_of_a_keybox() {
        let blob = |kind: u8, body: &[u8]| {
            let mut blob = (16 + body.len() as u32).to_be_bytes().to_vec();
            blob.extend([kind, 1, 0, 0]);
            blob.extend(16_u32.to_be_bytes());
            blob.extend((body.len() as u32).to_be_bytes());
            blob.extend(body);
            blob
        };
        let bytes = [blob(1, b"head"), blob(2, b"one"), blob(3, b"x509"), blob(2, b"two")].concat();
        assert_eq!(blobs(&bytes).unwrap(), [&b"one"[..], b"two"]);
        assert_eq!(blobs(b"").unwrap(), Vec::<&[u8]>::new());
        for end in 1..bytes.len() {
            // A cut between two blobs cannot be seen.
            let cut = blobs(&bytes[..end]);
            assert!(cut.is_none() || [20, 39, 59].contains(&end), "{end}");
        }
        // Blobs without an end, and keys beyond their blob.
        assert!(blobs(&[0, 0, 0, 0, 2]).is_none());
        let mut far = blob(2, b"one");
        far[11] = 200;
        assert!(blobs(&far).is_none());
    }
}
