//! `volume export` and `volume import`: a volume's files as an archive.

use std::fs::File;
use std::io::{self, BufWriter};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::copy::{plain_input, unpack};
use super::volume_options::Driver;
use super::volumes::VolumeRecord;
use super::{Engine, Error};
use crate::image::pack::Packer;
use crate::security::idmap::RungKind;
use crate::sys::child::{self, Ids};
use crate::sys::transfer::{Owners, Problem, Replace, Sink};
use crate::sys::visit::{self, Found};

impl Engine {
    /// Where a volume's files are, also outside of containers.
    pub fn volume_place(&self, volume: &VolumeRecord) -> Result<PathBuf, Error> {
        match volume.options.driver() {
            Driver::Directory => Ok(self.volume_data(&volume.name)),
            Driver::Bind(path, _) => Ok(path),
            Driver::Overlay(..) | Driver::Filesystem(..) => Err(Error::VolumeNowhere(volume.name.clone())),
        }
    }

    /// Writes all that is in a volume as an archive, with the owners that containers see.
    pub fn export_volume(&self, name: &str, out: &File) -> Result<(), Error> {
        let volume = self.volume(name)?;
        let data = self.volume_place(&volume)?;
        let work = || {
            let opened = open(&data)?;
            let owner = |uid, gid| (uid, gid);
            let mut packer = Packer::new(BufWriter::with_capacity(1 << 18, out), &owner);
            visit::visit_open(opened, &mut |found: Found<'_>| {
                if found.path.as_os_str().is_empty() { Ok(()) } else { packer.append(found) }
            })
            .map_err(|failed| Problem::io("reading", &failed.path, &failed.source))?;
            let done =
                packer.finish().and_then(|out| out.into_inner().map_err(io::IntoInnerError::into_error));
            done.map(drop).map_err(|error| Problem::io("writing", Path::new("the archive"), &error))
        };
        self.in_volume("exporting", &volume.name, work)
    }

    /// Unpacks an archive, compressed or not, into a volume; what is there of the same names is replaced.
    pub fn import_volume(&self, name: &str, input: File) -> Result<(), Error> {
        let volume = self.volume(name)?;
        let data = self.volume_place(&volume)?;
        let action = "importing into";
        let failed = |source: io::Error| Error::Files { action, name: volume.name.clone(), source };
        let (plain, _unpacker) = plain_input(input).map_err(failed)?;
        let work = move || {
            let sink = Sink::new(open(&data)?, None, Owners::Kept, Replace::Anything);
            unpack(plain, sink).map(drop)
        };
        self.in_volume(action, &volume.name, work)
    }

    fn in_volume(
        &self,
        action: &'static str,
        name: &str,
        work: impl FnOnce() -> Result<(), Problem>,
    ) -> Result<(), Error> {
        let rung = self.rung();
        let ids = if rung.kind == RungKind::Root { Ids::Own } else { Ids::Mapped(&rung.mapping) };
        child::call_as(ids, work)
            .map_err(|source| Error::FilesOfOthers { action, name: name.to_owned(), source })?
            .map_err(|source| Error::VolumeFiles { action, name: name.to_owned(), source })
    }
}

fn open(path: &Path) -> Result<OwnedFd, Problem> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|error| Problem::io("opening", path, &error.into()))
}

/// Standard input, for an archive.
pub fn standard_input() -> io::Result<File> {
    Ok(File::from(std::io::stdin().as_fd().try_clone_to_owned()?))
}
