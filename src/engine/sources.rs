//! What a container takes from elsewhere at its start: files and devices of the host, layers of images,
//! namespaces and mounts of other containers.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType, LinuxNamespaceType};

use super::{Engine, Error};
use crate::base::id::ContainerId;
use crate::base::idmap::IdMapping;
use crate::runtime::{Borrowed, MountDetails, Overlay, OverlayDetails};
use crate::storage::containers::{
    ContainerConfig, ContainerRecord, DeviceRecord, DriverRecord, MountRecord, NamespaceMode, NetworkMode,
    OverlayRecord, RunState, UsernsMode,
};

/// What is joined of other containers.
#[derive(Debug, Default)]
pub(super) struct Joined {
    /// Kinds and files of namespaces.
    pub paths: Vec<(LinuxNamespaceType, PathBuf)>,
    /// The containers' first processes with their start times.
    pub witnesses: Vec<(i32, u64)>,
    /// The container whose ipc namespace it is: its `/dev/shm` comes along.
    pub ipc: Option<RunState>,
}

impl Engine {
    /// The namespaces that a container does not have for itself, as files.
    pub(super) fn joined(&self, config: &ContainerConfig) -> Result<Joined, Error> {
        use LinuxNamespaceType as T;
        let mut joined = Joined::default();
        let (container, path) = match &config.userns {
            UsernsMode::Container(id) => (Some(id), None),
            UsernsMode::Path(path) => (None, Some(path)),
            _ => (None, None),
        };
        if let Some(id) = container {
            let (record, state) = self.running(id)?;
            if record.mapping.is_some() {
                joined.add(T::User, "user", &state);
            }
        }
        joined.paths.extend(path.map(|path| (T::User, path.clone())));
        let kinds = [
            (T::Pid, "pid", &config.pid),
            (T::Ipc, "ipc", &config.ipc),
            (T::Uts, "uts", &config.uts),
            (T::Cgroup, "cgroup", &config.cgroupns),
        ];
        for (kind, name, mode) in kinds {
            match mode {
                NamespaceMode::Private | NamespaceMode::Host => {}
                NamespaceMode::Path(path) => joined.paths.push((kind, path.clone())),
                NamespaceMode::Container(id) => {
                    let (record, state) = self.running(id)?;
                    // Of one that shares the host's there is nothing to join but that.
                    joined.add(kind, name, &state);
                    if kind == T::Ipc && !record.config.no_shm {
                        joined.ipc = Some(state);
                    }
                }
            }
        }
        match &config.network {
            NetworkMode::Path(path) => joined.paths.push((T::Network, path.clone())),
            NetworkMode::Container(id) => {
                let (_, state) = self.running(id)?;
                joined.add(T::Network, "net", &state);
            }
            _ => {}
        }
        Ok(joined)
    }

    /// A container that must be running.
    fn running(&self, id: &ContainerId) -> Result<(ContainerRecord, RunState), Error> {
        let (record, status) = self.load(id)?;
        match status.running() {
            Some(state) => Ok((record, state.clone())),
            None => Err(Error::NotRunning { name: record.name, status: status.word() }),
        }
    }

    /// More about the mounts than the specification has words for. Directories for overlays are made anew.
    pub(super) fn mount_details(
        &self,
        record: &ContainerRecord,
        joined: &Joined,
    ) -> Result<HashMap<PathBuf, MountDetails>, Error> {
        let mut all = HashMap::new();
        for (index, mount) in record.config.mounts.iter().enumerate() {
            let overlay = match (&mount.overlay, mount.kind.as_str()) {
                (None, "image") => Some(OverlayRecord::default()),
                (overlay, _) => overlay.clone(),
            };
            let outside = mount.chown && matches!(mount.kind.as_str(), "bind" | "volume");
            let outside = outside && overlay.is_none() && self.has_other_ids(record);
            if outside {
                self.give_to_user(record, source_of(mount))?;
            }
            let borrowed = self.in_use(record, mount)?;
            let driven = match &mount.driver {
                Some(DriverRecord::Overlay { lower, upper, work }) if borrowed.is_none() => {
                    let userxattr = record.mapping.is_some();
                    let (lower, upper, work) = (lower.clone(), upper.clone(), work.clone());
                    let overlay = Overlay { lower, upper, work, userxattr, volatile: false };
                    Some(OverlayDetails { overlay, ids: None })
                }
                _ => None,
            };
            let details = MountDetails {
                overlay: match overlay {
                    Some(overlay) => Some(self.overlay(record, index, mount, &overlay)?),
                    None => driven,
                },
                subpath: mount.subpath.as_deref().map(|path| path.trim_start_matches('/').into()),
                chown: mount.chown && !outside,
                claim: mount.kind == "volume" && mount.copy_up,
                borrowed,
            };
            if details != MountDetails::default() {
                all.insert(PathBuf::from(&mount.destination), details);
            }
        }
        if let Some(state) = &joined.ipc {
            let path = PathBuf::from("/dev/shm");
            let borrowed = Borrowed { pid: state.pid, start_time: state.start_time, path: path.clone() };
            all.insert(path, MountDetails { borrowed: Some(borrowed), ..MountDetails::default() });
        }
        Ok(all)
    }

    /// Where a running container has the same volume mounted, if it is one that can only be mounted once: a
    /// tmpfs of its own would be another one.
    fn in_use(&self, record: &ContainerRecord, mount: &MountRecord) -> Result<Option<Borrowed>, Error> {
        match &mount.driver {
            None | Some(DriverRecord::Bind(_)) => return Ok(None),
            // The kernel has one file system a device.
            Some(DriverRecord::Filesystem { source, .. }) if source.starts_with('/') => return Ok(None),
            Some(_) => {}
        }
        for id in self.containers.live_ids()?.into_iter().filter(|id| *id != record.id) {
            // Gone since, or unreadable.
            let Ok(other) = self.containers.record(&id) else { continue };
            let same = |there: &&MountRecord| there.kind == "volume" && there.name == mount.name;
            let Some(there) = other.config.mounts.iter().find(same) else { continue };
            if let Some(state) = self.containers.status(&id)?.running() {
                let path = PathBuf::from(&there.destination);
                return Ok(Some(Borrowed { pid: state.pid, start_time: state.start_time, path }));
            }
        }
        Ok(None)
    }

    /// The directories of a mount that is an overlay. Changes that are not to be kept lie in the container's
    /// own directory, from one start to the next.
    fn overlay(
        &self,
        record: &ContainerRecord,
        index: usize,
        mount: &MountRecord,
        overlay: &OverlayRecord,
    ) -> Result<OverlayDetails, Error> {
        let lower: Vec<PathBuf> = match mount.kind.as_str() {
            // Unpacked with other ids than the container has.
            "image" if self.has_other_ids(record) && record.config.rootfs_ids.is_none() => {
                let name = format!("image-{index}");
                let copy = self.containers.dir(&record.id).join(&name);
                if !copy.exists() {
                    let copied = self.copy_tree(record, &mount.layers, &name);
                    copied.map_err(|source| Error::CopyLayers { id: record.id.clone(), source })?;
                }
                vec![copy]
            }
            "image" => {
                let store = self.layer_store(record);
                mount.layers.iter().rev().map(|chain_id| store.layer_dir(chain_id)).collect()
            }
            _ => vec![source_of(mount).to_owned()],
        };
        let userxattr = record.mapping.is_some();
        if let OverlayRecord { upper: Some(upper), work: Some(work) } = overlay {
            let (upper, work) = (upper.clone(), work.clone());
            let overlay = Overlay { lower, upper, work, userxattr, volatile: false };
            return Ok(OverlayDetails { overlay, ids: None });
        }
        let dir = self.containers.dir(&record.id).join(format!("overlay-{index}"));
        if dir.exists() {
            self.delete(&dir, record);
        }
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source| Error::File { action, path, source }
        };
        let (upper, work) = (dir.join("upper"), dir.join("work"));
        for path in [&dir, &upper, &work] {
            fs::create_dir(path).map_err(failed("making", path))?;
        }
        // What is seen of the directory itself is the upper one's owner and mode.
        if let Some(stat) = lower.first().and_then(|path| fs::metadata(path).ok()) {
            let mode = fs::Permissions::from_mode(stat.mode() & 0o7777);
            fs::set_permissions(&upper, mode).map_err(failed("making", &upper))?;
            if stat.uid() != crate::sys::host::uid() {
                // Only root can; for others the directory is theirs.
                let _ = std::os::unix::fs::chown(&upper, Some(stat.uid()), Some(stat.gid()));
            }
        }
        let mapped = mount.kind == "image" && record.config.rootfs_ids.is_some();
        let ids = record.mapping.clone().filter(|_| mapped);
        if mount.kind == "image" && ids.is_none() && self.has_other_ids(record) {
            self.give_to_root(record, [upper.as_path(), &work].into_iter())?;
        }
        let userxattr = userxattr && ids.is_none();
        Ok(OverlayDetails { overlay: Overlay { lower, upper, work, userxattr, volatile: false }, ids })
    }
}

impl Joined {
    fn add(&mut self, kind: LinuxNamespaceType, name: &str, state: &RunState) {
        self.paths.push((kind, format!("/proc/{}/ns/{name}", state.pid).into()));
        self.witnesses.push((state.pid, state.start_time));
    }
}

/// Refuses mounts and devices whose source is not there, before anything is made.
/// `ruled`: there can be rules for devices, as for root outside of a user namespace.
pub(super) fn check(config: &ContainerConfig, ruled: bool) -> Result<(), Error> {
    for mount in config.mounts.iter().filter(|mount| mount.kind == "bind") {
        let nofollow = mount.options.iter().any(|option| option == "src-nofollow");
        let found = if nofollow { fs::symlink_metadata(&mount.source) } else { fs::metadata(&mount.source) };
        let refused = |source| Error::MountSource { path: mount.source.clone().into(), source };
        let found = found.map_err(refused)?;
        if mount.overlay.is_some() && !found.is_dir() {
            return Err(refused(io::ErrorKind::NotADirectory.into()));
        }
        let maps = |option: &String| option.trim_start_matches('r').starts_with("idmap");
        if let Some(option) = mount.options.iter().find(|option| maps(option)) {
            let refused = |why| Error::MapIds { path: mount.source.clone().into(), why };
            if crate::sys::host::uid() != 0 {
                return Err(refused("only root can"));
            }
            if ruled && !option.contains('=') {
                return Err(refused("the container has no user namespace (--uidmap, --userns auto)"));
            }
        }
        if mount.chown && is_of_the_system(&mount.source) {
            return Err(Error::ChownSystem(mount.source.clone().into()));
        }
    }
    for mount in &config.mounts {
        let Some(OverlayRecord { upper: Some(upper), work: Some(work) }) = &mount.overlay else { continue };
        for path in [upper, work] {
            let refused = |source| Error::MountSource { path: path.clone(), source };
            if !fs::metadata(path).map_err(refused)?.is_dir() {
                return Err(refused(io::ErrorKind::NotADirectory.into()));
            }
        }
    }
    let ruled = ruled && config.cgroups;
    if let (Some(rule), false) = (config.kernel.device_rules.first(), ruled) {
        return Err(Error::NoDeviceRules(rule.clone()));
    }
    for device in &config.devices {
        let path = PathBuf::from(&device.host);
        let kind =
            fs::metadata(&path).map_err(|source| Error::Device { path: path.clone(), source })?.file_type();
        if !kind.is_char_device() && !kind.is_block_device() && !kind.is_dir() {
            return Err(Error::NoDevice(path));
        }
        if kind.is_dir() && nodes_of(device).is_empty() {
            return Err(Error::NoDevice(path));
        }
        if is_restricted(device) && !ruled {
            return Err(Error::DevicePermissions { path, permissions: device.permissions.clone() });
        }
    }
    Ok(())
}

/// Directories whose owner nothing must change, whoever asks: the machine would not boot again.
fn is_of_the_system(path: &str) -> bool {
    const SYSTEM: &[&str] = &[
        "/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/media", "/mnt", "/opt", "/proc",
        "/root", "/run", "/sbin", "/srv", "/sys", "/usr", "/var", "/var/lib",
    ];
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.into());
    SYSTEM.iter().any(|system| real == Path::new(system))
        || ["/usr", "/bin", "/sbin", "/lib", "/boot", "/proc", "/sys"].iter().any(|dir| real.starts_with(dir))
}

fn is_restricted(device: &DeviceRecord) -> bool {
    !(device.permissions.contains('r') && device.permissions.contains('w'))
}

/// The directory of the host that is mounted.
fn source_of(mount: &MountRecord) -> &Path {
    match &mount.driver {
        Some(DriverRecord::Bind(path)) => path,
        _ => Path::new(&mount.source),
    }
}

/// The places of the mounts that are another container's, too.
pub(super) fn borrowed(details: &HashMap<PathBuf, MountDetails>) -> Vec<String> {
    let borrowed = details.iter().filter(|(_, details)| details.borrowed.is_some());
    borrowed.map(|(place, _)| place.to_string_lossy().into_owned()).collect()
}

/// The device nodes that a container gets: of a directory all that are in it, and for a privileged one all
/// of the host's.
pub(super) fn device_nodes(config: &ContainerConfig) -> Vec<DeviceRecord> {
    let mut nodes: Vec<DeviceRecord> = config.devices.iter().flat_map(nodes_of).collect();
    if config.privileged {
        let all = DeviceRecord { host: "/dev".into(), container: "/dev".into(), permissions: "rwm".into() };
        for node in nodes_of(&all) {
            // What every container has of its own, and the host's terminals' file system.
            let own = ["null", "zero", "full", "random", "urandom", "tty", "console", "ptmx"];
            let below = Path::new(&node.container).strip_prefix("/dev").unwrap_or(Path::new(""));
            let first = below.iter().next().and_then(|name| name.to_str()).unwrap_or_default();
            let taken = matches!(first, "pts" | "shm" | "mqueue" | "hugepages") || own.contains(&first);
            if !taken && !nodes.iter().any(|there| there.container == node.container) {
                nodes.push(node);
            }
        }
    }
    nodes
}

/// Deeper than this no device lies.
const DEPTH: u32 = 8;

fn nodes_of(device: &DeviceRecord) -> Vec<DeviceRecord> {
    if !fs::metadata(&device.host).is_ok_and(|metadata| metadata.is_dir()) {
        return vec![device.clone()];
    }
    let mut nodes = Vec::new();
    list_nodes(Path::new(&device.host), Path::new(&device.container), &device.permissions, DEPTH, &mut nodes);
    nodes.sort_by(|a, b| a.container.cmp(&b.container));
    nodes
}

fn list_nodes(host: &Path, inside: &Path, permissions: &str, depth: u32, nodes: &mut Vec<DeviceRecord>) {
    // What may not be read has nothing that could be given.
    for entry in fs::read_dir(host).into_iter().flatten().flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        let (host, inside) = (host.join(entry.file_name()), inside.join(entry.file_name()));
        if kind.is_dir() && depth > 0 {
            list_nodes(&host, &inside, permissions, depth - 1, nodes);
        } else if kind.is_char_device() || kind.is_block_device() {
            nodes.push(DeviceRecord {
                host: host.to_string_lossy().into_owned(),
                container: inside.to_string_lossy().into_owned(),
                permissions: permissions.to_owned(),
            });
        }
    }
}

/// What a container of root's that may make device nodes, or was given one not for everything, can do
/// with devices. In a user namespace no node that is made there is of any use, and the kernel takes no
/// rules.
pub(super) fn device_rules(record: &ContainerRecord) -> Option<Vec<LinuxDeviceCgroup>> {
    let config = &record.config;
    let makes_nodes = config.capabilities.iter().any(|name| name.trim_start_matches("CAP_") == "MKNOD");
    let needed =
        makes_nodes || config.devices.iter().any(is_restricted) || !config.kernel.device_rules.is_empty();
    // Who switches control groups off does without, and a privileged one has them all.
    if record.mapping.is_some() || !config.cgroups || config.privileged || !needed {
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
    let told = config.kernel.device_rules.iter().filter_map(|text| told_rule(text));
    Some(config.devices.iter().flat_map(nodes_of).filter_map(|device| rule(&device)).chain(told).collect())
}

/// `c 10:200 rwm`.
fn told_rule(text: &str) -> Option<LinuxDeviceCgroup> {
    let words: Vec<&str> = text.split(' ').collect();
    let [kind, numbers, access] = words[..] else { return None };
    let (major, minor) = numbers.split_once(':')?;
    let number = |text: &str| text.parse::<i64>().ok();
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(true)
        .set_typ(Some(match kind {
            "b" => LinuxDeviceType::B,
            "c" => LinuxDeviceType::C,
            _ => LinuxDeviceType::A,
        }))
        .set_major(number(major))
        .set_minor(number(minor))
        .set_access(Some(access.to_owned()));
    Some(rule)
}

/// The mapping of a user namespace that a file names, as seen from here.
pub(super) fn mapping_of(path: &Path) -> io::Result<IdMapping> {
    let read = || {
        let errno = |error: io::Error| error.raw_os_error().unwrap_or(libc::EIO);
        let namespace = crate::sys::namespace::open(path).map_err(errno)?;
        crate::sys::namespace::join(&namespace, libc::CLONE_NEWUSER as u64).map_err(errno)?;
        let file = |name| fs::read_to_string(format!("/proc/self/{name}")).map_err(errno);
        Ok::<_, i32>((file("uid_map")?, file("gid_map")?))
    };
    let (uids, gids) = crate::sys::child::call(None, read)
        .map_err(io::Error::other)?
        .map_err(io::Error::from_raw_os_error)?;
    Ok(IdMapping { uids: crate::base::idmap::parse_map(&uids), gids: crate::base::idmap::parse_map(&gids) })
}
