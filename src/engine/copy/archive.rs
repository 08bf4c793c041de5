//! `cp` from and to archives: tar, on standard input (compressed or not) and standard output.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufReader, BufWriter};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::plan::Wanted;
use super::{Options, container_target, join, missing_or, open_source_in, owners, replace};
use crate::base::report;
use crate::engine::rootfs::Access;
use crate::image::archive::{Entry, Error as ArchiveError, Kind as EntryKind, Reader};
use crate::image::layer;
use crate::image::pack::Packer;
use crate::image::unpack::clean;
use crate::sys::child::{self, Beside, Ids};
use crate::sys::transfer::{Item, Kind, Problem, Sink, Written};
use crate::sys::visit::{self, Found};

/// Bytes that are written at a time.
const PIECE: usize = 256 << 10;

/// An archive without its compression, and the process that takes it off.
pub fn plain_input(mut input: File) -> io::Result<(OwnedFd, Beside)> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let mut output = File::from(writer);
    let work = || {
        // What is cut off is told by whoever reads the archive.
        let _ = layer::decompress(&mut input, &mut output, u64::MAX);
    };
    let beside = child::beside(Ids::Own, Some(reader.as_fd()), |_| {}, work).map_err(io::Error::other)?;
    Ok((reader, beside))
}

fn damaged(error: &ArchiveError) -> Problem {
    match error {
        ArchiveError::Read(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Problem::Archive("it ends in the middle".to_owned())
        }
        // Its own "reading the archive" is the problem's, too.
        ArchiveError::Read(error) => Problem::Archive(error.to_string()),
        error => Problem::Archive(report::chain(error)),
    }
}

/// Unpacks an archive into a directory of a container.
pub(super) fn read(
    input: OwnedFd,
    access: &Access,
    path: &Path,
    options: Options,
) -> Result<Written, Problem> {
    let root = access.open().map_err(|error| Problem::io("opening", Path::new("/"), &error))?;
    let owners = owners(access, &root, options);
    let (dir, top, place) = container_target(&root, path, &Wanted { name: None }, true)?;
    if top.is_some() {
        return Err(Problem::Missing(path.display().to_string()));
    }
    let mut sink = Sink::new(dir, None, owners, replace(options));
    sink.follow_links(root, place);
    unpack(input, sink)
}

/// Unpacks an archive.
pub fn unpack(input: OwnedFd, mut sink: Sink) -> Result<Written, Problem> {
    let mut reader = Reader::new(BufReader::with_capacity(PIECE, File::from(input)));
    while let Some(entry) = reader.next_entry().map_err(|error| damaged(&error))? {
        let item = item_of(&entry)?;
        if entry.kind == EntryKind::File {
            sink.put_file(&item, &mut |file| fill(&mut reader, &entry, file))?;
        } else {
            sink.put(&item, None)?;
        }
    }
    if reader.entries() == 0 {
        return Err(Problem::Archive("it has nothing in it".to_owned()));
    }
    sink.finish()
}

fn item_of(entry: &Entry) -> Result<Item, Problem> {
    let hostile =
        |name: &[u8]| Problem::Archive(format!("the hostile name \"{}\"", String::from_utf8_lossy(name)));
    let path = clean(&entry.path).ok_or_else(|| hostile(&entry.path))?;
    let kind = match entry.kind {
        EntryKind::File => Kind::File,
        EntryKind::Directory => Kind::Directory,
        EntryKind::SymbolicLink => Kind::Symlink(OsString::from_vec(entry.link.clone())),
        EntryKind::HardLink => Kind::Link(clean(&entry.link).ok_or_else(|| hostile(&entry.link))?),
        EntryKind::Fifo => Kind::Fifo,
        EntryKind::CharDevice | EntryKind::BlockDevice => Kind::Device,
    };
    let attributes =
        entry.xattrs.iter().map(|(name, value)| (OsStr::from_bytes(name).to_owned(), value.clone()));
    Ok(Item {
        path,
        kind,
        mode: entry.mode & 0o7777,
        uid: entry.uid,
        gid: entry.gid,
        mtime: entry.mtime,
        attributes: attributes.collect(),
    })
}

fn fill<R: crate::image::archive::Skip>(
    reader: &mut Reader<R>,
    entry: &Entry,
    file: BorrowedFd<'_>,
) -> io::Result<u64> {
    let file = File::from(file.try_clone_to_owned()?);
    let whole = [(0, entry.size)];
    for (offset, length) in entry.sparse.as_deref().unwrap_or(&whole) {
        let mut at = *offset;
        let end = offset.saturating_add(*length);
        while at < end {
            let data = reader.data(end - at).map_err(io::Error::other)?;
            if data.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            file.write_all_at(data, at)?;
            let count = data.len();
            at += count as u64;
            reader.consume(count);
        }
    }
    if entry.sparse.is_some() {
        file.set_len(entry.size)?;
    }
    Ok(entry.size)
}

/// Writes an archive of something in a container to standard output.
pub(super) fn write(
    access: &Access,
    path: &Path,
    wanted: &Wanted,
    options: Options,
) -> Result<Written, Problem> {
    let root = access.open().map_err(|error| Problem::io("opening", Path::new("/"), &error))?;
    let object = open_source_in(&root, path, options.follow)?;
    let output = std::io::stdout().as_fd().try_clone_to_owned();
    let output = output.map_err(|error| Problem::io("writing", Path::new("-"), &error))?;
    let owner = |uid, gid| (uid, gid);
    let mut packer = Packer::new(BufWriter::with_capacity(PIECE, File::from(output)), &owner);
    let mut written = Written::default();
    let prefix = wanted.name.as_deref().map(Path::new).unwrap_or(Path::new(""));
    visit::visit_open(object, &mut |found| {
        if found.path.as_os_str().is_empty() && wanted.name.is_none() {
            return Ok(());
        }
        written.files += 1;
        written.bytes += u64::try_from(found.stat.st_size).unwrap_or(0);
        let path = join(prefix, found.path);
        let content = match found.content {
            visit::Content::Link(first) => visit::Content::Link(prefix.join(first)),
            other => other,
        };
        packer.append(Found { path: &path, content, ..found })
    })
    .map_err(|failed| missing_or("reading", &join(path, &failed.path), &failed.source))?;
    let finished = packer.finish().and_then(|out| out.into_inner().map_err(io::IntoInnerError::into_error));
    finished.map_err(|error| Problem::io("writing", Path::new("-"), &error))?;
    Ok(written)
}
