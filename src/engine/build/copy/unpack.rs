//! `ADD` of archives: their entries become entries of the layer.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::Stat;

use super::Error;
use super::layer::{At, Facts, Layer};
use super::view::{Child, Dir, Made};
use crate::image::archive::{self, Entry, Kind, Reader, Skip};
use crate::image::layer;
use crate::image::pack::Body;
use crate::image::unpack::clean;

/// Longer paths, and targets of links, are none to the kernel (`PATH_MAX`).
const LONGEST: usize = 4095;

/// Unpacks an archive, compressed or not, into a directory of the image; `false`, and nothing is done, if the file is
/// none. What is in the way of an entry is replaced, but directories are filled. Starts threads.
pub fn unpack<W: Write>(
    layer: &mut Layer<W>,
    file: &File,
    name: &str,
    destination: &Path,
) -> Result<bool, Error> {
    let damaged = |source| Error::Archive { name: name.to_owned(), source };
    let mut start = [0; 6];
    let count =
        At { file, offset: 0 }.read(&mut start).map_err(|error| damaged(archive::Error::Read(error)))?;
    let foreign: [(&[u8], &'static str); 2] = [(b"BZh", "bzip2"), (b"\xfd7zXZ\0", "xz")];
    if let Some((_, how)) = foreign.iter().find(|(magic, _)| start[..count].starts_with(magic)) {
        return Err(Error::Compression { name: name.to_owned(), how });
    }
    let work = |stream: &mut dyn BufRead| -> Result<bool, Error> {
        let mut reader = Reader::new(Stream(stream));
        let first = match reader.next_entry() {
            Ok(Some(first)) => first,
            Err(archive::Error::Read(error)) if layer::is_cut(&error) => {
                return Err(damaged(archive::Error::Read(error)));
            }
            // What begins like no archive is a file like others.
            _ => return Ok(false),
        };
        let (top, dir) = layer.directory(destination, name)?;
        let open = vec![Open { path: PathBuf::new(), real: top.clone(), dir }];
        let mut unpacking = Unpacking { layer, name, open };
        let mut next = Some(first);
        while let Some(entry) = next {
            unpacking.entry(&entry, &mut reader)?;
            next = reader.next_entry().map_err(damaged)?;
        }
        Ok(true)
    };
    let mut source = At { file, offset: 0 };
    let (done, inflated) = layer::inflated(&mut source, u64::MAX, work);
    match (done, inflated) {
        // That the stream broke off is told by who broke it off.
        (Err(Error::Archive { source: archive::Error::Read(_), .. }) | Ok(true), Err(error)) => {
            Err(damaged(archive::Error::Read(error)))
        }
        (done, _) => done,
    }
}

/// An error if the file was written to since.
pub fn check_unchanged(file: &File, stat: &Stat, name: &str) -> Result<(), Error> {
    let after = file
        .metadata()
        .map_err(|error| Error::Archive { name: name.to_owned(), source: archive::Error::Read(error) })?;
    let same = i64::try_from(after.size()).is_ok_and(|size| size == stat.st_size)
        && (after.mtime(), after.mtime_nsec()) == (stat.st_mtime, stat.st_mtime_nsec as i64);
    if same { Ok(()) } else { Err(Error::Changed(name.to_owned())) }
}

/// An archive's bytes.
struct Stream<'a>(&'a mut dyn BufRead);

impl Read for Stream<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl BufRead for Stream<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.0.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.0.consume(count);
    }
}

impl Skip for Stream<'_> {}

struct Unpacking<'a, W: Write> {
    layer: &'a mut Layer<W>,
    name: &'a str,
    /// Directories on the way to the last entry, the outermost first, so that a path is not gone through from the
    /// root for each.
    open: Vec<Open>,
}

struct Open {
    /// In the archive.
    path: PathBuf,
    /// In the image.
    real: PathBuf,
    dir: Dir,
}

impl<W: Write> Unpacking<'_, W> {
    fn entry(&mut self, entry: &Entry, reader: &mut Reader<Stream<'_>>) -> Result<(), Error> {
        let hostile = |path: &[u8]| Error::Hostile {
            name: self.name.to_owned(),
            entry: String::from_utf8_lossy(path).into_owned(),
        };
        if entry.path.len().max(entry.link.len()) > LONGEST {
            let start = entry.path[..entry.path.len().min(100)].to_vec();
            return Err(hostile(&start));
        }
        let path = clean(&entry.path).ok_or_else(|| hostile(&entry.path))?;
        if path.as_os_str().is_empty() {
            // The destination stays what it is.
            return if entry.kind == Kind::Directory { Ok(()) } else { Err(hostile(&entry.path)) };
        }
        let (real, child) = self.place(&path)?;
        let facts = facts(entry);
        let replaces =
            !matches!((&child, entry.kind), (Child::Missing, _) | (Child::Directory(_), Kind::Directory));
        if replaces || entry.kind == Kind::SymbolicLink {
            // Another way may lead to the same place from now on.
            self.open.truncate(1);
        }
        let target;
        let body = match entry.kind {
            Kind::File => return self.file(&real, entry, &facts, reader),
            Kind::Directory => Body::Directory,
            Kind::SymbolicLink => Body::Symlink(OsStr::from_bytes(&entry.link)),
            Kind::HardLink => {
                let path = clean(&entry.link).ok_or_else(|| hostile(&entry.link))?;
                target = self.link_target(&path, entry)?;
                Body::Link(&target)
            }
            Kind::Fifo => Body::Fifo,
            // To overlayfs it says that there is nothing of this name.
            Kind::CharDevice if entry.device == (0, 0) => return Err(hostile(&entry.path)),
            Kind::CharDevice | Kind::BlockDevice => Body::Device {
                block: entry.kind == Kind::BlockDevice,
                number: rustix::fs::makedev(entry.device.0, entry.device.1),
            },
        };
        self.layer.put(&real, &facts, body)
    }

    /// Where an entry goes in the image, whose directories are made if they are missing, and what is there.
    fn place(&mut self, path: &Path) -> Result<(PathBuf, Child), Error> {
        let parent = path.parent().unwrap_or(Path::new(""));
        while self.open.len() > 1 && self.open.last().is_some_and(|open| !parent.starts_with(&open.path)) {
            self.open.pop();
        }
        let Some(last) = self.open.last() else { return Err(Error::AnyChanged) };
        let (mut at, mut real, mut dir) = (last.path.clone(), last.real.clone(), last.dir.clone());
        let rest: Vec<OsString> =
            parent.strip_prefix(&at).unwrap_or(parent).iter().map(OsStr::to_owned).collect();
        for name in rest {
            at.push(&name);
            let next = real.join(&name);
            (real, dir) = match self.layer.child(&dir, &next)? {
                Child::Directory(dir) => (next, dir),
                Child::Missing => {
                    self.layer.put_missing(&next, 1)?;
                    (next, None)
                }
                // Through a link, or against a file.
                _ => self.layer.directory(&next, self.name)?,
            };
            self.open.push(Open { path: at.clone(), real: real.clone(), dir: dir.clone() });
        }
        let real = real.join(path.file_name().unwrap_or_default());
        let child = self.layer.child(&dir, &real)?;
        Ok((real, child))
    }

    /// The place of what a hard link is to.
    fn link_target(&mut self, path: &Path, entry: &Entry) -> Result<PathBuf, Error> {
        let top = self.open.first().map(|open| open.real.clone()).unwrap_or_default();
        let place = self.layer.find(&top.join(path), false)?;
        match self.layer.view.made(&place.path) {
            Some(Made::Other | Made::Link(_)) => Ok(place.path),
            _ => Err(Error::NoTarget {
                name: self.name.to_owned(),
                entry: String::from_utf8_lossy(&entry.path).into_owned(),
                target: String::from_utf8_lossy(&entry.link).into_owned(),
            }),
        }
    }

    fn file(
        &mut self,
        real: &Path,
        entry: &Entry,
        facts: &Facts,
        reader: &mut Reader<Stream<'_>>,
    ) -> Result<(), Error> {
        let name = self.name;
        let failed = |source| Error::Archive { name: name.to_owned(), source: archive::Error::Read(source) };
        let whole = [(0, entry.size)];
        let pieces = entry.sparse.as_deref().unwrap_or(&whole);
        let mut content = Content { reader, pieces, at: 0, size: entry.size };
        self.layer.put_file(real, facts, entry.size, &mut content, failed)
    }
}

fn facts(entry: &Entry) -> Facts {
    let attributes =
        entry.xattrs.iter().map(|(name, value)| (OsString::from_vec(name.clone()), value.clone()));
    Facts {
        mode: entry.mode & 0o7777,
        owner: (entry.uid, entry.gid),
        mtime: Some(entry.mtime),
        attributes: attributes.collect(),
    }
}

/// The bytes of an archive's file, with the holes of a sparse one.
struct Content<'a, 'b> {
    reader: &'a mut Reader<Stream<'b>>,
    /// Where data are that the archive has: offset and length.
    pieces: &'a [(u64, u64)],
    at: u64,
    size: u64,
}

impl Read for Content<'_, '_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while let Some((offset, length)) = self.pieces.first()
            && self.at >= offset.saturating_add(*length)
        {
            self.pieces = &self.pieces[1..];
        }
        let most = |count: u64| usize::try_from(count).unwrap_or(usize::MAX).min(into.len());
        let count = match self.pieces.first() {
            Some((offset, length)) if self.at >= *offset => {
                let left = offset + length - self.at;
                let data = self.reader.data(left).map_err(io::Error::other)?;
                let count = data.len().min(most(left));
                into[..count].copy_from_slice(&data[..count]);
                self.reader.consume(count);
                count
            }
            hole => {
                let end = hole.map_or(self.size, |(offset, _)| *offset);
                let count = most(end - self.at);
                into[..count].fill(0);
                count
            }
        };
        self.at += count as u64;
        Ok(count)
    }
}
