//! Names of images: `[registry/]repository[:tag][@digest]`, read as Podman and Docker read them.

use std::fmt;
use std::str::FromStr;

use crate::base::digest::Digest;

/// A text that is no reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseReferenceError {
    /// Nothing at all, or a part between slashes is empty.
    #[error("\"{0}\" is not an image name")]
    Format(String),
    /// Docker's rule, which catches what is really an id or a typing error.
    #[error("\"{0}\" is not an image name: repository names are lower case")]
    UpperCase(String),
    /// A tag has other characters than `[A-Za-z0-9_.-]` or more than 128.
    #[error("\"{tag}\" is not a tag (in \"{text}\")")]
    Tag {
        /// The whole text.
        text: String,
        /// The tag.
        tag: String,
    },
    /// What follows `@` is no sha256 digest.
    #[error("the digest in \"{0}\" is not a sha256 digest")]
    Digest(String),
}

/// A name of an image, with or without a registry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    /// Host, with its port if there is one; `None` for a short name.
    registry: Option<String>,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// The registry's host and port; `None` for a short name.
    pub fn registry(&self) -> Option<&str> {
        self.registry.as_deref()
    }

    /// The repository within the registry.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag that was written.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest that was written.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Whether the registry was left out.
    pub fn is_short(&self) -> bool {
        self.registry.is_none()
    }

    /// This name at a registry. Docker Hub's official images live below `library/`.
    #[must_use]
    pub fn at(&self, registry: &str) -> Self {
        let mut full = self.clone();
        full.registry = Some(registry.to_owned());
        full.normalise()
    }

    /// This tag and digest with the registry and repository of `other`.
    #[must_use]
    pub fn named_as(&self, other: &Self) -> Self {
        let (registry, repository) = (other.registry.clone(), other.repository.clone());
        Self { registry, repository, tag: self.tag.clone(), digest: self.digest }
    }

    fn normalise(mut self) -> Self {
        if matches!(self.registry.as_deref(), Some("index.docker.io" | "registry-1.docker.io")) {
            self.registry = Some("docker.io".to_owned());
        }
        if self.registry.as_deref() == Some("docker.io") && !self.repository.contains('/') {
            self.repository.insert_str(0, "library/");
        }
        self
    }

    /// `registry/repository`, without tag and digest; a short name as it is.
    pub fn name(&self) -> String {
        match &self.registry {
            Some(registry) => format!("{registry}/{}", self.repository),
            None => self.repository.clone(),
        }
    }

    /// The name under which an image is kept: with `:latest` if there is neither tag nor digest,
    /// `None` if only a digest says which image it is.
    pub fn tagged(&self) -> Option<String> {
        match (&self.tag, &self.digest) {
            (Some(tag), _) => Some(format!("{}:{tag}", self.name())),
            (None, None) => Some(format!("{}:latest", self.name())),
            (None, Some(_)) => None,
        }
    }

    /// What a registry is asked for: the digest if there is one, else the tag, else `latest`.
    pub fn selector(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = ParseReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let format = || ParseReferenceError::Format(text.to_owned());
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = digest.parse().map_err(|_| ParseReferenceError::Digest(text.to_owned()))?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        let (registry, path) = match rest.split_once('/') {
            Some((first, path)) if is_registry(first) => (Some(first), path),
            _ => (None, rest),
        };
        let (repository, tag) = match path.rsplit_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (path, None),
        };
        if let Some(tag) = tag
            && !is_tag(tag)
        {
            return Err(ParseReferenceError::Tag { text: text.to_owned(), tag: tag.to_owned() });
        }
        if let Some(registry) = registry
            && !is_host(registry)
        {
            return Err(format());
        }
        if repository.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(ParseReferenceError::UpperCase(text.to_owned()));
        }
        // 255: the distribution specification's limit for clients.
        let length = registry.map_or(0, str::len) + repository.len();
        if length > 255 || !repository.split('/').all(is_component) {
            return Err(format());
        }
        let reference = Self {
            registry: registry.map(str::to_owned),
            repository: repository.to_owned(),
            tag: tag.map(str::to_owned),
            digest,
        };
        Ok(reference.normalise())
    }
}

/// Docker's rule: the first part is a host if it has a dot or a port, or is `localhost`.
fn is_registry(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost"
}

fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let port = port.is_none_or(|port| port.parse::<u16>().is_ok());
    let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let label = |label: &str| {
                let inner = label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
                !label.is_empty() && inner && !label.starts_with('-') && !label.ends_with('-')
            };
            !host.is_empty() && host.split('.').all(label)
        }
    };
    port && host
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*` (distribution specification).
fn is_component(text: &str) -> bool {
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let ends = bytes.first().is_some_and(alphanumeric) && bytes.last().is_some_and(alphanumeric);
    let separators = text.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    let good = |s: &str| matches!(s, "" | "." | "_" | "__") || s.bytes().all(|b| b == b'-');
    ends && separators.into_iter().all(good)
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = text.as_bytes();
    bytes.len() <= 128
        && bytes.first().is_some_and(|b| word(*b))
        && bytes.iter().all(|b| word(*b) || matches!(b, b'.' | b'-'))
}

/// A full name without its tag.
pub fn untagged(name: &str) -> &str {
    match name.rfind(':') {
        Some(at) if !name[at..].contains('/') => &name[..at],
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Reference {
        text.parse().unwrap()
    }

    #[test]
    fn hosts_are_told_from_paths() {
        for (text, registry, repository) in [
            ("busybox", None, "busybox"),
            ("team/app:1", None, "team/app"),
            ("docker.io/busybox", Some("docker.io"), "library/busybox"),
            ("index.docker.io/a/b", Some("docker.io"), "a/b"),
            ("localhost/x", Some("localhost"), "x"),
            ("localhost:5000/x/y", Some("localhost:5000"), "x/y"),
            ("reg:5000/x", Some("reg:5000"), "x"),
            ("[::1]:5000/x", Some("[::1]:5000"), "x"),
            ("a.b/c__d/e--f.g", Some("a.b"), "c__d/e--f.g"),
        ] {
            let reference = parse(text);
            assert_eq!((reference.registry(), reference.repository()), (registry, repository), "{text}");
        }
    }

    #[test]
    fn tags_and_digests() {
        let digest = Digest::of(b"");
        let both = parse(&format!("r.io/a:1@{digest}"));
        assert_eq!(
            (both.tag(), both.digest(), both.selector()),
            (Some("1"), Some(digest), digest.to_string())
        );
        assert_eq!(both.tagged().as_deref(), Some("r.io/a:1"));
        assert_eq!(parse("r.io/a").tagged().as_deref(), Some("r.io/a:latest"));
        assert_eq!(parse(&format!("r.io/a@{digest}")).tagged(), None);
        assert_eq!(parse("busybox:1").at("docker.io").to_string(), "docker.io/library/busybox:1");
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            ":",
            "/",
            "a/",
            "/a",
            "a//b",
            "a:",
            "a:b:c",
            "a@sha256:0",
            "a..b",
            "a___b",
            "-a",
            "a-",
            "A",
            "a b",
            "a/../b",
            "a.b:70000/x",
            "-.b/x",
            "[::g]:1/x",
            "é",
            "a:é",
            "a\0",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text:?}");
        }
        assert!(format!("a:{}", "t".repeat(129)).parse::<Reference>().is_err());
        assert!("a/".repeat(200).parse::<Reference>().is_err());
    }
}
