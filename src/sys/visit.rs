//! Going through all files of merged trees, for archives of them. The trees may belong to a container that
//! runs and changes them meanwhile: nothing is opened but what was seen to be a directory or a regular file.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{self, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::merged::{DEPTH, Entry, Level, Tree, has_attribute, same};
use super::tree::attributes;

/// A file that was found.
#[derive(Debug)]
pub struct Found<'a> {
    /// Its path below the root.
    pub path: &'a Path,
    /// What it is.
    pub stat: Stat,
    /// Its extended attributes but overlayfs's own; of directories and regular files only.
    pub attributes: Vec<(OsString, Vec<u8>)>,
    /// What it has in it.
    pub content: Content,
}

/// What a file has in it.
#[derive(Debug)]
pub enum Content {
    /// Other files, which are told after it.
    Directory,
    /// Bytes.
    File(File),
    /// It is another name of this file, which was told before.
    Link(PathBuf),
    /// The path of another file, which may mean anything.
    Symlink(OsString),
    /// Nothing: a pipe, or a device.
    Special,
    /// Nothing: it is gone, but was in the trees below ([`visit_layer`]).
    Whiteout,
    /// This directory hides what the trees below have in it; told after it ([`visit_layer`]).
    Opaque,
}

/// Where going through files failed.
#[derive(Debug)]
pub struct Failed {
    /// Below the root.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

type Each<'a> = dyn FnMut(Found<'_>) -> io::Result<()> + 'a;

/// Gives all files of the merged trees (the topmost first) to `each`, directories before what is in them,
/// in the order of names. Sockets, and what goes away meanwhile, are left out. Directories deeper than
/// [`DEPTH`] are an error (`ELOOP`).
pub fn visit(trees: &[Tree], each: &mut Each<'_>) -> Result<(), Failed> {
    let root = Level::open(trees).map_err(|source| Failed { path: PathBuf::from("/"), source })?;
    Visit { each, links: HashMap::new() }.level(&root, Path::new(""), DEPTH)
}

/// Gives an open object (`O_PATH` will do) to `each`, and if it is a directory all that is in it, with what is
/// mounted there: itself first, with an empty path. Otherwise as [`visit`].
pub fn visit_open(object: OwnedFd, each: &mut Each<'_>) -> Result<(), Failed> {
    let at_top = |source: io::Error| Failed { path: PathBuf::new(), source };
    let mut visit = Visit { each, links: HashMap::new() };
    let stat = fs::fstat(&object).map_err(|error| at_top(error.into()))?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        let level = Level::of(&object).map_err(at_top)?;
        let Some(top) = level.top() else { return Ok(()) };
        visit.directory(top, Path::new("")).map_err(at_top)?;
        return visit.level(&level, Path::new(""), DEPTH);
    }
    let told = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => reopen(&object).and_then(|file| {
            let attributes = attributes(&file)?;
            Ok((attributes, Content::File(file.into())))
        }),
        FileType::Symlink => fs::readlinkat(&object, "", Vec::new())
            .map(|target| (Vec::new(), Content::Symlink(OsString::from_vec(target.into_bytes()))))
            .map_err(io::Error::from),
        FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice => {
            Ok((Vec::new(), Content::Special))
        }
        // A socket.
        _ => Err(Errno::OPNOTSUPP.into()),
    };
    let (attributes, content) = told.map_err(at_top)?;
    (visit.each)(Found { path: Path::new(""), stat, attributes, content }).map_err(at_top)
}

/// Gives what `upper` changes of the merged trees `lower` to `each`, as a layer has it (OCI image
/// specification, `layer.md`): what is new or changed, the directories on the way to it, and what is gone.
/// The root itself comes first, with an empty path. With `whole` the upper tree is no layer but has
/// everything: what it lacks is gone, and what has the same mode, size and time is the same.
///
/// Otherwise as [`visit`].
pub fn visit_layer(upper: &Tree, lower: &[Tree], whole: bool, each: &mut Each<'_>) -> Result<(), Failed> {
    let at_root = |source| Failed { path: PathBuf::from("/"), source };
    let level = Level::open(std::slice::from_ref(upper)).map_err(at_root)?;
    let below = Level::open(lower).map_err(at_root)?;
    let is = if whole { Upper::Whole } else { Upper::Layer };
    changes((&level, &below), is, each)
}

/// As [`visit_layer`], for what the merged trees have that their own lower part, `lower`, has not.
pub fn visit_stack(trees: &[Tree], lower: &[Tree], each: &mut Each<'_>) -> Result<(), Failed> {
    let at_root = |source| Failed { path: PathBuf::from("/"), source };
    let level = Level::open(trees).map_err(at_root)?;
    let below = if lower.is_empty() { Level::empty() } else { Level::open(lower).map_err(at_root)? };
    changes((&level, &below), Upper::Stack, each)
}

fn changes((level, below): (&Level, &Level), is: Upper, each: &mut Each<'_>) -> Result<(), Failed> {
    let mut visit = Visit { each, links: HashMap::new() };
    let mut layer = Layer { visit: &mut visit, is, pending: Vec::new() };
    let root = Path::new("");
    layer.directory(level, root).map_err(|source| failed(Path::new("/"), source))?;
    layer.level(level, below, root, DEPTH)
}

/// What a tree is that is compared with others.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Upper {
    /// A layer upon them.
    Layer,
    /// A copy of what they show, which has changed since.
    Whole,
    /// What they show with further layers upon them.
    Stack,
}

impl Upper {
    /// Whether what is found above and below is the same file, as it was.
    fn is_same(self, above: &Stat, below: &Stat) -> bool {
        match self {
            Self::Layer => false,
            Self::Whole => same(above, below),
            // The layers below are in it themselves.
            Self::Stack => (above.st_dev, above.st_ino) == (below.st_dev, below.st_ino),
        }
    }
}

struct Visit<'a, 'b> {
    each: &'a mut Each<'b>,
    /// Where an inode with several names was told first.
    links: HashMap<(u64, u64), PathBuf>,
}

fn failed(path: &Path, source: io::Error) -> Failed {
    Failed { path: path.to_owned(), source }
}

impl Visit<'_, '_> {
    fn level(&mut self, level: &Level, path: &Path, depth: u32) -> Result<(), Failed> {
        if depth == 0 {
            return Err(failed(path, Errno::LOOP.into()));
        }
        // A directory that has been removed has no entries, which is an error to the kernel.
        let entries = unless_gone(level.entries()).map_err(|source| failed(path, source))?;
        for (name, entry) in entries.unwrap_or_default() {
            let path = path.join(OsStr::from_bytes(name.to_bytes()));
            if entry.kind() == FileType::Directory {
                let inside = level.enter(&name, &entry);
                let Some(inside) = unless_gone(inside).map_err(|source| failed(&path, source))? else {
                    continue;
                };
                // Another file, of the same name, has taken its place.
                let Some(top) = inside.top() else { continue };
                self.directory(top, &path).map_err(|source| failed(&path, source))?;
                if level.top().is_some_and(|above| is_kernels(above, top)) {
                    continue;
                }
                self.level(&inside, &path, depth - 1)?;
            } else {
                let told = self.one(level.directory(&entry), &name, &path, entry.stat);
                unless_gone(told).map_err(|source| failed(&path, source))?;
            }
        }
        Ok(())
    }

    fn directory(&mut self, directory: &OwnedFd, path: &Path) -> io::Result<()> {
        let attributes = attributes(directory)?;
        let stat = fs::fstat(directory)?;
        (self.each)(Found { path, stat, attributes, content: Content::Directory })
    }

    fn one(&mut self, dir: &OwnedFd, name: &CStr, path: &Path, stat: Stat) -> io::Result<()> {
        if stat.st_nlink > 1 {
            let key = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&key) {
                let content = Content::Link(first.clone());
                return (self.each)(Found { path, stat, attributes: Vec::new(), content });
            }
            self.links.insert(key, path.to_owned());
        }
        let (stat, attributes, content) = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let Some(file) = open_regular(dir, name)? else { return Ok(()) };
                let stat = fs::fstat(&file)?;
                if stat.st_size > 0
                    && stat.st_blocks == 0
                    && has_attribute(&file, "trusted.overlay.metacopy")?
                {
                    return Err(io::Error::other(
                        "overlayfs has left what is in it in a layer below (metacopy)",
                    ));
                }
                (stat, attributes(&file)?, Content::File(file.into()))
            }
            FileType::Symlink => {
                let target = match fs::readlinkat(dir, name, Vec::new()) {
                    // It is no link any more.
                    Err(Errno::INVAL) => return Ok(()),
                    other => other?.into_bytes(),
                };
                (stat, Vec::new(), Content::Symlink(OsString::from_vec(target)))
            }
            FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice => {
                (stat, Vec::new(), Content::Special)
            }
            _ => return Ok(()),
        };
        (self.each)(Found { path, stat, attributes, content })
    }
}

/// Goes through one layer, beside the merged ones below it.
struct Layer<'a, 'b, 'c> {
    visit: &'a mut Visit<'b, 'c>,
    is: Upper,
    /// Directories that are the same below, told when something in them turns out not to be: without them
    /// what unpacks the layer would make them anew.
    pending: Vec<(PathBuf, OwnedFd)>,
}

impl Layer<'_, '_, '_> {
    fn directory(&mut self, level: &Level, path: &Path) -> io::Result<()> {
        level.top().map_or(Ok(()), |top| self.visit.directory(top, path))
    }

    /// Something is about to be told.
    fn flush(&mut self) -> Result<(), Failed> {
        for (path, directory) in std::mem::take(&mut self.pending) {
            self.visit.directory(&directory, &path).map_err(|source| failed(&path, source))?;
        }
        Ok(())
    }

    fn mark(&mut self, path: &Path, stat: Stat, content: Content) -> Result<(), Failed> {
        self.flush()?;
        let found = Found { path, stat, attributes: Vec::new(), content };
        (self.visit.each)(found).map_err(|source| failed(path, source))
    }

    fn level(&mut self, upper: &Level, lower: &Level, path: &Path, depth: u32) -> Result<(), Failed> {
        if depth == 0 {
            return Err(failed(path, Errno::LOOP.into()));
        }
        let mut names = self.names(upper).map_err(|source| failed(path, source))?;
        if self.is != Upper::Layer {
            for name in lower.entries().map_err(|source| failed(path, source))?.into_keys() {
                names.entry(name).or_insert(None);
            }
        }
        for (name, found) in names {
            let path = path.join(OsStr::from_bytes(name.to_bytes()));
            let below = lower.find(&name).map_err(|source| failed(&path, source))?;
            match (found, below) {
                (None, None) => {}
                (None, Some(below)) => self.mark(&path, below.stat, Content::Whiteout)?,
                (Some(entry), below) if entry.kind() == FileType::Directory => {
                    self.inside((upper, lower), (&name, &path), (entry, below), depth)?;
                }
                (Some(entry), Some(below)) if self.is.is_same(&entry.stat, &below.stat) => {}
                (Some(entry), _) => {
                    self.flush()?;
                    let told = self.visit.one(upper.directory(&entry), &name, &path, entry.stat);
                    unless_gone(told).map_err(|source| failed(&path, source))?;
                }
            }
        }
        Ok(())
    }

    /// What is there, and what the layer says is gone.
    fn names(&self, upper: &Level) -> io::Result<BTreeMap<CString, Option<Entry>>> {
        if self.is == Upper::Stack {
            let entries = unless_gone(upper.entries())?.unwrap_or_default();
            return Ok(entries.into_iter().map(|(name, entry)| (name, Some(entry))).collect());
        }
        let names = unless_gone(upper.own_names())?.unwrap_or_default();
        let entry = |stat: Option<Stat>| stat.map(|stat| Entry { layer: 0, stat });
        Ok(names.into_iter().map(|(name, stat)| (name, entry(stat))).collect())
    }

    fn inside(
        &mut self,
        (upper, lower): (&Level, &Level),
        (name, path): (&CStr, &Path),
        (entry, below): (Entry, Option<Entry>),
        depth: u32,
    ) -> Result<(), Failed> {
        let wrong = |source| failed(path, source);
        let same = below.is_some_and(|below| self.is.is_same(&entry.stat, &below.stat));
        if same && self.is == Upper::Stack {
            // No layer above has this directory.
            return Ok(());
        }
        let Some(inside) = unless_gone(upper.enter(name, &entry)).map_err(wrong)? else {
            return Ok(());
        };
        let Some(top) = inside.top() else { return Ok(()) };
        let beneath = match below.filter(|below| below.kind() == FileType::Directory) {
            Some(below) => Some((below, lower.enter(name, &below).map_err(wrong)?)),
            None => None,
        };
        // In a whole tree nothing says so; what is gone is told one by one.
        let opaque = self.is == Upper::Layer && inside.is_opaque().map_err(wrong)?;
        let depth_of = self.pending.len();
        match &beneath {
            Some(_) if same => {
                self.pending.push((path.to_owned(), top.try_clone().map_err(wrong)?));
            }
            _ => {
                self.flush()?;
                self.visit.directory(top, path).map_err(wrong)?;
            }
        }
        let hidden = match beneath {
            Some(_) if opaque => {
                self.mark(path, entry.stat, Content::Opaque)?;
                Level::empty()
            }
            Some((_, beneath)) => beneath,
            None => Level::empty(),
        };
        self.level(&inside, &hidden, path, depth - 1)?;
        self.pending.truncate(depth_of);
        Ok(())
    }
}

/// Whether another mount begins here, of files that are the kernel's own and have no end.
fn is_kernels(above: &OwnedFd, directory: &OwnedFd) -> bool {
    let (Ok(one), Ok(two)) = (fs::fstat(above), fs::fstat(directory)) else { return false };
    if one.st_dev == two.st_dev {
        return false;
    }
    const KINDS: [libc::c_long; 5] = [
        libc::PROC_SUPER_MAGIC,
        libc::SYSFS_MAGIC,
        libc::CGROUP_SUPER_MAGIC,
        libc::CGROUP2_SUPER_MAGIC,
        libc::DEVPTS_SUPER_MAGIC,
    ];
    fs::fstatfs(directory).is_ok_and(|found| KINDS.contains(&(found.f_type as libc::c_long)))
}

/// Opens a regular file for reading; `None` if it is another kind of file by now. A device or a pipe must
/// not even be opened: that alone may do something, or wait.
fn open_regular(dir: &OwnedFd, name: &CStr) -> io::Result<Option<OwnedFd>> {
    let held = fs::openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    if FileType::from_raw_mode(fs::fstat(&held)?.st_mode) != FileType::RegularFile {
        return Ok(None);
    }
    reopen(&held).map(Some)
}

/// Opens for reading what was seen to be a regular file.
fn reopen(held: &OwnedFd) -> io::Result<OwnedFd> {
    let again = format!("/proc/self/fd/{}", held.as_raw_fd());
    Ok(fs::open(again, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// What was there a moment ago, and is a file of another kind now, is gone too.
fn unless_gone<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP | libc::ESTALE)
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
