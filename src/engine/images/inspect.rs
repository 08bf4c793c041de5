//! What an image says of itself.

use serde_json::{Value, json};

use super::Error;
use crate::storage::{ImageRecord, Store};

/// What `podman image inspect` shows of an image; `None` if there is none.
pub fn inspect(store: &Store, name: &str) -> Result<Option<Value>, Error> {
    let Some(image) = store.image(name)? else { return Ok(None) };
    let container = image.config.get("config").cloned().unwrap_or_else(|| json!({}));
    let text = |key: &str| image.config.get(key).cloned().unwrap_or_else(|| json!(""));
    let layers: Vec<String> = image.layers.iter().map(|layer| layer.diff_id.to_string()).collect();
    let lower: Vec<String> = image
        .layers
        .iter()
        .rev()
        .skip(1)
        .map(|layer| store.layer_dir(&layer.chain_id).display().to_string())
        .collect();
    let mut data = serde_json::Map::new();
    if !lower.is_empty() {
        data.insert("LowerDir".to_owned(), lower.join(":").into());
    }
    if let Some(top) = image.layers.last() {
        data.insert("UpperDir".to_owned(), store.layer_dir(&top.chain_id).display().to_string().into());
    }
    let labels = container.get("Labels").filter(|labels| !labels.is_null()).cloned();
    let user = container.get("User").cloned().unwrap_or_else(|| json!(""));
    Ok(Some(json!({
        "Id": image.id.hex(),
        "Digest": image.manifest,
        "RepoTags": image.names,
        "RepoDigests": image.repo_digests,
        "Parent": "",
        "Comment": text("comment"),
        "Created": image.created,
        "Config": container,
        "Version": text("docker_version"),
        "Author": text("author"),
        "Architecture": image.architecture,
        "Variant": image.variant.clone().unwrap_or_default(),
        "Os": image.os,
        "Size": image.size,
        "VirtualSize": image.size,
        "GraphDriver": { "Name": "overlay", "Data": data },
        "RootFS": { "Type": "layers", "Layers": layers },
        "Labels": labels,
        "Annotations": annotations(store, &image),
        "ManifestType": image.media_type,
        "User": user,
        "History": image.config.get("history").cloned().unwrap_or_else(|| json!([])),
        "NamesHistory": image.names,
    })))
}

fn annotations(store: &Store, image: &ImageRecord) -> Value {
    let manifest = store.read_blob(&image.manifest).ok().flatten();
    let manifest = manifest.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    manifest.and_then(|m| m.get("annotations").cloned()).filter(Value::is_object).unwrap_or_else(|| json!({}))
}
