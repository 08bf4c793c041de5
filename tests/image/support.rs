//! A store in a directory of its own, and images made by hand.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use umiak::base::digest::Digest;
use umiak::image::pull::Error;
use umiak::image::{PullOptions, Silent, Transport, pull};
use umiak::storage::{ImageRecord, Ownership, Paths, Store};

/// A directory that goes with its value.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new() -> Self {
        let mut bytes = [0; 8];
        umiak::sys::atomic::fill_random(&mut bytes).unwrap();
        let dir = std::env::temp_dir().join(format!("umiak-image-{:x}", u64::from_ne_bytes(bytes)));
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    pub fn store(&self) -> Store {
        Store::open(&Paths::new(self.0.join("root"), self.0.join("run"))).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

pub fn options() -> PullOptions {
    let ownership = if is_root() { Ownership::Host } else { Ownership::Single };
    PullOptions { ownership, max_layer: 64 << 20, ..PullOptions::default() }
}

pub fn pull_text(store: &Store, source: &str) -> Result<ImageRecord, Error> {
    pull(store, &source.parse::<Transport>().unwrap(), &options(), &Silent)
}

/// The error's whole text.
pub fn failure(store: &Store, source: &str) -> String {
    umiak::base::report::chain(&pull_text(store, source).expect_err("the pull must fail"))
}

/// Nothing but directories is left in the store's `staging`, `layers` and `images`.
pub fn assert_clean(store: &Store) {
    for dir in ["staging", "trash", "layers", "images", "blobs/sha256", "tags"] {
        let names: Vec<_> = std::fs::read_dir(store.path(dir)).unwrap().flatten().collect();
        assert!(names.is_empty(), "{dir}: {names:?}");
    }
}

/// Builds a layer's archive.
pub struct Archive(tar::Builder<Vec<u8>>);

impl Archive {
    pub fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    /// Adds an entry whose name is written as it is, however bad.
    pub fn entry(mut self, name: &str, kind: u8, link: &str, data: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        {
            let raw = header.as_old_mut();
            raw.name[..name.len()].copy_from_slice(name.as_bytes());
            raw.linkname[..link.len()].copy_from_slice(link.as_bytes());
        }
        header.set_mode(if kind == b'5' { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        header.set_size(data.len() as u64);
        header.as_mut_bytes()[156] = kind;
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
        header.set_cksum();
        self.0.append(&header, data).unwrap();
        self
    }

    pub fn file(self, name: &str, data: &[u8]) -> Self {
        self.entry(name, b'0', "", data)
    }

    pub fn dir(self, name: &str) -> Self {
        self.entry(name, b'5', "", b"")
    }

    pub fn pax(mut self, records: &[(&str, &[u8])]) -> Self {
        self.0.append_pax_extensions(records.iter().map(|(k, v)| (*k, *v))).unwrap();
        self
    }

    pub fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// An image as blobs: its manifest, and everything that the manifest names.
pub struct Image {
    pub manifest: Value,
    pub blobs: Vec<Vec<u8>>,
}

impl Image {
    /// From archives, each of which becomes a gzip blob.
    pub fn new(layers: &[Vec<u8>]) -> Self {
        Self::with_blobs(layers, layers.iter().map(|layer| gzip(layer)).collect())
    }

    pub fn with_blobs(layers: &[Vec<u8>], compressed: Vec<Vec<u8>>) -> Self {
        let diff_ids: Vec<_> = layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
        let config = json!({
            "architecture": umiak::image::Platform::host().architecture, "os": "linux",
            "created": "2023-11-14T22:13:20Z",
            "config": { "Cmd": ["sh"], "Env": null },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = config.to_string().into_bytes();
        let descriptor = |kind: &str, blob: &[u8]| json!({ "mediaType": kind, "digest": Digest::of(blob).to_string(), "size": blob.len() });
        let layers: Vec<_> = compressed
            .iter()
            .map(|blob| descriptor("application/vnd.oci.image.layer.v1.tar+gzip", blob))
            .collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config), "layers": layers,
        });
        let mut blobs = compressed;
        blobs.push(config);
        Self { manifest, blobs }
    }

    /// Writes an OCI layout and returns its transport.
    pub fn layout(&self, dir: &Path) -> String {
        let blobs = dir.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).unwrap();
        for blob in &self.blobs {
            std::fs::write(blobs.join(Digest::of(blob).hex()), blob).unwrap();
        }
        let manifest = self.manifest.to_string();
        let digest = Digest::of(manifest.as_bytes());
        std::fs::write(blobs.join(digest.hex()), &manifest).unwrap();
        let index = json!({ "schemaVersion": 2, "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest.to_string(), "size": manifest.len(),
            "annotations": { "org.opencontainers.image.ref.name": "test" },
        }]});
        std::fs::write(dir.join("index.json"), index.to_string()).unwrap();
        format!("oci:{}", dir.display())
    }
}

/// Pulls an image of these archives and returns the directory of the topmost layer.
pub fn unpacked(scratch: &Scratch, layers: &[Vec<u8>]) -> Result<PathBuf, String> {
    let source = Image::new(layers).layout(&scratch.0.join("layout"));
    let store = scratch.store();
    match pull_text(&store, &source) {
        Ok(image) => Ok(store.layer_dir(&image.layers.last().unwrap().chain_id)),
        Err(error) => {
            let _ = store.collect();
            assert_clean(&store);
            Err(umiak::base::report::chain(&error))
        }
    }
}
