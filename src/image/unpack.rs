//! Unpacking a layer's archive into a directory, as overlayfs wants a lower layer: OCI's whiteout
//! files become 0:0 character devices and opaque directories (`layer.md`, "Whiteouts").
//!
//! Archives are hostile: nothing is made outside the directory, whatever names and links say, and
//! attributes with which overlayfs steers itself are not taken from an archive.

use std::ffi::OsStr;
use std::io::{self, BufRead, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, SeekFrom};

use super::archive::{self, Entry, Kind, Reader, Skip};
use super::recipe::{self, Tap};
use crate::storage::share::FileList;
use crate::storage::{Ownership, StagedLayer};
use crate::sys::owners::{ATTRIBUTE, Owner};
use crate::sys::path::Root;
use crate::sys::tree::{self, Metadata, Node, Replaced, Writer};

/// How to unpack.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// Whose the files become.
    pub ownership: Ownership,
    /// Largest file, in bytes, that a sparse map may claim.
    pub max_file: u64,
    /// Most entries.
    pub max_entries: u64,
    /// Trees of the layers below, topmost first, if they are there already: a hard link may name
    /// a file of theirs.
    pub lower: &'a [PathBuf],
    /// The layer that the tree is made for: gets a recipe (see [`recipe`]), and shares the content of
    /// files with other layers. `None` for a tree that the archive will never be wanted back from.
    pub staged: Option<&'a StagedLayer>,
}

/// What was unpacked and what was left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Entries in the archive.
    pub entries: u64,
    /// Device nodes left out because only root can make them.
    pub skipped_devices: u64,
    /// Extended attributes left out.
    pub skipped_xattrs: u64,
    /// Whiteouts are files as in the archive: the file system refuses overlayfs's.
    pub plain_whiteouts: bool,
    /// Bytes of files that are those of other layers.
    pub shared: u64,
}

/// A layer that cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The archive cannot be read.
    #[error(transparent)]
    Archive(#[from] archive::Error),
    /// A name leads out of the root.
    #[error("the layer has the hostile entry \"{0}\"")]
    Name(String),
    /// The target of a hard link leads out of the root.
    #[error("the layer has a hard link \"{path}\" to the hostile name \"{target}\"")]
    Target {
        /// The link.
        path: String,
        /// Its target.
        target: String,
    },
    /// The target of a hard link is not in this layer, nor in one below that is there already.
    #[error("unpacking \"{path}\": it is a hard link to \"{target}\", which is not there")]
    NoTarget {
        /// The link.
        path: String,
        /// Its target.
        target: String,
    },
    /// The entry cannot be made.
    #[error("unpacking \"{path}\"")]
    Entry {
        /// Its name.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel refuses the owner.
    #[error("unpacking \"{path}\": its owner {uid}:{gid} is not among the ids that are mapped here")]
    Owner {
        /// The entry.
        path: String,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
    },
    /// More than the limits allow.
    #[error("the layer has more than {0} entries")]
    Entries(u64),
    /// More than the limits allow.
    #[error("the layer has the file \"{path}\" of {size} bytes, more than the {limit} allowed")]
    FileSize {
        /// Its name.
        path: String,
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// What the tree does not hold cannot be written down.
    #[error("writing \"{}\"", path.display())]
    Recipe {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The directory cannot be opened or finished.
    #[error("unpacking into \"{}\"", path.display())]
    Root {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Unpacks the archive in `stream` into the empty directory `root`, and reads the stream to its end.
pub fn unpack(stream: impl Skip, root: &Path, options: Options<'_>) -> Result<Report, Error> {
    let at_root = |source| Error::Root { path: root.to_owned(), source };
    let recipe_path = options.staged.map(StagedLayer::recipe).unwrap_or_default();
    let at_recipe = |source| Error::Recipe { path: recipe_path.clone(), source };
    let recipe = options.staged.map(|_| recipe::Writer::create(&recipe_path)).transpose();
    let mut writer = Writer::new(root).map_err(at_root)?;
    if let Some(staged) = options.staged {
        writer.set_aside_in(staged.aside());
    }
    let mut unpacker = Unpacker {
        reader: Reader::new(Tap::new(stream, recipe.map_err(at_recipe)?)),
        writer,
        options,
        report: Report::default(),
        files: FileList::default(),
    };
    while let Some(entry) = unpacker.reader.next_entry()? {
        if unpacker.reader.entries() > options.max_entries {
            return Err(Error::Entries(options.max_entries));
        }
        unpacker.entry(&entry)?;
        unpacker.note_moved();
    }
    let Unpacker { reader, writer, mut report, files, .. } = unpacker;
    report.entries = reader.entries();
    report.plain_whiteouts = writer.is_plain();
    // What follows the end of the archive is padding, but part of what the digest is about.
    let mut rest = reader.into_inner();
    loop {
        let count = rest.fill_buf().map_err(archive::Error::Read)?.len();
        if count == 0 {
            break;
        }
        rest.consume(count);
    }
    rest.finish().map_err(at_recipe)?;
    if let Some(staged) = options.staged {
        // Before the directories get their times, which links in them would change.
        report.shared = staged.share(files).map_err(at_recipe)?;
    }
    let implied = writer.finish().map_err(at_root)?;
    if let Some(staged) = options.staged {
        staged.note_implied(&implied).map_err(at_root)?;
    }
    Ok(report)
}

struct Unpacker<'a, R> {
    reader: Reader<Tap<R>>,
    writer: Writer,
    options: Options<'a>,
    report: Report,
    files: FileList,
}

impl<R: Skip> Unpacker<'_, R> {
    fn entry(&mut self, entry: &Entry) -> Result<(), Error> {
        let path = clean(&entry.path).ok_or_else(|| Error::Name(lossy(&entry.path)))?;
        if let Some(name) =
            path.file_name().and_then(|name| name.as_bytes().strip_prefix(tree::WHITEOUT.as_bytes()))
        {
            return self.whiteout(&path, name);
        }
        let metadata = Metadata {
            mode: entry.mode,
            owner: (self.options.ownership != Ownership::Single).then_some((entry.uid, entry.gid)),
            mtime: entry.mtime,
        };
        if path.as_os_str().is_empty() && entry.kind != Kind::Directory {
            return Err(Error::Name(lossy(&entry.path)));
        }
        let made = match entry.kind {
            Kind::File => return self.file(&path, entry, &metadata),
            Kind::Directory => self.directory(&path, entry, &metadata),
            Kind::SymbolicLink => self.writer.symlink(&path, OsStr::from_bytes(&entry.link), &metadata),
            Kind::HardLink => {
                let target = clean(&entry.link).filter(|target| !target.as_os_str().is_empty());
                let target = target
                    .ok_or_else(|| Error::Target { path: lossy(&entry.path), target: lossy(&entry.link) })?;
                return self.hard_link(&path, &target, entry);
            }
            Kind::Fifo => self.writer.node(&path, Node::Fifo, &metadata),
            Kind::CharDevice | Kind::BlockDevice => self.device(&path, entry, &metadata),
        };
        made.map_err(|source| failed(entry, source))
    }

    /// Tells the recipe what later entries took the place of.
    fn note_moved(&mut self) {
        for (path, number) in self.writer.take_moved() {
            if let Some(recipe) = self.reader.get_mut().recipe() {
                recipe.moved(&path, number);
            }
        }
    }

    fn hard_link(&mut self, path: &Path, target: &Path, entry: &Entry) -> Result<(), Error> {
        let made = match self.writer.hard_link(path, target) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let copied = self.copy_up(target).map_err(|source| failed(entry, source))?;
                if !copied {
                    let (path, target) = (lossy(&entry.path), lossy(&entry.link));
                    return Err(Error::NoTarget { path, target });
                }
                self.writer.hard_link(path, target)
            }
            other => other,
        };
        if let Ok(real) = self.writer.real(target) {
            self.files.linked(&real);
        }
        made.map_err(|source| failed(entry, source))
    }

    /// Copies a file of a lower layer into this one, as overlayfs does before it links to it.
    fn copy_up(&mut self, path: &Path) -> io::Result<bool> {
        for lower in self.options.lower {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
            let mut from = match Root::open(lower)?.open_strict(path, flags, 0) {
                Ok(fd) => std::fs::File::from(fd),
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                // A whiteout, or something else that cannot be linked to.
                Err(_) => return Ok(false),
            };
            let stat = from.metadata()?;
            if !stat.is_file() {
                return Ok(false);
            }
            let mut file = std::fs::File::from(self.writer.create_file(path, stat.mode())?);
            io::copy(&mut from, &mut file)?;
            let owner = (self.options.ownership != Ownership::Single).then_some((stat.uid(), stat.gid()));
            let mtime = (stat.mtime(), stat.mtime_nsec() as u32);
            self.writer.finish_file(file.as_fd(), &Metadata { mode: stat.mode() & 0o7777, owner, mtime })?;
            tree::copy_capability(from.as_fd(), file.as_fd())?;
            return Ok(true);
        }
        Ok(false)
    }

    fn device(&mut self, path: &Path, entry: &Entry, metadata: &Metadata) -> io::Result<()> {
        let (major, minor) = entry.device;
        // A 0:0 character device would be a whiteout that the archive did not name as such.
        if self.options.ownership != Ownership::Host || (major, minor) == (0, 0) {
            self.report.skipped_devices += 1;
            return Ok(());
        }
        let node = match entry.kind {
            Kind::CharDevice => Node::Char(major, minor),
            _ => Node::Block(major, minor),
        };
        self.writer.node(path, node, metadata)
    }

    fn directory(&mut self, path: &Path, entry: &Entry, metadata: &Metadata) -> io::Result<()> {
        let replaced = self.writer.directory_entry(path, metadata)?;
        if replaced == Replaced::Whiteout {
            self.writer.make_opaque(path, OsStr::new(self.opaque()))?;
        }
        for (name, value) in &entry.xattrs {
            if !may_take(name) {
                self.report.skipped_xattrs += 1;
                continue;
            }
            let set = self.writer.set_attribute(path, OsStr::from_bytes(name), value);
            self.report.skipped_xattrs += skippable(set)?;
        }
        if let Some(owner) = self.remembered(entry) {
            let _ = self.writer.set_attribute(path, OsStr::new(ATTRIBUTE), owner.as_bytes());
        }
        Ok(())
    }

    /// What is kept beside a file of an owner whom it cannot have. Where the file system has no room for it, it is
    /// forgotten: nothing is told by it but to who asks for that (`--security-opt ownership=remembered`).
    fn remembered(&self, entry: &Entry) -> Option<String> {
        let lost = self.options.ownership == Ownership::Single && (entry.uid, entry.gid) != (0, 0);
        lost.then(|| Owner { uid: entry.uid, gid: entry.gid, device: None }.text())
    }

    fn file(&mut self, path: &Path, entry: &Entry, metadata: &Metadata) -> Result<(), Error> {
        let limit = self.options.max_file;
        if entry.size > limit {
            return Err(Error::FileSize { path: lossy(&entry.path), size: entry.size, limit });
        }
        let fail = |source| failed(entry, source);
        let fd = self.writer.create_file(path, entry.mode).map_err(fail)?;
        let mut file = std::fs::File::from(fd);
        let mut hash = recipe::hasher();
        match &entry.sparse {
            None => self.copy(&mut file, entry.size, entry, &mut hash)?,
            Some(pieces) => {
                for (offset, length) in pieces {
                    rustix::fs::seek(&file, SeekFrom::Start(*offset)).map_err(|e| fail(e.into()))?;
                    self.copy(&mut file, *length, entry, &mut hash)?;
                }
                file.set_len(entry.size).map_err(fail)?;
            }
        }
        self.note_file(path, entry, &hash).map_err(fail)?;
        self.writer.finish_file(file.as_fd(), metadata).map_err(fail)?;
        // After the owner: chown(2) takes security.capability off again.
        for (name, value) in &entry.xattrs {
            if !may_take(name) {
                self.report.skipped_xattrs += 1;
                continue;
            }
            let set = tree::set_xattr(file.as_fd(), OsStr::from_bytes(name), value);
            self.report.skipped_xattrs += skippable(set).map_err(fail)?;
        }
        if let Some(owner) = self.remembered(entry) {
            let _ = tree::set_xattr(file.as_fd(), OsStr::new(ATTRIBUTE), owner.as_bytes());
        }
        Ok(())
    }

    /// Tells the recipe, and the list for sharing, what was written.
    fn note_file(&mut self, path: &Path, entry: &Entry, hash: &recipe::Hasher) -> io::Result<()> {
        if self.options.staged.is_none() {
            return Ok(());
        }
        self.note_moved();
        let real = self.writer.real(path)?;
        let hash = hash.digest128();
        if let Some(recipe) = self.reader.get_mut().recipe() {
            recipe.file(&real, entry.size, entry.sparse.as_deref(), hash);
        }
        // The hash of a sparse file leaves its holes out.
        if entry.sparse.is_none() {
            self.files.add(hash, entry.size, &real);
        }
        Ok(())
    }

    fn copy(
        &mut self,
        file: &mut std::fs::File,
        mut left: u64,
        entry: &Entry,
        hash: &mut recipe::Hasher,
    ) -> Result<(), Error> {
        let keeps = self.options.staged.is_some();
        self.reader.get_mut().content = true;
        while left > 0 {
            let piece = self.reader.data(left)?;
            if piece.is_empty() {
                return Err(archive::Error::Read(io::ErrorKind::UnexpectedEof.into()).into());
            }
            file.write_all(piece).map_err(|source| failed(entry, source))?;
            if keeps {
                hash.update(piece);
            }
            let count = piece.len();
            self.reader.consume(count);
            left -= count as u64;
        }
        self.reader.get_mut().content = false;
        Ok(())
    }

    /// `name` is what follows `.wh.` in the last part of `path`.
    fn whiteout(&mut self, path: &Path, name: &[u8]) -> Result<(), Error> {
        let parent = path.parent().unwrap_or(Path::new(""));
        let opaque = self.opaque();
        let made = match name {
            b".wh..opq" => self.writer.make_opaque(parent, OsStr::new(opaque)),
            // AUFS's own files.
            name if name.starts_with(b".wh.") => Ok(()),
            b"" | b"." | b".." => return Err(Error::Name(lossy(path.as_os_str().as_bytes()))),
            name => self.writer.whiteout(&parent.join(OsStr::from_bytes(name)), OsStr::new(opaque)),
        };
        made.map_err(|source| Error::Entry { path: lossy(path.as_os_str().as_bytes()), source })
    }

    /// In a user namespace overlayfs reads its attributes from `user.` (mount option `userxattr`).
    fn opaque(&self) -> &'static str {
        match self.options.ownership {
            Ownership::Host => "trusted.overlay.opaque",
            Ownership::Mapped | Ownership::Single => "user.overlay.opaque",
        }
    }
}

fn failed(entry: &Entry, source: io::Error) -> Error {
    // The answer of chown(2) when an id has no meaning in this user namespace.
    if source.raw_os_error() == Some(libc::EINVAL) && (entry.uid, entry.gid) != (0, 0) {
        return Error::Owner { path: lossy(&entry.path), uid: entry.uid, gid: entry.gid };
    }
    Error::Entry { path: lossy(&entry.path), source }
}

/// Whether an archive may set the attribute: overlayfs' own would let a layer redirect lookups
/// (`trusted.overlay.redirect`), labels and ACL's ids are the host's business.
pub(super) fn may_take(name: &[u8]) -> bool {
    name == b"security.capability"
        || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay.") && name != ATTRIBUTE.as_bytes())
        || name.starts_with(b"system.posix_acl_")
}

/// Counts an attribute that the file system or the kernel refuses; other errors count as such.
fn skippable(result: io::Result<()>) -> io::Result<u64> {
    match result {
        Ok(()) => Ok(0),
        Err(error) => match error.raw_os_error() {
            Some(libc::EOPNOTSUPP | libc::EPERM | libc::EACCES | libc::EINVAL) => Ok(1),
            _ => Err(error),
        },
    }
}

fn lossy(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

/// The path beneath the root that a name means: without leading slash (as tar(1) does), `.` and
/// empty parts. `None` if it has a `..` or a NUL.
pub fn clean(name: &[u8]) -> Option<PathBuf> {
    let mut path = PathBuf::new();
    for part in name.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return None,
            part if part.contains(&0) => return None,
            part => path.push(OsStr::from_bytes(part)),
        }
    }
    Some(path)
}
