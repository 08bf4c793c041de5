//! Manifests and indexes (OCI image specification; Docker's schema 2 is the same but for media types).

use serde::{Deserialize, Serialize};

use crate::base::digest::{Digest, ParseDigestError};
use crate::storage::ImageRecord;

/// Manifests and configurations larger than this are refused (distribution specification:
/// registries should take manifests of 4 MiB at least).
pub const MAX_MANIFEST: u64 = 4 << 20;

/// More layers than overlayfs can stack (500) are of no use.
pub const MAX_LAYERS: usize = 500;

/// Media types of manifests that are understood, for the Accept header.
pub const ACCEPT: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// A manifest that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is no JSON, or lacks what a manifest has.
    #[error("parsing the manifest")]
    Parse(#[source] serde_json::Error),
    /// It is larger than [`MAX_MANIFEST`].
    #[error("the manifest or configuration has {0} bytes, more than the {MAX_MANIFEST} allowed")]
    TooLarge(u64),
    /// Docker's format of before 2016.
    #[error("the manifest has Docker's schema 1, which is obsolete: the image must be pushed anew")]
    Schema1,
    /// A media type that is neither a manifest nor an index.
    #[error("the manifest has the media type \"{0}\", which is not an image's")]
    MediaType(String),
    /// It describes something else: a chart, a signature, a module.
    #[error("this is an artifact of type \"{0}\", not an image")]
    Artifact(String),
    /// A layer that this program cannot unpack.
    #[error("a layer has the media type \"{0}\", which is not supported")]
    LayerType(String),
    /// A digest of another algorithm, or malformed.
    #[error("the manifest names its content in an unsupported way")]
    Digest(#[source] ParseDigestError),
    /// A size below zero or absurd.
    #[error("the manifest gives a size of {0} bytes")]
    Size(i64),
    /// More layers than [`MAX_LAYERS`].
    #[error("the image has {0} layers, overlayfs takes {MAX_LAYERS}")]
    Layers(usize),
    /// The index has no image for this platform.
    #[error("there is no image for {wanted}: there are {}", available.join(", "))]
    NoPlatform {
        /// What was looked for.
        wanted: String,
        /// What is there.
        available: Vec<String>,
    },
    /// Indexes in indexes in indexes.
    #[error("indexes are nested too deeply")]
    Nesting,
    /// The configuration cannot be parsed.
    #[error("parsing the image's configuration")]
    Config(#[source] serde_json::Error),
    /// The configuration does not fit the manifest.
    #[error("the configuration lists {diff_ids} layers, the manifest {layers}")]
    LayerCount {
        /// In the configuration.
        diff_ids: usize,
        /// In the manifest.
        layers: usize,
    },
}

/// How a layer's blob is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Plain tar.
    None,
    /// gzip, of one or several members.
    Gzip,
    /// Zstandard.
    Zstd,
}

impl Compression {
    /// What the first bytes of a blob tell: media types are not to be trusted (Docker writes
    /// `tar.gzip` over plain archives).
    pub fn detect(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            // A skippable frame, with which zstd:chunked may begin.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::None,
        }
    }
}

/// A descriptor whose digest and size were understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Media type as written.
    pub media_type: String,
    /// Digest of the content.
    pub digest: Digest,
    /// Size of the content in bytes.
    pub size: u64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: i64,
    #[serde(default)]
    platform: Option<RawPlatform>,
    #[serde(default)]
    annotations: Option<std::collections::BTreeMap<String, String>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct RawPlatform {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    #[serde(default)]
    variant: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: i64,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    artifact_type: Option<String>,
    #[serde(default)]
    config: Option<RawDescriptor>,
    #[serde(default)]
    layers: Option<Vec<RawDescriptor>>,
    #[serde(default)]
    manifests: Option<Vec<RawDescriptor>>,
    #[serde(default)]
    fs_layers: Option<serde_json::Value>,
}

/// One image.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// Media type.
    pub media_type: String,
    /// The configuration.
    pub config: Descriptor,
    /// Layers, lowest first.
    pub layers: Vec<Descriptor>,
}

/// One entry of an index.
#[derive(Clone, Debug)]
pub struct IndexEntry {
    /// The manifest or a further index.
    pub descriptor: Descriptor,
    /// For which platform, if said.
    pub platform: Option<Platform>,
    /// `org.opencontainers.image.ref.name`.
    pub name: Option<String>,
    /// `io.containerd.image.name`, which Docker writes: the full name.
    pub full_name: Option<String>,
}

/// What a registry or a layout answers when asked for an image.
#[derive(Clone, Debug)]
pub enum Document {
    /// One image.
    Manifest(Manifest),
    /// Several, for different platforms.
    Index(Vec<IndexEntry>),
}

impl Document {
    /// Parses a manifest or an index; `content_type` is what the server called it, if anything.
    pub fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Self, Error> {
        if bytes.len() as u64 > MAX_MANIFEST {
            return Err(Error::TooLarge(bytes.len() as u64));
        }
        let raw: Raw = serde_json::from_slice(bytes).map_err(Error::Parse)?;
        if raw.schema_version == 1 || raw.fs_layers.is_some() {
            return Err(Error::Schema1);
        }
        let media_type = raw.media_type.or_else(|| content_type.map(str::to_owned)).unwrap_or_default();
        match (raw.manifests, raw.config, raw.layers) {
            // A document that is both would mean different things to different readers (CVE-2021-41190).
            (Some(_), Some(_), _) | (Some(_), _, Some(_)) => Err(Error::MediaType(media_type)),
            (Some(manifests), None, None) => {
                manifests.into_iter().map(index_entry).collect::<Result<_, _>>().map(Self::Index)
            }
            (None, Some(config), layers) => {
                if let Some(artifact) = raw.artifact_type.filter(|a| !a.is_empty()) {
                    return Err(Error::Artifact(artifact));
                }
                manifest(media_type, config, layers.unwrap_or_default()).map(Self::Manifest)
            }
            (None, None, _) => Err(Error::MediaType(media_type)),
        }
    }
}

fn manifest(
    media_type: String,
    config: RawDescriptor,
    layers: Vec<RawDescriptor>,
) -> Result<Manifest, Error> {
    let is_config =
        ["", "application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];
    if !is_config.contains(&config.media_type.as_str()) {
        return Err(Error::Artifact(config.media_type));
    }
    if layers.len() > MAX_LAYERS {
        return Err(Error::Layers(layers.len()));
    }
    if let Some(layer) = layers.iter().find(|layer| !is_layer(&layer.media_type)) {
        return Err(Error::LayerType(layer.media_type.clone()));
    }
    let media_type = if media_type.is_empty() { ACCEPT[1].to_owned() } else { media_type };
    let config = descriptor(config)?;
    if config.size > MAX_MANIFEST {
        return Err(Error::TooLarge(config.size));
    }
    Ok(Manifest { media_type, config, layers: layers.into_iter().map(descriptor).collect::<Result<_, _>>()? })
}

fn is_layer(media_type: &str) -> bool {
    let known = [
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
    ];
    let suffixes = ["", "+gzip", "+zstd", ".gzip", ".zstd"];
    media_type.is_empty()
        || known.iter().any(|k| media_type.strip_prefix(k).is_some_and(|rest| suffixes.contains(&rest)))
}

fn descriptor(raw: RawDescriptor) -> Result<Descriptor, Error> {
    let digest = raw.digest.parse().map_err(Error::Digest)?;
    let size = u64::try_from(raw.size).map_err(|_| Error::Size(raw.size))?;
    // 1 TiB: nothing larger is a layer.
    if size > 1 << 40 {
        return Err(Error::Size(raw.size));
    }
    Ok(Descriptor { media_type: raw.media_type, digest, size })
}

fn index_entry(raw: RawDescriptor) -> Result<IndexEntry, Error> {
    let platform = raw.platform.clone().map(|p| Platform {
        os: p.os,
        architecture: p.architecture,
        variant: p.variant.filter(|v| !v.is_empty()),
    });
    let annotation =
        |key: &str| raw.annotations.as_ref().and_then(|a| a.get(key)).filter(|v| !v.is_empty()).cloned();
    let (name, full_name) =
        (annotation("org.opencontainers.image.ref.name"), annotation("io.containerd.image.name"));
    Ok(IndexEntry { descriptor: descriptor(raw)?, platform, name, full_name })
}

/// An operating system, an architecture and its variant, in Go's words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// `GOOS`.
    pub os: String,
    /// `GOARCH`.
    pub architecture: String,
    /// `v7`, `v8`, …
    pub variant: Option<String>,
}

/// A text that is no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a platform: write os/architecture or os/architecture/variant")]
pub struct ParsePlatformError(pub String);

impl std::str::FromStr for Platform {
    type Err = ParsePlatformError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<&str> = text.split('/').collect();
        match parts.as_slice() {
            [os, architecture, rest @ ..] if rest.len() <= 1 && parts.iter().all(|p| !p.is_empty()) => {
                Ok(Self {
                    os: (*os).to_owned(),
                    architecture: go_architecture(architecture).to_owned(),
                    variant: rest.first().map(|v| (*v).to_owned()),
                })
            }
            _ => Err(ParsePlatformError(text.to_owned())),
        }
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

/// Go's word for an architecture that may be named as `uname -m` does.
pub fn go_architecture(name: &str) -> &str {
    match name {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "armhf" | "armv7l" => "arm",
        "x86" | "i386" | "i686" => "386",
        "powerpc64le" | "powerpc64" => "ppc64le",
        "loongarch64" => "loong64",
        other => other,
    }
}

/// Go's word for this machine's architecture.
pub fn own_architecture() -> &'static str {
    go_architecture(std::env::consts::ARCH)
}

impl From<&ImageRecord> for Platform {
    fn from(image: &ImageRecord) -> Self {
        let (os, architecture) = (image.os.clone(), image.architecture.clone());
        Self { os, architecture, variant: image.variant.clone() }
    }
}

impl Platform {
    /// The machine's.
    pub fn host() -> Self {
        let variant = match std::env::consts::ARCH {
            "arm" => Some("v7".to_owned()),
            _ => None,
        };
        Self { os: "linux".into(), architecture: own_architecture().into(), variant }
    }

    /// How well an image for `other` serves who wants this platform: lower is better, `None` is not at all.
    fn distance(&self, other: &Platform) -> Option<u32> {
        if self.os != other.os || self.architecture != go_architecture(&other.architecture) {
            return None;
        }
        let number = |variant: &str| variant.strip_prefix('v').and_then(|n| n.parse::<u32>().ok());
        match (self.variant.as_deref(), other.variant.as_deref()) {
            (None, None) => Some(0),
            (Some(a), Some(b)) if a == b => Some(0),
            // arm64 has only v8 in practice, and says so or not; amd64 without a variant is v1.
            (None, Some("v8")) if self.architecture == "arm64" => Some(0),
            (Some("v8"), None) if self.architecture == "arm64" => Some(0),
            (None, Some(v)) => (self.architecture != "amd64" || v == "v1").then_some(1),
            (Some(_), None) => Some(50),
            // An older variant runs on a newer processor, the newest such is best.
            (Some(a), Some(b)) => number(a)?.checked_sub(number(b)?).map(|older| older + 1),
        }
    }

    /// Chooses the entry for this platform.
    pub fn choose<'a>(&self, entries: &'a [IndexEntry]) -> Result<&'a IndexEntry, Error> {
        let fitting = entries.iter().filter_map(|entry| {
            let distance = match &entry.platform {
                Some(platform) => self.distance(platform)?,
                // An index of one image need not say for what.
                None => (entries.len() == 1).then_some(0)?,
            };
            Some((distance, entry))
        });
        fitting.min_by_key(|(distance, _)| *distance).map(|(_, entry)| entry).ok_or_else(|| {
            let named = entries.iter().filter_map(|e| e.platform.as_ref());
            let mut available: Vec<String> =
                named.filter(|p| p.os != "unknown").map(ToString::to_string).collect();
            available.dedup();
            if available.is_empty() {
                available.push("none".to_owned());
            }
            Error::NoPlatform { wanted: self.to_string(), available }
        })
    }

    /// Refuses an image whose configuration says that it is for another machine.
    pub fn check(&self, config: &Config) -> Result<(), Error> {
        let is = config.platform();
        // Images without an architecture exist (FROM scratch by hand), and run.
        if is.architecture.is_empty() || (is.os == self.os && is.architecture == self.architecture) {
            return Ok(());
        }
        Err(Error::NoPlatform { wanted: self.to_string(), available: vec![is.to_string()] })
    }
}

/// What the engine itself needs of an image's configuration.
#[derive(Clone, Debug, Deserialize)]
pub struct Config {
    #[serde(default)]
    architecture: Option<String>,
    #[serde(default)]
    os: Option<String>,
    #[serde(default)]
    variant: Option<String>,
    /// When it was built, RFC 3339.
    #[serde(default)]
    pub created: Option<String>,
    rootfs: RootFs,
}

#[derive(Clone, Debug, Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Option<Vec<String>>,
}

impl Config {
    /// Parses a configuration.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        serde_json::from_slice(bytes).map_err(Error::Config)
    }

    /// Digests of the uncompressed layers, which must be `layers` many.
    pub fn diff_ids(&self, layers: usize) -> Result<Vec<Digest>, Error> {
        let ids = self.rootfs.diff_ids.as_deref().unwrap_or_default();
        if ids.len() != layers {
            return Err(Error::LayerCount { diff_ids: ids.len(), layers });
        }
        ids.iter().map(|id| id.parse().map_err(Error::Digest)).collect()
    }

    /// For which machine it is.
    pub fn platform(&self) -> Platform {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        Platform {
            os: if text(&self.os).is_empty() { "linux".into() } else { text(&self.os) },
            architecture: go_architecture(&text(&self.architecture)).to_owned(),
            variant: self.variant.clone().filter(|v| !v.is_empty()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(platforms: &[&str]) -> Vec<IndexEntry> {
        let entry = |text: &&str| IndexEntry {
            descriptor: Descriptor {
                media_type: String::new(),
                digest: Digest::of(text.as_bytes()),
                size: 1,
            },
            platform: (!text.is_empty()).then(|| text.parse().unwrap()),
            name: None,
            full_name: None,
        };
        platforms.iter().map(entry).collect()
    }

    fn chosen(wanted: &str, platforms: &[&str]) -> Option<usize> {
        let entries = index(platforms);
        let wanted: Platform = wanted.parse().unwrap();
        let entry = wanted.choose(&entries).ok()?;
        entries.iter().position(|e| e.descriptor == entry.descriptor)
    }

    #[test]
    fn platforms_are_chosen() {
        assert_eq!(chosen("linux/amd64", &["linux/arm64", "linux/amd64"]), Some(1));
        assert_eq!(chosen("linux/amd64", &["linux/amd64/v3", "linux/amd64"]), Some(1));
        assert_eq!(chosen("linux/amd64", &["linux/amd64/v3"]), None);
        assert_eq!(chosen("linux/arm64", &["linux/arm64/v8"]), Some(0));
        assert_eq!(chosen("linux/arm/v7", &["linux/arm/v5", "linux/arm/v6", "linux/arm/v8"]), Some(1));
        assert_eq!(chosen("linux/amd64", &[""]), Some(0));
        assert_eq!(chosen("linux/amd64", &["", ""]), None);
        let entries = index(&["linux/amd64", "linux/arm64"]);
        let error = Platform::choose(&"linux/s390x".parse().unwrap(), &entries);
        assert_eq!(
            error.unwrap_err().to_string(),
            "there is no image for linux/s390x: there are linux/amd64, linux/arm64"
        );
    }

    #[test]
    fn hostile_manifests_are_refused() {
        let d = Digest::of(b"");
        let config = format!(
            r#"{{"mediaType":"{}","digest":"{d}","size":2}}"#,
            "application/vnd.oci.image.config.v1+json"
        );
        let parse = |text: String| Document::parse(text.as_bytes(), None);
        assert!(parse(format!(r#"{{"schemaVersion":2,"config":{config},"layers":[]}}"#)).is_ok());
        let both = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[],"manifests":[]}}"#);
        assert!(matches!(parse(both), Err(Error::MediaType(_))));
        assert!(matches!(parse(r#"{"schemaVersion":1,"fsLayers":[]}"#.into()), Err(Error::Schema1)));
        assert!(matches!(parse("[]".into()), Err(Error::Parse(_))));
        let negative =
            format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{{"digest":"{d}","size":-1}}]}}"#);
        assert!(matches!(parse(negative), Err(Error::Size(-1))));
        let traversal = r#"{"schemaVersion":2,"config":{"digest":"sha256:../../x","size":1},"layers":[]}"#;
        assert!(matches!(parse(traversal.into()), Err(Error::Digest(_))));
        let chart = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.cncf.helm.config.v1+json","digest":"{d}","size":1}}}}"#
        );
        assert!(matches!(parse(chart), Err(Error::Artifact(_))));
        assert!(matches!(
            Document::parse(&vec![b' '; MAX_MANIFEST as usize + 1], None),
            Err(Error::TooLarge(_))
        ));
    }

    #[test]
    fn compression_is_seen() {
        assert_eq!(Compression::detect(&[0x1f, 0x8b, 8]), Compression::Gzip);
        assert_eq!(Compression::detect(&[0x28, 0xb5, 0x2f, 0xfd]), Compression::Zstd);
        assert_eq!(Compression::detect(b""), Compression::None);
    }
}
