//! Blobs as they came from elsewhere: manifests, configurations, compressed layers, each in a
//! file that is named after the digest of its content.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::Digest as _;

use super::{Error, IoContext, Result, Store};
use crate::base::digest::Digest;
use crate::sys::atomic::{self, Durability};

impl Store {
    /// Where the blob is, if it is there, in this store or an additional one.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.find(&Path::new("blobs/sha256").join(digest.hex()))
    }

    fn own_blob_path(&self, digest: &Digest) -> PathBuf {
        self.path("blobs/sha256").join(digest.hex())
    }

    /// The content of a small blob (a manifest, a configuration), checked against its digest; `None` if it is not there.
    pub fn read_blob(&self, digest: &Digest) -> Result<Option<Vec<u8>>> {
        let path = self.blob_path(digest);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.context("reading", &path)?,
        };
        let found = Digest::of(&bytes);
        if found != *digest {
            return Err(Error::Digest { expected: *digest, found });
        }
        Ok(Some(bytes))
    }

    /// Reads a blob of any size and checks it against its digest.
    pub fn verify_blob(&self, digest: &Digest) -> Result<()> {
        let path = self.blob_path(digest);
        let mut file = fs::File::open(&path).context("opening", &path)?;
        let mut hash = sha2::Sha256::new();
        let mut buffer = vec![0; 128 << 10];
        loop {
            let count = file.read(&mut buffer).context("reading", &path)?;
            if count == 0 {
                break;
            }
            hash.update(&buffer[..count]);
        }
        let found = Digest::from_bytes(hash.finalize().into());
        if found == *digest { Ok(()) } else { Err(Error::Digest { expected: *digest, found }) }
    }

    /// Stores a small blob durably and returns its digest.
    pub fn write_blob(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        let path = self.own_blob_path(&digest);
        if fs::metadata(&path).is_ok_and(|stat| stat.len() == bytes.len() as u64) {
            return Ok(digest);
        }
        atomic::write(&path, bytes, 0o600, Durability::Synced).context("writing", &path)?;
        Ok(digest)
    }

    /// Gives a finished file of `staging`, whose content was checked, its place.
    pub fn publish_blob(&self, staged: &Path, digest: &Digest) -> Result<()> {
        let path = self.own_blob_path(digest);
        fs::rename(staged, &path).context("publishing", &path)
    }
}
