//! `export`: a container's files as an archive.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::files::Files;
use super::{Engine, Error};
use crate::base::idmap::IdMapping;
use crate::image::pack::{Owner, Packer};
use crate::storage::containers::{ContainerRecord, RootfsSource};
use crate::sys::child;
use crate::sys::visit::{self, Failed};

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
            let packer = Packer::new(io::BufWriter::with_capacity(1 << 17, out), &*owner);
            let mut packer = packer.remembering(record.mapping.as_ref().is_some_and(IdMapping::is_single));
            let result = visit::visit(&trees, &mut |found| packer.append(found));
            let finish = || packer.finish()?.into_inner().map(drop).map_err(io::IntoInnerError::into_error);
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
    pub(super) fn owner_inside(&self, record: &ContainerRecord, copied: bool) -> Box<Owner<'static>> {
        let layers = !copied && matches!(record.rootfs, RootfsSource::Image { .. });
        let Some(own) = record.mapping.clone() else { return Box::new(|uid, gid| (uid, gid)) };
        if let Some(shown) = record.config.rootfs_ids.clone() {
            let translate = |id, shown: &[_], own: &[_]| {
                IdMapping::to_host(shown, id)
                    .and_then(|host| IdMapping::to_container(own, host))
                    .unwrap_or(id)
            };
            return Box::new(move |uid, gid| {
                (translate(uid, &shown.uids, &own.uids), translate(gid, &shown.gids, &own.gids))
            });
        }
        if !own.is_single() && (layers || !self.has_other_ids(record)) {
            return Box::new(|uid, gid| (uid, gid));
        }
        // Read by the machine's root they are the host's ids already.
        let here = self.files_mapping(record).unwrap_or_default();
        let translate = |id, here: &[_], own: &[_]| {
            let host = if here.is_empty() { Some(id) } else { IdMapping::to_host(here, id) };
            host.and_then(|host| IdMapping::to_container(own, host)).unwrap_or(id)
        };
        Box::new(move |uid, gid| {
            (translate(uid, &here.uids, &own.uids), translate(gid, &here.gids, &own.gids))
        })
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
