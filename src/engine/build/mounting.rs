//! `RUN --mount`: what a step has mounted while it runs, and nobody after it.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{FileType, OFlags};

use super::error::Failed;
use super::request::{BuildRequest, SecretSource};
use super::state::State;
use crate::base::digest::Digest;
use crate::engine::Engine;
use crate::engine::images::Failure;
use crate::engine::mounts;
use crate::image::dockerfile::Mount;
use crate::security::idmap::RungKind;
use crate::storage::BUILDING;
use crate::storage::containers::MountRecord;
use crate::sys::atomic;
use crate::sys::lock::Lock;
use crate::sys::path::Root;

/// Most bytes of a secret: BuildKit's limit, too.
const LARGEST_SECRET: u64 = 500 << 10;

/// A directory for what only this build may have: it goes with it. That of a build that was killed has a lock that is
/// free: [`crate::storage::Store::sweep`] removes it.
#[derive(Debug)]
pub(super) struct Scratch {
    path: PathBuf,
    _lock: Lock,
}

impl Scratch {
    /// Makes one in the volatile part of the store, where secrets may be.
    pub fn new(runroot: &Path) -> Result<Self, Failed> {
        let dir = runroot.join(BUILDING);
        let failed = |action| {
            let path = dir.clone();
            move |source| Failed::File { action, path, source }
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(failed("creating"))?;
        Self::within(&dir, "")
    }

    fn within(dir: &Path, prefix: &str) -> Result<Self, Failed> {
        let failed =
            |source| Failed::File { action: "creating a directory in", path: dir.to_owned(), source };
        let path = dir.join(format!("{prefix}{:016x}", atomic::random().map_err(failed)?));
        let lock = Lock::new_directory(&path, 0o700).map_err(failed)?;
        Ok(Self { path, _lock: lock })
    }

    /// Writes a file of the user's own.
    fn write(&self, name: &str, bytes: &[u8], mode: u32) -> Result<PathBuf, Failed> {
        let path = self.path.join(name);
        let failed = |source| Failed::File { action: "writing", path: path.clone(), source };
        let _ = fs::remove_file(&path);
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
        file.write_all(bytes).map_err(failed)?;
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode)).map_err(failed)?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// What a step has mounted.
#[derive(Debug, Default)]
pub(super) struct Mounted {
    /// For the container.
    pub mounts: Vec<MountRecord>,
    /// Variables besides, as `NAME=value`.
    pub env: Vec<String>,
    /// Of caches that only one may have at a time.
    locks: Vec<Lock>,
    /// Of scripts.
    scratch: Vec<Scratch>,
    /// What the key of the step has of them: what they are, not what is in them.
    pub words: Vec<String>,
}

/// From where a mount of kind `bind` comes.
pub(super) enum Source<'a> {
    /// A context's root.
    Context(&'a Root),
    /// A stage or an image.
    State(&'a State),
}

/// Prepares the mounts of a step.
pub(super) struct Mounting<'a> {
    pub engine: &'a Engine,
    pub request: &'a BuildRequest,
    pub scratch: Rc<Scratch>,
    pub workdir: &'a str,
}

impl Mounting<'_> {
    fn failed(kind: &str, why: impl Into<String>) -> Failed {
        Failed::Mount { kind: format!("type \"{kind}\""), why: why.into() }
    }

    fn target(&self, mount: &Mount) -> Option<String> {
        let target = mount.target.as_deref().filter(|target| !target.is_empty())?;
        let from = if target.starts_with('/') { "" } else { self.workdir };
        Some(mounts::clean(&format!("{from}/{target}")))
    }

    fn needed_target(&self, mount: &Mount) -> Result<String, Failed> {
        self.target(mount).ok_or_else(|| Self::failed(&mount.kind, "it needs a target"))
    }

    fn record(kind: &str, source: PathBuf, target: &str, options: &[&str]) -> Result<MountRecord, Failed> {
        let source = source.into_os_string().into_string();
        let source = source.map_err(|path| Self::failed(kind, format!("the path {path:?} is no UTF-8")))?;
        mounts::of_step(kind, source, target, options).map_err(|error| Self::failed(kind, error.to_string()))
    }

    /// Adds one. `source` is what the mount's `from` means.
    pub fn add(&self, into: &mut Mounted, mount: &Mount, source: Option<&Source<'_>>) -> Result<(), Failed> {
        into.words.push(format!("{:?}", Mount { required: false, ..mount.clone() }));
        match &*mount.kind {
            "bind" => self.bind(into, mount, source),
            "cache" => self.cache(into, mount),
            "tmpfs" => {
                let size = mount.size.map(|size| format!("size={size}"));
                let options: Vec<&str> = ["notmpcopyup"].into_iter().chain(size.as_deref()).collect();
                into.mounts.push(Self::record(
                    "tmpfs",
                    PathBuf::new(),
                    &self.needed_target(mount)?,
                    &options,
                )?);
                Ok(())
            }
            "secret" => self.secret(into, mount),
            "ssh" => self.ssh(into, mount),
            other => Err(Self::failed(other, "there is no such type")),
        }
    }

    fn bind(&self, into: &mut Mounted, mount: &Mount, source: Option<&Source<'_>>) -> Result<(), Failed> {
        let target = self.needed_target(mount)?;
        let below = mount.source.as_deref().unwrap_or("/");
        let read_only = mount.read_only.unwrap_or(true);
        match source {
            None => Err(Self::failed("bind", "there is no context")),
            Some(Source::Context(root)) => {
                // Resolved beneath the context: a link that leads out of it leads to what has that name in it.
                let found =
                    root.open_in(Path::new(below), OFlags::PATH, 0).and_then(|found| root.place_of(found));
                let place = found.and_then(|found| Ok((root.path()?, found)));
                let (path, found) =
                    place.map_err(|error| Self::failed("bind", format!("\"{below}\": {error}")))?;
                let found = found.into_os_string().into_string();
                let found =
                    found.map_err(|path| Self::failed("bind", format!("the path {path:?} is no UTF-8")))?;
                // What the step writes is its own, and gone when it ends.
                let options: &[&str] = if read_only { &["ro"] } else { &["O"] };
                let mut record = Self::record("bind", path, &target, options)?;
                // Resolved once more when it is mounted, so that nothing is won by putting a link in its place now.
                record.subpath = Some(mounts::clean(&found)).filter(|path| path != "/");
                into.mounts.push(record);
                Ok(())
            }
            Some(Source::State(state)) => {
                if state.layers.is_empty() {
                    return Err(Self::failed(
                        "bind",
                        format!("\"{}\" has no files", mount.from.as_deref().unwrap_or_default()),
                    ));
                }
                let mut record = Self::record(
                    "image",
                    "image".into(),
                    &target,
                    if read_only { &["ro"] } else { &["rw"] },
                )?;
                record.layers = state.layers.iter().map(|layer| layer.chain_id).collect();
                record.subpath = Some(mounts::clean(below)).filter(|path| path != "/");
                into.words.push(format!("{:?}", record.layers.last()));
                into.mounts.push(record);
                Ok(())
            }
        }
    }

    fn cache(&self, into: &mut Mounted, mount: &Mount) -> Result<(), Failed> {
        let target = self.needed_target(mount)?;
        if mount.from.is_some() {
            return Err(Failed::Unsupported("--mount=type=cache with from".to_owned()));
        }
        let name = mount.id.as_deref().unwrap_or(&target);
        let (mut turn, sharing) = (0, mount.sharing.as_deref().unwrap_or("shared"));
        let place = loop {
            let of_turn = if turn == 0 { name.to_owned() } else { format!("{name}\0{turn}") };
            let place = self.engine.store.build_mount(&Digest::of(of_turn.as_bytes()))?;
            let file = place.join("lock");
            let taken = match sharing {
                "shared" => Lock::shared(&file).map(Some),
                "locked" => Lock::exclusive(&file).map(Some),
                "private" => Lock::try_exclusive(&file),
                other => {
                    return Err(Self::failed(
                        "cache",
                        format!("sharing \"{other}\": shared, private or locked"),
                    ));
                }
            };
            let taken = taken.map_err(|source| Failed::File { action: "locking", path: file, source })?;
            match taken {
                // Somebody may have removed it before it was locked.
                Some(lock) if lock.is_at(&place.join("lock")) => {
                    into.locks.push(lock);
                    break place;
                }
                Some(_) => {}
                None => turn += 1,
            }
        };
        let (owner, mode) = ((mount.uid.unwrap_or(0), mount.gid.unwrap_or(0)), mount.mode.unwrap_or(0o755));
        let data = place.join("data");
        self.own(&data, true, owner, mode)?;
        let options: &[&str] = if mount.read_only == Some(true) { &["ro"] } else { &["rw"] };
        into.mounts.push(Self::record("bind", data, &target, options)?);
        Ok(())
    }

    /// Gives a file or (making it where it is missing) a directory its owner and mode, as the container sees them.
    fn own(&self, path: &Path, directory: bool, (uid, gid): (u32, u32), mode: u32) -> Result<(), Failed> {
        let one_id = self.engine.rung().kind == RungKind::Single;
        let work = || -> io::Result<()> {
            use std::os::unix::fs::PermissionsExt;
            if directory {
                match fs::DirBuilder::new().mode(mode).create(path) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
                    other => other?,
                }
            }
            // With one id all are that one.
            if !one_id && (uid, gid) != (0, 0) {
                std::os::unix::fs::lchown(path, Some(uid), Some(gid))?;
            }
            fs::set_permissions(path, fs::Permissions::from_mode(mode))
        };
        let told = self.engine.in_child(true, || work().map_err(|error| Failure::new(&error, None)));
        let failed = |Failure { message, hint, .. }| Failed::Told {
            message: format!("preparing \"{}\": {message}", path.display()),
            hint,
        };
        told?.map_err(failed)
    }

    fn secret(&self, into: &mut Mounted, mount: &Mount) -> Result<(), Failed> {
        let named = |path: &Option<String>| Some(path.as_deref()?.rsplit('/').next()?.to_owned());
        let id = mount.id.clone().or_else(|| named(&mount.source)).or_else(|| named(&mount.target));
        let id = id.ok_or_else(|| Self::failed("secret", "it needs an id"))?;
        let given = self.request.secrets.iter().find(|(name, _)| *name == id);
        let Some((_, source)) = given else {
            return match mount.required {
                true => {
                    Err(Self::failed("secret", format!("\"{id}\" was not given: --secret id={id},src=FILE")))
                }
                false => Ok(()),
            };
        };
        let bytes = match source {
            SecretSource::Env(name) => std::env::var_os(name)
                .map(std::os::unix::ffi::OsStringExt::into_vec)
                .ok_or_else(|| Self::failed("secret", format!("the variable {name} is not set")))?,
            SecretSource::File(path) => read_secret(path).map_err(|source| Failed::File {
                action: "reading the secret",
                path: path.clone(),
                source,
            })?,
        };
        if let Some(name) = &mount.env {
            let text = String::from_utf8(bytes.clone());
            let text = text.map_err(|_| Self::failed("secret", format!("\"{id}\" is no text for {name}")))?;
            into.env.push(format!("{name}={text}"));
            if mount.target.is_none() {
                return Ok(());
            }
        }
        let target = self.target(mount).unwrap_or_else(|| format!("/run/secrets/{id}"));
        let (owner, mode) = ((mount.uid.unwrap_or(0), mount.gid.unwrap_or(0)), mount.mode.unwrap_or(0o400));
        let path = self.scratch.write(&format!("secret-{}", into.mounts.len()), &bytes, 0o600)?;
        self.own(&path, false, owner, mode)?;
        into.mounts.push(Self::record("bind", path, &target, &["ro"])?);
        Ok(())
    }

    fn ssh(&self, into: &mut Mounted, mount: &Mount) -> Result<(), Failed> {
        let id = mount.id.as_deref().unwrap_or("default");
        let Some((_, socket)) = self.request.ssh.iter().find(|(name, _)| name == id) else {
            return match mount.required {
                true => Err(Self::failed("ssh", format!("\"{id}\" was not given: --ssh {id}"))),
                false => Ok(()),
            };
        };
        let is_socket = fs::metadata(socket).map(|found| found.file_type().is_socket());
        match is_socket {
            Ok(true) => {}
            Ok(false) => {
                return Err(Self::failed("ssh", format!("\"{}\" is no agent's socket", socket.display())));
            }
            Err(source) => {
                return Err(Failed::File { action: "looking for the agent", path: socket.clone(), source });
            }
        }
        let number = into.env.iter().filter(|item| item.starts_with("SSH_AUTH_SOCK=")).count();
        let target = self.target(mount).unwrap_or_else(|| format!("/run/umiak/ssh-agent.{number}"));
        into.env.push(format!("SSH_AUTH_SOCK={target}"));
        into.mounts.push(Self::record("bind", socket.clone(), &target, &["rw"])?);
        Ok(())
    }

    /// A script that stands in the Dockerfile and names its own interpreter: a file that can be run.
    pub fn script(&self, into: &mut Mounted, text: &str) -> Result<String, Failed> {
        let target = "/run/umiak/script".to_owned();
        // Not with the secrets: that place may forbid to run what is in it.
        let scratch = Scratch::within(&self.engine.store.path("staging"), "script-")?;
        let path = scratch.write("script", text.as_bytes(), 0o755)?;
        into.scratch.push(scratch);
        into.mounts.push(Self::record("bind", path, &target, &["ro", "exec"])?);
        Ok(target)
    }
}

/// The content of a file that is no device without an end.
fn read_secret(path: &Path) -> io::Result<Vec<u8>> {
    use io::Read;
    let file = fs::File::open(path)?;
    if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) == FileType::Directory {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let mut bytes = Vec::new();
    file.take(LARGEST_SECRET + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST_SECRET {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}
