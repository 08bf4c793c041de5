//! Packing files into an archive, the counterpart of [`unpack`](super::unpack): POSIX pax, with GNU's form
//! for big numbers. Whiteouts and opaque directories become what OCI layers have for them (OCI image
//! specification, `layer.md`).

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::FileType;
use tar::{Builder, EntryType, Header};

use super::unpack::may_take;
use crate::sys::owners;
use crate::sys::tree::{OPAQUE, WHITEOUT};
use crate::sys::visit::{Content, Found};

/// How long a path or a link's target may be in the header itself.
const NAME: usize = 100;
const BLOCK: usize = 512;
/// Bytes of a file that are read at a time.
const PIECE: usize = 128 << 10;

/// The owner and group in the archive, from those that are seen.
pub type Owner<'a> = dyn Fn(u32, u32) -> (u32, u32) + 'a;

/// Writes an archive, file by file.
pub struct Packer<'a, W: Write> {
    builder: Builder<W>,
    owner: &'a Owner<'a>,
    remembering: bool,
    /// For the bytes of files on their way.
    buffer: Vec<u8>,
}

/// An entry, wherever it comes from.
pub struct Piece<'a, 'b> {
    /// Its path below the root.
    pub path: &'a Path,
    /// Permissions with setuid, setgid and sticky bits (12 bits).
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Modification time: seconds and nanoseconds since 1970.
    pub mtime: (i64, u32),
    /// Extended attributes; those that unpacking would not take are left out.
    pub attributes: &'a [(OsString, Vec<u8>)],
    /// What it has in it.
    pub body: Body<'b>,
}

/// What an entry has in it.
pub enum Body<'a> {
    /// What is told after it.
    Directory,
    /// Bytes.
    File {
        /// How many.
        size: u64,
        /// They themselves; if there are fewer, that is an error (`UnexpectedEof`).
        content: &'a mut dyn Read,
    },
    /// It is another name of this entry, which was written before.
    Link(&'a Path),
    /// The path of another file, which may mean anything.
    Symlink(&'a OsStr),
    /// A named pipe.
    Fifo,
    /// A device.
    Device {
        /// A block device, not a character device.
        block: bool,
        /// Which, as makedev(3) has it.
        number: u64,
    },
}

impl<'a, W: Write> Packer<'a, W> {
    /// An archive that is written to `out`, with the owners that `owner` makes of those that are seen.
    pub fn new(out: W, owner: &'a Owner<'a>) -> Self {
        Self { builder: Builder::new(out), owner, remembering: false, buffer: Vec::new() }
    }

    /// With the owners that are kept beside files ([`owners`]). Only where all files are one user's: who can write
    /// to a file decides by them whose it will be.
    pub fn remembering(self, remembering: bool) -> Self {
        Self { remembering, ..self }
    }

    /// Ends the archive and returns what it was written to.
    pub fn finish(self) -> io::Result<W> {
        self.builder.into_inner()
    }

    /// Writes one file. Its attributes are kept as far as unpacking would take them.
    pub fn append(&mut self, found: Found<'_>) -> io::Result<()> {
        let Found { path, mut stat, attributes, mut content } = found;
        let beside = attributes.iter().find(|(name, _)| self.remembering && name == owners::ATTRIBUTE);
        let beside = beside.and_then(|(_, value)| owners::Owner::parse(value));
        if let (Some((kind, device)), Content::File(_)) = (beside.and_then(|owner| owner.device), &content) {
            stat.st_mode = stat.st_mode & !libc::S_IFMT | kind;
            stat.st_rdev = device;
            content = Content::Special;
        }
        let kernels = || (self.owner)(stat.st_uid, stat.st_gid);
        let owner = beside.map_or_else(kernels, |owner| (owner.uid, owner.gid));
        let mut endless;
        let body = match &content {
            Content::Directory => Body::Directory,
            Content::File(file) => {
                let size = u64::try_from(stat.st_size).unwrap_or(0);
                // The header promises so many bytes, whatever becomes of the file meanwhile.
                endless = file.chain(io::repeat(0));
                Body::File { size, content: &mut endless }
            }
            Content::Link(first) => Body::Link(first),
            Content::Symlink(target) => Body::Symlink(target),
            Content::Special => match FileType::from_raw_mode(stat.st_mode) {
                FileType::Fifo => Body::Fifo,
                kind => Body::Device { block: kind == FileType::BlockDevice, number: stat.st_rdev },
            },
            Content::Whiteout => return self.mark(hidden(path.as_os_str().as_bytes())),
            Content::Opaque => {
                return self.mark([path.as_os_str().as_bytes(), b"/", OPAQUE.as_bytes()].concat());
            }
        };
        let mtime = (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0));
        self.write(Piece { path, mode: stat.st_mode & 0o7777, owner, mtime, attributes: &attributes, body })
    }

    /// Writes one entry as it is told.
    pub fn write(&mut self, piece: Piece<'_, '_>) -> io::Result<()> {
        let Piece { path, mode, owner: (uid, gid), mtime, attributes, body } = piece;
        let mut path = path.as_os_str().as_bytes().to_vec();
        let (kind, target) = match &body {
            Body::Directory => {
                path.extend(if path.is_empty() { b"./".as_slice() } else { b"/" });
                (EntryType::Directory, None)
            }
            Body::File { .. } => (EntryType::Regular, None),
            Body::Link(first) => (EntryType::Link, Some(first.as_os_str().as_bytes())),
            Body::Symlink(target) => (EntryType::Symlink, Some(target.as_bytes())),
            Body::Fifo => (EntryType::Fifo, None),
            Body::Device { block: true, .. } => (EntryType::Block, None),
            Body::Device { block: false, .. } => (EntryType::Char, None),
        };
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode & 0o7777);
        header.set_uid(uid.into());
        header.set_gid(gid.into());
        header.set_mtime(u64::try_from(mtime.0).unwrap_or(0));
        header.set_size(if let Body::File { size, .. } = body { size } else { 0 });
        if let Body::Device { number, .. } = body {
            header.set_device_major(rustix::fs::major(number))?;
            header.set_device_minor(rustix::fs::minor(number))?;
        }
        let mut extensions: Vec<(String, &[u8])> = Vec::new();
        let time = time(mtime.0, mtime.1.into());
        if let Some(time) = &time {
            extensions.push(("mtime".to_owned(), time.as_bytes()));
        }
        if path.len() > NAME {
            extensions.push(("path".to_owned(), &path));
        }
        if let Some(target) = target {
            header.set_link_name_literal(&target[..target.len().min(NAME)])?;
            if target.len() > NAME {
                extensions.push(("linkpath".to_owned(), target));
            }
        }
        for (name, value) in attributes.iter().filter(|(name, _)| may_take(name.as_bytes())) {
            // A pax key is text, and ends where its value begins.
            if let Some(name) = name.to_str().filter(|name| !name.contains('=')) {
                extensions.push((format!("SCHILY.xattr.{name}"), value));
            }
        }
        self.header(header, &path, &extensions)?;
        match body {
            Body::File { size, content } => self.content(size, content),
            _ => Ok(()),
        }
    }

    fn header(&mut self, mut header: Header, path: &[u8], extensions: &[(String, &[u8])]) -> io::Result<()> {
        self.builder.append_pax_extensions(extensions.iter().map(|(key, value)| (key.as_str(), *value)))?;
        header.as_old_mut().name[..path.len().min(NAME)].copy_from_slice(&path[..path.len().min(NAME)]);
        header.set_cksum();
        self.builder.get_mut().write_all(header.as_bytes())
    }

    /// The bytes of a file, and what fills its last block.
    fn content(&mut self, size: u64, content: &mut dyn Read) -> io::Result<()> {
        if self.buffer.is_empty() {
            self.buffer.resize(PIECE, 0);
        }
        let (out, mut left) = (self.builder.get_mut(), size);
        while left > 0 {
            let most = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let count = match content.read(&mut self.buffer[..most]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            out.write_all(&self.buffer[..count])?;
            left -= count as u64;
        }
        let padding = size.next_multiple_of(BLOCK as u64) - size;
        out.write_all(&[0; BLOCK][..padding as usize])
    }

    /// An empty file whose name says it all.
    fn mark(&mut self, path: Vec<u8>) -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(0);
        let extensions = if path.len() > NAME { vec![("path".to_owned(), &*path)] } else { Vec::new() };
        self.header(header, &path, &extensions)
    }
}

/// The name that says that another is gone.
fn hidden(path: &[u8]) -> Vec<u8> {
    let name = path.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
    [&path[..name], WHITEOUT.as_bytes(), &path[name..]].concat()
}

/// A time that the header has no room for: parts of a second, or before 1970.
fn time(seconds: i64, nanoseconds: i64) -> Option<String> {
    match (seconds, nanoseconds) {
        (0.., 0) => None,
        (0.., _) => Some(format!("{seconds}.{nanoseconds:09}")),
        (_, 0) => Some(seconds.to_string()),
        // The kernel counts nanoseconds upwards from the second before.
        (-1, _) => Some(format!("-0.{:09}", 1_000_000_000 - nanoseconds)),
        _ => Some(format!("{}.{:09}", seconds + 1, 1_000_000_000 - nanoseconds)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_names_and_attributes_are_in_the_archive() {
        let mut stat = rustix::fs::stat("/").unwrap();
        stat.st_mtime_nsec = 0;
        let long = format!("{}/{}", "d".repeat(90), "f".repeat(90));
        let attributes = vec![("user.a".into(), b"1=2".to_vec()), ("user.b=c".into(), b"lost".to_vec())];
        let owner = |uid, gid| (uid + 3_000_000, gid + 7);
        let mut packer = Packer::new(Vec::new(), &owner);
        let directory = Found { path: Path::new(&long), stat, attributes, content: Content::Directory };
        packer.append(directory).unwrap();
        let content = Content::Symlink(format!("//a/./..//{long}").into());
        let link = Found { path: Path::new("link"), stat, attributes: Vec::new(), content };
        packer.append(link).unwrap();
        let bytes = packer.finish().unwrap();
        let mut archive = tar::Archive::new(&*bytes);
        let mut entries = archive.entries().unwrap();
        let mut first = entries.next().unwrap().unwrap();
        assert_eq!(first.path_bytes(), format!("{long}/").as_bytes());
        assert_eq!(first.header().uid().unwrap(), u64::from(stat.st_uid) + 3_000_000);
        assert_eq!(first.header().gid().unwrap(), u64::from(stat.st_gid) + 7);
        let extensions = first.pax_extensions().unwrap().unwrap().map(|e| e.unwrap());
        let found: Vec<_> =
            extensions.map(|e| (e.key().unwrap().to_owned(), e.value_bytes().to_vec())).collect();
        assert_eq!(found[1], ("SCHILY.xattr.user.a".to_owned(), b"1=2".to_vec()));
        assert_eq!(found.len(), 2);
        let second = entries.next().unwrap().unwrap();
        assert_eq!(second.link_name_bytes().unwrap(), format!("//a/./..//{long}").as_bytes());
        assert!(entries.next().is_none());
    }

    #[test]
    fn times_are_told_to_the_nanosecond() {
        for (seconds, nanoseconds, told) in [
            (5, 0, None),
            (5, 7, Some("5.000000007")),
            (-5, 0, Some("-5")),
            (-5, 250_000_000, Some("-4.750000000")),
            (-1, 999_999_999, Some("-0.000000001")),
        ] {
            assert_eq!(time(seconds, nanoseconds).as_deref(), told, "{seconds} {nanoseconds}");
        }
    }

    #[test]
    fn what_is_gone_has_a_name() {
        let stat = rustix::fs::stat("/").unwrap();
        let same = |uid, gid| (uid, gid);
        let mut packer = Packer::new(Vec::new(), &same);
        for (path, content) in [("a/b", Content::Whiteout), ("c", Content::Whiteout), ("d", Content::Opaque)]
        {
            packer.append(Found { path: Path::new(path), stat, attributes: Vec::new(), content }).unwrap();
        }
        let bytes = packer.finish().unwrap();
        let mut archive = tar::Archive::new(&*bytes);
        let names: Vec<_> =
            archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().into_owned()).collect();
        assert_eq!(names, ["a/.wh.b", ".wh.c", "d/.wh..wh..opq"].map(std::path::PathBuf::from));
    }
}
