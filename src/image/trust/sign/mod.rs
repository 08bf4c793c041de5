//! Signing images: with a key of sigstore's, whose signatures are beside the image in its registry, or with GnuPG's
//! keys, whose signatures are in a directory (containers-registries.d(5)).

mod agent;
mod cosign;
mod gnupg;
mod keybox;

use std::io;
use std::path::{Path, PathBuf};

pub use self::cosign::KeyFile;
pub use self::gnupg::{Signer as GnuPgSigner, User};
use super::{lookaside, read_limited};
use crate::base::digest::Digest;
use crate::image::Reference;
use crate::image::{destination, registry, source};

/// What cannot be signed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// GnuPG's directory is nowhere.
    #[error("signing with GnuPG's key \"{0}\": it is not said where GnuPG's keys are (HOME is not set)")]
    NoHome(String),
    /// GnuPG's public keys.
    #[error("signing with GnuPG's key \"{user}\"")]
    Keybox {
        /// Whose.
        user: String,
        /// Why.
        #[source]
        source: keybox::Error,
    },
    /// None of them.
    #[error("signing with GnuPG's key \"{user}\": \"{}\" has no such key that may sign", home.display())]
    Unknown {
        /// Whose.
        user: String,
        /// Where it was looked for.
        home: PathBuf,
    },
    /// GnuPG's private keys.
    #[error("signing \"{what}\"")]
    Agent {
        /// The image.
        what: String,
        /// Why.
        #[source]
        source: agent::Error,
    },
    /// Where signatures are kept.
    #[error("finding where signatures of \"{what}\" are kept")]
    Lookaside {
        /// The image.
        what: String,
        /// Why.
        #[source]
        source: lookaside::Error,
    },
    /// Not on this machine.
    #[error("storing the signature of \"{what}\": signatures are kept at \"{url}\", which is no directory")]
    Elsewhere {
        /// The image.
        what: String,
        /// Where.
        url: String,
    },
    /// Nowhere.
    #[error("storing the signature of \"{0}\": it is not said where signatures are kept")]
    Nowhere(String),
    /// The directory.
    #[error("storing a signature in \"{}\"", path.display())]
    Write {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file.
    #[error("reading the private key \"{}\"", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The key in it.
    #[error("the private key \"{}\" cannot be used: {why}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: &'static str,
    },
    /// The key would not sign.
    #[error("signing \"{0}\"")]
    Sign(String),
    /// The registry.
    #[error("storing the signature of \"{what}\"")]
    Put {
        /// The image.
        what: String,
        /// Why.
        #[source]
        source: destination::Error,
    },
    /// What is at the registry already.
    #[error("reading the signatures of \"{what}\"")]
    Known {
        /// The image.
        what: String,
        /// Why.
        #[source]
        source: Box<source::Error>,
    },
    /// Something else has the signatures' tag.
    #[error("\"{0}\" is no list of signatures, and is left as it is")]
    Foreign(String),
}

impl Error {
    /// How to mend it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Agent { source: agent::Error::Absent { .. }, .. } => {
                Some("\"gpgconf --launch gpg-agent\" starts it".to_owned())
            }
            Self::Unknown { .. } => Some("\"gpg --list-secret-keys\" tells which there are".to_owned()),
            Self::Elsewhere { .. } | Self::Nowhere(_) => Some(
                "a lookaside-staging: file:///DIR in registries.d says where they are written".to_owned(),
            ),
            _ => None,
        }
    }
}

/// A key that is asked for.
#[derive(Clone, Debug)]
pub enum Chosen {
    /// `--sign-by-sigstore-private-key`.
    Sigstore(KeyFile),
    /// `--sign-by`.
    GnuPg(User),
}

impl Chosen {
    /// Finds it, before anything goes out that it should sign.
    pub fn open(&self) -> Result<Signer, Error> {
        match self {
            Self::Sigstore(file) => file.open().map(Signer::Sigstore),
            Self::GnuPg(user) => user.find().map(Signer::GnuPg),
        }
    }
}

/// A key that can sign.
pub enum Signer {
    /// One of sigstore's.
    Sigstore(cosign::Key),
    /// One of GnuPG's.
    GnuPg(gnupg::Signer),
}

impl Signer {
    /// Signs the manifest that was pushed as `reference`, and puts the signature where it belongs. Signatures that are
    /// there stay.
    pub fn attach(
        &self,
        reference: &Reference,
        options: &registry::Options,
        manifest: &Digest,
    ) -> Result<(), Error> {
        match self {
            Self::Sigstore(key) => key.attach(reference, options, manifest),
            Self::GnuPg(signer) => signer.attach(reference, manifest, None),
        }
    }
}

/// Reads a passphrase from a file; one newline at its end is not of it.
pub fn passphrase(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = read_limited(path)?;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    Ok(bytes)
}
