//! Artifacts: any files under a name, as OCI manifests without a configuration (OCI image specification,
//! `manifest.md`, "Guidelines for Artifact Usage").

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::manifest::MAX_MANIFEST;
use crate::base::digest::Digest;

/// The annotation that names a file.
pub const TITLE: &str = "org.opencontainers.image.title";
/// What a manifest is, and an artifact's is no other.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The whole content of a configuration that says nothing.
pub const EMPTY: &[u8] = b"{}";

const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";
/// A configuration of no kind that anybody has told.
pub const UNKNOWN_CONFIG: &str = "application/vnd.unknown.config.v1+json";
const UNKNOWN_TYPE: &str = "application/vnd.unknown.artifact.v1";

/// A manifest that is no artifact's, or cannot be one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be understood.
    #[error("its manifest is damaged")]
    Parse(#[source] serde_json::Error),
    /// It is too large.
    #[error("its manifest would have {0} bytes, more than the {MAX_MANIFEST} allowed")]
    TooLarge(u64),
    /// It is a list of manifests.
    #[error("it is a list of images, not an artifact")]
    List,
    /// Two files have the same name.
    #[error("it has a file \"{0}\" already")]
    Twice(String),
    /// No file has the digest or title.
    #[error("it has no file \"{0}\"")]
    NoFile(String),
    /// A name that would lead somewhere else.
    #[error("its file \"{0}\" has no name that a file can have")]
    Title(String),
}

/// A file of an artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct File {
    /// What kind of file.
    pub media_type: String,
    /// Digest of its content.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// [`TITLE`] and whatever else is said of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
    /// All else that its descriptor says.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

impl File {
    /// Its name.
    pub fn title(&self) -> Option<&str> {
        self.annotations.as_ref()?.get(TITLE).map(String::as_str)
    }

    /// The name of the file that it becomes: its title, else its digest. A title is somebody else's word.
    pub fn name(&self) -> Result<String, Error> {
        let Some(title) = self.title() else { return Ok(self.digest.hex()) };
        let bad = title.is_empty() || [".", ".."].contains(&title) || title.contains(['/', '\0']);
        if bad { Err(Error::Title(title.to_owned())) } else { Ok(title.to_owned()) }
    }
}

/// An artifact's manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    schema_version: u32,
    media_type: Option<String>,
    /// What kind of artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The configuration.
    pub config: File,
    /// The files.
    #[serde(default)]
    pub layers: Vec<File>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    annotations: Option<BTreeMap<String, String>>,
    #[serde(flatten)]
    other: BTreeMap<String, Value>,
}

impl Manifest {
    /// One without files, made at the time `created` (RFC 3339).
    pub fn new(artifact_type: Option<String>, created: String) -> Self {
        let config = File {
            media_type: EMPTY_TYPE.to_owned(),
            digest: Digest::of(EMPTY),
            size: EMPTY.len() as u64,
            annotations: None,
            other: BTreeMap::from([("data".to_owned(), json!("e30="))]),
        };
        let created = BTreeMap::from([("org.opencontainers.image.created".to_owned(), created)]);
        Self {
            schema_version: 2,
            media_type: Some(MANIFEST.to_owned()),
            artifact_type: Some(artifact_type.unwrap_or_else(|| UNKNOWN_TYPE.to_owned())),
            config,
            layers: Vec::new(),
            annotations: Some(created),
            other: BTreeMap::new(),
        }
    }

    /// Parses one.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let manifest: Self = serde_json::from_slice(bytes).map_err(|error| {
            let list = serde_json::from_slice::<Value>(bytes).is_ok_and(|v| v.get("manifests").is_some());
            if list { Error::List } else { Error::Parse(error) }
        })?;
        if manifest.other.contains_key("manifests") {
            return Err(Error::List);
        }
        Ok(manifest)
    }

    /// Says which manifest it is about, by that one's descriptor.
    pub fn set_subject(&mut self, subject: Option<Value>) {
        if let Some(subject) = subject {
            self.other.insert("subject".to_owned(), subject);
        }
    }

    /// Adds a file.
    pub fn add(&mut self, file: File) -> Result<(), Error> {
        let title = file.title().map(str::to_owned);
        if let Some(title) =
            title.filter(|title| self.layers.iter().any(|known| known.title() == Some(title)))
        {
            return Err(Error::Twice(title));
        }
        self.layers.push(file);
        Ok(())
    }

    /// As a registry gets it.
    pub fn bytes(&self) -> Result<Vec<u8>, Error> {
        let bytes = serde_json::to_vec(self).map_err(Error::Parse)?;
        if bytes.len() as u64 > MAX_MANIFEST { Err(Error::TooLarge(bytes.len() as u64)) } else { Ok(bytes) }
    }

    /// The files, or the one that has this digest or title.
    pub fn select(&self, digest: Option<&str>, title: Option<&str>) -> Result<Vec<&File>, Error> {
        let Some(wanted) = digest.or(title) else { return Ok(self.layers.iter().collect()) };
        let bare = |text: &str| text.strip_prefix("sha256:").unwrap_or(text).to_owned();
        let fits = |file: &&File| match digest {
            Some(digest) => bare(digest).len() >= 3 && file.digest.hex().starts_with(&bare(digest)),
            None => file.title() == title,
        };
        let found: Vec<_> = self.layers.iter().filter(fits).collect();
        if found.is_empty() { Err(Error::NoFile(wanted.to_owned())) } else { Ok(found) }
    }

    /// Bytes of all files.
    pub fn size(&self) -> u64 {
        self.layers.iter().map(|file| file.size).sum()
    }

    /// The digests of all that it names.
    pub fn blobs(&self) -> Vec<Digest> {
        self.layers.iter().map(|file| file.digest).chain([self.config.digest]).collect()
    }
}

/// The media type of a file that begins so.
pub fn media_type(start: &[u8]) -> &'static str {
    let known: [(&[u8], &str); 8] = [
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"\xff\xd8\xff", "image/jpeg"),
        (b"GIF8", "image/gif"),
        (b"%PDF-", "application/pdf"),
        (b"PK\x03\x04", "application/zip"),
        (b"\x1f\x8b\x08", "application/x-gzip"),
        (b"\x28\xb5\x2f\xfd", "application/zstd"),
        (b"\0asm", "application/wasm"),
    ];
    if let Some((_, kind)) = known.iter().find(|(magic, _)| start.starts_with(magic)) {
        return kind;
    }
    let text = match std::str::from_utf8(start) {
        Ok(_) => true,
        // A character may be cut at the end of what was read.
        Err(error) => error.error_len().is_none() && error.valid_up_to() + 4 > start.len(),
    };
    let control = start.iter().any(|byte| *byte < 0x20 && !b"\t\n\r\x0c\x1b".contains(byte));
    if text && !control { "text/plain; charset=utf-8" } else { "application/octet-stream" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(title: &str, content: &[u8]) -> File {
        File {
            media_type: media_type(content).to_owned(),
            digest: Digest::of(content),
            size: content.len() as u64,
            annotations: Some(BTreeMap::from([(TITLE.to_owned(), title.to_owned())])),
            other: BTreeMap::new(),
        }
    }

    #[test]
    fn files_are_added_and_found() {
        let mut manifest = Manifest::new(None, "2026-01-01T00:00:00Z".into());
        manifest.add(file("a.txt", b"text")).unwrap();
        manifest.add(file("b", b"\0\x01")).unwrap();
        assert!(matches!(manifest.add(file("b", b"other")), Err(Error::Twice(_))));
        let bytes = manifest.bytes().unwrap();
        let again = Manifest::parse(&bytes).unwrap();
        assert_eq!((&again, again.size()), (&manifest, 6));
        assert_eq!(again.artifact_type.as_deref(), Some("application/vnd.unknown.artifact.v1"));
        assert_eq!(again.select(None, None).unwrap().len(), 2);
        assert_eq!(again.select(None, Some("b")).unwrap()[0].size, 2);
        let digest = Digest::of(b"text").to_string();
        assert_eq!(again.select(Some(&digest), None).unwrap()[0].title(), Some("a.txt"));
        assert_eq!(again.select(Some(&digest[7..12]), None).unwrap().len(), 1);
        assert!(matches!(again.select(None, Some("c")), Err(Error::NoFile(_))));
    }

    #[test]
    fn hostile_titles_are_no_names() {
        for title in ["", ".", "..", "a/b", "/etc/passwd", "../x", "a\0b"] {
            assert!(matches!(file(title, b"").name(), Err(Error::Title(_))), "{title:?}");
        }
        assert_eq!(file("..a", b"").name().unwrap(), "..a");
        assert_eq!(File { annotations: None, ..file("", b"x") }.name().unwrap(), Digest::of(b"x").hex());
        assert!(matches!(Manifest::parse(br#"{"manifests":[]}"#), Err(Error::List)));
        assert!(Manifest::parse(b"[]").is_err() && Manifest::parse(b"").is_err());
    }

    #[test]
    fn kinds_of_files() {
        assert_eq!(media_type(b"hello \xc3"), "text/plain; charset=utf-8");
        assert_eq!(media_type(b"a\0b"), "application/octet-stream");
        assert_eq!(media_type(b"\xff\xfe"), "application/octet-stream");
        assert_eq!(media_type(b"\x1f\x8b\x08\0"), "application/x-gzip");
        assert_eq!(media_type(b""), "text/plain; charset=utf-8");
    }
}
