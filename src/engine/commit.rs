//! Images that are made here: of a container (`commit`), of an archive (`import`).

use std::io::{self, BufWriter, Read};
use std::path::{Path, PathBuf};

use rustix::fs::FileType;
use serde_json::{Map, Value, json};

use super::build::changes::{self, Changes};
use super::build::request::Times;
use super::diff::OURS;
use super::files::Files;
use super::images::Failure;
use super::{Engine, Error as EngineError, apart, now};
use crate::base::digest::Digest;
use crate::base::idmap::IdMapping;
use crate::image::create::{self, Draft, Spool, Spooled};
use crate::image::instruction::Instruction;
use crate::image::manifest::{Platform, go_architecture};
use crate::image::pack::Packer;
use crate::image::reference::ParseReferenceError;
use crate::image::rewrite::Form;
use crate::image::{Reference, source};
use crate::storage::containers::{ContainerRecord, RootfsSource, Status};
use crate::storage::events::Event;
use crate::storage::{self, ImageRecord};
use crate::sys::child;
use crate::sys::path::Root;
use crate::sys::visit::{self, Content, Found};

/// Why no image is made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name is no name.
    #[error(transparent)]
    Reference(#[from] ParseReferenceError),
    /// A name with a digest would say what the image is before it is made.
    #[error("\"{0}\" has a digest: a new image can have a name and a tag only")]
    Digest(String),
    /// The container is not of an image.
    #[error("committing container \"{0}\": it was made of a directory (--rootfs), not of an image")]
    NoImage(String),
    /// Its image is gone.
    #[error("committing container \"{name}\": its image {id} is not here any more")]
    ImageGone {
        /// The container.
        name: String,
        /// The image.
        id: String,
    },
    /// The process that reads the files or makes the layer.
    #[error(transparent)]
    Apart(#[from] apart::Error),
    /// The store.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// Making the image.
    #[error(transparent)]
    Create(#[from] create::Error),
    /// The archive.
    #[error("importing \"{}\"", path.display())]
    Source {
        /// As given.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// How to mend it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Apart(error) => error.hint(),
            Self::NoImage(name) => {
                Some(format!("umiak export {name} | umiak import - NAME makes an image of all its files"))
            }
            Self::ImageGone { name, .. } => {
                Some(format!("umiak commit --squash {name} needs only its layers"))
            }
            _ => None,
        }
    }
}

/// What `commit` and `import` are told of the new image.
#[derive(Clone, Debug, Default)]
pub struct NewImage {
    /// Its name, if it gets one.
    pub name: Option<String>,
    /// Who made it.
    pub author: Option<String>,
    /// A word about it, for the history.
    pub message: Option<String>,
    /// Changes of the configuration.
    pub changes: Vec<Instruction>,
    /// How it is described.
    pub format: Form,
}

/// The flags of `commit` alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct CommitOptions {
    /// The container stands still meanwhile.
    pub pause: bool,
    /// All layers become one.
    pub squash: bool,
    /// Volumes that the user asked for are in the configuration.
    pub volumes: bool,
}

const COMMIT: &str = "committing container";
const IMPORT: &str = "importing";
const BUILD: &str = "taking the changes of";

/// Most bytes of an archive that is imported.
const MAX_IMPORT: u64 = 1 << 40;

impl Engine {
    /// Makes an image of a container's files: its image's layers, and one more with what it has changed.
    pub fn commit(
        &self,
        text: &str,
        new: &NewImage,
        options: CommitOptions,
    ) -> Result<ImageRecord, EngineError> {
        let (record, status) = self.lookup(text)?;
        let names = full_name(new.name.as_deref())?;
        let RootfsSource::Image { id, .. } = &record.rootfs else {
            return Err(Error::NoImage(record.name).into());
        };
        let base = self.store.image_by_id(id).map_err(Error::from)?;
        let Some(base) = base else {
            return Err(Error::ImageGone { name: record.name, id: id.short() }.into());
        };
        let pause = options.pause && matches!(status, Status::Running(_));
        if pause {
            self.pause(text)?;
        }
        let packed = self.pack(&record, options.squash);
        if pause {
            // Before anything else may fail.
            self.unpause(text)?;
        }
        let config = configuration(&base, &record, new, options);
        let by = [&*record.config.entrypoint, &record.config.command].concat().join(" ");
        let draft = Draft {
            base: (!options.squash).then_some(&base),
            layer: Some(packed?),
            config,
            history: history(new, &by, options.squash.then(|| base.display_name())),
            names,
            format: new.format,
        };
        let image = self.make(COMMIT, &record.name, draft)?;
        self.note(Event::container("commit", &record));
        Ok(image)
    }

    /// Makes an image with one layer of an archive, compressed or not.
    pub fn import(
        &self,
        path: &Path,
        file: &mut (dyn Read + Send),
        new: &NewImage,
        platform: &Platform,
    ) -> Result<ImageRecord, EngineError> {
        let names = full_name(new.name.as_deref())?;
        let named = |source| Error::Source { path: path.to_owned(), source };
        let target = create::spool_file(&self.store).map_err(Error::from)?;
        let name = path.display().to_string();
        // In a process of its own: decompressing takes threads, and what comes then must not have any.
        let told = child::call(None, || {
            let failed = |source: io::Error| Failure::new(&source, full_disk(&source));
            create::spool(&target, file, MAX_IMPORT).map_err(failed)
        });
        let (diff_id, size) = apart::told(IMPORT, &name, told).map_err(Error::from)?;
        if size == 0 {
            return Err(named(io::ErrorKind::UnexpectedEof.into()).into());
        }
        let mut config = Map::new();
        let now = now();
        config.insert("created".to_owned(), now.into());
        config.insert("architecture".to_owned(), go_architecture(&platform.architecture).into());
        config.insert("os".to_owned(), platform.os.clone().into());
        if let Some(variant) = &platform.variant {
            config.insert("variant".to_owned(), variant.clone().into());
        }
        if let Some(author) = &new.author {
            config.insert("author".to_owned(), author.clone().into());
        }
        let mut container = Map::new();
        new.changes.iter().for_each(|change| change.apply(&mut container));
        config.insert("config".to_owned(), Value::Object(container));
        let message = format!("imported from {}", if name == "-" { "standard input" } else { &name });
        let history = NewImage { message: new.message.clone().or(Some(message)), ..new.clone() };
        let draft = Draft {
            base: None,
            layer: Some(Spooled { file: target, diff_id, size }),
            config,
            history: self::history(&history, "umiak import", None),
            names,
            format: new.format,
        };
        self.make(IMPORT, &name, draft)
    }

    /// What a container has changed, or all that it has, as an archive.
    fn pack(&self, record: &ContainerRecord, all: bool) -> Result<Spooled, Error> {
        let each = |packer: &mut Filling<'_, '_>, files: &Files| {
            let Files { upper, lower, copied } = files;
            if all {
                let mut trees = vec![upper.clone()];
                trees.extend(lower.iter().filter(|_| !*copied).cloned());
                visit::visit(&trees, &mut |found| append(packer, found, false))
            } else {
                visit::visit_layer(upper, lower, *copied, &mut |found| append(packer, found, true))
            }
        };
        Ok(self.pack_with(COMMIT, record, |packer, files| each(packer, files).map(|()| 1))?.0)
    }

    /// What a step of a build has changed, but for what was made to mount something at `destinations`; none if
    /// that is nothing.
    pub(super) fn pack_step(
        &self,
        record: &ContainerRecord,
        destinations: &[String],
        times: Times,
    ) -> Result<Option<Spooled>, Error> {
        let packed = self.pack_with(BUILD, record, |packer, Files { upper, lower, copied }| {
            let at = |source| visit::Failed { path: PathBuf::from("/"), source };
            let root = Root::open(&upper.path).map_err(at)?;
            let ours = OURS.iter().map(|path| String::from_utf8_lossy(path).into_owned());
            let destinations: Vec<String> = destinations.iter().cloned().chain(ours).collect();
            for stub in changes::stubs(lower, &destinations).map_err(at)? {
                root.remove_if_empty(&stub).map_err(|source| visit::Failed { path: stub, source })?;
            }
            let mut changes = Changes::new(packer, lower, times);
            visit::visit_layer(upper, lower, *copied, &mut |found| {
                if is_ours(&found, true) { Ok(()) } else { changes.take(found) }
            })?;
            Ok(changes.count)
        })?;
        Ok(Some(packed.0).filter(|_| packed.1 > 0))
    }

    /// An archive of a container's files as `fill` finds them, and what it gives: how many there are. It is called
    /// in a process of its own.
    fn pack_with(
        &self,
        action: &'static str,
        record: &ContainerRecord,
        fill: impl FnOnce(&mut Filling<'_, '_>, &Files) -> Result<u64, visit::Failed>,
    ) -> Result<(Spooled, u64), Error> {
        let files = self.files(record);
        let owner = self.owner_inside(record, files.copied);
        let target = create::spool_file(&self.store)?;
        let work = || -> Result<(Digest, u64, u64), Failure> {
            let spool = BufWriter::with_capacity(1 << 17, Spool::new(&target));
            let one_id = record.mapping.as_ref().is_some_and(IdMapping::is_single);
            let mut packer = Packer::new(spool, &*owner).remembering(one_id);
            let failed = |path: &Path, source: &io::Error| Failure {
                message: format!("\"{}\": {}", path.display(), crate::base::report::chain(source)),
                hint: full_disk(source),
                misnamed: false,
            };
            let count =
                fill(&mut packer, &files).map_err(|visit::Failed { path, source }| failed(&path, &source))?;
            let spool =
                packer.finish().and_then(|out| out.into_inner().map_err(io::IntoInnerError::into_error));
            let (digest, size) = spool.map_err(|source| failed(&self.paths.root, &source))?.finish();
            Ok((digest, size, count))
        };
        let told = child::call(self.files_mapping(record).as_ref(), work);
        let (diff_id, size, count) = apart::told(action, &record.name, told)?;
        Ok((Spooled { file: target, diff_id, size }, count))
    }

    /// Unpacks the layer and records the image.
    fn make(&self, action: &'static str, name: &str, draft: Draft<'_>) -> Result<ImageRecord, EngineError> {
        let ownership = self.ownership();
        let told = self.in_child(true, || {
            let hint = |error: &create::Error| match error {
                create::Error::Layer(layer) => super::images::layer_hint(layer),
                create::Error::Spool { source, .. } => full_disk(source),
                _ => None,
            };
            let made = create::make(&self.store, draft, ownership);
            let image = made.map_err(|error| Failure::new(&error, hint(&error)))?;
            super::images::sync_later(&self.store, &image);
            Ok(image.id)
        });
        let id = apart::told(action, name, told).map_err(Error::from)?;
        let image = self.store.image_by_id(&id).map_err(Error::from)?;
        image.ok_or_else(|| EngineError::ImageGone(id.short()))
    }
}

fn full_disk(error: &io::Error) -> Option<String> {
    (error.kind() == io::ErrorKind::StorageFull)
        .then(|| "the disk is full: umiak rmi removes images".to_owned())
}

/// The full name of a new image, below `localhost/` if it names no registry.
pub fn full_name(name: Option<&str>) -> Result<Vec<String>, Error> {
    let Some(name) = name else { return Ok(Vec::new()) };
    let reference: Reference = name.parse()?;
    if reference.digest().is_some() {
        return Err(Error::Digest(name.to_owned()));
    }
    Ok(source::local_name(name).into_iter().collect())
}

/// An archive that is being written.
type Filling<'p, 'f> = Packer<'p, BufWriter<Spool<'f>>>;

/// Writes a file into the archive, but for what was made only to mount something over it.
fn append(packer: &mut Filling<'_, '_>, found: Found<'_>, layer: bool) -> io::Result<()> {
    if is_ours(&found, layer) { Ok(()) } else { packer.append(found) }
}

/// Whether a file was made only to mount something over it, or is of no use in an archive.
fn is_ours(found: &Found<'_>, layer: bool) -> bool {
    let stat = found.stat;
    let ours = || {
        let path = found.path.as_os_str().as_encoded_bytes();
        OURS.iter().any(|ours| ours.strip_prefix(b"/") == Some(path))
    };
    match &found.content {
        // The root's own directory: as every container's is, unless somebody has changed that.
        Content::Directory if found.path.as_os_str().is_empty() => {
            (stat.st_mode & 0o7777, stat.st_uid, stat.st_gid) == (0o755, 0, 0)
        }
        Content::File(_) if layer && stat.st_size == 0 => ours(),
        Content::Directory if layer => ["dev", "proc", "sys"].iter().any(|own| found.path == Path::new(own)),
        Content::Whiteout => ours(),
        Content::Special => FileType::from_raw_mode(stat.st_mode) == FileType::Socket,
        _ => false,
    }
}

fn history(new: &NewImage, by: &str, from: Option<String>) -> Value {
    let mut entry = json!({ "created": now(), "created_by": by });
    if let Some(author) = &new.author {
        entry["author"] = json!(author);
    }
    let comment = match (&new.message, from) {
        (Some(message), _) => Some(message.clone()),
        (None, Some(from)) => Some(format!("squashed from {from}")),
        (None, None) => None,
    };
    if let Some(comment) = comment {
        entry["comment"] = json!(comment);
    }
    entry
}

/// The configuration of a committed image: the base's, then what the container was told, then changes.
fn configuration(
    base: &ImageRecord,
    record: &ContainerRecord,
    new: &NewImage,
    options: CommitOptions,
) -> Map<String, Value> {
    let mut config = base.config.as_object().cloned().unwrap_or_default();
    config.insert("created".to_owned(), now().into());
    match &new.author {
        Some(author) => drop(config.insert("author".to_owned(), author.clone().into())),
        None => drop(config.remove("author")),
    }
    for what_was_built in ["container", "container_config", "docker_version", "id", "parent"] {
        config.remove(what_was_built);
    }
    if options.squash {
        config.remove("history");
    }
    let mut container = config.get("config").and_then(Value::as_object).cloned().unwrap_or_default();
    let told = &record.config;
    let of_image = |key: &str| -> Vec<String> {
        let list = container.get(key).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let image_env = of_image("Env");
    // What every container gets is not the image's; what the image or the user set is.
    let given = |item: &&String| {
        let name = item.split('=').next().unwrap_or_default();
        let own = ["container", "HOSTNAME", "TERM"].contains(&name);
        !own || image_env.iter().any(|env| env.split('=').next() == Some(name))
    };
    let env: Vec<&String> = told.env.iter().filter(given).collect();
    let mut set = |key: &str, value: Value, empty: bool| {
        if empty { drop(container.remove(key)) } else { drop(container.insert(key.to_owned(), value)) }
    };
    set("Env", json!(env), env.is_empty());
    set("Entrypoint", json!(told.entrypoint), told.entrypoint.is_empty());
    set("Cmd", json!(told.command), told.command.is_empty());
    set("Labels", json!(told.labels), told.labels.is_empty());
    set("User", json!(told.user), told.user.is_empty());
    set("WorkingDir", json!(told.workdir), told.workdir.is_empty() || told.workdir == "/");
    if options.volumes {
        let paths = told.mounts.iter().filter(|mount| mount.kind != "tmpfs" && !mount.anonymous);
        let list: Vec<String> = paths.map(|mount| mount.destination.clone()).collect();
        Instruction::Volume(list).apply(&mut container);
    }
    new.changes.iter().for_each(|change| change.apply(&mut container));
    config.insert("config".to_owned(), Value::Object(container));
    config
}
