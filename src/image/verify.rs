//! Whether an unpacked layer is still what was unpacked: the archive is made again of tree and recipe, and
//! its entries are compared with the tree.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Read};
use std::ops::Bound;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{self, FileType, OFlags};
use sha2::{Digest as _, Sha256};

use super::archive::{self, Entry, Kind, Skip};
use super::recipe;
use super::unpack::{clean, may_take};
use crate::base::digest::Digest;
use crate::base::report;
use crate::storage::{LayerFiles, LayerRecord, Ownership};
use crate::sys::path::Root;
use crate::sys::tree::{self, OPAQUE, WHITEOUT};

/// More faults of one layer are not told.
const MAX_FAULTS: usize = 20;

/// What is wrong with a layer, in words; nothing if it is whole. A layer of an old store, which has
/// no recipe, is not looked into. The caller can read the files of the layer's owner.
pub fn layer(files: &LayerFiles, record: &LayerRecord) -> Vec<String> {
    if !files.recipe().exists() {
        return Vec::new();
    }
    let mut verifier = Verifier {
        ownership: record.ownership,
        expected: BTreeMap::new(),
        uncertain: record.plain_whiteouts,
        all_attributes: record.skipped_xattrs == 0,
        faults: Vec::new(),
    };
    match verifier.read(files, &record.diff_id) {
        Ok(()) => {
            if let Err(error) = verifier.compare(&files.tree()) {
                verifier.faults.push(format!("the tree cannot be read: {error}"));
            }
        }
        Err(error) => verifier.faults.push(error),
    }
    verifier.faults
}

/// What the tree should have under a path.
#[derive(Clone, Debug)]
struct Expected {
    kind: FileType,
    entry: Option<Metadata>,
}

#[derive(Clone, Debug)]
struct Metadata {
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, u32),
    size: u64,
    link: Vec<u8>,
    /// Those that a layer may have, by name.
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

struct Verifier {
    ownership: Ownership,
    expected: BTreeMap<PathBuf, Expected>,
    /// Entries lie behind links, or whiteouts are files: what must not be there is not known.
    uncertain: bool,
    /// None was left out when it was unpacked.
    all_attributes: bool,
    faults: Vec<String>,
}

impl Verifier {
    fn read(&mut self, files: &LayerFiles, diff_id: &Digest) -> Result<(), String> {
        let reader = recipe::Reader::open(&files.recipe(), &files.tree(), &files.aside());
        let stream = Hashing { inner: reader.map_err(|error| report::chain(&error))?, hash: Sha256::new() };
        let mut archive = archive::Reader::new(Stream(BufReader::with_capacity(128 << 10, stream)));
        while let Some(entry) = archive.next_entry().map_err(told)? {
            self.entry(&entry);
        }
        let mut rest = archive.into_inner().0;
        io::copy(&mut rest, &mut io::sink()).map_err(|error| told(archive::Error::Read(error)))?;
        let found = Digest::from_bytes(rest.into_inner().hash.finalize().into());
        if found == *diff_id {
            Ok(())
        } else {
            Err(format!("its archive has the digest {found} instead of {diff_id}"))
        }
    }

    fn entry(&mut self, entry: &Entry) {
        let Some(path) = clean(&entry.path) else { return };
        let behind_link = |path: &Path| {
            let is_link = |above: &Path| {
                self.expected.get(above).is_some_and(|expected| expected.kind == FileType::Symlink)
            };
            path.ancestors().skip(1).any(is_link)
        };
        if behind_link(&path) {
            self.uncertain = true;
            return;
        }
        let name = path.file_name().unwrap_or_default().as_bytes();
        if let Some(hidden) = name.strip_prefix(WHITEOUT.as_bytes()) {
            let hidden = path.with_file_name(OsStr::from_bytes(hidden));
            if name != OPAQUE.as_bytes() && !name.starts_with(b".wh..wh.") {
                self.expected
                    .entry(hidden)
                    .or_insert(Expected { kind: FileType::CharacterDevice, entry: None });
            }
            return;
        }
        let metadata = Metadata {
            mode: entry.mode,
            owner: (entry.uid, entry.gid),
            mtime: entry.mtime,
            size: entry.size,
            link: entry.link.clone(),
            xattrs: entry.xattrs.iter().filter(|(name, _)| may_take(name)).cloned().collect(),
        };
        let kind = match entry.kind {
            Kind::File => FileType::RegularFile,
            Kind::Directory => FileType::Directory,
            Kind::SymbolicLink => FileType::Symlink,
            Kind::Fifo => FileType::Fifo,
            Kind::HardLink => {
                let target = clean(&entry.link).and_then(|target| self.expected.get(&target)).cloned();
                match target {
                    Some(target) => self.put(path, target),
                    // Of a layer below, or behind a link.
                    None => self.uncertain = true,
                }
                return;
            }
            Kind::CharDevice | Kind::BlockDevice => {
                if self.ownership != Ownership::Host || entry.device == (0, 0) {
                    return;
                }
                if entry.kind == Kind::CharDevice { FileType::CharacterDevice } else { FileType::BlockDevice }
            }
        };
        self.put(path, Expected { kind, entry: Some(metadata) });
    }

    fn put(&mut self, path: PathBuf, expected: Expected) {
        let is_dir = |kind| kind == FileType::Directory;
        let was_dir = self.expected.get(&path).is_some_and(|old| is_dir(old.kind));
        if was_dir && !is_dir(expected.kind) {
            let from = (Bound::Excluded(path.clone()), Bound::Unbounded);
            let below = self.expected.range::<PathBuf, _>(from).map(|(below, _)| below);
            let below: Vec<PathBuf> = below.take_while(|below| below.starts_with(&path)).cloned().collect();
            for below in below {
                self.expected.remove(&below);
            }
        }
        self.expected.insert(path, expected);
    }

    fn fault(&mut self, path: &Path, what: &str) {
        if self.faults.len() < MAX_FAULTS {
            self.faults.push(format!("\"{}\" {what}", path.display()));
        }
    }

    fn compare(&mut self, tree: &Path) -> io::Result<()> {
        let root = Root::open(tree)?;
        for (path, expected) in std::mem::take(&mut self.expected) {
            let found = root.open_strict(&path, OFlags::PATH | OFlags::NOFOLLOW, 0);
            match found.and_then(|fd| Ok((fs::fstat(&fd)?, fd))) {
                Ok((stat, fd)) => {
                    // Only these two kinds can be given attributes in a layer.
                    let kind = FileType::from_raw_mode(stat.st_mode);
                    let what =
                        self.difference(&stat, &fd, &expected).or_else(|| match (kind, &expected.entry) {
                            (FileType::RegularFile | FileType::Directory, Some(entry)) => {
                                self.attributes(&root, &path, &entry.xattrs)
                            }
                            _ => None,
                        });
                    if let Some(what) = what {
                        self.fault(&path, what);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound && self.uncertain => {}
                Err(error) => self.fault(&path, &format!("is missing: {error}")),
            }
            // Directories that no entry names are there for what is in them.
            let implied = path.ancestors().skip(1).map(Path::to_owned);
            for above in implied.collect::<Vec<_>>() {
                self.expected.entry(above).or_insert(Expected { kind: FileType::Directory, entry: None });
            }
            self.expected.insert(path, expected);
        }
        if self.uncertain {
            return Ok(());
        }
        for path in tree::paths(tree)? {
            if !self.expected.contains_key(&path) {
                self.fault(&path, "is not of this layer");
            }
        }
        Ok(())
    }

    fn difference(
        &self,
        stat: &fs::Stat,
        fd: &std::os::fd::OwnedFd,
        expected: &Expected,
    ) -> Option<&'static str> {
        if FileType::from_raw_mode(stat.st_mode) != expected.kind {
            return (!self.uncertain).then_some("is of another kind");
        }
        let entry = expected.entry.as_ref()?;
        let is_link = expected.kind == FileType::Symlink;
        if is_link {
            let target = fs::readlinkat(fd, "", Vec::new()).ok()?;
            if target.as_bytes() != entry.link {
                return Some("leads elsewhere");
            }
        }
        if expected.kind == FileType::RegularFile && stat.st_size as u64 != entry.size {
            return Some("has another size");
        }
        if !is_link && stat.st_mode & 0o7777 != entry.mode {
            return Some("has another mode");
        }
        if self.ownership != Ownership::Single && (stat.st_uid, stat.st_gid) != entry.owner {
            return Some("has another owner");
        }
        let time = (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0));
        // File systems differ in the fractions, and in the centuries, that they keep.
        (time.0 != entry.mtime.0 && (0..=i64::from(i32::MAX)).contains(&entry.mtime.0))
            .then_some("has another time")
    }
}

impl Verifier {
    fn attributes(
        &self,
        root: &Root,
        path: &Path,
        expected: &BTreeMap<Vec<u8>, Vec<u8>>,
    ) -> Option<&'static str> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let found = root.open_strict(path, flags, 0).and_then(tree::attributes);
        let Ok(found) = found else { return Some("has attributes that cannot be read") };
        let found = found.into_iter().map(|(name, value)| (name.into_vec(), value));
        let found: BTreeMap<Vec<u8>, Vec<u8>> = found.filter(|(name, _)| may_take(name)).collect();
        // The kernel writes a capability, and ids in an access list, in its own way: that they are there is all
        // that can be said. A list that says no more than the mode is none.
        let own_way = |name: &[u8]| name == b"security.capability" || name.starts_with(b"system.");
        let lost = expected.iter().any(|(name, value)| match found.get(name) {
            None => self.all_attributes && !name.starts_with(b"system."),
            Some(there) => there != value && !own_way(name),
        });
        let added = found.keys().any(|name| !expected.contains_key(name));
        match (lost, added) {
            (true, _) => Some("has lost an attribute"),
            (_, true) => Some("has an attribute that was not its own"),
            _ => None,
        }
    }
}

fn told(error: archive::Error) -> String {
    if let archive::Error::Read(source) = &error
        && let Some(inner) = source.get_ref().and_then(|inner| inner.downcast_ref::<recipe::Error>())
    {
        return report::chain(inner);
    }
    report::chain(&error)
}

struct Hashing<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(into)?;
        self.hash.update(&into[..count]);
        Ok(count)
    }
}

struct Stream<R>(R);

impl<R: Read> Read for Stream<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl<R: BufRead> BufRead for Stream<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.0.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.0.consume(count);
    }
}

impl<R: BufRead> Skip for Stream<R> {}
