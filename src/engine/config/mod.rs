//! From what the user typed and what the image says to what a container is: pure, but for the
//! files that flags name (`--env-file`, `--security-opt seccomp=FILE`).

pub mod limits;
pub(super) mod names;
pub mod network;
mod process;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::environment::environment;
use super::logging;
use super::mounts::{self, Find};
use super::request::RunRequest;
use super::supervision;
use super::userns;
use crate::base::{signal, size};
use crate::security::capability;
use crate::storage::containers::{
    ContainerConfig, DeviceRecord, Marks, MountRecord, NamespaceMode, NetworkMode, OneId, SeccompChoice,
    UlimitRecord,
};
pub(super) use names::ZONES;
pub use process::preserved;

/// Why a request makes no container.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A flag's value is not of the right form.
    #[error("--{flag} \"{value}\": {why}")]
    Flag {
        /// Without dashes.
        flag: &'static str,
        /// As given.
        value: String,
        /// What is wrong with it.
        why: String,
    },
    /// Podman has it and we do not yet.
    #[error("--{flag} \"{value}\" is not supported yet")]
    Unsupported {
        /// Without dashes.
        flag: &'static str,
        /// As given.
        value: String,
    },
    /// A file that a flag names cannot be read.
    #[error("--{flag}: reading \"{}\"", path.display())]
    File {
        /// Without dashes.
        flag: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A device that is to be limited is none.
    #[error("--{flag} \"{path}\"")]
    Device {
        /// Without dashes.
        flag: &'static str,
        /// On the host.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A mount.
    #[error(transparent)]
    Mount(#[from] mounts::Error),
    /// The image's `StopSignal` is none.
    #[error("the image's stop signal \"{}\" is not a signal", .0.escape_debug())]
    ImageStopSignal(String),
    /// The image's `Healthcheck` is none.
    #[error("the image's health check")]
    ImageHealth(#[source] serde_json::Error),
    /// Details of what is not there.
    #[error("--health-…: there is no health check, neither by --health-cmd nor the image's own")]
    NoHealthCheck,
    /// Neither the image nor the user says what to run.
    #[error("no command or entrypoint provided, and no CMD or ENTRYPOINT from image")]
    NoCommand,
}

/// What the image says.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs, reason = "the fields of an OCI image configuration")]
pub struct ImageDefaults {
    pub entrypoint: Vec<String>,
    pub command: Vec<String>,
    pub env: Vec<String>,
    pub user: String,
    pub workdir: String,
    pub volumes: Vec<String>,
    pub exposed_ports: Vec<String>,
    pub labels: BTreeMap<String, String>,
    pub stop_signal: Option<String>,
    pub healthcheck: Option<serde_json::Value>,
}

/// What is known of the world around.
#[derive(Clone)]
pub struct Surroundings<'a> {
    /// The working directory of the command.
    pub cwd: &'a Path,
    /// Its environment.
    pub env: &'a BTreeMap<String, String>,
    /// The container's id in short: its hostname.
    pub short_id: &'a str,
    /// The host's name.
    pub host_name: &'a str,
    /// Whether we are root on the host.
    pub root: bool,
    /// Finds another container.
    pub find: &'a Find<'a>,
}

pub(super) fn flag(flag: &'static str, value: &str, why: impl Into<String>) -> Error {
    Error::Flag { flag, value: value.into(), why: why.into() }
}

/// Larger files are not what flags name: `/dev/zero` has no end.
const LARGEST_FILE: u64 = 16 << 20;

/// The text of a file that a flag names.
pub(super) fn read_file(flag: &'static str, path: &Path) -> Result<String, Error> {
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(LARGEST_FILE + 1).read_to_string(&mut text))
        .and_then(
            |size| {
                if size as u64 > LARGEST_FILE { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(text) }
            },
        )
        .map_err(|source| Error::File { flag, path: path.to_owned(), source })
}

/// Resolves a request against its image.
pub fn resolve(
    request: &RunRequest,
    image: &ImageDefaults,
    around: &Surroundings<'_>,
) -> Result<ContainerConfig, Error> {
    let (network, net) = network::resolve(request, image, around)?;
    let uts = names::namespace("uts", request.uts.as_deref(), around)?;
    let ipc = names::namespace("ipc", request.ipc.as_deref(), around)?;
    let hostname = names::hostname(request, &network, &uts, around)?;
    let (entrypoint, command) = arguments(request, image)?;
    let security = security_options(request)?;
    let labels = labels(request, image)?;
    let domainname = names::domainname(request, &uts)?;
    let (limits, cgroups) = limits::resolve(&request.limits)?;
    let mut config = ContainerConfig {
        env: environment(request, image, around, &hostname)?,
        user: request.user.clone().unwrap_or_else(|| image.user.clone()),
        workdir: workdir(request, image)?,
        entrypoint,
        command,
        hostname,
        tty: request.tty,
        interactive: request.interactive || request.attach.iter().any(|stream| is_stdin(stream)),
        seccomp: process::seccomp_policy(request, security.seccomp, &labels)?,
        labels,
        annotations: annotations(&request.annotations)?,
        stop_signal: stop_signal(request, image)?,
        stop_timeout: request.stop_timeout.unwrap_or(10),
        net,
        pid: names::namespace("pid", request.pid.as_deref(), around)?,
        ipc,
        uts,
        cgroupns: names::namespace("cgroupns", request.cgroupns.as_deref(), around)?,
        userns: userns::mode(request, around)?,
        read_only: request.read_only,
        capabilities: capabilities(&request.cap_add, &request.cap_drop)?,
        cap_add: request.cap_add.clone(),
        cap_drop: request.cap_drop.clone(),
        security_opt: request.security_opt.clone(),
        no_new_privileges: security.no_new_privileges,
        unmask: security.unmask,
        mask: security.mask,
        mounts: all_mounts(request, image, around)?,
        devices: request.devices.iter().map(|device| parse_device(device)).collect::<Result<_, _>>()?,
        ulimits: ulimits(&request.ulimits)?,
        sysctls: sysctls(request, &network)?,
        network,
        attach: process::attach(request)?,
        who: process::who(request)?,
        etc: names::etc_files(request, around)?,
        kernel: process::kernel(request, domainname)?,
        marks: marks(request, around),
        privileged: request.privileged,
        no_shm: request.ipc.as_deref() == Some("none"),
        rootfs_overlay: false,
        rootfs_ids: None,
        requires: names::requires(request, around)?,
        init: request.init,
        restart: Default::default(),
        timeout: 0,
        health: None,
        one_id: OneId::default(),
        auto_remove: request.rm || request.rmi || request.build.is_some(),
        log: logging::resolve(request.log_driver.as_deref(), &request.log_opts)?,
        cgroups,
        limits,
    };
    if request.privileged {
        privilege(&mut config, request);
    }
    if let Some(size) = &request.shm_size {
        if config.ipc != NamespaceMode::Private || config.no_shm {
            return Err(flag("shm-size", size, "the container has no /dev/shm of its own with this --ipc"));
        }
        let bytes = size::parse(size).map_err(|error| flag("shm-size", size, error.to_string()))?;
        config.mounts.push(shm(bytes));
    }
    mounts::check_unique(&config.mounts)?;
    supervision::resolve(&request.supervision, image, &mut config)?;
    Ok(config)
}

fn shm(bytes: u64) -> MountRecord {
    let options = ["nosuid", "nodev", "noexec", "mode=1777"].map(String::from).into_iter();
    MountRecord {
        kind: "tmpfs".into(),
        destination: "/dev/shm".into(),
        options: options.chain([format!("size={bytes}"), "rw".into()]).collect(),
        rw: true,
        ..MountRecord::default()
    }
}

/// What `--privileged` lifts; what was chosen by name stays.
fn privilege(config: &mut ContainerConfig, request: &RunRequest) {
    if request.cap_drop.is_empty() {
        config.capabilities = capability::NAMES.iter().map(|name| (*name).to_owned()).collect();
    }
    if config.seccomp == SeccompChoice::Default {
        config.seccomp = SeccompChoice::Unconfined;
    }
    config.unmask = vec!["ALL".into()];
}

fn is_stdin(stream: &str) -> bool {
    stream.eq_ignore_ascii_case("stdin")
}

/// Files for whoever starts the container.
fn marks(request: &RunRequest, around: &Surroundings<'_>) -> Marks {
    let place = |path: &Option<PathBuf>| path.as_ref().map(|path| around.cwd.join(path));
    Marks {
        cidfile: place(&request.cidfile),
        pidfile: place(&request.pidfile),
        monitor_pidfile: place(&request.conmon_pidfile),
        rmi: request.rmi,
        build: request.build.is_some(),
    }
}

fn arguments(request: &RunRequest, image: &ImageDefaults) -> Result<(Vec<String>, Vec<String>), Error> {
    let (entrypoint, default_command): (_, &[String]) = match &request.entrypoint {
        // A new entrypoint makes the image's command meaningless.
        Some(text) if text.trim_start().starts_with('[') => {
            let list = serde_json::from_str(text)
                .map_err(|error| flag("entrypoint", text, format!("no JSON list of words: {error}")))?;
            (list, &[])
        }
        Some(text) if text.is_empty() => (Vec::new(), &[]),
        Some(text) => (vec![text.clone()], &[]),
        None => (image.entrypoint.clone(), &image.command),
    };
    let command = if request.command.is_empty() { default_command.to_vec() } else { request.command.clone() };
    if entrypoint.is_empty() && command.is_empty() {
        return Err(Error::NoCommand);
    }
    Ok((entrypoint, command))
}

fn workdir(request: &RunRequest, image: &ImageDefaults) -> Result<String, Error> {
    match &request.workdir {
        Some(dir) if dir.starts_with('/') => Ok(mounts::clean(dir)),
        Some(dir) => Err(flag("workdir", dir, "it must be an absolute path")),
        None => Ok(mounts::clean(&image.workdir)),
    }
}

/// Unlike labels, annotations have a value.
fn annotations(items: &[String]) -> Result<BTreeMap<String, String>, Error> {
    match items.iter().find(|item| !item.contains('=')) {
        Some(item) => Err(flag("annotation", item, "it takes KEY=VALUE")),
        None => pairs("annotation", items),
    }
}

fn pairs(name: &'static str, items: &[String]) -> Result<BTreeMap<String, String>, Error> {
    let mut map = BTreeMap::new();
    for item in items {
        let (key, value) = item.split_once('=').unwrap_or((item, ""));
        if key.is_empty() {
            return Err(flag(name, item, "it takes KEY=VALUE"));
        }
        map.insert(key.to_owned(), value.to_owned());
    }
    Ok(map)
}

fn labels(request: &RunRequest, image: &ImageDefaults) -> Result<BTreeMap<String, String>, Error> {
    let mut labels = image.labels.clone();
    for path in &request.label_files {
        let text = read_file("label-file", path)?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        labels.extend(pairs("label-file", &lines.map(str::to_owned).collect::<Vec<_>>())?);
    }
    labels.extend(pairs("label", &request.labels)?);
    Ok(labels)
}

fn stop_signal(request: &RunRequest, image: &ImageDefaults) -> Result<i32, Error> {
    if let Some(text) = &request.stop_signal {
        return signal::parse(text).ok_or_else(|| flag("stop-signal", text, "there is no such signal"));
    }
    match image.stop_signal.as_deref().filter(|text| !text.is_empty()) {
        None => Ok(libc::SIGTERM),
        Some(text) => signal::parse(text).ok_or_else(|| Error::ImageStopSignal(text.to_owned())),
    }
}

/// Podman's rule: `ALL` first, then what is named, dropping before adding where all are dropped.
pub fn capabilities(add: &[String], drop: &[String]) -> Result<Vec<String>, Error> {
    let name = |flag_name, text: &str| {
        let upper = text.to_ascii_uppercase();
        let short = upper.strip_prefix("CAP_").unwrap_or(&upper).to_owned();
        if short == "ALL" || capability::NAMES.contains(&short.as_str()) {
            Ok(short)
        } else {
            Err(flag(flag_name, text, "there is no such capability"))
        }
    };
    let split = |flag_name, list: &[String]| {
        list.iter()
            .flat_map(|item| item.split(','))
            .map(|item| name(flag_name, item))
            .collect::<Result<Vec<_>, _>>()
    };
    let (add, drop) = (split("cap-add", add)?, split("cap-drop", drop)?);
    let mut set: BTreeSet<String> = capability::DEFAULT.iter().map(|s| (*s).to_owned()).collect();
    if drop.iter().any(|c| c == "ALL") {
        set.clear();
    }
    if add.iter().any(|c| c == "ALL") {
        set = capability::NAMES.iter().map(|s| (*s).to_owned()).collect();
    }
    for dropped in drop.iter().filter(|c| *c != "ALL") {
        if add.contains(dropped) {
            return Err(flag("cap-add", dropped, "it is to be dropped too"));
        }
        set.remove(dropped);
    }
    set.extend(add.into_iter().filter(|c| c != "ALL"));
    Ok(set.into_iter().collect())
}

struct Security {
    no_new_privileges: bool,
    seccomp: SeccompChoice,
    mask: Vec<String>,
    unmask: Vec<String>,
}

fn security_options(request: &RunRequest) -> Result<Security, Error> {
    let mut security = Security {
        no_new_privileges: false,
        seccomp: SeccompChoice::Default,
        mask: Vec::new(),
        unmask: Vec::new(),
    };
    for option in &request.security_opt {
        let (key, value) = option.split_once(['=', ':']).unwrap_or((option, ""));
        match (key, value) {
            ("no-new-privileges", "" | "true") => security.no_new_privileges = true,
            ("no-new-privileges", "false") => security.no_new_privileges = false,
            ("seccomp", "unconfined") => security.seccomp = SeccompChoice::Unconfined,
            ("seccomp", "") => return Err(flag("security-opt", option, "a profile is missing")),
            ("seccomp", path) => {
                let path = PathBuf::from(path);
                let content = read_file("security-opt", &path)?;
                security.seccomp = SeccompChoice::Profile { path, content };
            }
            ("mask", paths) if !paths.is_empty() => security.mask.extend(paths.split(':').map(String::from)),
            ("unmask", paths) if !paths.is_empty() => {
                security.unmask.extend(paths.split(':').map(String::from))
            }
            // Docker's word for it.
            ("systempaths", "unconfined") => security.unmask.push("ALL".into()),
            ("systempaths", _) => return Err(flag("security-opt", option, "it takes unconfined")),
            // Decided when it is known which ids there are (`engine::ids`).
            ("ownership", "real" | "emulated" | "remembered") => {}
            ("ownership", _) => {
                return Err(flag("security-opt", option, "it takes real, emulated or remembered"));
            }
            // Without the module there is nothing to confine by, so nothing to lift.
            ("apparmor", "unconfined") | ("label", "disable") => {}
            ("apparmor" | "label" | "proc-opts", _) => {
                return Err(Error::Unsupported { flag: "security-opt", value: option.clone() });
            }
            _ => return Err(flag("security-opt", option, "there is no such option")),
        }
    }
    Ok(security)
}

fn all_mounts(
    request: &RunRequest,
    image: &ImageDefaults,
    around: &Surroundings<'_>,
) -> Result<Vec<MountRecord>, Error> {
    let mut all = Vec::new();
    for value in &request.volumes {
        all.push(mounts::volume(value, around.cwd)?);
    }
    for value in &request.mounts {
        all.extend(mounts::mount(value, around.cwd)?);
    }
    for value in &request.tmpfs {
        all.push(mounts::tmpfs(value)?);
    }
    all.extend(request.build.iter().flat_map(|step| &step.mounts).cloned());
    mounts::check_unique(&all)?;
    // What stands in several places is taken from the last; what was told in full counts more.
    for value in request.volumes_from.iter().rev() {
        for mount in mounts::volumes_from(value, around.find)? {
            add_unless_there(&mut all, mount);
        }
    }
    let own = request.image_volume.as_deref().unwrap_or("anonymous");
    for path in &image.volumes {
        match own {
            "bind" | "anonymous" | "" => add_unless_there(&mut all, mounts::image_volume(path)?),
            "tmpfs" => {
                let destination = mounts::image_volume(path)?.destination;
                add_unless_there(&mut all, MountRecord { destination, ..mounts::tmpfs("/x")? });
            }
            _ => {}
        }
    }
    if !matches!(own, "" | "bind" | "anonymous" | "tmpfs" | "ignore") {
        return Err(flag("image-volume", own, "it takes anonymous, bind, tmpfs or ignore"));
    }
    if request.read_only && request.read_only_tmpfs {
        for path in ["/run", "/tmp", "/var/tmp"] {
            add_unless_there(&mut all, mounts::tmpfs(path)?);
        }
    }
    Ok(all)
}

fn add_unless_there(all: &mut Vec<MountRecord>, mount: MountRecord) {
    if !all.iter().any(|there| there.destination == mount.destination) {
        all.push(mount);
    }
}

fn parse_device(value: &str) -> Result<DeviceRecord, Error> {
    let parts: Vec<&str> = value.split(':').collect();
    let is_permissions = |text: &str| !text.is_empty() && text.chars().all(|c| "rwm".contains(c));
    let (host, container, permissions) = match parts[..] {
        [host] => (host, host, "rwm"),
        [host, permissions] if is_permissions(permissions) => (host, host, permissions),
        [host, container] => (host, container, "rwm"),
        [host, container, permissions] if is_permissions(permissions) => (host, container, permissions),
        _ => return Err(flag("device", value, "it takes HOST-DEVICE[:CONTAINER-DEVICE][:PERMISSIONS]")),
    };
    if host.contains('=') && !host.starts_with('/') {
        return Err(Error::Unsupported { flag: "device", value: value.into() });
    }
    if !host.starts_with('/') || !container.starts_with('/') {
        return Err(flag("device", value, "a device is an absolute path"));
    }
    Ok(DeviceRecord { host: host.into(), container: container.into(), permissions: permissions.into() })
}

const ULIMITS: &[&str] = &[
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// The last one of each name counts; `host` is all of the caller's own, which the program has anyway.
pub(super) fn ulimits(values: &[String]) -> Result<Vec<UlimitRecord>, Error> {
    let mut all: Vec<UlimitRecord> = Vec::new();
    for value in values.iter().filter(|value| *value != "host") {
        let limit = ulimit(value)?;
        all.retain(|other| other.name != limit.name);
        all.push(limit);
    }
    Ok(all)
}

fn ulimit(value: &str) -> Result<UlimitRecord, Error> {
    let error = |why: &str| flag("ulimit", value, why);
    let (name, limits) = value.split_once('=').ok_or_else(|| error("it takes NAME=SOFT[:HARD]"))?;
    let name = name.to_ascii_lowercase();
    let name = name.strip_prefix("rlimit_").unwrap_or(&name);
    if !ULIMITS.contains(&name) {
        return Err(error("there is no such limit"));
    }
    let number = |text: &str| match text {
        "-1" | "unlimited" => Ok(None),
        text => text.parse().map(Some).map_err(|_| error("a limit is a number, -1 or unlimited")),
    };
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let (soft, hard) = (number(soft)?, number(hard)?);
    let above = match (soft, hard) {
        (None, Some(_)) => true,
        (Some(soft), Some(hard)) => soft > hard,
        (_, None) => false,
    };
    if above {
        return Err(error("the soft limit is above the hard limit"));
    }
    Ok(UlimitRecord { name: format!("RLIMIT_{}", name.to_ascii_uppercase()), soft, hard })
}

fn sysctls(request: &RunRequest, network: &NetworkMode) -> Result<BTreeMap<String, String>, Error> {
    let mut map = BTreeMap::new();
    for item in &request.sysctls {
        let (key, value) = item.split_once('=').ok_or_else(|| flag("sysctl", item, "it takes NAME=VALUE"))?;
        let key = key.replace('/', ".");
        let ipc = key.starts_with("fs.mqueue.")
            || ["kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall"]
                .contains(&key.as_str())
            || ["kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced"].contains(&key.as_str());
        if key.starts_with("net.") && *network == NetworkMode::Host {
            return Err(flag("sysctl", item, "it would change the host's network (--network host)"));
        }
        if ipc && request.ipc.as_deref() == Some("host") {
            return Err(flag("sysctl", item, "it would change the host's ipc namespace (--ipc host)"));
        }
        if !ipc && !key.starts_with("net.") {
            return Err(flag("sysctl", item, "it is not one that a namespace has for itself"));
        }
        map.insert(key, value.to_owned());
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(request: &RunRequest, image: &ImageDefaults) -> Result<ContainerConfig, Error> {
        let env = BTreeMap::from([("LANG".to_owned(), "C".to_owned()), ("LC_A".to_owned(), "1".to_owned())]);
        let around = Surroundings {
            cwd: Path::new("/w"),
            env: &env,
            short_id: "0123456789ab",
            host_name: "host",
            root: false,
            find: &|name| Err(format!("no container {name}")),
        };
        resolve(request, image, &around)
    }

    fn request() -> RunRequest {
        RunRequest { command: vec!["true".into()], ..RunRequest::default() }
    }

    #[test]
    fn entrypoint_and_command() {
        let image = ImageDefaults {
            entrypoint: vec!["/e".into()],
            command: vec!["c".into()],
            ..ImageDefaults::default()
        };
        let with = |request: RunRequest| {
            let config = resolved(&request, &image).unwrap();
            [config.entrypoint, config.command].concat()
        };
        assert_eq!(with(RunRequest::default()), ["/e", "c"]);
        assert_eq!(with(request()), ["/e", "true"]);
        let new = |text: &str, command: &[&str]| RunRequest {
            entrypoint: Some(text.into()),
            command: command.iter().map(|s| (*s).to_owned()).collect(),
            ..RunRequest::default()
        };
        assert_eq!(with(new("/n", &[])), ["/n"]);
        assert_eq!(with(new("[\"/n\", \"a\"]", &["b"])), ["/n", "a", "b"]);
        assert_eq!(with(new("", &["x"])), ["x"]);
        assert!(matches!(resolved(&new("", &[]), &image), Err(Error::NoCommand)));
    }

    #[test]
    fn capability_rules() {
        let set = |add: &[&str], drop: &[&str]| {
            let own = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
            capabilities(&own(add), &own(drop))
        };
        assert_eq!(set(&[], &["all"]).unwrap(), Vec::<String>::new());
        assert_eq!(set(&["cap_net_raw"], &["ALL"]).unwrap(), ["NET_RAW"]);
        assert_eq!(set(&["ALL"], &["SYS_ADMIN"]).unwrap().len(), capability::NAMES.len() - 1);
        assert!(set(&["NONSENSE"], &[]).is_err() && set(&["KILL"], &["KILL"]).is_err());
    }

    #[test]
    fn what_is_not_supported_is_refused() {
        let request = RunRequest { networks: vec!["slirp4netns:outbound_addr=eth0".into()], ..request() };
        let error = resolved(&request, &ImageDefaults::default()).unwrap_err();
        assert!(error.to_string().contains("is not supported yet"), "{error}");
    }

    #[test]
    fn limits_devices_and_sysctls() {
        assert_eq!(
            ulimit("nofile=1024:2048").unwrap(),
            UlimitRecord { name: "RLIMIT_NOFILE".into(), soft: Some(1024), hard: Some(2048) }
        );
        assert_eq!(ulimit("core=-1").unwrap().hard, None);
        for bad in ["nofile", "nope=1", "nofile=2:1", "nofile=x"] {
            assert!(ulimit(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_device("/dev/fuse:r").unwrap().permissions, "r");
        assert_eq!(parse_device("/dev/a:/dev/b:rw").unwrap().container, "/dev/b");
        assert!(parse_device("fuse").is_err());
        let mut request = request();
        request.sysctls = vec!["net.ipv4.ip_forward=1".into()];
        assert!(resolved(&request, &ImageDefaults::default()).is_ok());
        request.sysctls = vec!["kernel.panic=1".into()];
        assert!(resolved(&request, &ImageDefaults::default()).is_err());
    }

    #[test]
    fn a_bad_stop_signal_is_blamed_on_who_gave_it() {
        let image = ImageDefaults { stop_signal: Some("SIGNOPE".into()), ..ImageDefaults::default() };
        let told = resolved(&request(), &image).unwrap_err().to_string();
        assert!(told.contains("the image's") && told.contains("SIGNOPE"), "{told}");
        let own = |text: &str| RunRequest { stop_signal: Some(text.into()), ..request() };
        assert_eq!(resolved(&own("KILL"), &image).unwrap().stop_signal, libc::SIGKILL);
        let told = resolved(&own("NOPE"), &image).unwrap_err().to_string();
        assert!(told.starts_with("--stop-signal"), "{told}");
    }

    #[test]
    fn read_only_gets_writable_places() {
        let request = RunRequest { read_only: true, read_only_tmpfs: true, ..request() };
        let config = resolved(&request, &ImageDefaults::default()).unwrap();
        let places: Vec<_> = config.mounts.iter().map(|m| m.destination.as_str()).collect();
        assert_eq!(places, ["/run", "/tmp", "/var/tmp"]);
    }
}
