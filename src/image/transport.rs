//! Where an image comes from: the transports of containers-transports(5) that make sense without
//! a daemon.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::reference::{ParseReferenceError, Reference};

/// A text that names no source of images.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseTransportError {
    /// The name after `docker://` is none.
    #[error(transparent)]
    Reference(#[from] ParseReferenceError),
    /// Nothing after the colon.
    #[error("\"{0}\" names no path")]
    NoPath(String),
    /// A transport that Podman knows and Umiak does not.
    #[error(
        "the transport of \"{0}\" is not supported: use docker://, oci:, oci-archive:, docker-archive: or dir:"
    )]
    Unsupported(String),
}

/// A source of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// `docker://NAME`, or just a name: a registry.
    Registry(Reference),
    /// `oci:PATH[:TAG]`: a directory in OCI's image layout.
    Oci {
        /// The directory.
        path: PathBuf,
        /// Value of `org.opencontainers.image.ref.name`.
        tag: Option<String>,
    },
    /// `oci-archive:PATH[:TAG]`: a tar archive of such a directory.
    OciArchive {
        /// The archive, which may be compressed.
        path: PathBuf,
        /// Value of `org.opencontainers.image.ref.name`.
        tag: Option<String>,
    },
    /// `docker-archive:PATH[:NAME]`: what `docker save` writes.
    DockerArchive {
        /// The archive, which may be compressed.
        path: PathBuf,
        /// Which of the images in it.
        name: Option<Reference>,
    },
    /// `dir:PATH`: what `skopeo copy` writes into a directory.
    Dir(PathBuf),
}

impl Transport {
    /// Whether `text` names a transport, so that it is no plain image name.
    pub fn is_explicit(text: &str) -> bool {
        let known = ["docker://", "oci:", "oci-archive:", "docker-archive:", "dir:"];
        let foreign = ["containers-storage:", "docker-daemon:", "ostree:", "sif:", "tarball:", "openshift:"];
        known.iter().chain(&foreign).any(|prefix| text.starts_with(prefix))
    }
}

/// Splits `PATH[:TAG]` at the first colon (containers-transports(5): a path may not have one).
fn split(text: &str) -> Result<(PathBuf, Option<&str>), ParseTransportError> {
    let (path, tag) = match text.split_once(':') {
        Some((path, tag)) => (path, Some(tag).filter(|tag| !tag.is_empty())),
        None => (text, None),
    };
    if path.is_empty() {
        return Err(ParseTransportError::NoPath(text.to_owned()));
    }
    Ok((path.into(), tag))
}

impl FromStr for Transport {
    type Err = ParseTransportError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(name) = text.strip_prefix("docker://") {
            return Ok(Self::Registry(name.parse()?));
        }
        if !Self::is_explicit(text) {
            return Ok(Self::Registry(text.parse()?));
        }
        let (scheme, rest) = text.split_once(':').unwrap_or((text, ""));
        let owned = |tag: Option<&str>| tag.map(str::to_owned);
        match scheme {
            "oci" => split(rest).map(|(path, tag)| Self::Oci { path, tag: owned(tag) }),
            "oci-archive" => split(rest).map(|(path, tag)| Self::OciArchive { path, tag: owned(tag) }),
            "docker-archive" => {
                let (path, name) = split(rest)?;
                let name = name.map(|name| name.parse::<Reference>()).transpose()?;
                // Docker's archives spell out neither docker.io nor library/.
                let name = name.map(|n| if n.is_short() { n.at("docker.io") } else { n });
                Ok(Self::DockerArchive { path, name })
            }
            "dir" if rest.is_empty() => Err(ParseTransportError::NoPath(text.to_owned())),
            "dir" => Ok(Self::Dir(rest.into())),
            _ => Err(ParseTransportError::Unsupported(text.to_owned())),
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tagged = |f: &mut fmt::Formatter<'_>, scheme: &str, path: &PathBuf, tag: Option<String>| {
            write!(f, "{scheme}:{}", path.display())?;
            tag.iter().try_for_each(|tag| write!(f, ":{tag}"))
        };
        match self {
            Self::Registry(reference) => write!(f, "docker://{reference}"),
            Self::Oci { path, tag } => tagged(f, "oci", path, tag.clone()),
            Self::OciArchive { path, tag } => tagged(f, "oci-archive", path, tag.clone()),
            Self::DockerArchive { path, name } => {
                tagged(f, "docker-archive", path, name.as_ref().map(ToString::to_string))
            }
            Self::Dir(path) => write!(f, "dir:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transports() {
        let parse = |text: &str| text.parse::<Transport>().unwrap();
        assert_eq!(parse("oci:/a/b:1"), Transport::Oci { path: "/a/b".into(), tag: Some("1".into()) });
        assert_eq!(parse("oci-archive:x.tar"), Transport::OciArchive { path: "x.tar".into(), tag: None });
        assert_eq!(parse("dir:/a:b"), Transport::Dir("/a:b".into()));
        assert_eq!(
            parse("docker-archive:x:busybox").to_string(),
            "docker-archive:x:docker.io/library/busybox"
        );
        assert_eq!(parse("docker://localhost:5000/x").to_string(), "docker://localhost:5000/x");
        assert!(matches!(parse("busybox:1"), Transport::Registry(_)));
        for bad in ["oci:", "dir:", "docker-daemon:x", "docker://", "containers-storage:x"] {
            assert!(bad.parse::<Transport>().is_err(), "{bad}");
        }
    }
}
