//! The build context: the directory whose files `COPY` and `ADD` take.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::process::{getegid, geteuid};
use serde::{Deserialize, Serialize};

use super::copy::{At, Remote, remote};
use super::request::ContextSource;
use crate::base::report;
use crate::image::archive::Reader;
use crate::image::{create, registry};
use crate::storage::{self, Store};
use crate::sys::lock::Lock;
use crate::sys::path::Root;
use crate::sys::transfer::{Owners, Replace, Sink};
use crate::sys::{atomic, child};

/// Most bytes of an archive, and of a Dockerfile.
const MAX_ARCHIVE: u64 = 1 << 40;
const MAX_DOCKERFILE: u64 = 16 << 20;

/// Where the files are in a context's place in the staging area: the place itself has a mode of its own.
const FILES: &str = "files";

/// There is no such context.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory.
    #[error("opening the build context \"{}\"", path.display())]
    Open {
        /// It.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A repository.
    #[error("the build context \"{0}\": Git repositories are not supported yet")]
    Git(String),
    /// It cannot be fetched, or read.
    #[error("reading the build context from {from}: {message}")]
    Read {
        /// `standard input`, or the address in quotes.
        from: String,
        /// The chain of errors.
        message: String,
    },
    /// Nothing came.
    #[error("the build context from {0} is empty")]
    Empty(String),
    /// Compressed in a way that we cannot undo.
    #[error("the build context from {from}: archives compressed with {how} are not supported yet")]
    Compression {
        /// `standard input`, or the address in quotes.
        from: String,
        /// `bzip2`, `xz`.
        how: &'static str,
    },
    /// The store.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// Its place in the store cannot be made.
    #[error("unpacking the build context into \"{}\"", path.display())]
    Stage {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// How to mend it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Git(url) => Some(format!("git clone {url}, then build in that directory")),
            _ => None,
        }
    }
}

/// A context. What was unpacked for it is removed when it is dropped.
#[derive(Debug)]
pub struct Context {
    place: Place,
}

#[derive(Debug)]
enum Place {
    Directory(Root),
    /// Of an archive; its files go with it.
    Staged(Root, #[expect(dead_code, reason = "it is dropped")] Staged),
    /// None, but a Dockerfile.
    Dockerfile(Vec<u8>),
}

/// An archive's files, in the store's staging area.
#[derive(Debug)]
struct Staged {
    store: Store,
    path: PathBuf,
    lock: Lock,
}

impl Staged {
    fn new(store: &Store) -> Result<Self, Error> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Stage { path, source }
        };
        let staging = store.path("staging");
        let number = atomic::random().map_err(failed(&staging))?;
        let path = staging.join(format!("context-{number:016x}"));
        // While it is locked nobody takes it for rubbish.
        let lock = Lock::new_directory(&path, 0o700).map_err(failed(&path))?;
        let staged = Self { store: store.clone(), path, lock };
        let files = staged.path.join(FILES);
        std::fs::create_dir(&files).map_err(failed(&files))?;
        Ok(staged)
    }
}

/// What came.
#[derive(Serialize, Deserialize)]
enum Taken {
    /// Not a byte.
    Nothing,
    /// An archive, which is in the file without its compression.
    Archive,
    /// Something else.
    Text,
    /// Compressed in a way that we cannot undo.
    Bzip2,
    /// The same.
    Xz,
}

/// Writes a stream into a file without its compression, and says what it is.
fn take(file: &File, stream: &mut (dyn Read + Send)) -> io::Result<Taken> {
    let mut start = Vec::new();
    (&mut *stream).take(6).read_to_end(&mut start)?;
    if start.starts_with(b"BZh") {
        return Ok(Taken::Bzip2);
    }
    if start.starts_with(b"\xfd7zXZ\0") {
        return Ok(Taken::Xz);
    }
    create::spool(file, &mut start.chain(stream), MAX_ARCHIVE)?;
    if file.metadata()?.len() == 0 {
        return Ok(Taken::Nothing);
    }
    let mut reader = Reader::new(BufReader::new(At { file, offset: 0 }));
    Ok(if matches!(reader.next_entry(), Ok(Some(_))) { Taken::Archive } else { Taken::Text })
}

/// Unpacks the archive of a context. Its files are ours, whoever they belonged to.
fn unpack(file: &File, into: &Path) -> Result<(), String> {
    let failed = |error: io::Error| error.to_string();
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(into, flags, Mode::empty()).map_err(|error| failed(error.into()))?;
    let mut input = file.try_clone().map_err(failed)?;
    input.rewind().map_err(failed)?;
    // Those of the new files; their modes stay as they are, which nobody else can make use of here.
    let owners = Owners::All(geteuid().as_raw(), getegid().as_raw());
    let mut sink = Sink::new(dir, None, owners, Replace::Anything);
    sink.follow_links(Root::open(into).map_err(failed)?, PathBuf::from("/"));
    crate::engine::copy::unpack(input.into(), sink).map(drop).map_err(|problem| report::chain(&problem))
}

impl Drop for Staged {
    fn drop(&mut self) {
        if self.lock.is_at(&self.path) {
            // What cannot be removed now is swept later: the lock is free from here on.
            let _ = self.store.discard(&self.path);
        }
    }
}

impl Context {
    /// Opens it; an archive is fetched and unpacked by processes of their own. The caller must be single-threaded.
    pub fn open(store: &Store, source: &ContextSource) -> Result<Self, Error> {
        match source {
            ContextSource::Directory(path) => {
                let root = Root::open(path).map_err(|source| Error::Open { path: path.clone(), source })?;
                Ok(Self { place: Place::Directory(root) })
            }
            ContextSource::Stdin => Self::read_from(store, "standard input", &mut io::stdin()),
            ContextSource::Url(url) if remote(url) == Some(Remote::Git) => Err(Error::Git(url.clone())),
            ContextSource::Url(url) => {
                Self::read_from(store, &format!("\"{url}\""), &mut registry::Download::new(url))
            }
        }
    }

    /// Takes an archive, or a Dockerfile.
    fn read_from(store: &Store, from: &str, stream: &mut (dyn Read + Send)) -> Result<Self, Error> {
        let failed = |message: String| Error::Read { from: from.to_owned(), message };
        let file = create::spool_file(store).map_err(|error| failed(report::chain(&error)))?;
        // Decompressing takes threads, and what comes then must not have any.
        let told = child::call(None, || take(&file, stream).map_err(|error| report::chain(&error)));
        let taken = told.map_err(|error| failed(report::chain(&error)))?.map_err(failed)?;
        match taken {
            Taken::Nothing => Err(Error::Empty(from.to_owned())),
            Taken::Bzip2 => Err(Error::Compression { from: from.to_owned(), how: "bzip2" }),
            Taken::Xz => Err(Error::Compression { from: from.to_owned(), how: "xz" }),
            Taken::Text => {
                let mut text = Vec::new();
                let read = At { file: &file, offset: 0 }.take(MAX_DOCKERFILE + 1).read_to_end(&mut text);
                read.map_err(|error| failed(error.to_string()))?;
                if text.len() as u64 > MAX_DOCKERFILE {
                    return Err(failed("it is neither an archive nor a Dockerfile".to_owned()));
                }
                Ok(Self { place: Place::Dockerfile(text) })
            }
            Taken::Archive => {
                let staged = Staged::new(store)?;
                let files = staged.path.join(FILES);
                let told = child::call(None, || unpack(&file, &files));
                told.map_err(|error| failed(report::chain(&error)))?.map_err(failed)?;
                let root = Root::open(&files).map_err(|source| Error::Stage { path: files, source })?;
                Ok(Self { place: Place::Staged(root, staged) })
            }
        }
    }

    /// Its directory; `None` if there is only a Dockerfile.
    pub fn root(&self) -> Option<&Root> {
        match &self.place {
            Place::Directory(root) | Place::Staged(root, _) => Some(root),
            Place::Dockerfile(_) => None,
        }
    }

    /// The Dockerfile that came in place of a context.
    pub fn dockerfile(&self) -> Option<&[u8]> {
        match &self.place {
            Place::Dockerfile(text) => Some(text),
            _ => None,
        }
    }

    /// Reads a regular file of at most `limit` bytes (a larger one is `FileTooLarge`): a Dockerfile, an ignore file.
    /// No link leads out. `None` if there is none.
    pub fn read(&self, path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(root) = self.root() else { return Ok(None) };
        match root.read(path, limit) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::storage::Paths;

    struct Scratch(PathBuf);

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = crate::sys::tree::remove_all(&self.0);
        }
    }

    impl Scratch {
        fn new() -> Self {
            let name = format!("umiak-context-{:x}", atomic::random().unwrap());
            let dir = std::env::temp_dir().join(name);
            std::fs::create_dir(&dir).unwrap();
            Self(dir)
        }

        fn store(&self) -> Store {
            Store::open(&Paths::new(self.0.join("root"), self.0.join("run"))).unwrap()
        }

        fn file(&self) -> File {
            File::options().read(true).write(true).create(true).truncate(true).open(self.0.join("f")).unwrap()
        }
    }

    fn archive(entries: &[(&str, &str, u32)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, text, mode) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_mode(*mode);
            header.set_uid(12345);
            header.set_gid(12345);
            header.set_mtime(7);
            header.set_size(text.len() as u64);
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            if let Some(target) = text.strip_prefix("->") {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_size(0);
                header.set_link_name(target).unwrap();
                header.set_cksum();
                builder.append(&header, io::empty()).unwrap();
                continue;
            }
            header.set_cksum();
            builder.append(&header, text.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn what_comes_is_an_archive_or_a_dockerfile() {
        let scratch = Scratch::new();
        let kind = |bytes: &[u8]| match take(&scratch.file(), &mut &*bytes) {
            Ok(Taken::Nothing) => "nothing".to_owned(),
            Ok(Taken::Archive) => "archive".to_owned(),
            Ok(Taken::Text) => "text".to_owned(),
            Ok(Taken::Bzip2) => "bzip2".to_owned(),
            Ok(Taken::Xz) => "xz".to_owned(),
            Err(error) => error.to_string(),
        };
        let bytes = archive(&[("Dockerfile", "FROM x", 0o644)]);
        assert_eq!(kind(b""), "nothing");
        assert_eq!(kind(b"FROM"), "text");
        assert_eq!(kind(&b"FROM x\n".repeat(200)), "text");
        assert_eq!(kind(&gzip(b"FROM x\n")), "text");
        assert_eq!(kind(&bytes), "archive");
        assert_eq!(kind(&gzip(&bytes)), "archive");
        assert_eq!(kind(b"BZh91AY&SY"), "bzip2");
        assert_eq!(kind(b"\xfd7zXZ\0\0"), "xz");
        let whole = gzip(&bytes);
        assert_eq!(kind(&whole[..whole.len() - 9]), "the gzip stream is cut off");
    }

    #[test]
    fn archives_become_directories_that_go_away() {
        let scratch = Scratch::new();
        let store = scratch.store();
        let entries = [
            ("d/f", "text", 0o4755),
            ("secret", "s", 0o600),
            ("up", "->../../../../d", 0o777),
            ("up/g", "x", 0o644),
            (".wh.d", "", 0o644),
        ];
        let mut file = scratch.file();
        file.write_all(&archive(&entries)).unwrap();
        let staged = Staged::new(&store).unwrap();
        let files = staged.path.join(FILES);
        unpack(&file, &files).unwrap();
        let mode = std::fs::metadata(files.join("d/f")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o4755);
        assert!(files.join(".wh.d").exists(), "in a context the name means nothing");
        assert!(files.join("d/g").exists(), "links stay inside");
        store.sweep().unwrap();
        let place = Place::Staged(Root::open(&files).unwrap(), staged);
        let context = Context { place };
        assert_eq!(context.read(Path::new("d/f"), 10).unwrap().unwrap(), b"text");
        assert_eq!(context.read(Path::new("up/g"), 10).unwrap().unwrap(), b"x");
        drop(context);
        assert_eq!(std::fs::read_dir(scratch.0.join("root/staging")).unwrap().count(), 0);
        let hostile = scratch.0.join("hostile");
        std::fs::create_dir(&hostile).unwrap();
        let mut file = scratch.file();
        file.write_all(&archive(&[("../x", "x", 0o644)])).unwrap();
        assert!(unpack(&file, &hostile).unwrap_err().contains("hostile"));
    }

    #[test]
    fn a_directory_is_read_from_the_inside() {
        let scratch = Scratch::new();
        let dir = scratch.0.join("context");
        std::fs::create_dir_all(dir.join("sub")).unwrap();
        std::fs::write(scratch.0.join("outside"), "secret").unwrap();
        std::fs::write(dir.join("Dockerfile"), "FROM x").unwrap();
        symlink("../outside", dir.join("out")).unwrap();
        symlink("/Dockerfile", dir.join("sub/in")).unwrap();
        let context = Context::open(&scratch.store(), &ContextSource::Directory(dir)).unwrap();
        let read = |path: &str| context.read(Path::new(path), 6).unwrap();
        assert_eq!(read("Dockerfile").unwrap(), b"FROM x");
        assert_eq!(read("sub/in").unwrap(), b"FROM x");
        assert_eq!(
            [read("out"), read("../outside"), read("none"), read("Dockerfile/x")],
            [const { None }; 4]
        );
        assert!(context.read(Path::new("sub"), 6).is_err());
        let error = context.read(Path::new("Dockerfile"), 5).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        assert!(context.root().is_some() && context.dockerfile().is_none());
        let source = ContextSource::Url("https://x/y.git#main".to_owned());
        let error = Context::open(&scratch.store(), &source).unwrap_err();
        assert!(error.hint().is_some_and(|hint| hint.contains("git clone")), "{error}");
    }
}
