//! Making a container and starting its monitor.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::config::{self, ImageDefaults, Surroundings};
use super::lifecycle::may_restart;
use super::network::live::Live;
use super::request::RunRequest;
use super::{Engine, Error, dependents, limits, name, sources, specgen, volumes};
use crate::base::digest::ChainId;
use crate::base::id::{ContainerId, check_name};
use crate::base::idmap::{IdMapping, IdRange};
use crate::base::report;
use crate::monitor::protocol::Request;
use crate::monitor::{self, Job};
use crate::runtime::{CreateRequest, Gate, Overlay, Rootfs, Stdio};
use crate::security::idmap::RungKind;
use crate::storage::Store;
use crate::storage::containers::{
    ContainerConfig, ContainerRecord, LogDriver, NamespaceMode, NetworkMode, RootfsSource, Status,
    UsernsMode, record_version,
};
use crate::storage::events::Event;
use crate::storage::images::ImageRecord;
use crate::sys::atomic::{self, Durability};
use crate::sys::lock::Lock;
use crate::sys::userns::Begun;
use crate::sys::{child, daemon, host, process, socket};

/// A container whose monitor has been started.
#[derive(Debug)]
pub struct Started {
    /// Its id.
    pub id: ContainerId,
    /// To its monitor.
    pub socket: OwnedFd,
    /// The write end of its standard input, if it was asked to be interactive without a terminal.
    pub stdin: Option<OwnedFd>,
    /// Namespaces that were begun for it: to be kept until it has started.
    pub begun: Option<Begun>,
}

impl Engine {
    /// Makes a container out of a request: its record, its volumes, its directory.
    pub fn create(
        &self,
        request: &RunRequest,
        image: Option<&ImageRecord>,
    ) -> Result<(ContainerRecord, Lock), Error> {
        self.make_container(request, image, false).map(|(record, lock, _)| (record, lock))
    }

    /// The same of one that is to be started at once: with what can be begun of it beside its being written down.
    pub fn create_to_start(
        &self,
        request: &RunRequest,
        image: Option<&ImageRecord>,
    ) -> Result<(ContainerRecord, Lock, Option<Begun>), Error> {
        self.make_container(request, image, true)
    }

    fn make_container(
        &self,
        request: &RunRequest,
        image: Option<&ImageRecord>,
        starts: bool,
    ) -> Result<(ContainerRecord, Lock, Option<Begun>), Error> {
        // Until the record says that the image and the volumes are used, nobody may remove them.
        let _lock = self.store.lock_shared()?;
        if let Some(image) = image
            // What a build stands on is pinned by it, and no image yet.
            && request.build.is_none()
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
            find: &|text| self.find_record(text),
        };
        let defaults = image.map(image_defaults).transpose()?.unwrap_or_default();
        let mut config = config::resolve(request, &defaults, &around)?;
        self.check_network(&mut config)?;
        let _ids = self.lock_ids(&config)?;
        let mapping = self.resolve_mapping(request, &mut config, image)?;
        let mapping = self.as_its_user(mapping, &config, request, image);
        if config.userns == UsernsMode::KeepId && request.user.is_none() {
            // As in Podman; and with one id there is no other to be.
            let inside = |ranges: &[IdRange], own| IdMapping::to_container(ranges, own).unwrap_or(own);
            config.user = mapping.as_ref().map_or_else(String::new, |mapping| {
                format!("{}:{}", inside(&mapping.uids, host::uid()), inside(&mapping.gids, host::gid()))
            });
        }
        if config.privileged && mapping.is_none() {
            config.capabilities.retain(|name| specgen::held(name));
        }
        sources::check(&config, mapping.is_none())?;
        Self::check_fast(&config, mapping.is_some())?;
        if config.log.driver == LogDriver::Journald {
            let path = PathBuf::from(monitor::journal::SOCKET);
            monitor::journal::connect(&path).map_err(|source| Error::NoJournal { path, source })?;
        }
        self.resolve_images(&mut config)?;
        let rootfs = match image {
            Some(image) => RootfsSource::Image {
                id: image.id,
                name: image.names.first().cloned().unwrap_or_else(|| request.image.clone()),
                digest: image.manifest,
                layers: image.layers.iter().map(|layer| layer.chain_id).collect(),
            },
            None => {
                let mapping = mapping.as_ref();
                RootfsSource::Directory(self.directory_rootfs(&request.image, mapping, &mut config)?)
            }
        };
        let mut record = ContainerRecord {
            version: record_version(),
            id: id.clone(),
            name: String::new(),
            created: host::now(),
            image_id: image.filter(|_| request.build.is_none()).map(|image| image.id),
            rootfs,
            mapping,
            create_command: request.create_command.clone(),
            waits: request.waits,
            config: Box::new(config),
        };
        record.config.one_id = self.one_id(&record)?;
        if record.config.rootfs_ids.is_none() {
            record.config.rootfs_ids = self.layer_ids(&record);
        }
        let begun = if starts { begin(&record) } else { None };
        let lock = match self.provide_and_publish(&mut record, given, request) {
            Ok(lock) => lock,
            Err(error) => {
                self.remove_anonymous_volumes(&record);
                return Err(error);
            }
        };
        self.write_cidfile(&record)?;
        self.note(Event::container("create", &record));
        Ok((record, lock, begun))
    }

    /// Writes the ID where it was asked for; takes the container back where that cannot be.
    fn write_cidfile(&self, record: &ContainerRecord) -> Result<(), Error> {
        let Some(path) = &record.config.marks.cidfile else { return Ok(()) };
        let written = atomic::create_new(path, record.id.as_str().as_bytes(), 0o644, Durability::Volatile);
        written.map_err(|source| {
            self.discard(record);
            Error::Cidfile { path: path.clone(), source }
        })
    }

    /// Makes the volumes of a container, then the container.
    fn provide_and_publish(
        &self,
        record: &mut ContainerRecord,
        given: Option<String>,
        request: &RunRequest,
    ) -> Result<Lock, Error> {
        let root = &self.paths.root;
        let new = self.provide_volumes(&record.id, &mut record.config.mounts)?;
        if !request.volumes_from.is_empty() {
            volumes::share(root, &record.config.mounts)?;
        }
        if self.has_other_ids(record) {
            self.give_to_root(record, new.iter().map(PathBuf::as_path))?;
        }
        for other in dependents::needed(&record.config) {
            self.containers.add_dependent(other, &record.id)?;
        }
        self.publish(record, given, request)
    }

    fn publish(
        &self,
        record: &mut ContainerRecord,
        given: Option<String>,
        request: &RunRequest,
    ) -> Result<Lock, Error> {
        // What is thrown away at its end need not outlive a power cut.
        let durability = if request.rm { Durability::Volatile } else { Durability::Synced };
        let (mut replaced, mut failed) = (false, 0);
        loop {
            record.name = match &given {
                Some(name) => name.clone(),
                None => name::from_random(atomic::random().map_err(Error::Random)?, failed),
            };
            match self.containers.create(record, durability) {
                Ok(created) => return Ok(created.lock),
                Err(crate::storage::containers::Error::NameInUse { .. }) if given.is_none() => failed += 1,
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
            self.remove_anonymous_volumes(record);
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
        if self.has_other_ids(record) { self.default_mapping() } else { record.mapping.clone() }
    }

    /// `--rootfs DIR`, `DIR:O`, `DIR:idmap` and `DIR:idmap=uids=0-100000-65536;gids=0-100000-65536`.
    fn directory_rootfs(
        &self,
        text: &str,
        mapping: Option<&IdMapping>,
        config: &mut ContainerConfig,
    ) -> Result<PathBuf, Error> {
        let failed = |source| Error::RootfsDirectory { path: text.into(), source };
        let (text, options) = match text.rsplit_once(':') {
            // A directory may have a colon in its name.
            Some((path, options)) if !Path::new(text).exists() => (path, options),
            _ => (text, ""),
        };
        for option in options.split(',').filter(|option| !option.is_empty()) {
            match option {
                "O" => config.rootfs_overlay = true,
                option if option == "idmap" || option.starts_with("idmap=") => {
                    config.rootfs_ids = Some(self.asked_ids(Path::new(text), option, mapping)?);
                }
                _ => return Err(failed(io::ErrorKind::NotFound.into())),
            }
        }
        let path = fs::canonicalize(text).map_err(failed)?;
        if !path.is_dir() {
            return Err(failed(io::ErrorKind::NotADirectory.into()));
        }
        Ok(path)
    }

    /// Starts the monitor of a container that its caller is in charge of.
    /// With `hold_stdin` the caller gets the end of the program's input, if it has one that is no
    /// terminal; else the monitor keeps it open.
    pub fn start(&self, record: ContainerRecord, lock: Lock, hold_stdin: bool) -> Result<Started, Error> {
        self.launch(record, lock, None, hold_stdin, false)
    }

    /// The same of what [`Engine::create_to_start`] has made.
    pub fn start_begun(
        &self,
        (record, lock, begun): (ContainerRecord, Lock, Option<Begun>),
        hold_stdin: bool,
    ) -> Result<Started, Error> {
        self.launch(record, lock, begun, hold_stdin, false)
    }

    /// The same, but for the program, which [`Engine::release`] lets begin.
    pub fn init(&self, record: ContainerRecord, lock: Lock) -> Result<Started, Error> {
        self.launch(record, lock, None, false, true)
    }

    /// Lets the program of a container begin that was prepared.
    pub fn release(&self, record: &ContainerRecord) -> Result<Started, Error> {
        let failed = || Error::NotRunning { name: record.name.clone(), status: Status::Created.word() };
        let socket = monitor::connect(&self.containers.attach_socket(&record.id)).map_err(|_| failed())?;
        let mut packet = Vec::new();
        Request::Go.encode(&mut packet);
        rustix::net::send(&socket, &packet, rustix::net::SendFlags::NOSIGNAL).map_err(|_| failed())?;
        Ok(Started { id: record.id.clone(), socket, stdin: None, begun: None })
    }

    fn launch(
        &self,
        record: ContainerRecord,
        lock: Lock,
        begun: Option<Begun>,
        hold_stdin: bool,
        hold: bool,
    ) -> Result<Started, Error> {
        self.start_required(&record)?;
        // The kernel may be another one than when it was made.
        Self::check_fast(&record.config, record.mapping.is_some())?;
        self.copy_layers_if_needed(&record)?;
        // The addresses in shared networks are taken by the monitor, who lives as long as they are needed; its
        // files have them in it.
        let shared = record.config.network == NetworkMode::Shared;
        let begun = begun.or_else(|| begin(&record));
        let mut request = if shared { None } else { Some(self.create_request(&record)?) };
        if let Some(request) = &mut request {
            request.begun = begun;
        }
        self.containers.prepare_run_dir(&record.id)?;
        if may_restart(&record.config) {
            self.containers.set_stopped(&record.id, false)?;
        }
        let (ours, theirs) = socket::packet_pair().map_err(Error::Socket)?;
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
        let passed = passed(&record.config)?;
        match daemon::fork().map_err(Error::Fork)? {
            daemon::Fork::Child => {
                drop(ours);
                drop(stdin_write);
                let given = Given { request, lock, client: theirs, stdin: stdin_read, passed, hold };
                process::exit_now(monitor::run(self.job(record, given)))
            }
            daemon::Fork::Parent(_) => {
                let begun = request.as_mut().and_then(|request| request.begun.take());
                // Each page of it that is written to now would have to be copied, for the monitor has it too; and the
                // processors are wanted elsewhere. It goes with the command.
                std::mem::forget((request, record));
                Ok(Started { id, socket: ours, stdin: stdin_write, begun })
            }
        }
    }

    /// What a monitor is to do. Not inlined, as what is below: what lies on the stack when the monitor begins lies
    /// there as long as the container runs.
    #[inline(never)]
    fn job(&self, record: ContainerRecord, given: Given) -> Box<Job> {
        let Given { request, lock, client, stdin, passed, hold } = given;
        let (copying, again, executing) = (self.clone(), self.clone(), self.clone());
        let inside = record.clone();
        let store = self.store_of(&record);
        let volumes = self.paths.root.join("volumes");
        Box::new(Job {
            without_overlay: Box::new(move |record| {
                copying.copy_layers(record)?;
                copying.create_request(record).map_err(io::Error::other)
            }),
            again: Box::new(move |record| again.afresh().create_request(record).map_err(io::Error::other)),
            ended: None,
            networks: Box::new(Live::new(self.clone())),
            executor: Box::new(move |state, words, stdio| {
                let failed = |error: Error| (error.exit_code(), report::chain(&error));
                executing.check_health(&inside, state, words, stdio).map_err(failed)
            }),
            hold,
            anonymous_volumes: volumes::anonymous(&self.paths.root, &record.config.mounts),
            containers: self.containers.clone(),
            events: self.event_log(),
            request,
            passed,
            client,
            size: if record.config.tty { super::attach::terminal_size() } else { None },
            stdin,
            lock,
            sweep: {
                let store = store.clone();
                let image = record.image_id.filter(|_| record.config.marks.rmi);
                let engine = self.clone();
                Box::new(move || {
                    // What is in use stays, and nobody is there to be told.
                    if let Some(image) = image
                        && engine.remove_image(&image.hex(), false).is_ok()
                    {
                        let _ = engine.collect_images();
                    }
                    drop(store.sweep());
                })
            },
            delete: Box::new(move |path| {
                if path.parent() != Some(&volumes) || !volumes::is_shared(path) {
                    drop(store.discard(path));
                }
            }),
            record,
        })
    }

    /// The runtime's request for a container's first process.
    #[inline(never)]
    fn create_request(&self, record: &ContainerRecord) -> Result<Box<CreateRequest>, Error> {
        let dir = self.containers.dir(&record.id);
        let copy = dir.join("rootfs");
        let overlay = |lower| {
            Rootfs::Overlay(Overlay {
                lower,
                upper: dir.join("diff"),
                work: dir.join("work"),
                volatile: record.config.auto_remove,
                userxattr: has_user_marks(record),
            })
        };
        let rootfs = match &record.rootfs {
            RootfsSource::Directory(path) if record.config.rootfs_overlay => overlay(vec![path.clone()]),
            RootfsSource::Directory(path) => Rootfs::Dir(path.clone()),
            // Made when an overlay was refused.
            RootfsSource::Image { .. } if copy.exists() => Rootfs::Dir(copy),
            RootfsSource::Image { layers, .. } => {
                let store = self.layer_store(record);
                overlay(layers.iter().rev().map(|chain_id| store.layer_dir(chain_id)).collect())
            }
        };
        let joined = self.joined(&record.config)?;
        let mount_details = self.mount_details(record, &joined)?;
        let resources = limits::resources(&record.config.limits)?;
        let group = {
            let config = &record.config;
            limits::choose(&config.limits, config.cgroups, record.id.as_str(), resources.as_ref())?
        };
        if let Some(ours) = &group.aside {
            crate::cgroup::step_aside(ours).map_err(|error| Error::Cgroup(Box::new(error)))?;
        }
        let seccomp = self.seccomp(record)?;
        let host = specgen::Host {
            borrowed: sources::borrowed(&mount_details),
            join: joined.paths,
            nodes: sources::device_nodes(&record.config),
            shm_of_other: joined.ipc.is_some(),
            files: self.write_files(record)?,
            seccomp: seccomp.profile,
            mqueue: Path::new("/dev/mqueue").exists(),
            cgroup_path: group.path,
            resources,
            cgroup_mount: self.cgroup_mount(&record.config),
            // A container's own proc is; that of one around may be covered by a read-only mount.
            writable_sysctls: record.config.pid != NamespaceMode::Host || !host::is_read_only("/proc/sys"),
            devices: sources::device_rules(record),
        };
        let spec = specgen::spec(record, dir.join("rootfs"), host)?;
        let mut request = Box::new(CreateRequest::new(record.id.to_string(), spec, dir, rootfs));
        request.stdio = Stdio::Inherit;
        request.gate = Gate::Held;
        request.init = record.config.init;
        request.user_by_name = Some(record.config.user.clone());
        request.create_cwd = true;
        request.mount_details = mount_details;
        request.witnesses = joined.witnesses;
        request.groups_by_name.clone_from(&record.config.who.groups);
        request.keep_groups = record.config.who.keep_groups;
        request.preserve_list.clone_from(&record.config.kernel.preserve_fds);
        request.cgroup = group.manager;
        request.filter = seccomp.filter;
        request.rootfs_ids.clone_from(&record.config.rootfs_ids);
        Ok(request)
    }

    /// Makes the copy of the layers that a container needs to be started.
    pub(super) fn copy_layers_if_needed(&self, record: &ContainerRecord) -> Result<(), Error> {
        if !self.needs_copy(record) {
            return Ok(());
        }
        self.copy_layers(record).map_err(|source| Error::CopyLayers { id: record.id.clone(), source })
    }

    /// Whether the layers' owners are others than this container's mapping needs, and not shown by the kernel as it
    /// needs them.
    pub(super) fn needs_copy(&self, record: &ContainerRecord) -> bool {
        self.has_other_ids(record)
            && record.config.rootfs_ids.is_none()
            && matches!(record.rootfs, RootfsSource::Image { .. })
            && !self.containers.dir(&record.id).join("rootfs").exists()
    }

    /// Copies an image's layers into a rootfs of the container's own: what remains where overlayfs
    /// is missing or cannot write to the store's file system, and where the container's ids are not
    /// those that the layers were unpacked with.
    pub(super) fn copy_layers(&self, record: &ContainerRecord) -> io::Result<()> {
        match &record.rootfs {
            RootfsSource::Image { layers, .. } => self.copy_tree(record, layers, "rootfs"),
            RootfsSource::Directory(_) => Ok(()),
        }
    }

    /// Copies layers, lowest first, into a directory of the container's own with its ids.
    pub(super) fn copy_tree(
        &self,
        record: &ContainerRecord,
        layers: &[ChainId],
        name: &str,
    ) -> io::Result<()> {
        let store = self.layer_store(record);
        let layers: Vec<PathBuf> = layers.iter().map(|chain_id| store.layer_tree(chain_id)).collect();
        let dir = self.containers.dir(&record.id);
        let staging = dir.join(format!("{name}.part"));
        // A container's id means a host's id by the container's own mapping; with one id the archive's
        // owners are lost, and all files have that one's.
        let other = self.has_other_ids(record);
        let unpacked_with = self.files_mapping(record);
        let owner = |uid, gid| self.owner_outside(record, uid, gid);
        let merge = || {
            let errno = |error: io::Error| error.raw_os_error().unwrap_or(libc::EIO);
            crate::sys::tree::remove_all(&staging).map_err(errno)?;
            fs::create_dir(&staging).map_err(errno)?;
            fs::set_permissions(&staging, fs::Permissions::from_mode(0o755)).map_err(errno)?;
            crate::sys::flatten::merge(&layers, &staging, &owner).map_err(errno)?;
            // The root belongs to the container's, too; an archive need not have said so.
            match owner(0, 0).filter(|_| other) {
                Some((uid, gid)) => std::os::unix::fs::chown(&staging, Some(uid), Some(gid)).map_err(errno),
                None => Ok(()),
            }
        };
        child::call(unpacked_with.as_ref(), merge)
            .map_err(io::Error::other)?
            .map_err(io::Error::from_raw_os_error)?;
        fs::rename(&staging, dir.join(name))
    }

    fn cgroup_mount(&self, config: &ContainerConfig) -> bool {
        config.cgroupns != crate::storage::containers::NamespaceMode::Host
    }
}

/// Whether overlayfs keeps its marks where a user namespace may write them: not where the host's root mounts it.
pub(super) fn has_user_marks(record: &ContainerRecord) -> bool {
    record.mapping.is_some() && record.config.rootfs_ids.is_none()
}

/// Begins those of a container's namespaces that can be begun before more than its record is known, if it joins nobody's.
fn begin(record: &ContainerRecord) -> Option<Begun> {
    let config = &record.config;
    let modes = [&config.pid, &config.ipc, &config.uts, &config.cgroupns];
    let joins = modes.iter().any(|mode| !matches!(mode, NamespaceMode::Private | NamespaceMode::Host))
        // In a shared network the monitor makes the request.
        || matches!(config.network, NetworkMode::Container(_) | NetworkMode::Path(_) | NetworkMode::Shared)
        || matches!(config.userns, UsernsMode::Container(_) | UsernsMode::Path(_));
    let mapping = record.mapping.as_ref().filter(|_| !joins)?;
    let own = [
        (config.network.is_own(), libc::CLONE_NEWNET),
        (config.ipc == NamespaceMode::Private, libc::CLONE_NEWIPC),
        (config.uts == NamespaceMode::Private, libc::CLONE_NEWUTS),
    ];
    let kinds = own.iter().filter(|(own, _)| *own).fold(0, |all, (_, kind)| all | *kind as u64);
    Begun::begin(mapping, kinds)
}

/// What a monitor has of the command that it is forked from.
struct Given {
    request: Option<Box<CreateRequest>>,
    lock: Lock,
    client: OwnedFd,
    stdin: Option<OwnedFd>,
    passed: Option<[OwnedFd; 3]>,
    hold: bool,
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

fn image_defaults(image: &ImageRecord) -> Result<ImageDefaults, Error> {
    let config = image.container_config()?;
    Ok(ImageDefaults {
        entrypoint: config.entrypoint,
        command: config.cmd,
        env: config.env,
        user: config.user,
        workdir: config.working_dir,
        volumes: config.volumes.into_keys().collect(),
        exposed_ports: config.exposed_ports.into_keys().collect(),
        labels: config.labels,
        stop_signal: (!config.stop_signal.is_empty()).then_some(config.stop_signal),
        healthcheck: config.healthcheck,
    })
}
