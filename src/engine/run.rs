//! Making a container and starting its monitor.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType, LinuxSeccomp};

use super::config::{self, ImageDefaults, Surroundings};
use super::request::RunRequest;
use super::{Engine, Error, name, specgen, volumes};
use crate::base::id::{ContainerId, check_name};
use crate::base::idmap::{self, IdMapping};
use crate::base::report;
use crate::cgroup::Manager;
use crate::monitor::{self, Job};
use crate::runtime::{CreateRequest, Gate, Rootfs, Stdio};
use crate::seccomp;
use crate::security::idmap::RungKind;
use crate::storage::Store;
use crate::storage::containers::{
    ContainerConfig, ContainerRecord, DeviceRecord, LogDriver, NetworkMode, RestartPolicy, RootfsSource,
    SeccompChoice, UsernsMode, record_version,
};
use crate::storage::events::Event;
use crate::storage::images::ImageRecord;
use crate::sys::atomic::{self, Durability};
use crate::sys::child;
use crate::sys::daemon;
use crate::sys::host;
use crate::sys::lock::Lock;
use crate::sys::process;

/// A container whose monitor has been started.
#[derive(Debug)]
pub struct Started {
    /// Its id.
    pub id: ContainerId,
    /// To its monitor.
    pub socket: OwnedFd,
    /// The write end of its standard input, if it was asked to be interactive without a terminal.
    pub stdin: Option<OwnedFd>,
}

impl Engine {
    /// Makes a container out of a request: its record, its volumes, its directory.
    pub fn create(
        &self,
        request: &RunRequest,
        image: Option<&ImageRecord>,
    ) -> Result<(ContainerRecord, Lock), Error> {
        // Until the record says that the image and the volumes are used, nobody may remove them.
        let _lock = self.store.lock_shared()?;
        if let Some(image) = image
            && !self.store.has_image(&image.id)
        {
            return Err(Error::ImageGone(request.image.clone()));
        }
        let mut random = [0; 32];
        atomic::fill_random(&mut random).map_err(Error::Random)?;
        let id = ContainerId::from_random(random);
        let given = request.name.clone();
        if let Some(name) = &given {
            check_name(name)?;
        }
        let env: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let around = Surroundings {
            cwd: &std::env::current_dir().map_err(Error::WorkingDirectory)?,
            env: &env,
            short_id: id.short(),
            host_name: &host::name(),
            root: self.rung().kind == RungKind::Root,
        };
        let defaults = image.map(image_defaults).transpose()?.unwrap_or_default();
        let mut config = config::resolve(request, &defaults, &around)?;
        if config.userns == UsernsMode::KeepId && request.user.is_none() && self.rung().kind != RungKind::Root
        {
            // As in Podman; and with one id there is no other to be.
            config.user = format!("{}:{}", host::uid(), host::gid());
        }
        let mapping = self.mapping(config.userns);
        check_sources(&config, mapping.is_none())?;
        if config.log.driver == LogDriver::Journald {
            let path = PathBuf::from(monitor::journal::SOCKET);
            monitor::journal::connect(&path).map_err(|source| Error::NoJournal { path, source })?;
        }
        let rootfs = match image {
            Some(image) => RootfsSource::Image {
                id: image.id,
                name: image.names.first().cloned().unwrap_or_else(|| request.image.clone()),
                digest: image.manifest,
                layers: image.layers.iter().map(|layer| layer.chain_id).collect(),
            },
            None => RootfsSource::Directory(self.directory_rootfs(&request.image)?),
        };
        volumes::provide(&self.paths.root, &id, &mut config.mounts)?;
        let mut record = ContainerRecord {
            version: record_version(),
            id: id.clone(),
            name: String::new(),
            created: host::now(),
            image_id: image.map(|image| image.id),
            rootfs,
            mapping,
            create_command: request.create_command.clone(),
            config,
        };
        let lock = self.publish(&mut record, given, request)?;
        if let Some(path) = &request.cidfile {
            let written = atomic::create_new(path, id.as_str().as_bytes(), 0o644, Durability::Volatile);
            if let Err(source) = written {
                self.discard(&record);
                return Err(Error::Cidfile { path: path.clone(), source });
            }
        }
        self.note(Event::container("create", &record));
        Ok((record, lock))
    }

    fn publish(
        &self,
        record: &mut ContainerRecord,
        given: Option<String>,
        request: &RunRequest,
    ) -> Result<Lock, Error> {
        // What is thrown away at its end need not outlive a power cut.
        let durability = if request.rm { Durability::Volatile } else { Durability::Synced };
        let mut replaced = false;
        loop {
            record.name = match &given {
                Some(name) => name.clone(),
                None => name::from_random(atomic::random().map_err(Error::Random)?),
            };
            match self.containers.create(record, durability) {
                Ok(created) => return Ok(created.lock),
                Err(crate::storage::containers::Error::NameInUse { .. }) if given.is_none() => {}
                Err(crate::storage::containers::Error::NameInUse { id, .. })
                    if request.replace && !replaced =>
                {
                    self.remove(&id, true, None)?;
                    replaced = true;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Takes back a container that could not be started.
    pub fn discard(&self, record: &ContainerRecord) {
        if let Ok(trash) = self.containers.remove(record) {
            self.note(Event::container("remove", record));
            self.delete(&trash, record);
        }
    }

    /// Deletes what a container left. What cannot be deleted now waits in the trash for others.
    pub fn delete(&self, path: &Path, record: &ContainerRecord) {
        let _ = self.store_of(record).discard(path);
    }

    /// The store, with the ids that the container's files belong to. Those of `keep-id` are the user's
    /// own in another order, and by its root the user's directories may not be passed.
    fn store_of(&self, record: &ContainerRecord) -> Store {
        self.store.clone().with_mapping(self.files_mapping(record))
    }

    /// In whose user namespace the container's files are read and removed.
    pub(super) fn files_mapping(&self, record: &ContainerRecord) -> Option<IdMapping> {
        match record.config.userns {
            UsernsMode::KeepId => self.mapping(UsernsMode::Default),
            UsernsMode::Default => record.mapping.clone(),
        }
    }

    /// `--rootfs DIR`.
    fn directory_rootfs(&self, text: &str) -> Result<PathBuf, Error> {
        let path =
            fs::canonicalize(text).map_err(|source| Error::RootfsDirectory { path: text.into(), source })?;
        if !path.is_dir() {
            let source = std::io::ErrorKind::NotADirectory.into();
            return Err(Error::RootfsDirectory { path, source });
        }
        Ok(path)
    }

    /// Starts the monitor of a container that its caller is in charge of.
    /// With `hold_stdin` the caller gets the end of the program's input, if it has one that is no
    /// terminal; else the monitor keeps it open.
    pub fn start(&self, record: ContainerRecord, lock: Lock, hold_stdin: bool) -> Result<Started, Error> {
        if self.needs_copy(&record) {
            self.copy_layers(&record)
                .map_err(|source| Error::CopyLayers { id: record.id.clone(), source })?;
        }
        let request = self.create_request(&record)?;
        self.containers.prepare_run_dir(&record.id)?;
        if record.config.restart != RestartPolicy::No {
            self.containers.set_stopped(&record.id, false)?;
        }
        let (ours, theirs) = monitor::socket_pair().map_err(Error::Socket)?;
        let id = record.id.clone();
        let (stdin_read, stdin_write) = if record.config.interactive
            && !record.config.tty
            && record.config.log.driver != LogDriver::Passthrough
            && hold_stdin
        {
            let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
                .map_err(|e| Error::Socket(e.into()))?;
            (Some(read), Some(write))
        } else {
            (None, None)
        };
        let store_of = self.store_of(&record);
        let tty = record.config.tty;
        let passed = passed(&record.config)?;
        match daemon::fork().map_err(Error::Fork)? {
            daemon::Fork::Child => {
                drop(ours);
                drop(stdin_write);
                let anonymous_volumes = volumes::anonymous(&self.paths.root, &record.config.mounts);
                let (copying, again, executing) = (self.clone(), self.clone(), self.clone());
                let inside = record.clone();
                let job = Job {
                    without_overlay: Box::new(move |record| {
                        copying.copy_layers(record)?;
                        copying.create_request(record).map_err(io::Error::other)
                    }),
                    again: Box::new(move |record| again.create_request(record).map_err(io::Error::other)),
                    executor: Box::new(move |state, words, stdio| {
                        let failed = |error: Error| (error.exit_code(), report::chain(&error));
                        executing.check_health(&inside, state, words, stdio).map_err(failed)
                    }),
                    anonymous_volumes,
                    containers: self.containers.clone(),
                    events: self.event_log(),
                    record,
                    request: Some(request),
                    passed,
                    client: theirs,
                    size: if tty { super::attach::terminal_size() } else { None },
                    stdin: stdin_read,
                    lock,
                    sweep: {
                        let store = store_of.clone();
                        Box::new(move || drop(store.sweep()))
                    },
                    delete: {
                        let store = store_of;
                        Box::new(move |path| drop(store.discard(path)))
                    },
                };
                process::exit_now(monitor::run(job))
            }
            daemon::Fork::Parent(_) => Ok(Started { id, socket: ours, stdin: stdin_write }),
        }
    }

    /// The runtime's request for a container's first process.
    fn create_request(&self, record: &ContainerRecord) -> Result<CreateRequest, Error> {
        let dir = self.containers.dir(&record.id);
        let copy = dir.join("rootfs");
        let rootfs = match &record.rootfs {
            RootfsSource::Directory(path) => Rootfs::Dir(path.clone()),
            // Made when an overlay was refused.
            RootfsSource::Image { .. } if copy.exists() => Rootfs::Dir(copy),
            RootfsSource::Image { layers, .. } => Rootfs::Overlay {
                lower: {
                    let store = self.layer_store(record);
                    layers.iter().rev().map(|chain_id| store.layer_dir(chain_id)).collect()
                },
                upper: dir.join("diff"),
                work: dir.join("work"),
                volatile: record.config.auto_remove,
                userxattr: record.mapping.is_some(),
            },
        };
        let host = specgen::Host {
            files: self.write_files(record)?,
            seccomp: seccomp_profile(&record.config)?,
            mqueue: Path::new("/dev/mqueue").exists(),
            cgroup_path: None,
            cgroup_mount: self.cgroup_mount(&record.config),
            devices: device_rules(record),
        };
        let spec = specgen::spec(record, dir.join("rootfs"), host)?;
        let mut request = CreateRequest::new(record.id.to_string(), spec, dir, rootfs);
        request.stdio = Stdio::Inherit;
        request.gate = Gate::Held;
        request.init = record.config.init;
        request.user_by_name = Some(record.config.user.clone());
        request.create_cwd = true;
        request.cgroup = if record.config.cgroups { Manager::Cgroupfs } else { Manager::Disabled };
        Ok(request)
    }

    /// Whether the layers' owners are others than this container's mapping needs: overlayfs takes no
    /// id-mapped layers from users.
    fn needs_copy(&self, record: &ContainerRecord) -> bool {
        record.config.userns == UsernsMode::KeepId
            && record.mapping.as_ref().is_some_and(|mapping| !mapping.is_single())
            && matches!(record.rootfs, RootfsSource::Image { .. })
            && !self.containers.dir(&record.id).join("rootfs").exists()
    }

    /// Copies an image's layers into a rootfs of the container's own: what remains where overlayfs
    /// is missing or cannot write to the store's file system, and where the container's ids are not
    /// those that the layers were unpacked with.
    fn copy_layers(&self, record: &ContainerRecord) -> io::Result<()> {
        let RootfsSource::Image { layers, .. } = &record.rootfs else { return Ok(()) };
        let store = self.layer_store(record);
        let layers: Vec<PathBuf> = layers.iter().map(|chain_id| store.layer_tree(chain_id)).collect();
        let dir = self.containers.dir(&record.id);
        let staging = dir.join("rootfs.part");
        // A container's id means a host's id by the container's own mapping; with one id the archive's
        // owners are lost, and all files have that one's.
        let other = record.config.userns == UsernsMode::KeepId
            && record.mapping.as_ref().is_some_and(|mapping| !mapping.is_single());
        let unpacked_with = if other { self.mapping(UsernsMode::Default) } else { record.mapping.clone() };
        let owner = |uid, gid| {
            let (Some(own), Some(here), true) = (&record.mapping, &unpacked_with, other) else {
                return Some((uid, gid));
            };
            let translate = |id, own: &[_], here: &[_]| {
                IdMapping::to_host(own, id).and_then(|host| IdMapping::to_container(here, host))
            };
            Some((translate(uid, &own.uids, &here.uids)?, translate(gid, &own.gids, &here.gids)?))
        };
        let merge = || {
            let errno = |error: io::Error| error.raw_os_error().unwrap_or(libc::EIO);
            crate::sys::tree::remove_all(&staging).map_err(errno)?;
            fs::create_dir(&staging).map_err(errno)?;
            fs::set_permissions(&staging, fs::Permissions::from_mode(0o755)).map_err(errno)?;
            crate::sys::flatten::merge(&layers, &staging, &owner).map_err(errno)
        };
        child::call(unpacked_with.as_ref(), merge)
            .map_err(io::Error::other)?
            .map_err(io::Error::from_raw_os_error)?;
        fs::rename(&staging, dir.join("rootfs"))
    }

    /// Writes the files that are bound over `/etc/hosts` and its like.
    fn write_files(&self, record: &ContainerRecord) -> Result<Vec<(String, PathBuf)>, Error> {
        let config = &record.config;
        let dir = self.containers.dir(&record.id);
        let host_network = config.network == NetworkMode::Host;
        let resolv = if host_network {
            fs::read_to_string("/etc/resolv.conf").unwrap_or_default()
        } else {
            String::new()
        };
        let hosts =
            if host_network { fs::read_to_string("/etc/hosts").unwrap_or_default() } else { String::new() };
        let mut hosts = if hosts.is_empty() {
            "127.0.0.1\tlocalhost localhost.localdomain\n::1\tlocalhost localhost.localdomain\n".to_owned()
        } else {
            hosts
        };
        if !host_network {
            hosts.push_str(&format!("127.0.0.1\t{} {}\n", config.hostname, record.name));
        }
        let mut files = Vec::with_capacity(4);
        for (name, place, text) in [
            ("hosts", "/etc/hosts", hosts),
            ("resolv.conf", "/etc/resolv.conf", resolv),
            ("hostname", "/etc/hostname", format!("{}\n", config.hostname)),
            ("containerenv", "/run/.containerenv", String::new()),
        ] {
            let path = dir.join(name);
            fs::write(&path, text).map_err(|source| Error::File {
                action: "writing",
                path: path.clone(),
                source,
            })?;
            files.push((place.to_owned(), path));
        }
        Ok(files)
    }

    /// The ids of a container of this mode; none for root's.
    pub(super) fn mapping(&self, userns: UsernsMode) -> Option<IdMapping> {
        match (self.rung().kind, userns) {
            (RungKind::Root, _) => None,
            (_, UsernsMode::Default) => Some(self.rung().mapping.clone()),
            (_, UsernsMode::KeepId) => {
                let rung = &self.rung().mapping;
                Some(IdMapping {
                    uids: idmap::keeping(&rung.uids, host::uid()),
                    gids: idmap::keeping(&rung.gids, host::gid()),
                })
            }
        }
    }

    fn cgroup_mount(&self, config: &ContainerConfig) -> bool {
        config.cgroupns == crate::storage::containers::NamespaceMode::Private
    }
}

/// Refuses mounts and devices whose source is not there, before anything is made.
/// `ruled`: there can be rules for devices, as for root outside of a user namespace.
fn check_sources(config: &ContainerConfig, ruled: bool) -> Result<(), Error> {
    use std::os::unix::fs::FileTypeExt;
    for mount in config.mounts.iter().filter(|mount| mount.kind == "bind") {
        fs::metadata(&mount.source)
            .map_err(|source| Error::MountSource { path: mount.source.clone().into(), source })?;
    }
    for device in &config.devices {
        let path = PathBuf::from(&device.host);
        let kind =
            fs::metadata(&path).map_err(|source| Error::Device { path: path.clone(), source })?.file_type();
        if !kind.is_char_device() && !kind.is_block_device() {
            return Err(Error::NoDevice(path));
        }
        if is_restricted(device) && (!ruled || !config.cgroups) {
            return Err(Error::DevicePermissions { path, permissions: device.permissions.clone() });
        }
    }
    Ok(())
}

/// Our own streams for a program that gets them; none for others.
fn passed(config: &ContainerConfig) -> Result<Option<[OwnedFd; 3]>, Error> {
    if config.log.driver != LogDriver::Passthrough {
        return Ok(None);
    }
    let ours = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    // Through a terminal that is ours too the program could type commands to our shell (TIOCSTI).
    if config.tty || ours.iter().any(rustix::termios::isatty) {
        return Err(Error::PassthroughTerminal);
    }
    let dup = |fd| rustix::io::fcntl_dupfd_cloexec(fd, 3).map_err(|error| Error::Socket(error.into()));
    let [stdin, stdout, stderr] = ours;
    Ok(Some([dup(stdin)?, dup(stdout)?, dup(stderr)?]))
}

fn is_restricted(device: &DeviceRecord) -> bool {
    !(device.permissions.contains('r') && device.permissions.contains('w'))
}

/// What a container of root's that may make device nodes, or was given one not for everything, can do
/// with devices. In a user namespace no node that is made there is of any use, and the kernel takes no
/// rules.
fn device_rules(record: &ContainerRecord) -> Option<Vec<LinuxDeviceCgroup>> {
    let makes_nodes =
        record.config.capabilities.iter().any(|name| name.trim_start_matches("CAP_") == "MKNOD");
    let needed = makes_nodes || record.config.devices.iter().any(is_restricted);
    // Who switches control groups off does without.
    if record.mapping.is_some() || !record.config.cgroups || !needed {
        return None;
    }
    let rule = |device: &DeviceRecord| {
        // One that is not there is told of by the mount.
        let metadata = fs::metadata(&device.host).ok()?;
        let kind = match metadata.file_type() {
            kind if kind.is_block_device() => LinuxDeviceType::B,
            kind if kind.is_char_device() => LinuxDeviceType::C,
            _ => return None,
        };
        let mut rule = LinuxDeviceCgroup::default();
        rule.set_allow(true)
            .set_typ(Some(kind))
            .set_major(Some(i64::from(rustix::fs::major(metadata.rdev()))))
            .set_minor(Some(i64::from(rustix::fs::minor(metadata.rdev()))))
            .set_access(Some(device.permissions.clone()));
        Some(rule)
    };
    Some(record.config.devices.iter().filter_map(rule).collect())
}

/// The filter that a container's configuration chooses.
pub fn seccomp_profile(config: &ContainerConfig) -> Result<Option<LinuxSeccomp>, Error> {
    match &config.seccomp {
        SeccompChoice::Unconfined => Ok(None),
        SeccompChoice::Default => {
            let capabilities = config.capabilities.iter().filter_map(|name| name.parse().ok()).collect();
            Ok(Some(seccomp::default_profile(&capabilities)))
        }
        SeccompChoice::Profile { path, content } => {
            let conditions = seccomp::file::Conditions {
                capabilities: &config.capabilities,
                architecture: crate::image::manifest::own_architecture(),
                kernel: host::kernel_version(),
            };
            seccomp::file::parse(content, &conditions)
                .map(Some)
                .map_err(|source| Error::SeccompProfile { path: path.clone(), source })
        }
    }
}

fn image_defaults(image: &ImageRecord) -> Result<ImageDefaults, Error> {
    let config = image.container_config()?;
    Ok(ImageDefaults {
        entrypoint: config.entrypoint,
        command: config.cmd,
        env: config.env,
        user: config.user,
        workdir: config.working_dir,
        volumes: config.volumes.into_keys().collect(),
        labels: config.labels,
        stop_signal: (!config.stop_signal.is_empty()).then_some(config.stop_signal),
        healthcheck: config.healthcheck,
    })
}
