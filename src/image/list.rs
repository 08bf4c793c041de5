//! Lists of images for several platforms, changed entry by entry: pure.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::manifest::{self, Document, Platform};
use crate::base::digest::Digest;
use crate::storage::{ImageList, ListEntry};

/// OCI's name for a list.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Docker's name for a list, which has no annotations.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// A list that cannot be changed so.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No entry has the digest.
    #[error("the list has no image with the digest {0}")]
    NoEntry(String),
    /// Not `key=value`.
    #[error("the annotation \"{0}\" is not of the form KEY=VALUE")]
    Annotation(String),
    /// What is in it cannot be understood.
    #[error("the list is damaged")]
    Damaged(#[source] manifest::Error),
}

/// What is said of an entry, or of the list itself; what is absent stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remarks {
    /// `KEY=VALUE`.
    pub annotations: Vec<String>,
    /// `GOARCH`.
    pub architecture: Option<String>,
    /// `GOOS`.
    pub os: Option<String>,
    /// Version of the operating system.
    pub os_version: Option<String>,
    /// Variant of the architecture.
    pub variant: Option<String>,
    /// Features of the processor.
    pub features: Vec<String>,
    /// Features of the operating system.
    pub os_features: Vec<String>,
}

/// A descriptor of an image.
pub fn descriptor(media_type: &str, bytes: &[u8], platform: Option<&Platform>) -> Value {
    let mut descriptor = json!({ "mediaType": media_type, "digest": Digest::of(bytes), "size": bytes.len() });
    if let Some(platform) = platform {
        descriptor["platform"] = json!({ "architecture": platform.architecture, "os": platform.os });
        if let Some(variant) = &platform.variant {
            descriptor["platform"]["variant"] = json!(variant);
        }
    }
    descriptor
}

/// Parses `KEY=VALUE`.
pub fn annotations(list: &[String]) -> Result<BTreeMap<String, String>, Error> {
    let pair = |text: &String| match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(Error::Annotation(text.clone())),
    };
    list.iter().map(pair).collect()
}

impl Remarks {
    fn apply(&self, descriptor: &mut Map<String, Value>) -> Result<(), Error> {
        let annotations = annotations(&self.annotations)?;
        if !annotations.is_empty() {
            let known = descriptor.entry("annotations").or_insert_with(|| json!({}));
            if let Value::Object(known) = known {
                known.extend(annotations.into_iter().map(|(key, value)| (key, json!(value))));
            }
        }
        // An artifact is for no platform until somebody says so.
        let mut platform = descriptor.remove("platform").unwrap_or_else(|| json!({}));
        if let Value::Object(platform) = &mut platform {
            let architecture = self.architecture.as_deref().map(manifest::go_architecture);
            let texts = [
                ("architecture", architecture),
                ("os", self.os.as_deref()),
                ("os.version", self.os_version.as_deref()),
                ("variant", self.variant.as_deref()),
            ];
            for (key, value) in texts {
                if let Some(value) = value {
                    platform.insert(key.to_owned(), json!(value));
                }
            }
            for (key, list) in [("features", &self.features), ("os.features", &self.os_features)] {
                if !list.is_empty() {
                    platform.insert(key.to_owned(), json!(list));
                }
            }
        }
        if platform.as_object().is_none_or(|platform| !platform.is_empty()) {
            descriptor.insert("platform".to_owned(), platform);
        }
        Ok(())
    }
}

fn digest_of(entry: &ListEntry) -> &str {
    entry.descriptor.get("digest").and_then(Value::as_str).unwrap_or_default()
}

/// Adds an image or an artifact, or says anew what one of the same digest is.
pub fn add(list: &mut ImageList, mut entry: ListEntry, remarks: &Remarks) -> Result<(), Error> {
    if let Value::Object(descriptor) = &mut entry.descriptor {
        remarks.apply(descriptor)?;
    }
    match list.entries.iter_mut().find(|known| digest_of(known) == digest_of(&entry)) {
        Some(known) => *known = entry,
        None => list.entries.push(entry),
    }
    Ok(())
}

/// Says something of the image with this digest.
pub fn annotate(list: &mut ImageList, digest: &str, remarks: &Remarks) -> Result<(), Error> {
    let entry = list.entries.iter_mut().find(|entry| digest_of(entry) == digest);
    let entry = entry.ok_or_else(|| Error::NoEntry(digest.to_owned()))?;
    match &mut entry.descriptor {
        Value::Object(descriptor) => remarks.apply(descriptor),
        _ => Err(Error::NoEntry(digest.to_owned())),
    }
}

/// Takes the image with this digest out.
pub fn remove(list: &mut ImageList, digest: &str) -> Result<(), Error> {
    let before = list.entries.len();
    list.entries.retain(|entry| digest_of(entry) != digest);
    if list.entries.len() == before { Err(Error::NoEntry(digest.to_owned())) } else { Ok(()) }
}

/// The list as a document of this media type ([`INDEX`] or [`DOCKER_LIST`]).
pub fn document(list: &ImageList, media_type: &str) -> Value {
    let docker = media_type == DOCKER_LIST;
    let manifest = |entry: &ListEntry| {
        let mut descriptor = entry.descriptor.clone();
        if let (true, Value::Object(descriptor)) = (docker, &mut descriptor) {
            descriptor.remove("annotations");
        }
        descriptor
    };
    let manifests: Vec<Value> = list.entries.iter().map(manifest).collect();
    let mut document = json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": manifests });
    if !docker && !list.annotations.is_empty() {
        document["annotations"] = json!(list.annotations);
    }
    if let (false, Some(subject)) = (docker, &list.subject) {
        document["subject"] = subject.clone();
    }
    document
}

/// The digest of the image for a platform, and where it was taken from.
pub fn choose(list: &ImageList, platform: &Platform) -> Result<(Digest, Option<String>), Error> {
    let bytes = document(list, INDEX).to_string().into_bytes();
    let entries = match Document::parse(&bytes, None).map_err(Error::Damaged)? {
        Document::Index(entries) => entries,
        Document::Manifest(_) => Vec::new(),
    };
    let chosen = platform.choose(&entries).map_err(Error::Damaged)?.descriptor.digest;
    let text = chosen.to_string();
    let source = list.entries.iter().find(|entry| digest_of(entry) == text);
    Ok((chosen, source.and_then(|entry| entry.source.clone())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(list: &mut ImageList, name: &str, platform: &str, remarks: &Remarks) -> String {
        let platform: Platform = platform.parse().unwrap();
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let descriptor = descriptor(kind, name.as_bytes(), Some(&platform));
        let source = Some(format!("docker://r.io/{name}"));
        add(list, ListEntry { descriptor, source, blobs: Vec::new() }, remarks).unwrap();
        Digest::of(name.as_bytes()).to_string()
    }

    #[test]
    fn entries_come_change_and_go() {
        let mut list = ImageList::default();
        let one = entry(&mut list, "one", "linux/amd64", &Remarks::default());
        let remarks =
            Remarks { variant: Some("v7".into()), annotations: vec!["a=b=c".into()], ..Remarks::default() };
        let two = entry(&mut list, "two", "linux/arm", &remarks);
        // The same again changes nothing but what is said of it.
        entry(&mut list, "one", "linux/amd64", &Remarks::default());
        assert_eq!(list.entries.len(), 2);
        let remarks = Remarks {
            os_features: vec!["win32k".into()],
            os_version: Some("10".into()),
            ..Remarks::default()
        };
        annotate(&mut list, &one, &remarks).unwrap();
        let made = document(&list, INDEX);
        assert_eq!(
            made["manifests"][0]["platform"],
            json!({ "architecture": "amd64", "os": "linux", "os.version": "10", "os.features": ["win32k"] })
        );
        assert_eq!(made["manifests"][1]["annotations"], json!({ "a": "b=c" }));
        assert_eq!(made["manifests"][1]["platform"]["variant"], "v7");
        let (digest, source) = choose(&list, &"linux/arm/v7".parse().unwrap()).unwrap();
        assert_eq!((digest.to_string(), source.as_deref()), (two.clone(), Some("docker://r.io/two")));
        assert!(choose(&list, &"linux/s390x".parse().unwrap()).is_err());
        remove(&mut list, &two).unwrap();
        assert!(matches!(remove(&mut list, &two), Err(Error::NoEntry(_))));
        assert!(matches!(annotate(&mut list, &two, &Remarks::default()), Err(Error::NoEntry(_))));
        let bad = Remarks { annotations: vec!["nothing".into()], ..Remarks::default() };
        assert!(matches!(annotate(&mut list, &one, &bad), Err(Error::Annotation(_))));
        list.annotations.insert("x".into(), "y".into());
        assert_eq!(document(&list, INDEX)["annotations"], json!({ "x": "y" }));
        assert!(document(&list, DOCKER_LIST).get("annotations").is_none());
    }
}
