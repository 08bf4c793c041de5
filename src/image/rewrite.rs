//! Manifests for another place: of the other kind (OCI's, Docker's schema 2), or with layers that are
//! compressed in another way. What need not change keeps its bytes, and so its digest.

use serde_json::{Map, Value, json};

use super::chunked;
use super::manifest::{Compression, Error};
use crate::base::digest::Digest;

/// The kind of a manifest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// OCI image specification.
    #[default]
    Oci,
    /// Docker's schema 2.
    Docker,
}

const OCI: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

impl Form {
    /// Of a manifest of this media type.
    pub fn of(media_type: &str) -> Self {
        if media_type == DOCKER { Self::Docker } else { Self::Oci }
    }

    /// The media type of a manifest.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Oci => OCI,
            Self::Docker => DOCKER,
        }
    }

    /// The media type of a configuration.
    pub fn config(self) -> &'static str {
        match self {
            Self::Oci => OCI_CONFIG,
            Self::Docker => DOCKER_CONFIG,
        }
    }

    /// The media type of a layer.
    pub fn layer(self, compression: Compression) -> &'static str {
        match (self, compression) {
            (Self::Oci, Compression::None) => "application/vnd.oci.image.layer.v1.tar",
            (Self::Oci, Compression::Gzip) => "application/vnd.oci.image.layer.v1.tar+gzip",
            (Self::Oci, Compression::Zstd) => "application/vnd.oci.image.layer.v1.tar+zstd",
            (Self::Docker, Compression::None) => "application/vnd.docker.image.rootfs.diff.tar",
            (Self::Docker, Compression::Gzip) => "application/vnd.docker.image.rootfs.diff.tar.gzip",
            (Self::Docker, Compression::Zstd) => "application/vnd.docker.image.rootfs.diff.tar.zstd",
        }
    }
}

/// How a layer of this media type is compressed; `None` if the type does not say it.
pub fn compression(media_type: &str) -> Option<Compression> {
    match media_type {
        "" => None,
        gzip if gzip.ends_with("gzip") => Some(Compression::Gzip),
        zstd if zstd.ends_with("zstd") => Some(Compression::Zstd),
        _ => Some(Compression::None),
    }
}

/// Another blob of the same layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewBlob {
    /// Its digest.
    pub digest: Digest,
    /// Its size.
    pub size: u64,
    /// How it is compressed.
    pub compression: Compression,
    /// Its tables of contents, if it has such.
    pub chunked: Option<chunked::Marks>,
}

/// The manifest with other blobs for some of its layers, in the form `to`; and its media type.
pub fn rewrite(
    bytes: &[u8],
    media_type: &str,
    to: Form,
    blobs: &[Option<NewBlob>],
) -> Result<(Vec<u8>, String), Error> {
    let from = Form::of(media_type);
    if from == to && blobs.iter().all(Option::is_none) {
        return Ok((bytes.to_vec(), media_type.to_owned()));
    }
    let mut manifest: Map<String, Value> = serde_json::from_slice(bytes).map_err(Error::Parse)?;
    if let Some(layers) = manifest.get_mut("layers").and_then(Value::as_array_mut) {
        for (layer, blob) in layers.iter_mut().zip(blobs) {
            rewrite_layer(layer, from, to, *blob);
        }
    }
    if let Some(config) = manifest.get_mut("config").and_then(Value::as_object_mut) {
        config.insert("mediaType".into(), to.config().into());
        if to == Form::Docker {
            config.remove("annotations");
        }
    }
    if to == Form::Docker {
        // Schema 2 has none of these.
        for key in ["annotations", "subject", "artifactType"] {
            manifest.remove(key);
        }
    }
    manifest.insert("schemaVersion".into(), 2.into());
    manifest.insert("mediaType".into(), to.media_type().into());
    let bytes = serde_json::to_vec(&Value::Object(manifest)).map_err(Error::Parse)?;
    Ok((bytes, to.media_type().to_owned()))
}

fn rewrite_layer(layer: &mut Value, from: Form, to: Form, blob: Option<NewBlob>) {
    let Some(members) = layer.as_object_mut() else { return };
    let kind = members.get("mediaType").and_then(Value::as_str).unwrap_or_default().to_owned();
    match blob {
        Some(blob) => {
            members.insert("digest".into(), json!(blob.digest));
            members.insert("size".into(), blob.size.into());
            members.insert("mediaType".into(), to.layer(blob.compression).into());
            // Places where the old blob is, and tables of its content.
            members.remove("urls");
            members.remove("data");
            if let Some(annotations) = members.get_mut("annotations").and_then(Value::as_object_mut) {
                annotations.retain(|key, _| !key.contains("zstd-chunked") && !key.contains("stargz"));
                if annotations.is_empty() {
                    members.remove("annotations");
                }
            }
            if let Some(marks) = blob.chunked {
                let annotations = members.entry("annotations").or_insert_with(|| json!({}));
                if let Some(annotations) = annotations.as_object_mut() {
                    annotations.extend(marks.annotations().into_iter().map(|(k, v)| (k, v.into())));
                }
            }
        }
        None if from != to => {
            let gzip = compression(&kind).unwrap_or(Compression::Gzip);
            let foreign = kind.contains("foreign") || kind.contains("nondistributable");
            let translated = match (to, foreign) {
                (_, false) => to.layer(gzip).to_owned(),
                (Form::Oci, true) => to.layer(gzip).replace("layer.v1", "layer.nondistributable.v1"),
                (Form::Docker, true) => to.layer(gzip).replace("rootfs.diff", "rootfs.foreign.diff"),
            };
            members.insert("mediaType".into(), translated.into());
        }
        None => {}
    }
    if to == Form::Docker {
        members.remove("annotations");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(form: Form, layers: &[&str]) -> Vec<u8> {
        let d = Digest::of(b"");
        let layers: Vec<Value> = layers
            .iter()
            .map(|kind| {
                json!({"mediaType": kind, "digest": d, "size": 3,
                       "annotations": {"io.github.containers.zstd-chunked.manifest-checksum": "x", "a": "b"}})
            })
            .collect();
        json!({"schemaVersion": 2, "mediaType": form.media_type(), "annotations": {"k": "v"},
               "config": {"mediaType": "x", "digest": d, "size": 2}, "layers": layers})
        .to_string()
        .into_bytes()
    }

    #[test]
    fn what_need_not_change_keeps_its_bytes() {
        // Not as we would write it.
        let bytes = b" {\"layers\":[],\n\"schemaVersion\":2,\"config\":{}}";
        let (same, kind) = rewrite(bytes, OCI, Form::Oci, &[]).unwrap();
        assert_eq!((same.as_slice(), kind.as_str()), (&bytes[..], OCI));
    }

    #[test]
    fn there_and_back() {
        let kinds = ["application/vnd.oci.image.layer.v1.tar+gzip", "application/vnd.oci.image.layer.v1.tar"];
        let oci = manifest(Form::Oci, &kinds);
        let (docker, kind) = rewrite(&oci, OCI, Form::Docker, &[None, None]).unwrap();
        assert_eq!(kind, DOCKER);
        let value: Value = serde_json::from_slice(&docker).unwrap();
        assert_eq!(value["layers"][0]["mediaType"], "application/vnd.docker.image.rootfs.diff.tar.gzip");
        assert_eq!(value["layers"][1]["mediaType"], "application/vnd.docker.image.rootfs.diff.tar");
        assert_eq!(value["config"]["mediaType"], DOCKER_CONFIG);
        assert!(value.get("annotations").is_none() && value["layers"][0].get("annotations").is_none());
        let (back, _) = rewrite(&docker, DOCKER, Form::Oci, &[None, None]).unwrap();
        let value: Value = serde_json::from_slice(&back).unwrap();
        assert_eq!(value["layers"][0]["mediaType"], kinds[0]);
        assert_eq!(value["config"]["mediaType"], OCI_CONFIG);
    }

    #[test]
    fn another_blob_takes_nothing_of_the_old_one_along() {
        let oci = manifest(Form::Oci, &["application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"]);
        let blob =
            NewBlob { digest: Digest::of(b"new"), size: 9, compression: Compression::Gzip, chunked: None };
        let (new, _) = rewrite(&oci, OCI, Form::Oci, &[Some(blob)]).unwrap();
        let value: Value = serde_json::from_slice(&new).unwrap();
        let layer = &value["layers"][0];
        assert_eq!(layer["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
        assert_eq!((&layer["digest"], &layer["size"]), (&json!(blob.digest), &json!(9)));
        assert_eq!(layer["annotations"], json!({"a": "b"}));
    }
}
