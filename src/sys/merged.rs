//! A directory as overlayfs shows it, read from its layers without a mount: through directory descriptors
//! alone, so that no symbolic link of whoever filled the layers is ever followed.

use std::collections::{BTreeMap, HashSet};
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::tree::{OPAQUE, WHITEOUT};

/// Deeper trees are refused: each level takes a descriptor for each layer that has it.
pub const DEPTH: u32 = 256;

/// One layer's tree.
#[derive(Clone, Debug)]
pub struct Tree {
    /// Where it is.
    pub path: PathBuf,
    /// Whether whiteouts are files as in the archive rather than overlayfs's own.
    pub plain: bool,
}

/// One directory in all layers that have it and are not hidden, the topmost first.
#[derive(Debug)]
pub struct Level(Vec<Layer>);

#[derive(Debug)]
struct Layer {
    dir: OwnedFd,
    plain: bool,
}

/// Something in a merged directory.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// In which of the directory's layers it is.
    pub layer: usize,
    /// What it is.
    pub stat: Stat,
}

impl Entry {
    /// Its kind.
    pub fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }
}

fn open_dir(dir: impl AsFd, name: impl rustix::path::Arg) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(dir, name, flags, Mode::empty())
}

/// overlayfs's mark for "nothing of this name" (overlayfs.rst, "whiteouts and opaque directories").
fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Whether an open file has this extended attribute. Those of overlayfs that can only be understood with a
/// mount are root's alone: in user namespaces it makes none (`userxattr`).
pub(super) fn has_attribute(file: impl AsFd, name: &str) -> io::Result<bool> {
    match fs::fgetxattr(file, name, &mut [0_u8; 0]) {
        Ok(_) => Ok(true),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn stat(dir: impl AsFd, name: impl rustix::path::Arg) -> rustix::io::Result<Option<Stat>> {
    match fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

impl Layer {
    /// Whether this directory hides what lower layers have in it.
    fn is_opaque(&self) -> rustix::io::Result<bool> {
        if self.plain && stat(&self.dir, OPAQUE)?.is_some() {
            return Ok(true);
        }
        for name in ["trusted.overlay.opaque", "user.overlay.opaque"] {
            let mut value = [0_u8; 2];
            if fs::fgetxattr(&self.dir, name, &mut value) == Ok(1) && value[0] == b'y' {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What this layer says of a name: `None` nothing, `Some(None)` that it is gone.
    fn find(&self, name: &CStr) -> rustix::io::Result<Option<Option<Stat>>> {
        if self.plain && name.to_bytes().starts_with(WHITEOUT.as_bytes()) {
            return Ok(None);
        }
        if let Some(found) = stat(&self.dir, name)? {
            return Ok(Some((!is_whiteout(&found)).then_some(found)));
        }
        if self.plain {
            let hidden = [WHITEOUT.as_bytes(), name.to_bytes()].concat();
            return Ok(stat(&self.dir, &*hidden)?.map(|_| None));
        }
        Ok(None)
    }

    /// The names in this layer alone: those that are there, and those that are gone.
    fn names(&self) -> rustix::io::Result<BTreeMap<CString, Option<Stat>>> {
        let mut found = BTreeMap::new();
        for entry in Dir::read_from(&self.dir)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            match name.to_bytes().strip_prefix(WHITEOUT.as_bytes()).filter(|_| self.plain) {
                Some(_) if name.to_bytes() == OPAQUE.as_bytes() => {}
                Some(hidden) => {
                    // What the layer has itself under that name stays.
                    let hidden = CString::new(hidden).unwrap_or_default();
                    found.entry(hidden).or_insert(None);
                }
                // None: removed since it was read.
                None => {
                    if let Some(stat) = stat(&self.dir, name)? {
                        found.insert(name.to_owned(), (!is_whiteout(&stat)).then_some(stat));
                    }
                }
            }
        }
        Ok(found)
    }
}

impl Level {
    /// The root of these trees, the topmost first.
    pub fn open(trees: &[Tree]) -> io::Result<Self> {
        let mut layers = Vec::new();
        for tree in trees {
            let layer = Layer { dir: open_dir(fs::CWD, &tree.path)?, plain: tree.plain };
            let opaque = layer.is_opaque()?;
            layers.push(layer);
            if opaque {
                break;
            }
        }
        Ok(Self(layers))
    }

    /// An open directory (`O_PATH` will do) as it is shown, layers or none.
    pub fn of(directory: impl AsFd) -> io::Result<Self> {
        Ok(Self(vec![Layer { dir: open_dir(directory, ".")?, plain: false }]))
    }

    /// What has this name.
    pub fn find(&self, name: &CStr) -> io::Result<Option<Entry>> {
        for (layer, found) in self.0.iter().enumerate() {
            if let Some(found) = found.find(name)? {
                return Ok(found.map(|stat| Entry { layer, stat }));
            }
        }
        Ok(None)
    }

    /// All that is there, in the order of its names.
    pub fn entries(&self) -> io::Result<BTreeMap<CString, Entry>> {
        let mut entries = BTreeMap::new();
        let mut gone = HashSet::new();
        for (layer, directory) in self.0.iter().enumerate() {
            for (name, found) in directory.names()? {
                if entries.contains_key(&name) || gone.contains(&name) {
                    continue;
                }
                match found {
                    Some(stat) => drop(entries.insert(name, Entry { layer, stat })),
                    None => drop(gone.insert(name)),
                }
            }
        }
        Ok(entries)
    }

    /// The directory that an entry is.
    pub fn enter(&self, name: &CStr, entry: &Entry) -> io::Result<Self> {
        let mut layers = Vec::new();
        for layer in &self.0[entry.layer..] {
            match layer.find(name)? {
                None => continue,
                Some(Some(stat)) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {}
                Some(_) => break,
            }
            let layer = Layer { dir: open_dir(&layer.dir, name)?, plain: layer.plain };
            if has_attribute(&layer.dir, "trusted.overlay.redirect")? {
                return Err(io::Error::other(
                    "overlayfs has left a part of it under another name (redirect_dir)",
                ));
            }
            let opaque = layer.is_opaque()?;
            layers.push(layer);
            if opaque {
                break;
            }
        }
        Ok(Self(layers))
    }

    /// The layer's directory that an entry is in, to open it by.
    pub fn directory(&self, entry: &Entry) -> &OwnedFd {
        &self.0[entry.layer].dir
    }

    /// The names in the topmost layer alone: those that are there, and those that are gone.
    pub(super) fn own_names(&self) -> io::Result<BTreeMap<CString, Option<Stat>>> {
        Ok(self.0.first().map_or_else(|| Ok(BTreeMap::new()), Layer::names)?)
    }

    /// Whether the topmost layer hides what lower ones have in this directory.
    pub(super) fn is_opaque(&self) -> io::Result<bool> {
        Ok(self.0.first().map_or(Ok(false), Layer::is_opaque)?)
    }

    /// The topmost layer's directory, whose owner and mode are those that count.
    pub fn top(&self) -> Option<&OwnedFd> {
        self.0.first().map(|layer| &layer.dir)
    }

    pub(super) fn empty() -> Self {
        Self(Vec::new())
    }
}

/// Reads a regular file of at most `limit` bytes in these trees, the topmost first. No link is followed;
/// `None` if there is no such regular file.
pub fn read(trees: &[Tree], path: &[&str], limit: u64) -> io::Result<Option<Vec<u8>>> {
    let Some((last, directories)) = path.split_last() else { return Ok(None) };
    let name = |text: &str| CString::new(text).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    let mut level = Level::open(trees)?;
    for directory in directories {
        let directory = name(directory)?;
        match level.find(&directory)? {
            Some(entry) if entry.kind() == FileType::Directory => level = level.enter(&directory, &entry)?,
            _ => return Ok(None),
        }
    }
    let last = name(last)?;
    let Some(entry) = level.find(&last)?.filter(|entry| entry.kind() == FileType::RegularFile) else {
        return Ok(None);
    };
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = fs::openat(level.directory(&entry), &last, flags, Mode::empty())?;
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(std::fs::File::from(file), limit + 1), &mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(Some(bytes))
}

/// How a file differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Kind {
    /// It is there only above.
    Added,
    /// It is there in both, and not the same.
    Changed,
    /// It is there only below.
    Deleted,
}

/// A difference between a tree and those below it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Change {
    /// How it differs.
    pub kind: Kind,
    /// The absolute path, which need not be text.
    pub path: Vec<u8>,
}

/// What the tree `upper` changes of the merged trees `lower`, in the order of a walk. A directory is
/// told where its mode, owner or time has changed, or what is in it; any other file that both have is
/// taken for changed. With `whole` the upper tree is no layer but has everything: what it lacks is deleted,
/// and what has the same mode, size and time is the same.
///
/// Directories deeper than [`DEPTH`] are an error (`ELOOP`).
pub fn changes(upper: &Tree, lower: &[Tree], whole: bool) -> io::Result<Vec<Change>> {
    let mut walk = Walk { owners: !whole, changes: Vec::new() };
    let upper = Level::open(std::slice::from_ref(upper))?;
    walk.level(&upper, &Level::open(lower)?, Path::new("/"), whole, DEPTH)?;
    Ok(walk.changes)
}

struct Walk {
    /// Whether owners can be compared.
    owners: bool,
    changes: Vec<Change>,
}

impl Walk {
    fn tell(&mut self, kind: Kind, path: &Path) {
        use std::os::unix::ffi::OsStrExt;
        self.changes.push(Change { kind, path: path.as_os_str().as_bytes().to_vec() });
    }

    /// `hidden`: nothing of `lower` shows through.
    fn level(
        &mut self,
        upper: &Level,
        lower: &Level,
        path: &Path,
        hidden: bool,
        depth: u32,
    ) -> io::Result<bool> {
        use std::os::unix::ffi::OsStrExt;
        if depth == 0 {
            return Err(Errno::LOOP.into());
        }
        let Some(top) = upper.0.first() else { return Ok(false) };
        let mut names: BTreeMap<CString, Option<Stat>> = top.names()?;
        if hidden || top.is_opaque()? {
            for name in lower.entries()?.into_keys() {
                names.entry(name).or_insert(None);
            }
        }
        let hidden = hidden || top.is_opaque()?;
        let mut altered = false;
        for (name, found) in names {
            let path = path.join(std::ffi::OsStr::from_bytes(name.to_bytes()));
            let below = lower.find(&name)?;
            let Some(stat) = found else {
                if below.is_some() {
                    self.tell(Kind::Deleted, &path);
                    altered = true;
                }
                continue;
            };
            altered |= below.is_none();
            self.one(upper, lower, (&name, &path), (Entry { layer: 0, stat }, below), hidden, depth)?;
        }
        Ok(altered)
    }

    fn one(
        &mut self,
        upper: &Level,
        lower: &Level,
        (name, path): (&CStr, &Path),
        (above, below): (Entry, Option<Entry>),
        hidden: bool,
        depth: u32,
    ) -> io::Result<()> {
        let at = self.changes.len();
        let kind = match &below {
            None => Some(Kind::Added),
            Some(below) if above.kind() == FileType::Directory || hidden => {
                (!self.same(&above.stat, &below.stat)).then_some(Kind::Changed)
            }
            Some(_) => Some(Kind::Changed),
        };
        if let Some(kind) = kind {
            self.tell(kind, path);
        }
        if above.kind() != FileType::Directory {
            return Ok(());
        }
        let inside = upper.enter(name, &above)?;
        let beneath = match &below {
            Some(below) if below.kind() == FileType::Directory => lower.enter(name, below)?,
            _ => Level::empty(),
        };
        if self.level(&inside, &beneath, path, hidden, depth - 1)? && kind.is_none() {
            // Its time was set back, but something has come or gone.
            self.tell(Kind::Changed, path);
            self.changes[at..].rotate_right(1);
        }
        Ok(())
    }

    fn same(&self, a: &Stat, b: &Stat) -> bool {
        same(a, b) && (!self.owners || (a.st_uid, a.st_gid) == (b.st_uid, b.st_gid))
    }
}

/// Whether nothing but the owner, or bytes that were changed without a trace, can differ.
pub(super) fn same(a: &Stat, b: &Stat) -> bool {
    let directory = FileType::from_raw_mode(a.st_mode) == FileType::Directory;
    a.st_mode == b.st_mode
        && (directory || a.st_size == b.st_size)
        && (a.st_mtime, a.st_mtime_nsec) == (b.st_mtime, b.st_mtime_nsec)
        && a.st_rdev == b.st_rdev
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A directory of the test's own with a tree for each list of files; a name that ends in a slash is a
    /// directory, one with `->` a link.
    fn trees(name: &str, trees: &[&[&str]]) -> (PathBuf, Vec<Tree>) {
        let dir = std::env::temp_dir().join(format!("umiak-merged-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        let make = |(number, files): (usize, &&[&str])| {
            let tree = dir.join(number.to_string());
            std::fs::create_dir_all(&tree).unwrap();
            for file in *files {
                if let Some((from, to)) = file.split_once("->") {
                    symlink(to, tree.join(from)).unwrap();
                } else if let Some(name) = file.strip_suffix('/') {
                    std::fs::create_dir_all(tree.join(name)).unwrap();
                } else {
                    std::fs::create_dir_all(tree.join(file).parent().unwrap()).unwrap();
                    std::fs::write(tree.join(file), number.to_string()).unwrap();
                }
            }
            // Plain, since overlayfs's own whiteouts are not for everybody to make.
            Tree { path: tree, plain: true }
        };
        let made = trees.iter().enumerate().map(make).collect();
        (dir, made)
    }

    fn told(changes: &[Change]) -> Vec<String> {
        let letter = |kind| match kind {
            Kind::Added => 'A',
            Kind::Changed => 'C',
            Kind::Deleted => 'D',
        };
        changes.iter().map(|c| format!("{} {}", letter(c.kind), String::from_utf8_lossy(&c.path))).collect()
    }

    #[test]
    fn layers_hide_each_other() {
        let (dir, trees) = trees(
            "hide",
            &[
                &["a/.wh.gone", "o/.wh..wh..opq", "o/new", "file"],
                &["a/gone", "a/kept", "o/old", "file/was/a/directory", "link->/etc"],
                &["a/gone", "a/deep", "o/older", "link/passwd"],
            ],
        );
        let level = Level::open(&trees).unwrap();
        let names = |level: &Level| {
            let names = level.entries().unwrap().into_keys();
            names.map(|name| name.into_string().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(names(&level), ["a", "file", "link", "o"]);
        let enter = |name: &CStr| level.enter(name, &level.find(name).unwrap().unwrap());
        assert_eq!(names(&enter(c"a").unwrap()), ["deep", "kept"]);
        assert_eq!(names(&enter(c"o").unwrap()), ["new"]);
        assert!(enter(c"link").unwrap().0.is_empty(), "no link is followed");
        assert_eq!(level.find(c"file").unwrap().unwrap().kind(), FileType::RegularFile);
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn what_a_layer_changes() {
        let (dir, trees) = trees(
            "changes",
            &[
                &["a/.wh.gone", "a/.wh.never", "a/kept", "n/m/f", "o/.wh..wh..opq", "o/d/x", "same/"],
                &["a/gone/x", "a/kept", "o/old", "o/d/y", "same/", "other"],
            ],
        );
        for name in ["a", "o", "o/d", "same"] {
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(7);
            for tree in &trees {
                std::fs::File::open(tree.path.join(name)).unwrap().set_modified(time).unwrap();
            }
        }
        let expected = [
            "C /a",
            "D /a/gone",
            "C /a/kept",
            "A /n",
            "A /n/m",
            "A /n/m/f",
            "C /o",
            "C /o/d",
            "A /o/d/x",
            "D /o/d/y",
            "D /o/old",
        ];
        assert_eq!(told(&changes(&trees[0], &trees[1..], false).unwrap()), expected);
        assert_eq!(told(&changes(&trees[1], &trees[1..], true).unwrap()), [""; 0]);
        assert_eq!(told(&changes(&trees[1], &[], false).unwrap()).len(), 10);
        std::fs::remove_dir_all(dir).unwrap();
    }
}
