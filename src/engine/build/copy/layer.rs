//! The archive that is being written, and what the image is with it.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Stat};
use sha2::{Digest as _, Sha256};

use super::mode::Chmod;
use super::view::{Child, Dir, Lost, Made, Place, View};
use super::{Error, Times};
use crate::image::pack::{Body, Packer, Piece};
use crate::sys::tree::WHITEOUT;

/// What time entries have.
#[derive(Clone, Copy, Debug)]
pub enum Stamp {
    /// 1970, all of them.
    Zero,
    /// Their own.
    Real {
        /// As far as these say.
        times: Times,
        /// That of what is made here. Seconds since 1970.
        now: u64,
    },
}

impl Stamp {
    fn of(self, (seconds, nanoseconds): (i64, u32)) -> (i64, u32) {
        let Self::Real { times, .. } = self else { return (0, 0) };
        match times.clamp.map(|latest| i64::try_from(latest).unwrap_or(i64::MAX)) {
            Some(latest) if times.exact || seconds >= latest => (latest, 0),
            _ => (seconds, nanoseconds),
        }
    }

    fn now(self) -> (i64, u32) {
        match self {
            Self::Zero => (0, 0),
            Self::Real { now, .. } => (i64::try_from(now).unwrap_or(i64::MAX), 0),
        }
    }
}

/// What is said of a file beside what is in it.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// 12 bits.
    pub mode: u32,
    /// User and group, where nobody says another.
    pub owner: (u32, u32),
    /// Seconds and nanoseconds since 1970; `None` is now.
    pub mtime: Option<(i64, u32)>,
    /// Extended attributes.
    pub attributes: Vec<(OsString, Vec<u8>)>,
}

/// The archive of a layer.
pub struct Layer<W: Write> {
    packer: Packer<'static, W>,
    /// The image with what was written.
    pub view: View,
    stamp: Stamp,
    chown: Option<(u32, u32)>,
    chmod: Option<Chmod>,
    seen: Sha256,
    /// Entries that were written.
    pub entries: u64,
    /// Bytes of files that were written.
    pub bytes: u64,
    /// What was left out.
    pub warnings: Vec<String>,
}

/// A path in the image, for people.
pub fn shown(path: &Path) -> String {
    Path::new("/").join(path).display().to_string()
}

impl<W: Write> Layer<W> {
    /// An archive upon an image.
    pub fn new(out: W, view: View, stamp: Stamp, chown: Option<(u32, u32)>, chmod: Option<Chmod>) -> Self {
        Self {
            packer: Packer::new(out, &|uid, gid| (uid, gid)),
            view,
            stamp,
            chown,
            chmod,
            seen: Sha256::new(),
            entries: 0,
            bytes: 0,
            warnings: Vec::new(),
        }
    }

    /// Ends the archive; the digest of what [`Layer::see`] was told.
    pub fn finish(self) -> Result<(W, [u8; 32]), Error> {
        Ok((self.packer.finish().map_err(Error::Write)?, self.seen.finalize().into()))
    }

    /// A file was looked at.
    pub fn see(&mut self, path: &Path, stat: &Stat) {
        let path = path.as_os_str().as_bytes();
        self.seen.update((path.len() as u64).to_le_bytes());
        self.seen.update(path);
        for number in [stat.st_dev, stat.st_ino, stat.st_mode.into()] {
            self.seen.update(number.to_le_bytes());
        }
        // A directory's time changes with files that are left out, too; what is in it is seen for itself.
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            for number in [stat.st_size, stat.st_mtime, stat.st_mtime_nsec as i64] {
                self.seen.update(number.to_le_bytes());
            }
        }
    }

    /// Writes an entry that is no file with bytes.
    pub fn put(&mut self, path: &Path, facts: &Facts, body: Body<'_>) -> Result<(), Error> {
        let made = match &body {
            Body::Directory => Made::Directory,
            Body::Symlink(target) => Made::Link(target.to_os_string()),
            _ => Made::Other,
        };
        let mode = match (&self.chmod, &body) {
            (None, _) | (_, Body::Symlink(_)) => facts.mode,
            (Some(chmod), body) => chmod.apply(facts.mode, matches!(body, Body::Directory)),
        };
        check_name(path)?;
        self.write(path, facts, mode, body).map_err(Error::Write)?;
        self.view.make(path, made);
        Ok(())
    }

    fn write(&mut self, path: &Path, facts: &Facts, mode: u32, body: Body<'_>) -> io::Result<()> {
        self.entries += 1;
        let mtime = self.stamp.of(facts.mtime.unwrap_or(self.stamp.now()));
        let owner = self.chown.unwrap_or(facts.owner);
        self.packer.write(Piece { path, mode, owner, mtime, attributes: &facts.attributes, body })
    }

    /// Writes a file with the bytes of `content`. `failed` makes an error of why they cannot be read.
    pub fn put_file(
        &mut self,
        path: &Path,
        facts: &Facts,
        size: u64,
        content: &mut dyn Read,
        failed: impl FnOnce(io::Error) -> Error,
    ) -> Result<(), Error> {
        check_name(path)?;
        let mut content = Kept { content, error: None };
        let body = Body::File { size, content: &mut content };
        let mode = self.chmod.as_ref().map_or(facts.mode, |chmod| chmod.apply(facts.mode, false));
        let written = self.write(path, facts, mode, body);
        match (written, content.error) {
            (Ok(()), _) => {}
            (Err(_), Some(error)) => return Err(failed(error)),
            // There were fewer.
            (Err(error), None) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(failed(error)),
            (Err(error), None) => return Err(Error::Write(error)),
        }
        self.bytes += size;
        self.view.make(path, Made::Other);
        Ok(())
    }

    /// Writes an open file as it is, and makes sure that it stays so meanwhile.
    pub fn put_open(
        &mut self,
        path: &Path,
        facts: &Facts,
        (file, stat): (&File, &Stat),
        failed: &dyn Fn(io::Error) -> Error,
        changed: &dyn Fn() -> Error,
    ) -> Result<(), Error> {
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let short = |error: io::Error| match error.kind() {
            io::ErrorKind::UnexpectedEof => changed(),
            _ => failed(error),
        };
        self.put_file(path, facts, size, &mut At { file, offset: 0 }, short)?;
        let after = file.metadata().map_err(failed)?;
        let same = after.size() == size
            && (after.mtime(), after.mtime_nsec()) == (stat.st_mtime, stat.st_mtime_nsec as i64);
        if same { Ok(()) } else { Err(changed()) }
    }

    /// Makes the last `count` directories of a path: those on the way to something.
    pub fn put_missing(&mut self, path: &Path, count: usize) -> Result<(), Error> {
        let mut missing: Vec<&Path> = path.ancestors().take(count).collect();
        while let Some(path) = missing.pop() {
            let facts = Facts { mode: 0o755, ..Facts::default() };
            check_name(path)?;
            // Not what is copied, so no --chmod.
            self.write(path, &facts, facts.mode, Body::Directory).map_err(Error::Write)?;
            self.view.make(path, Made::Directory);
        }
        Ok(())
    }

    /// What a path in the image leads to.
    pub fn find(&self, path: &Path, follow: bool) -> Result<Place, Error> {
        self.view.resolve(path, follow).map_err(|lost| match lost {
            Lost::Loop => Error::Loop(shown(path)),
            Lost::NoDirectory(at) => Error::InTheWay { to: shown(path), at: shown(&at) },
            Lost::Failed(path, source) => Error::Image { path: Path::new("/").join(path), source },
        })
    }

    /// What has a name in a directory of the image.
    pub fn child(&self, dir: &Dir, path: &Path) -> Result<Child, Error> {
        let (parent, name) = (path.parent().unwrap_or(Path::new("")), path.file_name().unwrap_or_default());
        let failed = |source| Error::Image { path: Path::new("/").join(path), source };
        self.view.child(dir, parent, name).map_err(failed)
    }

    /// The directory that a path leads to, made if it is missing.
    pub fn directory(&mut self, path: &Path, from: &str) -> Result<(PathBuf, Dir), Error> {
        let place = self.find(path, true)?;
        let what = match place.child {
            Child::Directory(dir) => return Ok((place.path, dir)),
            Child::Missing => {
                self.put_missing(&place.path, place.missing)?;
                return Ok((place.path, None));
            }
            child => what(&child),
        };
        Err(Error::NoDirectory { from: from.to_owned(), to: shown(path), what })
    }
}

/// In a layer such a name means something else.
fn check_name(path: &Path) -> Result<(), Error> {
    let name = path.file_name().unwrap_or_default().as_bytes();
    if name.starts_with(WHITEOUT.as_bytes()) { Err(Error::Whiteout(shown(path))) } else { Ok(()) }
}

/// What is in the way, in words.
pub fn what(child: &Child) -> String {
    match child {
        Child::Link(target) => format!("a link to \"{}\"", target.display()),
        _ => "a file".to_owned(),
    }
}

/// Reads an open file, wherever others have read it to.
pub struct At<'a> {
    /// It.
    pub file: &'a File,
    /// Where to go on.
    pub offset: u64,
}

impl Read for At<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(into, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

/// Keeps the error of reading apart from that of writing.
struct Kept<'a> {
    content: &'a mut dyn Read,
    error: Option<io::Error>,
}

impl Read for Kept<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.content.read(into) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                let kind = error.kind();
                self.error = Some(error);
                Err(kind.into())
            }
            other => other,
        }
    }
}
