//! `build --output`: the image that was built as files, as an archive, at a registry.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::base::idmap::IdMapping;
use crate::engine::export::Archive;
use crate::engine::push::{Outgoing, Output as Stream, Target};
use crate::engine::reach::Reach;
use crate::engine::{self, Engine, files};
use crate::image::pack::Packer;
use crate::image::{Progress, PushOptions, Transport};
use crate::storage::{self, ImageRecord};
use crate::sys::child::{self, Ids};
use crate::sys::merged::Tree;
use crate::sys::owners;
use crate::sys::transfer::{Owners, Problem, Replace, Sink, Source, Written, item_of};
use crate::sys::visit::{self, Failed};

/// Why an image does not become what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The value of the flag cannot be understood.
    #[error("--output \"{text}\": {why}")]
    Flag {
        /// As typed.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// The store.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// The directory or the file cannot be made.
    #[error("writing the image to \"{}\"", path.display())]
    Make {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file was not written.
    #[error("writing the image to \"{place}\"")]
    Files {
        /// The directory.
        place: String,
        /// Why.
        #[source]
        source: Problem,
    },
    /// A file was not put into the archive.
    #[error("writing the image to \"{place}\": \"{}\"", file.display())]
    Pack {
        /// The archive.
        place: String,
        /// The file of the image.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The process that reads the image.
    #[error("writing the image to \"{place}\"")]
    Child {
        /// The directory or the archive.
        place: String,
        /// Why.
        #[source]
        source: child::Error,
    },
    /// As `save` and `push`.
    #[error(transparent)]
    Engine(Box<engine::Error>),
}

impl From<engine::Error> for Error {
    fn from(error: engine::Error) -> Self {
        Self::Engine(Box::new(error))
    }
}

impl Error {
    /// How to mend it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Engine(error) => error.hint(),
            Self::Flag { .. } => {
                Some("it takes DIR, -, or type=local|tar|oci|docker|image with dest=PATH".into())
            }
            Self::Files { source: Problem::FileThere(_) | Problem::DirectoryThere(_), .. } => {
                Some("name an empty directory".into())
            }
            _ => None,
        }
    }
}

/// What becomes of an image when it is built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Its files in this directory.
    Files(PathBuf),
    /// Its files in an archive; `None`: on standard output.
    Tar(Option<PathBuf>),
    /// An archive as `save` writes it; `None`: on standard output.
    Archive(ArchiveForm, Option<PathBuf>),
    /// A directory in OCI's image layout.
    Layout(PathBuf),
    /// An image in the store under these names, which is pushed where they say so.
    Image {
        /// Besides those of `--tag`.
        names: Vec<String>,
        /// Whether it is.
        push: bool,
    },
}

/// Archives of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveForm {
    /// OCI's image layout.
    Oci,
    /// As Docker's.
    Docker,
}

impl Output {
    /// What `--output` says: members as `type=tar,dest=FILE`, or only where to (a directory, or `-` for an archive
    /// on standard output).
    pub fn parse(text: &str) -> Result<Self, Error> {
        let wrong = |why: String| Error::Flag { text: text.to_owned(), why };
        if text.is_empty() {
            return Err(wrong("it says nothing".into()));
        }
        if !text.contains('=') {
            return Ok(if text == "-" { Self::Tar(None) } else { Self::Files(text.into()) });
        }
        let (mut kind, mut place, mut names, mut push, mut tar) = (None, None, Vec::new(), None, None);
        let truth = |value: &str, name: &str| match value {
            "true" | "1" | "" => Ok(true),
            "false" | "0" => Ok(false),
            other => Err(wrong(format!("{name} is true or false, not \"{other}\""))),
        };
        let members = members(text);
        for member in &members {
            let (name, value) = member.split_once('=').unwrap_or((member, ""));
            match name {
                "type" => kind = Some(value),
                "dest" | "dst" if !value.is_empty() => place = Some(value),
                "name" if !value.is_empty() => names.extend(value.split(',').map(str::to_owned)),
                "push" => push = Some(truth(value, name)?),
                "tar" => tar = Some(truth(value, name)?),
                _ => return Err(wrong(format!("\"{member}\" is not supported yet"))),
            }
        }
        let path = place.filter(|place| *place != "-").map(PathBuf::from);
        let nowhere = || wrong("dest is missing".into());
        let kind = kind.ok_or_else(|| wrong("type is missing".into()))?;
        let image = matches!(kind, "image" | "registry");
        if !image && (push.is_some() || !names.is_empty()) {
            return Err(wrong("name and push are for type=image".into()));
        }
        if tar.is_some() && !matches!(kind, "oci" | "docker") {
            return Err(wrong("tar is for type=oci".into()));
        }
        match kind {
            "local" => Ok(Self::Files(path.ok_or_else(nowhere)?)),
            "tar" if place.is_some() => Ok(Self::Tar(path)),
            "tar" => Err(nowhere()),
            "oci" if tar == Some(false) => Ok(Self::Layout(path.ok_or_else(nowhere)?)),
            "oci" if place.is_some() => Ok(Self::Archive(ArchiveForm::Oci, path)),
            "docker" if tar == Some(false) => Err(wrong("type=docker is always an archive".into())),
            "docker" if place.is_some() => Ok(Self::Archive(ArchiveForm::Docker, path)),
            // To Docker that means: into its store.
            "docker" => Ok(Self::Image { names, push: false }),
            "oci" => Err(nowhere()),
            _ if image && place.is_some() => Err(wrong("an image has no dest, but a name".into())),
            "image" => Ok(Self::Image { names, push: push.unwrap_or(false) }),
            "registry" => Ok(Self::Image { names, push: push.unwrap_or(true) }),
            other => Err(wrong(format!("type \"{other}\" is not supported yet"))),
        }
    }

    /// Whether it goes to standard output.
    pub fn is_stdout(&self) -> bool {
        matches!(self, Self::Tar(None) | Self::Archive(_, None))
    }
}

/// The members of a line of comma-separated values; a comma in quotes is a member's own.
fn members(text: &str) -> Vec<String> {
    let mut members = vec![String::new()];
    let mut quoted = false;
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => members.push(String::new()),
            c => members.last_mut().into_iter().for_each(|member| member.push(c)),
        }
    }
    members
}

/// How what is built goes out.
pub struct HandOut<'a> {
    /// How images are pushed and put into archives.
    pub push: &'a PushOptions,
    /// How registries are asked.
    pub reach: &'a Reach,
    /// Told how far it is.
    pub progress: &'a dyn Progress,
    /// Where standard output leads.
    pub stdout: &'a File,
}

impl Engine {
    /// Gives out an image that was built, which the user knows by `names`. What is pushed is pushed by each of them.
    ///
    /// The caller must be single-threaded.
    pub fn put_out(
        &self,
        image: &ImageRecord,
        names: &[String],
        output: &Output,
        how: &HandOut<'_>,
    ) -> Result<Written, Error> {
        let stream = |path: &Option<PathBuf>| match path {
            Some(path) => Stream::create(path).map_err(engine::Error::from),
            None => {
                let failed = |source| engine::push::Error::Output { path: "-".into(), source };
                Ok(Stream::to(how.stdout.try_clone().map_err(failed)?, "standard output"))
            }
        };
        let tag = || names.first().cloned();
        match output {
            Output::Files(path) => return self.put_files(image, path),
            Output::Tar(path) => self.put_tar(image, path.as_deref(), how.stdout)?,
            Output::Archive(form, path) => {
                let target = match form {
                    ArchiveForm::Oci => Target::OciArchive(stream(path)?, tag()),
                    ArchiveForm::Docker => Target::DockerArchive(stream(path)?),
                };
                self.hand_over(image, names, target, how)?;
            }
            Output::Layout(path) => {
                let target = Target::Directory(Transport::Oci { path: path.clone(), tag: tag() });
                self.hand_over(image, names, target, how)?;
            }
            Output::Image { push: false, .. } => {}
            Output::Image { push: true, .. } => {
                for name in names {
                    let pushed = self.push(name, None, how.reach, how.push.clone(), Vec::new(), how.progress);
                    pushed.map_err(engine::Error::from)?;
                }
            }
        }
        Ok(Written::default())
    }

    fn hand_over(
        &self,
        image: &ImageRecord,
        names: &[String],
        target: Target,
        how: &HandOut<'_>,
    ) -> Result<(), Error> {
        let outgoing = Outgoing {
            name: names.first().cloned().unwrap_or_else(|| image.id.short()),
            image: image.clone(),
            options: PushOptions { names: names.to_vec(), ..how.push.clone() },
            sign: Vec::new(),
        };
        let handed = self.hand_out("saving", &[outgoing], target, how.reach, how.progress);
        Ok(handed.map(drop).map_err(engine::Error::from)?)
    }

    /// The trees of an image's layers, and the mapping of the user namespace that they are read in.
    fn trees(&self, image: &ImageRecord) -> (Vec<Tree>, Option<IdMapping>) {
        let store = self.store.clone().with_ownership(self.ownership());
        (files::of_image(&store, &image.layers), self.default_mapping())
    }

    /// Writes all files into an archive. Owners are those that the image has.
    fn put_tar(&self, image: &ImageRecord, path: Option<&Path>, stdout: &File) -> Result<(), Error> {
        let _lock = self.store.lock_shared()?;
        let (trees, mapping) = self.trees(image);
        let made = path.map(Archive::create).transpose()?;
        let file = made.as_ref().map_or(stdout, |archive| &archive.file);
        let place = path.map_or_else(|| "standard output".to_owned(), |path| path.display().to_string());
        let same = |uid, gid| (uid, gid);
        let work = || {
            let out = io::BufWriter::with_capacity(1 << 17, file);
            let mut packer =
                Packer::new(out, &same).remembering(mapping.as_ref().is_some_and(IdMapping::is_single));
            let errno = |error: &io::Error| error.raw_os_error().unwrap_or(libc::EIO);
            let visited = visit::visit(&trees, &mut |found| packer.append(found));
            visited.map_err(|Failed { path, source }| (path, errno(&source)))?;
            let done =
                packer.finish().and_then(|out| out.into_inner().map_err(io::IntoInnerError::into_error));
            done.map(drop).map_err(|error| (PathBuf::from("/"), errno(&error)))
        };
        let told = child::call(mapping.as_ref(), work);
        let told = told.map_err(|source| Error::Child { place: place.clone(), source })?;
        told.map_err(|(file, errno)| Error::Pack {
            place,
            file,
            source: io::Error::from_raw_os_error(errno),
        })?;
        if let Some(made) = made {
            made.finish();
        }
        Ok(())
    }

    /// Writes all files into a directory: as root with their owners, else as the user's own. Links in the directory
    /// are not followed; devices are left out.
    fn put_files(&self, image: &ImageRecord, path: &Path) -> Result<Written, Error> {
        let place = path.display().to_string();
        let failed = |source| Error::Make { path: path.to_owned(), source };
        std::fs::create_dir_all(path).map_err(failed)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| failed(error.into()))?;
        let _lock = self.store.lock_shared()?;
        let (trees, mapping) = self.trees(image);
        let (source, stream) = Source::pair().map_err(failed)?;
        let ids = mapping.as_ref().map_or(Ids::Own, Ids::Mapped);
        let refused = |text: String| {
            let action = format!("entering the user namespace that owns the files ({text}) for");
            drop(source.fail(&Problem::io(&action, path, &io::ErrorKind::Other.into())));
        };
        let reader = child::beside(ids, Some(stream.as_fd()), refused, || drop(tell(&trees, &source)));
        let reader = reader.map_err(|source| Error::Child { place: place.clone(), source })?;
        // Who reads may die; that must be seen, and is only when nobody else has its end.
        drop(source);
        let owners = if mapping.is_none() { Owners::Kept } else { Owners::Own };
        // Modes are the files' own.
        let umask = rustix::process::umask(Mode::empty());
        let written = take(&stream, dir, owners);
        rustix::process::umask(umask);
        drop(reader);
        written.map_err(|source| Error::Files { place, source })
    }
}

/// Tells all files of an image.
fn tell(trees: &[Tree], source: &Source) -> io::Result<()> {
    let mut lost = false;
    let told = visit::visit(trees, &mut |found| {
        let Some((mut item, content)) = item_of(found) else { return Ok(()) };
        // Whose a file is to the image means nothing outside of the store.
        item.attributes.retain(|(name, _)| name != owners::ATTRIBUTE);
        source.send(&item, content).inspect_err(|_| lost = true)
    });
    match told {
        Ok(()) => source.end(),
        // Who is gone has said why itself.
        Err(_) if lost => Ok(()),
        Err(failed) => source.fail(&Problem::io("reading", &failed.path, &failed.source)),
    }
}

fn take(stream: &crate::sys::transfer::Stream, dir: OwnedFd, owners: Owners) -> Result<Written, Problem> {
    let mut sink = Sink::new(dir, None, owners, Replace::Alike);
    while let Some((item, content)) = stream.next()? {
        sink.put(&item, content)?;
    }
    sink.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs() {
        let path = || Some(PathBuf::from("a/b"));
        let image = |names: &[&str], push| Output::Image {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            push,
        };
        for (text, expected) in [
            ("a/b", Output::Files("a/b".into())),
            ("-", Output::Tar(None)),
            ("type=local,dest=a/b", Output::Files("a/b".into())),
            ("type=tar,dest=a/b", Output::Tar(path())),
            ("dest=-,type=tar", Output::Tar(None)),
            ("type=oci,dst=a/b", Output::Archive(ArchiveForm::Oci, path())),
            ("type=oci,dest=a/b,tar=false", Output::Layout("a/b".into())),
            ("type=docker,dest=-", Output::Archive(ArchiveForm::Docker, None)),
            ("type=docker", image(&[], false)),
            ("type=image,name=x/y:1,push=true", image(&["x/y:1"], true)),
            ("type=image,\"name=x,y/z:1\"", image(&["x", "y/z:1"], false)),
            ("type=registry,name=x/y", image(&["x/y"], true)),
        ] {
            assert_eq!(Output::parse(text).unwrap(), expected, "{text}");
        }
        for text in [
            "",
            "dest=x",
            "type=local",
            "type=tar",
            "type=oci",
            "type=local,dest=-",
            "type=local,dest=x,push=true",
            "type=tar,dest=x,tar=false",
            "type=image,dest=x",
            "type=image,push=perhaps",
            "type=image,name=a,b",
            "type=cacheonly",
            "type=local,dest=x,mode=1",
        ] {
            assert!(Output::parse(text).is_err(), "{text}");
        }
    }
}
