//! Records of images, and the names that lead to them.
//!
//! `images/<id>.json` is an image; `tags/<name>.json` is a name and the id that it means, so that
//! a name moves from one image to another by one rename.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize};

use super::store::parse;
use super::{Error, FORMAT, IoContext, Result, Store};
use crate::base::digest::{ChainId, Digest};
use crate::sys::atomic::{self, Durability};

/// One layer of an image, lowest first in [`ImageRecord::layers`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRef {
    /// Identity of this layer upon those below: names its directory.
    pub chain_id: ChainId,
    /// Digest of the uncompressed archive.
    pub diff_id: Digest,
    /// Digest of the blob in the manifest, whether the blob itself is kept or not; `None` for an image that
    /// was never a blob, or was pulled by an earlier version while its layer was there from another blob.
    pub blob: Option<Digest>,
    /// Size of that blob in bytes.
    pub blob_size: u64,
    /// Size of the uncompressed archive in bytes.
    pub size: u64,
}

/// An image.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ImageRecord {
    /// Format version.
    pub version: u32,
    /// The image's id: the digest of its configuration.
    pub id: Digest,
    /// Full names, `registry/repository:tag`; kept in `tags/`, not in the record.
    #[serde(skip)]
    pub names: Vec<String>,
    /// `registry/repository@digest` of where it came from.
    #[serde(default)]
    pub repo_digests: Vec<String>,
    /// Digest of its manifest.
    pub manifest: Digest,
    /// Digest of the index that the manifest was chosen from, if there was one.
    #[serde(default)]
    pub index: Option<Digest>,
    /// Media type of the manifest.
    pub media_type: String,
    /// Layers, lowest first.
    pub layers: Vec<LayerRef>,
    /// Bytes of all uncompressed layers.
    pub size: u64,
    /// When it was built, RFC 3339, as the configuration says it.
    #[serde(default)]
    pub created: Option<String>,
    /// `GOARCH`.
    pub architecture: String,
    /// `GOOS`.
    pub os: String,
    /// Variant of the architecture.
    #[serde(default)]
    pub variant: Option<String>,
    /// The configuration as it was pulled (OCI image specification, `config.md`).
    pub config: serde_json::Value,
    /// What a synthesised image was made from, so that it is made anew when that changes.
    #[serde(default)]
    pub made_from: Option<String>,
    /// It stands for several images, and has neither layers nor a configuration of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list: Option<ImageList>,
}

/// A manifest list that is made here (OCI image specification, `image-index.md`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageList {
    /// Annotations of the list itself.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// The descriptor of the manifest that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<serde_json::Value>,
    /// The images.
    #[serde(default)]
    pub entries: Vec<ListEntry>,
}

/// An image of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListEntry {
    /// Its descriptor, with its platform and annotations (OCI image specification, `descriptor.md`).
    pub descriptor: serde_json::Value,
    /// Where it was taken from, as a transport is written; `None` for an image that is here.
    #[serde(default)]
    pub source: Option<String>,
    /// For an artifact, which is here: its manifest and all that this names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blobs: Vec<Digest>,
}

/// The `config` member of an image's configuration: what a container takes from its image. What
/// is absent or null is empty (Docker writes null for empty lists).
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerConfig {
    /// `user[:group]`, names or ids.
    #[serde(deserialize_with = "nullable")]
    pub user: String,
    /// `port[/protocol]`.
    #[serde(deserialize_with = "nullable")]
    pub exposed_ports: BTreeMap<String, serde_json::Value>,
    /// `NAME=value`.
    #[serde(deserialize_with = "nullable")]
    pub env: Vec<String>,
    /// What runs, before the arguments.
    #[serde(deserialize_with = "nullable")]
    pub entrypoint: Vec<String>,
    /// Default arguments.
    #[serde(deserialize_with = "nullable")]
    pub cmd: Vec<String>,
    /// Directories that get an anonymous volume.
    #[serde(deserialize_with = "nullable")]
    pub volumes: BTreeMap<String, serde_json::Value>,
    /// Working directory.
    #[serde(deserialize_with = "nullable")]
    pub working_dir: String,
    /// Labels.
    #[serde(deserialize_with = "nullable")]
    pub labels: BTreeMap<String, String>,
    /// Name or number of the signal that stops it.
    #[serde(deserialize_with = "nullable")]
    pub stop_signal: String,
    /// Docker's health check.
    pub healthcheck: Option<serde_json::Value>,
    /// Docker's default shell.
    #[serde(deserialize_with = "nullable")]
    pub shell: Vec<String>,
    /// Docker's triggers.
    #[serde(deserialize_with = "nullable")]
    pub on_build: Vec<String>,
}

fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> std::result::Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[derive(Serialize, Deserialize)]
pub(super) struct Tag {
    version: u32,
    pub(super) name: String,
    pub(super) id: Digest,
}

impl ImageRecord {
    /// What a container takes from this image.
    pub fn container_config(&self) -> Result<ContainerConfig> {
        match self.config.get("config") {
            None | Some(serde_json::Value::Null) => Ok(ContainerConfig::default()),
            Some(config) => ContainerConfig::deserialize(config).map_err(|source| Error::Damaged {
                path: PathBuf::from(format!("images/{}.json", self.id.hex())),
                source,
            }),
        }
    }

    /// A name for people: the first one, else the id's first 12 digits.
    pub fn display_name(&self) -> String {
        self.names.first().cloned().unwrap_or_else(|| self.id.short())
    }
}

/// The file of an image's record, below a store's root.
pub(super) fn image_file(id: &Digest) -> PathBuf {
    Path::new("images").join(format!("{}.json", id.hex()))
}

impl Store {
    fn image_path(&self, id: &Digest) -> PathBuf {
        self.path(image_file(id))
    }

    pub(super) fn tag_path(&self, name: &str) -> PathBuf {
        self.path("tags").join(name_file(name))
    }

    /// Stores an image durably, then gives it its names, taking them from whatever had them.
    /// Names that it had before remain.
    pub fn put_image(&self, record: &ImageRecord) -> Result<()> {
        let path = self.image_path(&record.id);
        let bytes =
            serde_json::to_vec(record).map_err(|source| Error::Damaged { path: path.clone(), source })?;
        keep(&path, &bytes)?;
        record.names.iter().try_for_each(|name| self.tag(name, &record.id))
    }

    /// Makes the full name `name` mean the image `id`.
    pub fn tag(&self, name: &str, id: &Digest) -> Result<()> {
        let path = self.tag_path(name);
        let tag = Tag { version: FORMAT, name: name.to_owned(), id: *id };
        let bytes =
            serde_json::to_vec(&tag).map_err(|source| Error::Damaged { path: path.clone(), source })?;
        keep(&path, &bytes)
    }

    /// Takes a full name away; says whether it was there.
    pub fn untag(&self, name: &str) -> Result<bool> {
        let path = self.tag_path(name);
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let file = Path::new("tags").join(name_file(name));
                match self.paths().additional.iter().find(|root| root.join(&file).exists()) {
                    Some(store) => Err(Error::ReadOnly { name: name.to_owned(), store: store.clone() }),
                    None => Ok(false),
                }
            }
            Err(error) => Err(error).context("removing", &path),
        }
    }

    /// An image of an additional store cannot be changed.
    fn refuse_foreign(&self, id: &Digest) -> Result<()> {
        match self.foreign_image(id) {
            Some(store) => Err(Error::ReadOnly { name: id.short(), store: store.to_owned() }),
            None => Ok(()),
        }
    }

    /// Removes an image's record and names. Its layers go by [`Store::collect`].
    pub fn remove_image(&self, record: &ImageRecord) -> Result<()> {
        self.refuse_foreign(&record.id)?;
        for name in &record.names {
            self.untag(name)?;
        }
        let path = self.image_path(&record.id);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).context("removing", &path),
            _ => Ok(()),
        }
    }

    /// The image here that has this manifest.
    pub fn image_by_manifest(&self, manifest: &Digest) -> Result<Option<ImageRecord>> {
        Ok(self.images()?.into_iter().find(|image| image.manifest == *manifest))
    }

    /// Changes a record that is there, alone, so that nobody else's change is lost. `None` if it is not
    /// there; nothing is changed if `change` fails.
    pub fn change_image<T, E>(
        &self,
        id: &Digest,
        change: impl FnOnce(&mut ImageRecord) -> std::result::Result<T, E>,
    ) -> Result<Option<std::result::Result<T, E>>> {
        self.refuse_foreign(id)?;
        let _lock = self.lock_exclusive()?;
        let Some(mut record) = self.read_image(id)? else { return Ok(None) };
        let told = change(&mut record);
        if told.is_ok() {
            self.put_image(&record)?;
        }
        Ok(Some(told))
    }

    /// Whether the image of this id is there.
    pub fn has_image(&self, id: &Digest) -> bool {
        self.find(&image_file(id)).exists()
    }

    /// The image of this id, without its names: to find those, all tags are read.
    pub fn nameless_image(&self, id: &Digest) -> Result<Option<ImageRecord>> {
        self.read_image(id)
    }

    /// The image of this id, with its names.
    pub fn image_by_id(&self, id: &Digest) -> Result<Option<ImageRecord>> {
        let Some(mut record) = self.read_image(id)? else { return Ok(None) };
        record.names = self.tags()?.into_iter().filter(|tag| tag.id == *id).map(|tag| tag.name).collect();
        record.names.sort();
        Ok(Some(record))
    }

    fn read_image(&self, id: &Digest) -> Result<Option<ImageRecord>> {
        let path = self.find(&image_file(id));
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(parse(&path, &bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context("reading", &path),
        }
    }

    /// The image that has exactly this full name, with no other of its names: no other tag is read.
    pub fn image_by_name(&self, name: &str) -> Result<Option<ImageRecord>> {
        let Some(id) = self.id_of_name(name)? else { return Ok(None) };
        let record = self.read_image(&id)?;
        Ok(record.map(|record| ImageRecord { names: vec![name.to_owned()], ..record }))
    }

    /// As [`Store::image`], but if a full name led to the image, that is the only one it has: to run
    /// an image must not take longer the more images there are.
    pub fn image_to_run(&self, name: &str) -> Result<Option<ImageRecord>> {
        if !name.contains('@') {
            let tagged = with_tag(name);
            if let Some(image) = self.image_by_name(&tagged)? {
                return Ok(Some(image));
            }
            if self.resolve_id(name)?.is_none() {
                for prefix in USUAL_PREFIXES {
                    if let Some(image) = self.image_by_name(&format!("{prefix}{tagged}"))? {
                        return Ok(Some(image));
                    }
                }
            }
        }
        self.image(name)
    }

    fn id_of_name(&self, name: &str) -> Result<Option<Digest>> {
        let path = self.find(&Path::new("tags").join(name_file(name)));
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(parse::<Tag>(&path, &bytes)?.id)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context("reading", &path),
        }
    }

    /// All names; what this store says of one counts more than what an additional one says.
    fn tags(&self) -> Result<Vec<Tag>> {
        let mut all = self.tags_in(&self.path("tags"))?;
        for root in self.roots().skip(1) {
            let further = self.tags_in(&root.join("tags"))?;
            let known: HashSet<String> = all.iter().map(|tag| tag.name.clone()).collect();
            all.extend(further.into_iter().filter(|tag| !known.contains(&tag.name)));
        }
        Ok(all)
    }

    fn tags_in(&self, dir: &Path) -> Result<Vec<Tag>> {
        let mut tags = Vec::new();
        for entry in fs::read_dir(dir).context("listing", dir)? {
            let entry = entry.context("listing", dir)?;
            if entry.path().extension().is_none_or(|e| e != "json") {
                continue; // The temporary file of a writer that was killed.
            }
            match fs::read(entry.path()) {
                Ok(bytes) => tags.push(parse(&entry.path(), &bytes)?),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {} // Removed since.
                Err(error) => return Err(error).context("reading", &entry.path()),
            }
        }
        Ok(tags)
    }

    /// All images with their names, in no particular order.
    pub fn images(&self) -> Result<Vec<ImageRecord>> {
        let mut names: HashMap<Digest, Vec<String>> = HashMap::new();
        for tag in self.tags()? {
            names.entry(tag.id).or_default().push(tag.name);
        }
        let mut images = Vec::new();
        for id in self.image_ids()? {
            let Some(mut record) = self.read_image(&id)? else { continue };
            record.names = names.remove(&id).unwrap_or_default();
            record.names.sort();
            images.push(record);
        }
        Ok(images)
    }

    fn image_ids(&self) -> Result<Vec<Digest>> {
        let mut ids = Vec::new();
        for dir in self.roots().map(|root| root.join("images")) {
            for entry in fs::read_dir(&dir).context("listing", &dir)? {
                let name = entry.context("listing", &dir)?.file_name();
                let hex = name.to_str().and_then(|name| name.strip_suffix(".json"));
                ids.extend(hex.and_then(|hex| format!("sha256:{hex}").parse::<Digest>().ok()));
            }
        }
        if !self.paths().additional.is_empty() {
            ids.sort_unstable();
            ids.dedup();
        }
        Ok(ids)
    }

    /// Finds an image as a user names it, by Podman's rules: a full name; an id or a prefix of it
    /// of three digits or more; `localhost/NAME`; `docker.io/library/NAME`; a name whose last
    /// parts are NAME, if only one image has such; `…@sha256:…` the digest of its manifest.
    pub fn image(&self, name: &str) -> Result<Option<ImageRecord>> {
        let found = self.resolve_image(name)?;
        found.map(|id| self.image_by_id(&id)).transpose().map(Option::flatten)
    }

    /// As [`Store::image`], but only the id.
    pub fn resolve_image(&self, name: &str) -> Result<Option<Digest>> {
        if name.contains('@') {
            return self.resolve_digest(name);
        }
        let tagged = with_tag(name);
        if let Some(id) = self.id_of_name(&tagged)? {
            return Ok(Some(id));
        }
        if let Some(id) = self.resolve_id(name)? {
            return Ok(Some(id));
        }
        for prefix in USUAL_PREFIXES {
            if let Some(id) = self.id_of_name(&format!("{prefix}{tagged}"))? {
                return Ok(Some(id));
            }
        }
        let suffix = format!("/{tagged}");
        let fitting: Vec<Tag> = self.tags()?.into_iter().filter(|tag| tag.name.ends_with(&suffix)).collect();
        match fitting.as_slice() {
            [] => Ok(None),
            [first, rest @ ..] if rest.iter().all(|tag| tag.id == first.id) => Ok(Some(first.id)),
            _ => Err(Error::Ambiguous {
                name: name.to_owned(),
                matches: fitting.into_iter().map(|tag| tag.name).collect(),
            }),
        }
    }

    fn resolve_id(&self, text: &str) -> Result<Option<Digest>> {
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        if !(3..=64).contains(&hex.len()) || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Ok(None);
        }
        let fitting: Vec<Digest> =
            self.image_ids()?.into_iter().filter(|id| id.hex().starts_with(hex)).collect();
        match fitting.as_slice() {
            [] => Ok(None),
            [id] => Ok(Some(*id)),
            _ => Err(Error::Ambiguous {
                name: text.to_owned(),
                matches: fitting.iter().map(|id| id.short()).collect(),
            }),
        }
    }

    fn resolve_digest(&self, name: &str) -> Result<Option<Digest>> {
        let Some((repository, digest)) = name.split_once('@') else { return Ok(None) };
        let repository = match repository.rfind(':') {
            Some(at) if !repository[at..].contains('/') => &repository[..at],
            _ => repository,
        };
        let wanted = format!("{repository}@{digest}");
        let suffix = format!("/{wanted}");
        let fits = |image: &ImageRecord| {
            image.repo_digests.iter().any(|known| *known == wanted || known.ends_with(&suffix))
        };
        Ok(self.images()?.into_iter().find(fits).map(|image| image.id))
    }
}

/// The file that is named after a full name.
pub(super) fn name_file(name: &str) -> String {
    // '%' occurs in no reference, so this can be undone; over-long names are hashed.
    let mut file = name.replace('/', "%2F");
    if file.len() > 200 {
        file = format!("%{}", Digest::of(name.as_bytes()).hex());
    }
    format!("{file}.json")
}

/// What a short name of an image here may lack, in Podman's order.
const USUAL_PREFIXES: [&str; 3] = ["localhost/", "docker.io/library/", "docker.io/"];

/// Adds `:latest` to a name without a tag.
fn with_tag(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or(name);
    if last.contains(':') { name.to_owned() } else { format!("{name}:latest") }
}

/// Writes a record durably. One that says just this is there for good already: waiting for the disk is what
/// takes time.
fn keep(path: &Path, bytes: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|found| found == bytes) {
        return Ok(());
    }
    atomic::write(path, bytes, 0o600, Durability::Synced).context("writing", path)
}
