//! Images for containers: found in the store or pulled into it, shown, removed.

mod history;
mod inspect;
mod look;
mod mount;
mod names;
mod pull;
mod remove;
mod search;
pub mod sign;
pub mod trust;

use std::str::FromStr;

use crate::image::manifest::ParsePlatformError;
use crate::image::reference::ParseReferenceError;
use crate::image::registries;
use crate::image::transport::ParseTransportError;
use crate::sys::child;
use crate::{image, storage};

pub use history::{HistoryEntry, TreeLayer};
pub use inspect::inspect;
pub use look::{SourceImage, look, root_document};
pub use mount::MountedImage;
pub(in crate::engine) use pull::{Failure, layer_hint, mend, registries, sync_later};
pub use pull::{PullOptions, ensure};
pub use remove::Removed;
pub(in crate::engine) use remove::matching_name;
pub use search::{Hit, all_tags, search};

/// What goes wrong with images.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// The name is no name.
    #[error(transparent)]
    Reference(#[from] ParseReferenceError),
    /// The source is no source.
    #[error(transparent)]
    Transport(#[from] ParseTransportError),
    /// `--platform`.
    #[error(transparent)]
    Platform(#[from] ParsePlatformError),
    /// `registries.conf`.
    #[error(transparent)]
    Registries(#[from] registries::Error),
    /// Credentials.
    #[error(transparent)]
    Auth(#[from] image::auth::Error),
    /// `policy.json`.
    #[error(transparent)]
    Trust(#[from] image::trust::policy::Error),
    /// Options that exclude each other.
    #[error("--platform cannot be used together with --os, --arch or --variant")]
    PlatformTwice,
    /// `--creds`.
    #[error("--creds takes user[:password]")]
    Creds,
    /// A policy that is none.
    #[error("\"{0}\" is not a pull policy: use always, missing, newer or never")]
    Policy(String),
    /// A list of images for several platforms.
    #[error("using the manifest list \"{name}\"")]
    List {
        /// As the user named it.
        name: String,
        /// Why it has no image for this.
        #[source]
        source: image::list::Error,
    },
    /// Nothing here, and pulling was forbidden.
    #[error("there is no image \"{name}\" here, and pulling is off")]
    NotHere {
        /// As the user named it.
        name: String,
        /// An image here with a name like it.
        similar: Option<String>,
    },
    /// No such image.
    #[error("there is no image \"{0}\"")]
    NoSuchImage(String),
    /// `containers-storage:[…]`.
    #[error("\"containers-storage:{0}\" names another store, which is not supported yet")]
    OtherStore(String),
    /// `--all-tags` of something else than a repository.
    #[error("\"{0}\" has no tags to list: name a repository of a registry, without tag and digest")]
    NoRepository(String),
    /// `tag` and `untag` with a digest.
    #[error("\"{0}\" has a digest: a name to give or take is a tag")]
    NameWithDigest(String),
    /// `untag` of what the image is not called.
    #[error("the image \"{image}\" is not called \"{name}\"")]
    NotItsName {
        /// As the user named it.
        image: String,
        /// The full name.
        name: String,
    },
    /// The pull failed. What failed in it was in another process: its chain of errors as text.
    #[error("pulling \"{name}\": {message}")]
    Pull {
        /// What was to be pulled.
        name: String,
        /// Why it failed.
        message: String,
        /// What may help.
        hint: Option<String>,
        /// The name may be a slip.
        misnamed: bool,
    },
    /// The process that works on the store.
    #[error("pulling \"{name}\"")]
    Child {
        /// What was to be pulled.
        name: String,
        /// Why.
        #[source]
        source: child::Error,
    },
    /// `rmi` of an image that containers use.
    #[error("removing image \"{name}\": it is used by {}", list(containers))]
    InUse {
        /// As the user named it.
        name: String,
        /// Names of the containers.
        containers: Vec<String>,
    },
    /// `rmi` of an image that is mounted.
    #[error("removing image \"{name}\": it is mounted at \"{}\"", path.display())]
    Mounted {
        /// As the user named it.
        name: String,
        /// Where.
        path: std::path::PathBuf,
    },
    /// `image mount` by an ordinary user.
    #[error("mounting an image needs root: \"umiak unshare\" is not supported yet")]
    MountAsUser,
    /// The layers are not as overlayfs wants them.
    #[error("mounting image \"{0}\": its layers lie on a file system that overlayfs cannot use")]
    NoOverlay(String),
    /// `image unmount` of one that is not mounted.
    #[error("image \"{0}\" is not mounted")]
    NotMounted(String),
    /// Mounting or unmounting failed.
    #[error("{action} \"{}\"", path.display())]
    Mount {
        /// What was being done, as "mounting".
        action: &'static str,
        /// Where.
        path: std::path::PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// `rmi` by id of an image with several names.
    #[error("removing image \"{id}\": it has several names ({})", names.join(", "))]
    SeveralNames {
        /// The short id.
        id: String,
        /// Its names.
        names: Vec<String>,
    },
}

fn list(containers: &[String]) -> String {
    let plural = if containers.len() == 1 { "container" } else { "containers" };
    format!("{plural} {}", containers.join(", "))
}

impl Error {
    /// How to mend it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Pull { hint, .. } => hint.clone(),
            Self::Registries(error) => error.hint(),
            Self::Auth(error) => error.hint(),
            Self::NotHere { similar: Some(image), .. } => Some(format!("did you mean {image}?")),
            Self::NotHere { name, .. } => Some(format!("umiak pull {name}")),
            Self::NoSuchImage(_) => Some("\"umiak images\" lists what is here".to_owned()),
            Self::InUse { containers, .. } => {
                Some(format!("umiak rm {}, or umiak rmi --force", containers.join(" ")))
            }
            // Asked only now: who can enter one need not be asked.
            Self::Child { source: child::Error::Enter(_), .. } => {
                crate::security::idmap::check_user_namespaces().err().map(|unavailable| unavailable.hint)
            }
            Self::Mounted { name, .. } => Some(format!("umiak image unmount {name}, or umiak rmi --force")),
            Self::MountAsUser => Some(
                "umiak export gives the files of a container as an archive, without being root".to_owned(),
            ),
            Self::NotMounted(_) => Some("\"umiak image mount\" lists what is mounted".to_owned()),
            Self::SeveralNames { .. } => Some("remove it by its names, or with --force".to_owned()),
            _ => None,
        }
    }

    /// Podman's exit code of `rmi`.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NoSuchImage(_) => 1,
            Self::InUse { .. } | Self::Mounted { .. } => 2,
            _ => 125,
        }
    }
}

/// When to pull an image that a container is to be made from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PullPolicy {
    /// Always; a failure is one even if there is an image here.
    Always,
    /// If there is none here.
    #[default]
    Missing,
    /// If the registry has another one; what is here serves if it cannot be asked.
    Newer,
    /// Never.
    Never,
}

impl FromStr for PullPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "always" | "true" => Ok(Self::Always),
            "missing" | "ifnotpresent" | "" => Ok(Self::Missing),
            "newer" | "ifnewer" => Ok(Self::Newer),
            "never" | "false" => Ok(Self::Never),
            _ => Err(Error::Policy(text.to_owned()).to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies() {
        assert_eq!("always".parse(), Ok(PullPolicy::Always));
        assert_eq!("ifnotpresent".parse(), Ok(PullPolicy::Missing));
        assert!("sometimes".parse::<PullPolicy>().is_err());
    }
}
