//! GnuPG's signatures ("simple signing", containers-signature(5)): a signed text in a file of a directory.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::agent::{self, Agent};
use super::{Error, keybox};
use crate::base::digest::Digest;
use crate::image::Reference;
use crate::image::trust::openpgp::compose::SigningKey;
use crate::image::trust::{Lookaside, payload};
use crate::sys::{host, ids};

/// A user of GnuPG: `--sign-by` and `--sign-passphrase-file`.
#[derive(Clone)]
pub struct User {
    /// A fingerprint, or a part of a name.
    pub name: String,
    /// What the key is encrypted with; without, the agent asks for it.
    pub passphrase: Option<Vec<u8>>,
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "User({:?})", self.name)
    }
}

/// A key of GnuPG's that is there.
pub struct Signer {
    key: SigningKey,
    sockets: [PathBuf; 2],
    passphrase: Option<Vec<u8>>,
}

impl User {
    /// Looks for the key's public half.
    pub fn find(&self) -> Result<Signer, Error> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let usual = set("HOME").map(|home| home.join(".gnupg"));
        let home =
            set("GNUPGHOME").or_else(|| usual.clone()).ok_or_else(|| Error::NoHome(self.name.clone()))?;
        let rings =
            keybox::read(&home).map_err(|source| Error::Keybox { user: self.name.clone(), source })?;
        let now = seconds();
        let key = rings.iter().find_map(|ring| ring.signing_key(&self.name, u64::from(now)));
        let key = key.ok_or_else(|| Error::Unknown { user: self.name.clone(), home: home.clone() })?;
        let sockets = agent::sockets(&home, Some(&home) == usual.as_ref(), ids::euid());
        Ok(Signer { key, sockets, passphrase: self.passphrase.clone() })
    }
}

fn seconds() -> u32 {
    u32::try_from(host::now() / 1_000_000_000).unwrap_or(u32::MAX)
}

impl Signer {
    /// Signs a manifest as `reference`; the signature goes below `base` or where `registries.d` says.
    pub fn attach(&self, reference: &Reference, manifest: &Digest, base: Option<&Path>) -> Result<(), Error> {
        let what = reference.to_string();
        // Before the agent asks for a passphrase.
        let base = base.map_or_else(|| staging(reference), |base| Ok(base.to_owned()))?;
        let dir = base.join(format!("{}@sha256={}", reference.repository(), manifest.hex()));
        let text = payload::write(payload::Kind::Simple, manifest, &what);
        let unsigned = self.key.prepare(text.as_bytes(), seconds());
        let agent = Agent::connect(&self.sockets, self.passphrase.clone());
        let numbers = agent.and_then(|mut agent| agent.sign(&self.key, &unsigned, &what));
        let numbers = numbers.map_err(|source| Error::Agent { what, source })?;
        store(&dir, &unsigned.finish(&numbers))
    }
}

/// The directory that signatures are written to.
fn staging(reference: &Reference) -> Result<PathBuf, Error> {
    let what = || reference.to_string();
    let all = Lookaside::read(&|name| std::env::var_os(name))
        .map_err(|source| Error::Lookaside { what: what(), source })?;
    let url = all.staging(reference).ok_or_else(|| Error::Nowhere(what()))?;
    match url.strip_prefix("file://") {
        Some(path) => Ok(PathBuf::from(path)),
        None => Err(Error::Elsewhere { what: what(), url }),
    }
}

/// Adds a file `signature-N`: readers stop at the first number that is not there.
fn store(dir: &Path, signature: &[u8]) -> Result<(), Error> {
    // Others are to read it, whatever this process keeps to itself otherwise.
    let mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let written = write(dir, signature);
    rustix::process::umask(mask);
    written.map_err(|source| Error::Write { path: dir.to_owned(), source })
}

fn write(dir: &Path, signature: &[u8]) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    // Whole under a name of its own first; a link never replaces what another signer has just made.
    let whole = dir.join(format!(".signature-{}", std::process::id()));
    let linked = std::fs::File::create(&whole).and_then(|mut file| {
        file.write_all(signature)?;
        file.sync_all()?;
        let mut number = 1_u32;
        loop {
            let path = dir.join(format!("signature-{number}"));
            match std::fs::hard_link(&whole, &path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                other => break other,
            }
        }
    });
    let _ = std::fs::remove_file(&whole);
    linked
}
