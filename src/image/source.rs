//! Where manifests and blobs are read from, the same for every transport; and the local
//! transports: OCI layouts, `docker save` archives, skopeo's directories.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::OFlags;
use serde::Deserialize;

use super::archive::{self, Kind, Reader};
use super::layer;
use super::manifest::{self, Compression, Config, Descriptor, Document, IndexEntry, MAX_MANIFEST};
use super::reference::Reference;
use super::registry;
use super::transport::Transport;
use crate::base::digest::Digest;
use crate::sys::path::Root;

/// A source that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A registry.
    #[error(transparent)]
    Registry(#[from] registry::Error),
    /// The directory or archive is not there or unreadable.
    #[error("opening \"{}\"", path.display())]
    Open {
        /// The path that the user gave.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something that should be in it is not.
    #[error("reading \"{name}\" in \"{}\"", path.display())]
    Member {
        /// The directory or archive.
        path: PathBuf,
        /// The file in it.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The archive is damaged.
    #[error("reading the archive \"{}\"", path.display())]
    Archive {
        /// The archive.
        path: PathBuf,
        /// Why.
        #[source]
        source: archive::Error,
    },
    /// The archive cannot be decompressed.
    #[error("decompressing \"{}\"", path.display())]
    Decompress {
        /// The archive.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A tar archive of something else.
    #[error("\"{}\" holds no image: it has neither an index.json nor a manifest.json", .0.display())]
    NoArchive(PathBuf),
    /// It has no image of that name.
    #[error("\"{}\" has no image \"{wanted}\": it has {}", path.display(), list(available))]
    NoSuchImage {
        /// The directory or archive.
        path: PathBuf,
        /// What was asked for.
        wanted: String,
        /// What is there.
        available: Vec<String>,
    },
    /// It has several images and none was named.
    #[error("\"{}\" has several images, name one after a colon: {}", path.display(), list(available))]
    WhichImage {
        /// The directory or archive.
        path: PathBuf,
        /// What is there.
        available: Vec<String>,
    },
    /// A manifest is unusable.
    #[error("the image \"{what}\" is unusable")]
    Manifest {
        /// The source.
        what: String,
        /// Why.
        #[source]
        source: manifest::Error,
    },
    /// A manifest or configuration is another than asked for.
    #[error("{expected} was asked for, but {found} came")]
    Digest {
        /// Asked for.
        expected: Digest,
        /// Came.
        found: Digest,
    },
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// A manifest or an index as bytes.
#[derive(Debug)]
pub struct Fetched {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// What the server calls them.
    pub media_type: Option<String>,
}

/// What an image is pulled from.
pub trait Source: Sync {
    /// The index or manifest that the user named.
    fn root(&self) -> Result<Fetched, Error>;
    /// Of the entries of the root index, those that the user's tag names. All for a registry.
    fn select(&self, entries: Vec<IndexEntry>) -> Result<Vec<IndexEntry>, Error> {
        Ok(entries)
    }
    /// A manifest by its descriptor.
    fn manifest(&self, descriptor: &Descriptor) -> Result<Fetched, Error>;
    /// A blob from its beginning.
    fn blob(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send + '_>, Error>;
    /// A stretch of a blob, not checked; `None` if the source gives blobs only whole.
    fn blob_range(
        &self,
        _blob: &Descriptor,
        _offset: u64,
        _length: u64,
    ) -> Result<Option<Box<dyn Read + Send + '_>>, Error> {
        Ok(None)
    }
    /// Full names that the image gets, if the source knows them apart from an index's annotations.
    fn names(&self) -> Vec<String>;
    /// `registry/repository` for the record of repository digests.
    fn repository(&self) -> Option<String> {
        None
    }
    /// What policy.json knows it by; `None` for what is in the store already.
    fn transport(&self) -> Option<Transport> {
        None
    }
}

/// Files of a directory or an archive.
enum Files {
    Directory { path: PathBuf, root: Root },
    Archive { path: PathBuf, file: Arc<File>, members: HashMap<String, Member> },
}

enum Member {
    Stored { offset: u64, size: u64 },
    Link(String),
}

impl Files {
    fn directory(path: &Path) -> Result<Self, Error> {
        let root = Root::open(path).map_err(|source| Error::Open { path: path.to_owned(), source })?;
        Ok(Self::Directory { path: path.to_owned(), root })
    }

    /// Opens an archive and notes where its members are. A compressed one is first decompressed
    /// into an unnamed file in `scratch`.
    fn archive(path: &Path, scratch: &Path, limit: u64) -> Result<Self, Error> {
        let file = open_regular(path).map_err(|source| Error::Open { path: path.to_owned(), source })?;
        Self::archive_in(file, path, scratch, limit)
    }

    /// The same of an open file, which errors call `path`.
    fn archive_in(mut file: File, path: &Path, scratch: &Path, limit: u64) -> Result<Self, Error> {
        let open_error = |source| Error::Open { path: path.to_owned(), source };
        let mut start = [0; 4];
        let count = file.read_at(&mut start, 0).map_err(open_error)?;
        if Compression::detect(&start[..count]) != Compression::None {
            let error = |source| Error::Decompress { path: path.to_owned(), source };
            let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
            let plain =
                rustix::fs::open(scratch, flags, rustix::fs::Mode::RUSR).map_err(|e| error(e.into()))?;
            let mut plain = File::from(plain);
            layer::decompress(&mut file, &mut plain, limit).map_err(error)?;
            file = plain;
        }
        let file = Arc::new(file);
        let members = members(&file).map_err(|source| Error::Archive { path: path.to_owned(), source })?;
        Ok(Self::Archive { path: path.to_owned(), file, members })
    }

    fn path(&self) -> &Path {
        match self {
            Self::Directory { path, .. } | Self::Archive { path, .. } => path,
        }
    }

    fn open(&self, name: &str) -> Result<Box<dyn Read + Send>, Error> {
        let error = |source| Error::Member { path: self.path().to_owned(), name: name.to_owned(), source };
        match self {
            Self::Directory { root, .. } => {
                // O_NONBLOCK: a fifo in its place must not hang us; the read then fails or ends.
                let fd =
                    root.open_in(Path::new(name), OFlags::RDONLY | OFlags::NONBLOCK, 0).map_err(error)?;
                Ok(Box::new(File::from(fd)))
            }
            Self::Archive { file, .. } => {
                let (offset, size) =
                    self.stored(name).ok_or_else(|| error(io::Error::from_raw_os_error(libc::ENOENT)))?;
                Ok(Box::new(Section { file: file.clone(), offset, left: size }))
            }
        }
    }

    /// Place and size of an archive's member; links are followed, as `docker save` once wrote them.
    fn stored(&self, name: &str) -> Option<(u64, u64)> {
        let Self::Archive { members, .. } = self else { return None };
        let mut name = normal(name, "")?;
        for _ in 0..8 {
            match members.get(&name)? {
                Member::Stored { offset, size } => return Some((*offset, *size)),
                Member::Link(target) => {
                    name = normal(target, name.rsplit_once('/').map_or("", |(dir, _)| dir))?;
                }
            }
        }
        None
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, Error> {
        let error = |source| Error::Member { path: self.path().to_owned(), name: name.to_owned(), source };
        let mut bytes = Vec::new();
        self.open(name)?.take(MAX_MANIFEST + 1).read_to_end(&mut bytes).map_err(error)?;
        if bytes.len() as u64 > MAX_MANIFEST {
            return Err(error(io::ErrorKind::FileTooLarge.into()));
        }
        Ok(bytes)
    }
}

fn open_regular(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, rustix::fs::Mode::empty())?);
    match file.metadata()? {
        stat if stat.is_file() => Ok(file),
        stat if stat.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// Joins and tidies a path within an archive; `None` if it leads out.
fn normal(path: &str, dir: &str) -> Option<String> {
    let mut parts: Vec<&str> = dir.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

fn members(file: &Arc<File>) -> Result<HashMap<String, Member>, archive::Error> {
    let mut reader = Reader::new(Positioned::new(file.clone()));
    let mut members = HashMap::new();
    while let Some(entry) = reader.next_entry()? {
        let Some(name) = std::str::from_utf8(&entry.path).ok().and_then(|path| normal(path, "")) else {
            continue;
        };
        match entry.kind {
            Kind::File if entry.sparse.is_none() => {
                let offset = reader.get_ref().position();
                members.insert(name, Member::Stored { offset, size: entry.size });
            }
            Kind::SymbolicLink | Kind::HardLink => {
                if let Ok(mut target) = String::from_utf8(entry.link) {
                    if entry.kind == Kind::HardLink {
                        // From the archive's root, whereas a symbolic link starts from its directory.
                        let depth = name.matches('/').count();
                        target.insert_str(0, &"../".repeat(depth));
                    }
                    members.insert(name, Member::Link(target));
                }
            }
            _ => {}
        }
    }
    Ok(members)
}

/// Reads a file with a small buffer and passes over members' data by seeking.
struct Positioned {
    inner: BufReader<Section>,
    position: u64,
}

impl Positioned {
    fn new(file: Arc<File>) -> Self {
        let section = Section { file, offset: 0, left: u64::MAX };
        Self { inner: BufReader::with_capacity(16 << 10, section), position: 0 }
    }

    fn position(&self) -> u64 {
        self.position
    }
}

impl Read for Positioned {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(into)?;
        self.position += count as u64;
        Ok(count)
    }
}

impl io::BufRead for Positioned {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.position += count as u64;
        self.inner.consume(count);
    }
}

impl archive::Skip for Positioned {
    fn skip(&mut self, count: u64) -> io::Result<()> {
        let buffered = self.inner.buffer().len() as u64;
        if count <= buffered {
            io::BufRead::consume(&mut self.inner, count as usize);
        } else {
            io::BufRead::consume(&mut self.inner, buffered as usize);
            let section = self.inner.get_mut();
            section.offset += count - buffered;
            let size = section.file.metadata()?.len();
            if section.offset > size {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        self.position += count;
        Ok(())
    }
}

/// A stretch of a file.
struct Section {
    file: Arc<File>,
    offset: u64,
    left: u64,
}

impl Read for Section {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let limit = (into.len() as u64).min(self.left) as usize;
        let count = self.file.read_at(&mut into[..limit], self.offset)?;
        self.offset += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

/// An OCI layout, as a directory or in an archive.
pub struct Layout {
    files: Arc<Files>,
    tag: Option<String>,
    /// The one image of it that is meant, by its place in the index.
    place: Option<usize>,
}

impl Layout {
    /// A directory.
    pub fn directory(path: &Path, tag: Option<String>) -> Result<Self, Error> {
        Ok(Self { files: Arc::new(Files::directory(path)?), tag, place: None })
    }

    /// An archive; a compressed one needs room in `scratch`, at most `limit` bytes.
    pub fn archive(path: &Path, tag: Option<String>, scratch: &Path, limit: u64) -> Result<Self, Error> {
        Ok(Self { files: Arc::new(Files::archive(path, scratch, limit)?), tag, place: None })
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

impl Source for Layout {
    fn transport(&self) -> Option<Transport> {
        let (path, tag) = (self.files.path().to_owned(), self.tag.clone());
        Some(match &*self.files {
            Files::Directory { .. } => Transport::Oci { path, tag },
            Files::Archive { .. } => Transport::OciArchive { path, tag },
        })
    }

    fn root(&self) -> Result<Fetched, Error> {
        Ok(Fetched { bytes: self.files.read("index.json")?, media_type: None })
    }

    fn select(&self, entries: Vec<IndexEntry>) -> Result<Vec<IndexEntry>, Error> {
        if let Some(place) = self.place {
            return Ok(entries.into_iter().skip(place).take(1).collect());
        }
        let path = self.files.path().to_owned();
        let available: Vec<String> = entries.iter().filter_map(|e| e.name.clone()).collect();
        match &self.tag {
            Some(tag) => {
                let fits = |e: &IndexEntry| e.name.as_ref() == Some(tag) || e.full_name.as_ref() == Some(tag);
                let fitting: Vec<_> = entries.into_iter().filter(fits).collect();
                if fitting.is_empty() {
                    return Err(Error::NoSuchImage { path, wanted: tag.clone(), available });
                }
                Ok(fitting)
            }
            None => {
                let mut names = available.clone();
                names.dedup();
                if names.len() > 1 {
                    return Err(Error::WhichImage { path, available: names });
                }
                Ok(entries)
            }
        }
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<Fetched, Error> {
        let bytes = self.files.read(&blob_name(&descriptor.digest))?;
        Ok(Fetched { bytes, media_type: Some(descriptor.media_type.clone()) })
    }

    fn blob(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send + '_>, Error> {
        self.files.open(&blob_name(&descriptor.digest)).map(|reader| reader as _)
    }

    fn names(&self) -> Vec<String> {
        self.tag.iter().filter_map(|tag| local_name(tag)).collect()
    }
}

/// The name that Podman gives an image from a local source: below `localhost/` if it is short.
pub fn local_name(text: &str) -> Option<String> {
    let reference: Reference = text.parse().ok()?;
    let reference = if reference.is_short() { reference.at("localhost") } else { reference };
    reference.tagged()
}

/// A directory as `skopeo copy … dir:` writes it.
pub struct Directory {
    files: Files,
}

impl Directory {
    /// Opens it.
    pub fn new(path: &Path) -> Result<Self, Error> {
        Ok(Self { files: Files::directory(path)? })
    }
}

impl Source for Directory {
    fn transport(&self) -> Option<Transport> {
        Some(Transport::Dir(self.files.path().to_owned()))
    }

    fn root(&self) -> Result<Fetched, Error> {
        Ok(Fetched { bytes: self.files.read("manifest.json")?, media_type: None })
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<Fetched, Error> {
        let bytes = self.files.read(&format!("{}.manifest.json", descriptor.digest.hex()))?;
        Ok(Fetched { bytes, media_type: Some(descriptor.media_type.clone()) })
    }

    fn blob(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send + '_>, Error> {
        self.files.open(&descriptor.digest.hex()).map(|reader| reader as _)
    }

    fn names(&self) -> Vec<String> {
        // Podman's: localhost/ and the path.
        let path = self.files.path().to_string_lossy().trim_matches('/').to_lowercase();
        local_name(&format!("localhost/{path}")).into_iter().collect()
    }
}

/// An archive as `docker save` writes it.
pub struct DockerArchive {
    files: Arc<Files>,
    names: Vec<String>,
    manifest: Vec<u8>,
    members: HashMap<Digest, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SavedImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

impl SavedImage {
    fn names(&self) -> Vec<String> {
        let tags = self.repo_tags.iter().flatten().filter_map(|tag| tag.parse::<Reference>().ok());
        tags.filter_map(|tag| if tag.is_short() { tag.at("docker.io") } else { tag }.tagged()).collect()
    }
}

fn saved_images(files: &Files) -> Result<Vec<SavedImage>, Error> {
    let bytes = files.read("manifest.json")?;
    serde_json::from_slice(&bytes).map_err(|e| Error::Manifest {
        what: files.path().display().to_string(),
        source: manifest::Error::Parse(e),
    })
}

impl DockerArchive {
    /// Opens it and makes a manifest for the image `name`, or for its only one.
    pub fn new(path: &Path, name: Option<&Reference>, scratch: &Path, limit: u64) -> Result<Self, Error> {
        let files = Arc::new(Files::archive(path, scratch, limit)?);
        let images = saved_images(&files)?;
        let available: Vec<String> = images.iter().flat_map(SavedImage::names).collect();
        let wanted = name.and_then(Reference::tagged);
        let image = match (&wanted, images.as_slice()) {
            (Some(wanted), images) => images.iter().find(|image| image.names().contains(wanted)),
            (None, [image]) => Some(image),
            (None, []) => None,
            (None, _) => return Err(Error::WhichImage { path: path.to_owned(), available }),
        };
        let Some(image) = image else {
            let wanted = wanted.unwrap_or_default();
            return Err(Error::NoSuchImage { path: path.to_owned(), wanted, available });
        };
        let names = wanted.map_or_else(|| image.names(), |wanted| vec![wanted]);
        Self::of(files, image, names)
    }

    /// Makes a manifest for one of its images.
    fn of(files: Arc<Files>, image: &SavedImage, names: Vec<String>) -> Result<Self, Error> {
        let unusable = |source| Error::Manifest { what: files.path().display().to_string(), source };
        let config = files.read(&image.config)?;
        let layers = image.layers.clone().unwrap_or_default();
        let parsed = Config::parse(&config).map_err(unusable)?;
        let diff_ids = parsed.diff_ids(layers.len()).map_err(unusable)?;
        let mut members = HashMap::from([(Digest::of(&config), image.config.clone())]);
        let mut descriptors = Vec::new();
        for (layer, diff_id) in layers.iter().zip(diff_ids) {
            let (digest, size) = describe(&files, layer, diff_id)?;
            members.insert(digest, layer.clone());
            descriptors.push(serde_json::json!({
                "mediaType": "application/vnd.docker.image.rootfs.diff.tar", "digest": digest, "size": size,
            }));
        }
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": {
                "mediaType": "application/vnd.docker.container.image.v1+json",
                "digest": Digest::of(&config), "size": config.len(),
            },
            "layers": descriptors,
        });
        Ok(Self { files, names, manifest: manifest.to_string().into_bytes(), members })
    }
}

/// Digest and size of a layer in an archive: a plain one's digest is its diff id (which is checked
/// when it is unpacked), a compressed one has to be hashed.
fn describe(files: &Files, name: &str, diff_id: Digest) -> Result<(Digest, u64), Error> {
    let error = |source| Error::Member { path: files.path().to_owned(), name: name.to_owned(), source };
    let (_, size) = files.stored(name).ok_or_else(|| error(io::Error::from_raw_os_error(libc::ENOENT)))?;
    let mut reader = files.open(name)?;
    let mut start = Vec::new();
    reader.by_ref().take(4).read_to_end(&mut start).map_err(error)?;
    if Compression::detect(&start) == Compression::None {
        return Ok((diff_id, size));
    }
    use sha2::Digest as _;
    let mut hash = sha2::Sha256::new();
    hash.update(&start);
    let mut buffer = vec![0; 128 << 10];
    loop {
        match reader.read(&mut buffer).map_err(error)? {
            0 => return Ok((Digest::from_bytes(hash.finalize().into()), size)),
            count => hash.update(&buffer[..count]),
        }
    }
}

impl Source for DockerArchive {
    fn transport(&self) -> Option<Transport> {
        let name = self.names.first().and_then(|name| name.parse().ok());
        Some(Transport::DockerArchive { path: self.files.path().to_owned(), name })
    }

    fn root(&self) -> Result<Fetched, Error> {
        Ok(Fetched { bytes: self.manifest.clone(), media_type: None })
    }

    fn manifest(&self, _: &Descriptor) -> Result<Fetched, Error> {
        self.root()
    }

    fn blob(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send + '_>, Error> {
        let name = self.members.get(&descriptor.digest).ok_or_else(|| Error::Member {
            path: self.files.path().to_owned(),
            name: descriptor.digest.to_string(),
            source: io::Error::from_raw_os_error(libc::ENOENT),
        })?;
        self.files.open(name).map(|reader| reader as _)
    }

    fn names(&self) -> Vec<String> {
        self.names.clone()
    }
}

/// All images of a directory or an archive, of whichever kind it is.
pub fn all_images(path: &Path, scratch: &Path, limit: u64) -> Result<Vec<Box<dyn Source>>, Error> {
    if !path.is_dir() {
        let file = open_regular(path).map_err(|source| Error::Open { path: path.to_owned(), source })?;
        return all_in(file, path, scratch, limit);
    }
    let files = Arc::new(Files::directory(path)?);
    if files.open("index.json").is_ok() {
        return layouts(files);
    }
    Ok(vec![Box::new(Directory::new(path)?)])
}

/// All images of an archive that is open, which errors call `path`.
pub fn all_in(file: File, path: &Path, scratch: &Path, limit: u64) -> Result<Vec<Box<dyn Source>>, Error> {
    let files = Arc::new(Files::archive_in(file, path, scratch, limit)?);
    // One that has both describes the same images twice: OCI's manifests have their digests.
    if files.stored("index.json").is_some() && files.stored("oci-layout").is_some() {
        return layouts(files);
    }
    if files.stored("manifest.json").is_none() {
        return Err(Error::NoArchive(path.to_owned()));
    }
    let mut found: Vec<Box<dyn Source>> = Vec::new();
    for image in saved_images(&files)? {
        found.push(Box::new(DockerArchive::of(files.clone(), &image, image.names())?));
    }
    Ok(found)
}

fn layouts(files: Arc<Files>) -> Result<Vec<Box<dyn Source>>, Error> {
    let bytes = files.read("index.json")?;
    let unusable = |source| Error::Manifest { what: files.path().display().to_string(), source };
    let Document::Index(entries) = Document::parse(&bytes, None).map_err(unusable)? else {
        return Err(unusable(manifest::Error::MediaType("of an image".to_owned())));
    };
    let one = |place| Box::new(Layout { files: files.clone(), tag: None, place: Some(place) }) as _;
    Ok((0..entries.len()).map(one).collect())
}

/// Reads a manifest and makes sure that it is the one that was asked for.
pub fn checked_manifest(source: &dyn Source, descriptor: &Descriptor) -> Result<Fetched, Error> {
    let fetched = source.manifest(descriptor)?;
    check(&fetched.bytes, descriptor.digest)?;
    Ok(fetched)
}

/// Reads a small blob whole and makes sure that it is the one that was asked for.
pub fn checked_blob(source: &dyn Source, descriptor: &Descriptor) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let read = source.blob(descriptor)?.take(descriptor.size + 1).read_to_end(&mut bytes);
    read.map_err(|source| Error::Member {
        path: PathBuf::new(),
        name: descriptor.digest.to_string(),
        source,
    })?;
    check(&bytes, descriptor.digest)?;
    Ok(bytes)
}

fn check(bytes: &[u8], expected: Digest) -> Result<(), Error> {
    let found = Digest::of(bytes);
    if found == expected { Ok(()) } else { Err(Error::Digest { expected, found }) }
}

/// An image of a source, chosen.
#[derive(Debug)]
pub struct Resolved {
    /// The manifest.
    pub manifest: manifest::Manifest,
    /// The manifest as it came.
    pub bytes: Vec<u8>,
    /// Digest of the index that it was chosen from, if there was one.
    pub index: Option<Digest>,
    /// Full names that the image gets.
    pub names: Vec<String>,
}

/// Follows an index to the manifest for `platform`.
pub fn resolve(source: &dyn Source, platform: &manifest::Platform, what: &str) -> Result<Resolved, Error> {
    let unusable = |source| Error::Manifest { what: what.to_owned(), source };
    let mut fetched = source.root()?;
    let mut names = source.names();
    let mut index = None;
    for depth in 0..4 {
        let document = Document::parse(&fetched.bytes, fetched.media_type.as_deref()).map_err(unusable)?;
        match document {
            Document::Manifest(manifest) => {
                return Ok(Resolved { manifest, bytes: fetched.bytes, index, names });
            }
            Document::Index(entries) => {
                index = Some(Digest::of(&fetched.bytes));
                let entries = if depth == 0 { source.select(entries)? } else { entries };
                let entry = platform.choose(&entries).map_err(unusable)?;
                if names.is_empty() {
                    let name = entry.full_name.as_ref().or(entry.name.as_ref());
                    names.extend(name.and_then(|name| local_name(name)));
                }
                fetched = checked_manifest(source, &entry.descriptor)?;
            }
        }
    }
    Err(unusable(manifest::Error::Nesting))
}
