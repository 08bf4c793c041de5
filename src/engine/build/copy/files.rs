//! Copying what sources stand for into the archive.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::FileType;

use super::layer::{Facts, Layer, shown, what};
use super::pattern;
use super::sources::{Match, Matched, Sources};
use super::view::{Child, Dir, Spot};
use super::{Error, Verdict, unpack};
use crate::image::dockerfile::ignore::Ignore;
use crate::image::pack::Body;
use crate::sys::merged::{DEPTH, Level};
use crate::sys::owners;
use crate::sys::visit::{self, Content, Looked};

/// Where copies go.
#[derive(Debug)]
pub struct Destination {
    /// Absolute; clean.
    pub path: PathBuf,
    /// It is a directory, whatever is there.
    pub directory: bool,
}

impl Destination {
    /// A destination as it is written: relative to the working directory, a directory if it ends in a slash or says
    /// so otherwise.
    pub fn new(workdir: &str, text: &str) -> Self {
        let last = text.rsplit('/').next().unwrap_or_default();
        Self {
            path: super::sources::names(&Path::new("/").join(workdir).join(text).to_string_lossy())
                .iter()
                .collect(),
            directory: matches!(last, "" | "." | ".."),
        }
    }
}

/// Copies what one instruction names.
pub struct Files<'a, W: Write> {
    pub layer: Layer<W>,
    pub destination: Destination,
    /// `--exclude`
    pub excludes: &'a Ignore,
    /// Files take the place of directories, and the other way round.
    pub blind: bool,
    /// Archives are unpacked.
    pub unpacks: bool,
    /// Where an inode with several names went first.
    pub links: HashMap<(u64, u64), PathBuf>,
}

/// A directory of the source on the way to a file.
struct Frame {
    level: Rc<Level>,
    /// In the source, and below what was named.
    path: PathBuf,
    below: PathBuf,
    /// In the image.
    to: PathBuf,
    dir: Dir,
    /// It is in the archive, or need not be.
    told: bool,
}

impl<W: Write> Files<'_, W> {
    /// Copies what a source stands for.
    pub fn copy(&mut self, sources: &Sources<'_>, found: Match) -> Result<(), Error> {
        // Hard links are kept within what one name stands for.
        self.links.clear();
        if found.kept > 0 {
            return self.with_parents(sources, found);
        }
        match found.what {
            Matched::Directory(level) => {
                let from = found.path.display().to_string();
                let (to, dir) = self.layer.directory(&self.destination.path, &from)?;
                let top = Frame { level, path: found.path, below: PathBuf::new(), to, dir, told: true };
                self.tree(sources, &mut vec![top])
            }
            Matched::File(spot) => {
                if self.excludes.excluded(found.name.as_bytes()) {
                    return Ok(());
                }
                let Some(looked) = self.look(sources, &found.path, &spot)? else { return Ok(()) };
                if self.unpacks && self.unpack(&found.path, &looked)? {
                    return Ok(());
                }
                let to = self.place_for(&found.name, &found.path.display().to_string())?;
                self.file(sources, &found.path, &to, looked)
            }
        }
    }

    /// Whether the destination is a directory, or is to be one.
    pub fn is_directory(&self) -> Result<bool, Error> {
        let there = || Ok(self.layer.find(&self.destination.path, true)?.child);
        Ok(self.destination.directory || matches!(there()?, Child::Directory(_)))
    }

    /// Several files need a directory.
    pub fn check_several(&self, count: usize, destination: &str) -> Result<(), Error> {
        if self.is_directory()? {
            return Ok(());
        }
        Err(Error::Several { count, destination: destination.to_owned() })
    }

    fn unpack(&mut self, path: &Path, looked: &Looked) -> Result<bool, Error> {
        let Content::File(file) = &looked.content else { return Ok(false) };
        let name = path.display().to_string();
        let done = unpack::unpack(&mut self.layer, file, &name, &self.destination.path)?;
        if done {
            unpack::check_unchanged(file, &looked.stat, &name)?;
        }
        Ok(done)
    }

    /// The path in the image for a file, whose directory is made if it is missing.
    pub fn place_for(&mut self, name: &OsStr, from: &str) -> Result<PathBuf, Error> {
        let mut place = self.layer.find(&self.destination.path, true)?;
        if self.destination.directory || matches!(place.child, Child::Directory(_)) {
            let (path, dir) = self.layer.directory(&self.destination.path, from)?;
            place.path = path.join(name);
            place.child = self.layer.child(&dir, &place.path)?;
            place.missing = 1;
        }
        if let (Child::Directory(_), false) = (&place.child, self.blind) {
            return Err(Error::IsDirectory { from: from.to_owned(), to: shown(&place.path) });
        }
        if place.missing > 1 {
            let parent = place.path.parent().unwrap_or(Path::new("")).to_owned();
            self.layer.put_missing(&parent, place.missing - 1)?;
        }
        Ok(place.path)
    }

    /// `--parents`: the directories above are copied, too, without what else is in them.
    fn with_parents(&mut self, sources: &Sources<'_>, found: Match) -> Result<(), Error> {
        let parts: Vec<OsString> = found.path.iter().map(OsStr::to_owned).collect();
        let (above, kept) = parts.split_at(parts.len() - found.kept);
        let directory = matches!(found.what, Matched::Directory(_));
        let below: PathBuf = kept.iter().collect();
        if pattern::verdict(self.excludes, &below, directory) == Verdict::Hidden {
            return Ok(());
        }
        let from = found.path.display().to_string();
        let (to, dir) = self.layer.directory(&self.destination.path, &from)?;
        let path: PathBuf = above.iter().collect();
        let failed = |path: &Path, error| sources.unreadable(path, error);
        let mut level = match sources.view.resolve(&path, false).map(|place| place.child) {
            Ok(Child::Directory(Some(level))) => level,
            _ => return Err(Error::Changed(from)),
        };
        let mut frames = Vec::new();
        let mut frame = Frame { level: level.clone(), path, below: PathBuf::new(), to, dir, told: true };
        let (last, on_the_way) = kept.split_last().map_or((None, kept), |(last, way)| (Some(last), way));
        for name in on_the_way.iter().chain(last.filter(|_| directory)) {
            let path = frame.path.join(name);
            let child = sources.view.child(&Some(level), &frame.path, name);
            level = match child.map_err(|error| failed(&path, error))? {
                Child::Directory(Some(level)) => level,
                _ => return Err(Error::Changed(from)),
            };
            let next = self.frame(&frame, level.clone(), name)?;
            frames.push(std::mem::replace(&mut frame, next));
        }
        frames.push(frame);
        match found.what {
            Matched::Directory(_) => {
                self.tell(sources, &mut frames)?;
                self.tree(sources, &mut frames)
            }
            Matched::File(spot) => {
                let name = last.cloned().unwrap_or_default();
                self.in_frame(sources, &mut frames, &name, spot)
            }
        }
    }

    fn frame(&self, above: &Frame, level: Rc<Level>, name: &OsStr) -> Result<Frame, Error> {
        let to = above.to.join(name);
        let dir = match self.layer.child(&above.dir, &to)? {
            Child::Directory(dir) => dir,
            Child::Missing => None,
            child => {
                let from = above.path.join(name).display().to_string();
                return Err(Error::NoDirectory { from, to: shown(&to), what: what(&child) });
            }
        };
        let (path, below) = (above.path.join(name), above.below.join(name));
        Ok(Frame { level, path, below, to, dir, told: false })
    }

    /// What both the ignore file and `--exclude` say.
    fn verdict(&self, sources: &Sources<'_>, path: &Path, below: &Path, directory: bool) -> Verdict {
        match (sources.verdict(path, directory), pattern::verdict(self.excludes, below, directory)) {
            (Verdict::Kept, Verdict::Kept) => Verdict::Kept,
            (Verdict::Hidden, _) | (_, Verdict::Hidden) => Verdict::Hidden,
            _ => Verdict::Sifted,
        }
    }

    /// Copies what is in the last of these directories, each of which is in the one before.
    fn tree(&mut self, sources: &Sources<'_>, frames: &mut Vec<Frame>) -> Result<(), Error> {
        let Some(frame) = frames.last() else { return Ok(()) };
        if frames.len() > DEPTH as usize {
            return Err(Error::TooDeep(frame.path.display().to_string()));
        }
        let level = frame.level.clone();
        let entries = level.entries().map_err(|error| sources.unreadable(&frame.path, error))?;
        for (name, entry) in entries {
            let Some(frame) = frames.last() else { return Ok(()) };
            let text = OsStr::from_bytes(name.to_bytes());
            let (path, below) = (frame.path.join(text), frame.below.join(text));
            let directory = entry.kind() == FileType::Directory;
            let verdict = self.verdict(sources, &path, &below, directory);
            if verdict == Verdict::Hidden {
                continue;
            }
            if !directory {
                if verdict == Verdict::Kept {
                    let text = text.to_owned();
                    self.in_frame(sources, frames, &text, Spot { level: level.clone(), name, entry })?;
                }
                continue;
            }
            let inside = level.enter(&name, &entry).map_err(|error| sources.unreadable(&path, error))?;
            let next = self.frame(frame, Rc::new(inside), text)?;
            frames.push(next);
            if verdict == Verdict::Kept {
                self.tell(sources, frames)?;
            }
            self.tree(sources, frames)?;
            frames.pop();
        }
        Ok(())
    }

    /// Copies a file of the last of these directories.
    fn in_frame(
        &mut self,
        sources: &Sources<'_>,
        frames: &mut [Frame],
        name: &OsStr,
        spot: Spot,
    ) -> Result<(), Error> {
        let Some(frame) = frames.last() else { return Ok(()) };
        let (path, to) = (frame.path.join(name), frame.to.join(name));
        let Some(looked) = self.look(sources, &path, &spot)? else { return Ok(()) };
        if let (Child::Directory(_), false) = (self.layer.child(&frame.dir, &to)?, self.blind) {
            return Err(Error::IsDirectory { from: path.display().to_string(), to: shown(&to) });
        }
        self.tell(sources, frames)?;
        self.file(sources, &path, &to, looked)
    }

    /// Writes those of the directories that are not in the archive yet.
    fn tell(&mut self, sources: &Sources<'_>, frames: &mut [Frame]) -> Result<(), Error> {
        for frame in frames.iter_mut().filter(|frame| !frame.told) {
            let looked = visit::look_at_directory(&frame.level);
            let looked = looked.map_err(|error| sources.unreadable(&frame.path, error))?;
            self.layer.see(&frame.path, &looked.stat);
            self.layer.put(&frame.to, &facts(sources, &looked), Body::Directory)?;
            frame.told = true;
        }
        Ok(())
    }

    /// Opens a file; `None` if it is none that can be copied.
    fn look(&mut self, sources: &Sources<'_>, path: &Path, spot: &Spot) -> Result<Option<Looked>, Error> {
        match visit::look(&spot.level, &spot.name, &spot.entry) {
            Ok(Some(looked)) => {
                self.layer.see(path, &looked.stat);
                Ok(Some(looked))
            }
            Ok(None) => {
                self.layer.warnings.push(format!("\"{}\" is a socket, which is not copied", path.display()));
                Ok(None)
            }
            // It was there when the directory was read.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::ENOENT | libc::ESTALE | libc::ELOOP | libc::ENOTDIR)
                ) =>
            {
                Err(Error::Changed(path.display().to_string()))
            }
            Err(error) => Err(sources.unreadable(path, error)),
        }
    }

    fn file(&mut self, sources: &Sources<'_>, path: &Path, to: &Path, looked: Looked) -> Result<(), Error> {
        let facts = facts(sources, &looked);
        let Looked { stat, content, attributes } = &looked;
        if stat.st_nlink > 1 && !matches!(content, Content::Directory) {
            let key = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&key) {
                let first = first.clone();
                return self.layer.put(to, &facts, Body::Link(&first));
            }
            self.links.insert(key, to.to_owned());
        }
        let device = beside(sources, attributes).and_then(|owner| owner.device);
        if let (Content::File(_), Some((kind, number))) = (content, device) {
            let block = FileType::from_raw_mode(kind) == FileType::BlockDevice;
            return self.layer.put(to, &facts, Body::Device { block, number });
        }
        match content {
            Content::File(file) => {
                let changed = || Error::Changed(path.display().to_string());
                let failed = |error| sources.unreadable(path, error);
                self.layer.put_open(to, &facts, (file, stat), &failed, &changed)
            }
            Content::Symlink(target) => self.layer.put(to, &facts, Body::Symlink(target)),
            Content::Special => {
                let body = match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Fifo => Body::Fifo,
                    kind => Body::Device { block: kind == FileType::BlockDevice, number: stat.st_rdev },
                };
                self.layer.put(to, &facts, body)
            }
            Content::Directory | Content::Link(_) | Content::Whiteout | Content::Opaque => Ok(()),
        }
    }
}

/// Whose a file of an image's is meant to be, if that is kept beside it.
fn beside(sources: &Sources<'_>, attributes: &[(OsString, Vec<u8>)]) -> Option<owners::Owner> {
    let value = attributes.iter().find(|(name, _)| sources.remembered && name == owners::ATTRIBUTE);
    value.and_then(|(_, value)| owners::Owner::parse(value))
}

fn facts(sources: &Sources<'_>, looked: &Looked) -> Facts {
    let stat = &looked.stat;
    let mut facts = Facts {
        mode: stat.st_mode & 0o7777,
        owner: (stat.st_uid, stat.st_gid),
        mtime: Some((stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0))),
        attributes: looked.attributes.clone(),
    };
    if sources.foreign {
        facts.owner = (0, 0);
        // Access lists speak of the host's users.
        facts.attributes.retain(|(name, _)| !name.as_bytes().starts_with(b"system."));
    }
    if let Some(owner) = beside(sources, &looked.attributes) {
        facts.owner = (owner.uid, owner.gid);
    }
    facts
}
