//! `image sign`: signatures for what a registry has, in a directory.

use std::path::PathBuf;

use super::PullOptions;
use super::look::digests;
use crate::engine::Engine;
use crate::image::Transport;
use crate::image::trust::sign::{self, User};

/// Why an image is not signed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The image.
    #[error(transparent)]
    Images(#[from] super::Error),
    /// The key.
    #[error(transparent)]
    Sign(#[from] sign::Error),
    /// It is not at a registry.
    #[error("signing \"{0}\": only images of a registry are signed so")]
    NoRegistry(String),
}

impl Error {
    /// How to mend it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Images(error) => error.hint(),
            Self::Sign(error) => error.hint(),
            Self::NoRegistry(_) => None,
        }
    }
}

/// How it is signed.
#[derive(Clone, Debug)]
pub struct SignOptions {
    /// Who signs.
    pub user: User,
    /// Where the signatures go; where `registries.d` says if none.
    pub directory: Option<PathBuf>,
    /// Sign each image of a list too.
    pub all: bool,
    /// How the registry is asked.
    pub pull: PullOptions,
}

/// Signs images by their names.
///
/// The caller must be single-threaded, as for [`super::ensure`].
pub fn sign(engine: &Engine, names: &[String], options: &SignOptions) -> Result<(), Error> {
    let signer = options.user.find()?;
    for name in names {
        let bare = name.strip_prefix("docker://").unwrap_or(name);
        if Transport::is_explicit(bare) {
            return Err(Error::NoRegistry(name.clone()));
        }
        let (place, digests) = digests(engine, bare, &options.pull, options.all)?;
        let Ok(Transport::Registry(reference)) = place.parse() else {
            return Err(Error::NoRegistry(name.clone()));
        };
        for digest in digests {
            signer.attach(&reference, &digest, options.directory.as_deref())?;
        }
    }
    Ok(())
}
