//! `cp`: files between the host, containers and archives.
//!
//! Each side is worked on by a process with that side's ids and mounts: the one tells the other what it finds
//! and hands content over as open files ([`crate::sys::transfer`]). Paths of a container are resolved by the
//! kernel beneath its root.

mod archive;
mod plan;

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{self, FileType, Mode, OFlags};

use super::rootfs::Access;
use super::{Engine, Error as EngineError};
use crate::base::idmap::IdMapping;
use crate::sys::child::{self, Ids};
use crate::sys::path::Root;
use crate::sys::transfer::{
    Item, Kind, Owners, Problem, Progress, Replace, Sink, Source, Stream, Written, item_of,
};
use crate::sys::visit;

pub(in crate::engine) use archive::{plain_input, unpack};
pub use plan::Side;
use plan::{Target, There, Wanted};

/// How to copy.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Give what goes into a container to the user that its program runs as, rather than the owners it has.
    pub archive: bool,
    /// Files may take the place of directories, and the other way round.
    pub overwrite: bool,
    /// What a link that is named as the source leads to is copied, rather than the link.
    pub follow: bool,
    /// Told how far it is, perhaps in another process.
    pub progress: Progress,
}

/// A copy that was not made, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing was to be done with a container.
    #[error("one side must be a container's: CONTAINER:PATH")]
    NoContainer,
    /// There is no path after the colon.
    #[error("\"{0}:\" names no path in the container")]
    NoPath(String),
    /// A directory cannot be copied into itself.
    #[error("copying \"{0}\" into itself")]
    IntoItself(String),
    /// It failed on the way.
    #[error("copying \"{from}\" to \"{to}\"")]
    Copy {
        /// The source.
        from: String,
        /// The destination.
        to: String,
        /// Why.
        #[source]
        source: Problem,
    },
    /// One of the processes could not work.
    #[error("copying \"{from}\" to \"{to}\"")]
    Child {
        /// The source.
        from: String,
        /// The destination.
        to: String,
        /// Why.
        #[source]
        source: child::Error,
    },
    /// Standard input or output.
    #[error("using the standard streams")]
    Streams(#[source] io::Error),
}

/// One side, found.
enum Place {
    Stream,
    Host(PathBuf),
    Container(Box<Access>, PathBuf),
}

impl Place {
    fn access(&self) -> Option<&Access> {
        if let Self::Container(access, _) = self { Some(access) } else { None }
    }

    fn ids(&self) -> Ids<'_> {
        self.access().map_or(Ids::Own, Access::ids)
    }
}

impl Engine {
    /// Copies between two places, of which one is a container's.
    pub fn copy(&self, from: &str, to: &str, options: Options) -> Result<Written, EngineError> {
        let sides = (Side::parse(from), Side::parse(to));
        if !matches!(sides.0, Side::Container(..)) && !matches!(sides.1, Side::Container(..)) {
            return Err(Error::NoContainer.into());
        }
        let (first, second) = match &sides {
            (Side::Container(source, _), Side::Container(target, _)) => {
                (self.containers.find(source)?, self.containers.find(target)?)
            }
            _ => {
                let (source, target) = (self.place(sides.0)?, self.place(sides.1)?);
                return Ok(transfer(&source, &target, from, to, options)?);
            }
        };
        if first == second {
            let Side::Container(_, target) = &sides.1 else { return Err(Error::NoContainer.into()) };
            let Place::Container(access, source) = self.place(sides.0)? else {
                return Err(Error::NoContainer.into());
            };
            let target = plan::absolute(target, &access.record.config.workdir);
            return Ok(within(&access, &source, &target, (from, to), options)?);
        }
        // Two that do not run are taken in the order of their ids, so that nobody waits in a circle.
        let (source, target) = if first < second {
            let source = self.place(sides.0)?;
            (source, self.place(sides.1)?)
        } else {
            let target = self.place(sides.1)?;
            (self.place(sides.0)?, target)
        };
        Ok(transfer(&source, &target, from, to, options)?)
    }

    fn place(&self, side: Side) -> Result<Place, EngineError> {
        Ok(match side {
            Side::Stream => Place::Stream,
            Side::Host(path) => Place::Host(path),
            Side::Container(name, path) if path.as_os_str().is_empty() => {
                return Err(Error::NoPath(name).into());
            }
            Side::Container(name, path) => {
                let access = self.access(&name)?;
                let path = plan::absolute(&path, &access.record.config.workdir);
                Place::Container(Box::new(access), path)
            }
        })
    }
}

fn transfer(
    from: &Place,
    to: &Place,
    from_text: &str,
    to_text: &str,
    options: Options,
) -> Result<Written, Error> {
    let copy = |source| Error::Copy { from: from_text.to_owned(), to: to_text.to_owned(), source };
    let child = |source| Error::Child { from: from_text.to_owned(), to: to_text.to_owned(), source };
    let wanted = match from {
        Place::Stream => Wanted { name: None },
        Place::Host(path) | Place::Container(_, path) => Wanted::of(path),
    };
    match (from, to) {
        (Place::Stream, Place::Container(access, path)) => {
            let (plain, _unpacker) = super::volume_files::standard_input()
                .and_then(archive::plain_input)
                .map_err(Error::Streams)?;
            let work = || archive::read(plain, access, path, options);
            child::call_as(access.ids(), work).map_err(child)?.map_err(copy)
        }
        (Place::Container(access, path), Place::Stream) => {
            let work = || archive::write(access, path, &wanted, options);
            child::call_as(access.ids(), work).map_err(child)?.map_err(copy)
        }
        (_, Place::Stream) | (Place::Stream, _) => Err(Error::NoContainer),
        _ => {
            let (source, stream) = Source::pair().map_err(Error::Streams)?;
            let failed = |text: String| {
                let action = format!("entering the user namespace that owns the files ({text}) for");
                drop(source.fail(&Problem::io(&action, Path::new(from_text), &io::ErrorKind::Other.into())));
            };
            let work = || drop(tell(from, options.follow, &source));
            let reader = child::beside(from.ids(), Some(stream.as_fd()), failed, work).map_err(child)?;
            // Who reads may die; that must be seen, and is only when nobody else has its end.
            drop(source);
            let host_ids = matches!(from, Place::Host(_));
            let written = match to.access() {
                None => write(&stream, to, &wanted, host_ids, options),
                Some(access) => {
                    child::call_as(access.ids(), || write(&stream, to, &wanted, host_ids, options))
                        .map_err(child)?
                }
            };
            drop(reader);
            written.map_err(copy)
        }
    }
}

/// Copies in one container, of which only one root can be had while it does not run.
fn within(
    access: &Access,
    from: &Path,
    to: &Path,
    (from_text, to_text): (&str, &str),
    options: Options,
) -> Result<Written, Error> {
    let wanted = Wanted::of(from);
    let work = || {
        let root = access.open().map_err(|error| Problem::io("opening", Path::new("/"), &error))?;
        let object = open_source_in(&root, from, options.follow)?;
        let directory = fs::fstat(&object)
            .map(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
            .map_err(|error| Problem::io("reading", from, &error.into()))?;
        let owners = owners(access, &root, options);
        let (dir, top, _) = container_target(&root, to, &wanted, directory)?;
        let mut sink = Sink::new(dir, top, owners, replace(options));
        sink.watch(options.progress);
        visit_into(object, from, &mut |item, content| sink.put(&item, content))?;
        sink.finish()
    };
    if plan::is_below(to, from) && wanted.name.is_some() && to != from {
        return Err(Error::IntoItself(from_text.to_owned()));
    }
    child::call_as(access.ids(), work)
        .map_err(|source| Error::Child { from: from_text.to_owned(), to: to_text.to_owned(), source })?
        .map_err(|source| Error::Copy { from: from_text.to_owned(), to: to_text.to_owned(), source })
}

/// Gives what is in an open object to `each`, whose problem comes back whole.
fn visit_into(
    object: OwnedFd,
    path: &Path,
    each: &mut dyn FnMut(Item, Option<OwnedFd>) -> Result<(), Problem>,
) -> Result<(), Problem> {
    let mut problem = None;
    let told = visit::visit_open(object, &mut |found| {
        let Some((item, content)) = item_of(found) else { return Ok(()) };
        each(item, content).map_err(|found| {
            problem = Some(found);
            io::ErrorKind::Other.into()
        })
    });
    match (told, problem) {
        (Ok(()), _) => Ok(()),
        (Err(_), Some(problem)) => Err(problem),
        (Err(failed), None) => Err(Problem::io("reading", &join(path, &failed.path), &failed.source)),
    }
}

fn join(base: &Path, path: &Path) -> PathBuf {
    if path.as_os_str().is_empty() { base.to_owned() } else { base.join(path) }
}

/// Reads: finds the source and tells all that is in it.
fn tell(from: &Place, follow: bool, source: &Source) -> io::Result<()> {
    let object = match open_source(from, follow) {
        Ok(object) => object,
        Err(problem) => return source.fail(&problem),
    };
    let mut lost = None;
    let told = visit::visit_open(object, &mut |found| {
        let Some((item, content)) = item_of(found) else { return Ok(()) };
        // Who is gone has said why itself.
        source.send(&item, content).inspect_err(|error| lost = error.raw_os_error())
    });
    match told {
        Ok(()) => source.end(),
        Err(_) if lost.is_some() => Ok(()),
        Err(failed) => {
            let base = match from {
                Place::Host(base) | Place::Container(_, base) => base.as_path(),
                Place::Stream => Path::new("-"),
            };
            source.fail(&Problem::io("reading", &join(base, &failed.path), &failed.source))
        }
    }
}

fn open_source(from: &Place, follow: bool) -> Result<OwnedFd, Problem> {
    match from {
        Place::Host(path) => {
            let flags = if follow { OFlags::PATH } else { OFlags::PATH | OFlags::NOFOLLOW };
            let opened = fs::open(path, flags | OFlags::CLOEXEC, Mode::empty());
            opened.map_err(|error| missing_or("reading", path, &error.into()))
        }
        Place::Container(access, path) => {
            let root = access.open().map_err(|error| Problem::io("opening", Path::new("/"), &error))?;
            open_source_in(&root, path, follow)
        }
        Place::Stream => Err(Problem::Died),
    }
}

fn open_source_in(root: &Root, path: &Path, follow: bool) -> Result<OwnedFd, Problem> {
    let flags = if follow { OFlags::PATH } else { OFlags::PATH | OFlags::NOFOLLOW };
    root.open_in(path, flags, 0).map_err(|error| missing_or("reading", path, &error))
}

fn missing_or(action: &str, path: &Path, error: &io::Error) -> Problem {
    match error.raw_os_error() {
        Some(libc::ENOENT) => Problem::Missing(path.display().to_string()),
        _ => Problem::io(action, path, error),
    }
}

/// Writes what is told.
fn write(
    stream: &Stream,
    to: &Place,
    wanted: &Wanted,
    host_ids: bool,
    options: Options,
) -> Result<Written, Problem> {
    let Some((first, content)) = stream.next()? else { return Err(Problem::Died) };
    let directory = first.kind == Kind::Directory;
    if first.kind == Kind::Device {
        return Err(Problem::Device);
    }
    let (mut sink, mapping) = match to {
        Place::Host(path) => (host_sink(path, wanted, directory, options)?, None),
        Place::Container(access, path) => {
            let root = access.open().map_err(|error| Problem::io("opening", Path::new("/"), &error))?;
            let owners = owners(access, &root, options);
            let (dir, top, _) = container_target(&root, path, wanted, directory)?;
            (Sink::new(dir, top, owners, replace(options)), access.mapping().filter(|_| host_ids))
        }
        Place::Stream => return Err(Problem::Died),
    };
    sink.watch(options.progress);
    put(&mut sink, first, content, mapping)?;
    while let Some((item, content)) = stream.next()? {
        put(&mut sink, item, content, mapping)?;
    }
    sink.finish()
}

fn put(
    sink: &mut Sink,
    mut item: Item,
    content: Option<OwnedFd>,
    mapping: Option<&IdMapping>,
) -> Result<(), Problem> {
    if let Some(mapping) = mapping {
        // Whom the container does not know is nobody in it (`/proc/sys/kernel/overflowuid`).
        item.uid = IdMapping::to_container(&mapping.uids, item.uid).unwrap_or(65534);
        item.gid = IdMapping::to_container(&mapping.gids, item.gid).unwrap_or(65534);
    }
    sink.put(&item, content)
}

fn replace(options: Options) -> Replace {
    if options.overwrite { Replace::Anything } else { Replace::Alike }
}

fn owners(access: &Access, root: &Root, options: Options) -> Owners {
    if !options.archive {
        return Owners::Kept;
    }
    let (uid, gid) = access.user(root);
    Owners::All(uid, gid)
}

fn host_sink(path: &Path, wanted: &Wanted, directory: bool, options: Options) -> Result<Sink, Problem> {
    let there = match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => There::Directory,
        Ok(_) => There::File,
        Err(error) if error.kind() == io::ErrorKind::NotFound => There::Nothing,
        Err(error) => return Err(Problem::io("writing", path, &error)),
    };
    let open = |path: &Path| {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        fs::open(path, flags, Mode::empty()).map_err(|error| missing_or("opening", path, &error.into()))
    };
    let (dir, top) = match plan::target(wanted, directory, path, there)? {
        Target::Inside(name) => (open(path)?, name),
        Target::Itself => {
            // A link to a file is written through, as every program would.
            let real = match there {
                There::File => std::fs::canonicalize(path).map_err(|e| Problem::io("writing", path, &e))?,
                _ => path.to_owned(),
            };
            let name = real.file_name().map(OsString::from);
            (open(real.parent().unwrap_or(Path::new(".")))?, name)
        }
    };
    Ok(Sink::new(dir, top, Owners::Own, replace(options)))
}

/// The directory in a container that something goes to, its name there, and the directory's path.
fn container_target(
    root: &Root,
    path: &Path,
    wanted: &Wanted,
    directory: bool,
) -> Result<(OwnedFd, Option<OsString>, PathBuf), Problem> {
    let failed = |error: io::Error| missing_or("opening", path, &error);
    let found = match root.open_in(path, OFlags::PATH, 0) {
        Ok(found) => Some(found),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed(error)),
    };
    let there = match &found {
        None => There::Nothing,
        Some(found) => {
            let stat = fs::fstat(found).map_err(|error| failed(error.into()))?;
            let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            if directory { There::Directory } else { There::File }
        }
    };
    let list = OFlags::RDONLY | OFlags::DIRECTORY;
    match (plan::target(wanted, directory, path, there)?, found) {
        (Target::Inside(name), Some(found)) => {
            let flags = list | OFlags::CLOEXEC;
            let dir = fs::openat(&found, ".", flags, Mode::empty()).map_err(|error| failed(error.into()))?;
            Ok((dir, name, path.to_owned()))
        }
        (Target::Inside(_), None) => Err(Problem::Missing(path.display().to_string())),
        (Target::Itself, found) => {
            // Where a link to a file leads. It is resolved anew, beneath the root, so that nothing that comes
            // in between leads out.
            let real = found.map_or(Ok(path.to_owned()), |found| root.place_of(found)).map_err(failed)?;
            let parent = real.parent().unwrap_or(Path::new("/"));
            let dir = root.open_in(parent, list, 0).map_err(|error| missing_or("opening", parent, &error))?;
            Ok((dir, real.file_name().map(OsString::from), parent.to_owned()))
        }
    }
}
