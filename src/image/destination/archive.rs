//! Archives: OCI layouts in one, and what `docker load` reads. Written from the beginning to the end, so
//! that standard output will do. The same images give the same bytes: there are neither times nor owners
//! in them, and the order is that of the images' layers.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde_json::{Map, Value, json};
use tar::{EntryType, Header};

use super::{Destination, Error, Image, LAYOUT, Layers, copy, empty_index, index_entry, list_entry};
use crate::base::digest::{ChainId, Digest};
use crate::image::lock;
use crate::image::registry::Content;
use crate::image::rewrite::Form;

/// A tar archive that is being written.
struct Tar {
    out: BufWriter<File>,
    /// For errors.
    path: PathBuf,
}

impl Tar {
    fn new(file: File, path: &Path) -> Self {
        Self { out: BufWriter::with_capacity(256 << 10, file), path: path.to_owned() }
    }

    fn error(&self, source: io::Error) -> Error {
        Error::Write { path: self.path.clone(), source }
    }

    fn header(&mut self, name: &str, kind: EntryType, size: u64, link: Option<&str>) -> Result<(), Error> {
        // GNU's, for only that has a form for sizes of 8 GiB and more.
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(if kind == EntryType::Directory { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size);
        let named =
            header.set_path(name).and_then(|()| link.map_or(Ok(()), |link| header.set_link_name(link)));
        named.map_err(|error| self.error(error))?;
        header.set_cksum();
        self.out.write_all(header.as_bytes()).map_err(|error| self.error(error))
    }

    fn pad(&mut self, size: u64) -> Result<(), Error> {
        let rest = (512 - size % 512) % 512;
        self.out.write_all(&[0; 512][..rest as usize]).map_err(|error| self.error(error))
    }

    fn bytes(&mut self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        self.header(name, EntryType::Regular, bytes.len() as u64, None)?;
        self.out.write_all(bytes).map_err(|error| self.error(error))?;
        self.pad(bytes.len() as u64)
    }

    fn content(&mut self, name: &str, content: &Content<'_>, progress: &dyn Fn(u64)) -> Result<(), Error> {
        self.header(name, EntryType::Regular, content.size, None)?;
        copy(content, &mut self.out, progress).map_err(|error| error.at(content.digest, &self.path))?;
        self.pad(content.size)
    }

    fn end(&mut self) -> Result<(), Error> {
        let written = self.out.write_all(&[0; 1024]).and_then(|()| self.out.flush());
        written.map_err(|error| self.error(error))
    }
}

/// An OCI layout in an archive.
pub struct OciArchive {
    state: Mutex<OciState>,
    tag: Option<String>,
}

struct OciState {
    tar: Tar,
    blobs: HashSet<Digest>,
    index: Value,
}

impl OciArchive {
    /// Writes to `file`, which errors call `path`.
    pub fn new(file: File, path: &Path, tag: Option<String>) -> Result<Self, Error> {
        let mut tar = Tar::new(file, path);
        tar.bytes("oci-layout", LAYOUT.as_bytes())?;
        tar.header("blobs/", EntryType::Directory, 0, None)?;
        tar.header("blobs/sha256/", EntryType::Directory, 0, None)?;
        let state = OciState { tar, blobs: HashSet::new(), index: empty_index() };
        Ok(Self { state: Mutex::new(state), tag })
    }
}

impl OciArchive {
    /// Stores a document, and names it in the index.
    fn put_document(&self, bytes: &[u8], entry: Option<Value>) -> Result<(), Error> {
        let digest = Digest::of(bytes);
        let mut state = lock(&self.state);
        if state.blobs.insert(digest) {
            state.tar.bytes(&format!("blobs/sha256/{}", digest.hex()), bytes)?;
        }
        if let Some(manifests) = state.index["manifests"].as_array_mut() {
            manifests.extend(entry);
        }
        Ok(())
    }
}

impl Destination for OciArchive {
    fn form(&self) -> Option<Form> {
        Some(Form::Oci)
    }

    fn parallel(&self) -> bool {
        false
    }

    fn has_blob(&self, digest: &Digest, _: u64) -> Result<bool, Error> {
        Ok(lock(&self.state).blobs.contains(digest))
    }

    fn put_blob(
        &self,
        content: &Content<'_>,
        _: Option<String>,
        progress: &dyn Fn(u64),
    ) -> Result<(), Error> {
        let mut state = lock(&self.state);
        state.tar.content(&format!("blobs/sha256/{}", content.digest.hex()), content, progress)?;
        state.blobs.insert(content.digest);
        Ok(())
    }

    fn put_image(&self, image: &Image<'_>) -> Result<(), Error> {
        self.put_document(image.manifest, Some(index_entry(image, self.tag.as_deref())))
    }

    fn put_member(&self, _: &str, manifest: &[u8]) -> Result<(), Error> {
        self.put_document(manifest, None)
    }

    fn put_list(&self, media_type: &str, bytes: &[u8]) -> Result<(), Error> {
        self.put_document(bytes, Some(list_entry(media_type, bytes, self.tag.as_deref())))
    }

    fn finish(&self) -> Result<(), Error> {
        let mut state = lock(&self.state);
        let index = state.index.to_string();
        state.tar.bytes("index.json", index.as_bytes())?;
        state.tar.end()
    }
}

/// What `docker save` writes and `docker load` reads, of any number of images; with the directories by
/// which Docker before 1.10 and its kin find their way.
pub struct DockerArchive {
    state: Mutex<DockerState>,
}

struct DockerState {
    tar: Tar,
    written: HashSet<String>,
    images: Vec<Saved>,
    repositories: BTreeMap<String, BTreeMap<String, String>>,
}

struct Saved {
    config: String,
    tags: Vec<String>,
    layers: Vec<String>,
}

impl DockerArchive {
    /// Writes to `file`, which errors call `path`.
    pub fn new(file: File, path: &Path) -> Self {
        let state = DockerState {
            tar: Tar::new(file, path),
            written: HashSet::new(),
            images: Vec::new(),
            repositories: BTreeMap::new(),
        };
        Self { state: Mutex::new(state) }
    }
}

fn layer_name(digest: &Digest) -> String {
    format!("{}.tar", digest.hex())
}

impl Destination for DockerArchive {
    fn layers(&self) -> Layers {
        Layers::Plain
    }

    fn parallel(&self) -> bool {
        false
    }

    fn has_blob(&self, digest: &Digest, _: u64) -> Result<bool, Error> {
        Ok(lock(&self.state).written.contains(&layer_name(digest)))
    }

    fn put_blob(
        &self,
        content: &Content<'_>,
        _: Option<String>,
        progress: &dyn Fn(u64),
    ) -> Result<(), Error> {
        let mut state = lock(&self.state);
        let name = layer_name(&content.digest);
        state.tar.content(&name, content, progress)?;
        state.written.insert(name);
        Ok(())
    }

    fn put_config(&self, digest: &Digest, bytes: &[u8]) -> Result<(), Error> {
        let mut state = lock(&self.state);
        let name = format!("{}.json", digest.hex());
        if state.written.insert(name.clone()) { state.tar.bytes(&name, bytes) } else { Ok(()) }
    }

    fn put_image(&self, image: &Image<'_>) -> Result<(), Error> {
        let mut state = lock(&self.state);
        let config = format!("{}.json", Digest::of(image.config).hex());
        let top = state.legacy(image)?;
        for name in image.names {
            if let (Some((repository, tag)), Some(top)) = (name.rsplit_once(':'), &top) {
                let tags = state.repositories.entry(repository.to_owned()).or_default();
                tags.insert(tag.to_owned(), top.clone());
            }
        }
        let saved = match state.images.iter_mut().position(|saved| saved.config == config) {
            Some(at) => &mut state.images[at],
            None => {
                let layers = image.layers.iter().map(layer_name).collect();
                state.images.push(Saved { config, tags: Vec::new(), layers });
                let last = state.images.len() - 1;
                &mut state.images[last]
            }
        };
        for name in image.names {
            if !saved.tags.contains(name) {
                saved.tags.push(name.clone());
            }
        }
        Ok(())
    }

    fn put_member(&self, _: &str, _: &[u8]) -> Result<(), Error> {
        Err(Error::NoLists)
    }

    fn put_list(&self, _: &str, _: &[u8]) -> Result<(), Error> {
        Err(Error::NoLists)
    }

    fn finish(&self) -> Result<(), Error> {
        let mut state = lock(&self.state);
        let images: Vec<Value> = state
            .images
            .iter()
            .map(|saved| json!({ "Config": saved.config, "RepoTags": saved.tags, "Layers": saved.layers }))
            .collect();
        state.tar.bytes("manifest.json", Value::Array(images).to_string().as_bytes())?;
        let repositories = json!(state.repositories).to_string();
        state.tar.bytes("repositories", repositories.as_bytes())?;
        state.tar.end()
    }
}

impl DockerState {
    /// The directory of each layer, with a link to the archive and a configuration; returns the name of
    /// the uppermost.
    fn legacy(&mut self, image: &Image<'_>) -> Result<Option<String>, Error> {
        let chain = ChainId::chain(image.layers);
        let config: Map<String, Value> = serde_json::from_slice(image.config).unwrap_or_default();
        let mut parent: Option<String> = None;
        for (at, (layer, chain_id)) in image.layers.iter().zip(&chain).enumerate() {
            let top = at + 1 == image.layers.len();
            let mut own = Map::new();
            if top {
                let kept =
                    ["architecture", "os", "variant", "created", "author", "config", "container_config"];
                own.extend(
                    config
                        .iter()
                        .filter(|(key, _)| kept.contains(&key.as_str()))
                        .map(|(k, v)| (k.clone(), v.clone())),
                );
            } else {
                own.insert("created".into(), "1970-01-01T00:00:00Z".into());
                own.insert("container_config".into(), json!({ "Cmd": [""] }));
            }
            if let Some(parent) = &parent {
                own.insert("parent".into(), parent.as_str().into());
            }
            // An id like any other, the same for the same layers below and the same configuration.
            let seed = format!("{}{}", chain_id.0, Value::Object(own.clone()));
            let id = Digest::of(seed.as_bytes()).hex();
            own.insert("id".into(), id.as_str().into());
            if self.written.insert(id.clone()) {
                self.tar.header(&format!("{id}/"), EntryType::Directory, 0, None)?;
                self.tar.bytes(&format!("{id}/VERSION"), b"1.0")?;
                self.tar.bytes(&format!("{id}/json"), Value::Object(own).to_string().as_bytes())?;
                let link = format!("../{}", layer_name(layer));
                self.tar.header(&format!("{id}/layer.tar"), EntryType::Symlink, 0, Some(&link))?;
            }
            parent = Some(id);
        }
        Ok(parent)
    }
}
