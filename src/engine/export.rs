//! `export`: a container's files as an archive (POSIX pax, with GNU's form for big numbers).

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;
use tar::{Builder, EntryType, Header};

use super::files::Files;
use super::{Engine, Error};
use crate::base::idmap::IdMapping;
use crate::storage::containers::{ContainerRecord, RootfsSource, UsernsMode};
use crate::sys::child;
use crate::sys::visit::{self, Content, Failed, Found};

/// How long a path or a link's target may be in the header itself.
const NAME: usize = 100;

/// The owner and group in the archive, from those that are seen.
type Owner<'a> = dyn Fn(u32, u32) -> (u32, u32) + 'a;

impl Engine {
    /// Writes all files of a container, which may run, as an archive: its own and its image's, not what is
    /// mounted over them. Owners are those that the container sees.
    pub fn export(&self, text: &str, out: &File) -> Result<(), Error> {
        let (record, _) = self.lookup(text)?;
        let Files { upper, lower, copied } = self.files(&record);
        let mut trees = vec![upper];
        if !copied {
            trees.extend(lower);
        }
        let owner = self.owner_inside(&record, copied);
        let work = || {
            let mut builder = Builder::new(io::BufWriter::with_capacity(1 << 17, out));
            let result = visit::visit(&trees, &mut |found| append(&mut builder, found, &*owner));
            let finish =
                || builder.into_inner()?.into_inner().map(drop).map_err(io::IntoInnerError::into_error);
            result.and_then(|()| finish().map_err(|source| Failed { path: PathBuf::new(), source }))
        };
        let name = record.name.clone();
        let failed = |path: PathBuf, source| Error::Export { name, path: path.display().to_string(), source };
        // Owners are told right only in the user namespace that has them.
        let Some(mapping) = self.files_mapping(&record) else {
            return work().map_err(|Failed { path, source }| failed(path, source));
        };
        let told = child::call(Some(&mapping), || {
            let errno = |error: io::Error| error.raw_os_error().unwrap_or(libc::EIO);
            work().map_err(|Failed { path, source }| (path, errno(source)))
        });
        let action = "exporting container";
        let told = told.map_err(|source| Error::FilesOfOthers { action, name: record.name, source })?;
        told.map_err(|(path, errno)| failed(path, io::Error::from_raw_os_error(errno)))
    }

    /// Whom the container takes for the owner of a file, from who it is in the user namespace that its
    /// files are read in. They differ with `keep-id`, where the files are no layers in the usual order.
    fn owner_inside(&self, record: &ContainerRecord, copied: bool) -> Box<Owner<'static>> {
        let layers = !copied && matches!(record.rootfs, RootfsSource::Image { .. });
        let (Some(here), Some(own)) = (self.files_mapping(record), record.mapping.clone()) else {
            return Box::new(|uid, gid| (uid, gid));
        };
        if record.config.userns != UsernsMode::KeepId || layers && !own.is_single() {
            return Box::new(|uid, gid| (uid, gid));
        }
        let translate = |id, here: &[_], own: &[_]| {
            let inside = IdMapping::to_host(here, id).and_then(|host| IdMapping::to_container(own, host));
            inside.unwrap_or(id)
        };
        Box::new(move |uid, gid| {
            (translate(uid, &here.uids, &own.uids), translate(gid, &here.gids, &own.gids))
        })
    }
}

fn append<W: Write>(builder: &mut Builder<W>, found: Found<'_>, owner: &Owner<'_>) -> io::Result<()> {
    let Found { path, stat, attributes, content } = found;
    let mut path = path.as_os_str().as_bytes().to_vec();
    let (kind, target) = match &content {
        Content::Directory => {
            path.push(b'/');
            (EntryType::Directory, None)
        }
        Content::File(_) => (EntryType::Regular, None),
        Content::Link(first) => (EntryType::Link, Some(first.as_os_str().as_bytes())),
        Content::Symlink(target) => (EntryType::Symlink, Some(target.as_bytes())),
        Content::Special => match FileType::from_raw_mode(stat.st_mode) {
            FileType::Fifo => (EntryType::Fifo, None),
            FileType::BlockDevice => (EntryType::Block, None),
            _ => (EntryType::Char, None),
        },
    };
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(stat.st_mode & 0o7777);
    let (uid, gid) = owner(stat.st_uid, stat.st_gid);
    header.set_uid(uid.into());
    header.set_gid(gid.into());
    header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
    let size = if let Content::File(_) = content { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 };
    header.set_size(size);
    if matches!(kind, EntryType::Char | EntryType::Block) {
        header.set_device_major(rustix::fs::major(stat.st_rdev))?;
        header.set_device_minor(rustix::fs::minor(stat.st_rdev))?;
    }
    let mut extensions: Vec<(String, &[u8])> = Vec::new();
    if path.len() > NAME {
        extensions.push(("path".to_owned(), &path));
    }
    if let Some(target) = target {
        header.set_link_name_literal(&target[..target.len().min(NAME)])?;
        if target.len() > NAME {
            extensions.push(("linkpath".to_owned(), target));
        }
    }
    for (name, value) in &attributes {
        // A pax key is text, and ends where its value begins.
        if let Some(name) = name.to_str().filter(|name| !name.contains('=')) {
            extensions.push((format!("SCHILY.xattr.{name}"), value));
        }
    }
    builder.append_pax_extensions(extensions.iter().map(|(key, value)| (key.as_str(), *value)))?;
    header.as_old_mut().name[..path.len().min(NAME)].copy_from_slice(&path[..path.len().min(NAME)]);
    header.set_cksum();
    match content {
        // The header has promised so many bytes, whatever becomes of the file meanwhile.
        Content::File(file) => builder.append(&header, file.chain(io::repeat(0)).take(size)),
        _ => builder.append(&header, io::empty()),
    }
}

/// A file to write an archive to. One that was made, or was a regular file before, goes when it is not
/// finished.
#[derive(Debug)]
pub struct Archive {
    path: PathBuf,
    /// To write to.
    pub file: File,
    finished: bool,
}

impl Archive {
    /// Makes it, or empties it.
    pub fn create(path: &Path) -> Result<Self, Error> {
        let error = |source| Error::File { action: "writing", path: path.to_owned(), source };
        Ok(Self { path: path.to_owned(), file: File::create(path).map_err(error)?, finished: false })
    }

    /// It is whole.
    pub fn finish(mut self) {
        self.finished = true;
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        if !self.finished && self.file.metadata().is_ok_and(|metadata| metadata.is_file()) {
            // What failed is being told already.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_names_and_attributes_are_in_the_archive() {
        let stat = rustix::fs::stat("/").unwrap();
        let long = format!("{}/{}", "d".repeat(90), "f".repeat(90));
        let mut builder = Builder::new(Vec::new());
        let attributes = vec![("user.a".into(), b"1=2".to_vec()), ("user.b=c".into(), b"lost".to_vec())];
        let owner = |uid, gid| (uid + 3_000_000, gid + 7);
        let directory = Found { path: Path::new(&long), stat, attributes, content: Content::Directory };
        append(&mut builder, directory, &owner).unwrap();
        let content = Content::Symlink(format!("//a/./..//{long}").into());
        let link = Found { path: Path::new("link"), stat, attributes: Vec::new(), content };
        append(&mut builder, link, &owner).unwrap();
        let bytes = builder.into_inner().unwrap();
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
}
