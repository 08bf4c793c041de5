//! From a container's configuration to an OCI runtime spec. Pure: what has to be known of the
//! host comes in as [`Host`].

use std::collections::HashMap;
use std::path::PathBuf;
use std::str::FromStr;

use oci_spec::runtime::{
    Capability, Linux, LinuxCapabilities, LinuxDeviceCgroup, LinuxIdMapping, LinuxIdMappingBuilder,
    LinuxIntelRdt, LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType, LinuxPersonality,
    LinuxPersonalityDomain, LinuxResources, LinuxSeccomp, Mount, MountBuilder, PosixRlimit,
    PosixRlimitBuilder, PosixRlimitType, Process, Root, Spec, User,
};

use crate::base::idmap::{IdMapping, IdRange};
use crate::runtime::plan;
use crate::security::capability;
use crate::security::paths::{MASKED_PATHS, READONLY_PATHS};
use crate::storage::containers::{
    ContainerConfig, ContainerRecord, DeviceRecord, DriverRecord, NamespaceMode,
};

/// What is known of the host.
#[derive(Clone, Debug)]
pub struct Host {
    /// Where the files lie that are bound over `/etc/hosts` and the like: path in the container,
    /// path on the host.
    pub files: Vec<(String, PathBuf)>,
    /// Hard limits that the process has now, which a user cannot raise.
    pub seccomp: Option<LinuxSeccomp>,
    /// Where the container's cgroup may be made, relative to the root of the cgroup tree.
    pub cgroup_path: Option<PathBuf>,
    /// Whether the host has its message queues mounted.
    pub mqueue: bool,
    /// Whether a cgroup file system can be mounted.
    pub cgroup_mount: bool,
    /// Namespaces that are joined and not made.
    pub join: Vec<(LinuxNamespaceType, PathBuf)>,
    /// Device nodes that the container gets.
    pub nodes: Vec<DeviceRecord>,
    /// Places of mounts that are another container's, too.
    pub borrowed: Vec<String>,
    /// `/dev/shm` is that of another container.
    pub shm_of_other: bool,
    /// The container's limits.
    pub resources: Option<LinuxResources>,
    /// Settings of the kernel can be written by way of the proc that the container will have.
    pub writable_sysctls: bool,
    /// Rules for devices beside the usual ones; `None` for a container that needs none.
    pub devices: Option<Vec<LinuxDeviceCgroup>>,
}

/// A combination that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The spec's types refuse a value.
    #[error("making the runtime configuration: {what}")]
    Spec {
        /// Which value.
        what: String,
        /// Why.
        #[source]
        source: oci_spec::OciSpecError,
    },
    /// A name that the runtime spec does not know.
    #[error("making the runtime configuration: there is no {what} \"{name}\"")]
    Unknown {
        /// "capability" or "resource limit".
        what: &'static str,
        /// Its name.
        name: String,
    },
}

/// The spec of a container's first process and of all around it.
pub fn spec(record: &ContainerRecord, rootfs: PathBuf, host: Host) -> Result<Spec, Error> {
    let config = &record.config;
    let mut root = Root::default();
    root.set_path(rootfs).set_readonly(Some(config.read_only));
    let mut spec = Spec::default();
    spec.set_version("1.2.1".into())
        .set_root(Some(root))
        .set_process(Some(process(config, args(config), config.env.clone(), config.tty, &config.user)?))
        .set_mounts(Some(mounts(record, &host)?))
        .set_linux(Some(linux(record, host)?))
        .set_annotations(Some(config.annotations.clone().into_iter().collect()));
    if config.uts == NamespaceMode::Private {
        spec.set_hostname(Some(config.hostname.clone()));
        spec.set_domainname(Some(config.kernel.domainname.clone()).filter(|name| !name.is_empty()));
    } else {
        spec.set_hostname(None);
    }
    Ok(spec)
}

/// The words of the first process.
pub fn args(config: &ContainerConfig) -> Vec<String> {
    [config.entrypoint.as_slice(), &config.command].concat()
}

/// Whether a user as written is root as far as can be known before the image's files are read.
fn is_root(user: &str) -> bool {
    matches!(user.split(':').next(), None | Some("" | "0" | "root"))
}

/// A process of the container: its first one, or one of `exec`.
pub fn process(
    config: &ContainerConfig,
    args: Vec<String>,
    env: Vec<String>,
    tty: bool,
    user: &str,
) -> Result<Process, Error> {
    let mut process = Process::default();
    let mut ids = User::default();
    let mut env = env;
    if config.one_id.apt && !env.iter().any(|variable| variable.starts_with("APT_CONFIG=")) {
        env.push(format!("APT_CONFIG={}", super::ids::APT_CONFIG));
    }
    ids.set_umask(config.kernel.umask);
    process
        .set_terminal(Some(tty))
        .set_user(ids)
        .set_oom_score_adj(config.kernel.oom_score_adj)
        .set_args(Some(args))
        .set_env(Some(env))
        .set_cwd(config.workdir.clone().into())
        .set_no_new_privileges(Some(config.no_new_privileges))
        .set_capabilities(Some(process_capabilities(config, user)?))
        .set_rlimits(Some(config.ulimits.iter().map(rlimit).collect::<Result<_, _>>()?));
    Ok(process)
}

/// Root gets the set as its own; another user gets only what was added by name, and may gain the
/// rest through set-uid programs (CVE-2022-24769: nothing is inheritable by default).
fn process_capabilities(config: &ContainerConfig, user: &str) -> Result<LinuxCapabilities, Error> {
    let parse = |names: &[String]| {
        names
            .iter()
            .map(|name| {
                Capability::from_str(name)
                    .map_err(|_| Error::Unknown { what: "capability", name: name.clone() })
            })
            .collect::<Result<std::collections::HashSet<_>, _>>()
    };
    let bounding = parse(&config.capabilities)?;
    let own = if is_root(user) {
        bounding.clone()
    } else {
        let added = super::config::capabilities(&config.cap_add, &["ALL".to_owned()]).unwrap_or_default();
        parse(&added)?.intersection(&bounding).copied().collect()
    };
    let ambient = if is_root(user) { std::collections::HashSet::new() } else { own.clone() };
    let mut capabilities = LinuxCapabilities::default();
    capabilities
        .set_bounding(Some(bounding))
        .set_effective(Some(own.clone()))
        .set_permitted(Some(own))
        .set_inheritable(Some(ambient.clone()))
        .set_ambient(Some(ambient));
    Ok(capabilities)
}

/// Whether a capability is ours to give where there is no user namespace: a machine's root may lack some.
pub fn held(name: &str) -> bool {
    let ours = crate::sys::capability::permitted().unwrap_or(0);
    capability::number(name).is_some_and(|number| ours & 1 << number != 0)
}

/// Every capability that there is; `own`: in no user namespace, so only what we have ourselves.
pub fn all_capabilities(own: bool) -> LinuxCapabilities {
    let names = capability::NAMES.iter().filter(|name| !own || held(name));
    let all: std::collections::HashSet<Capability> =
        names.filter_map(|name| Capability::from_str(name).ok()).collect();
    let mut capabilities = LinuxCapabilities::default();
    capabilities
        .set_bounding(Some(all.clone()))
        .set_effective(Some(all.clone()))
        .set_permitted(Some(all))
        .set_inheritable(Some(std::collections::HashSet::new()))
        .set_ambient(Some(std::collections::HashSet::new()));
    capabilities
}

fn rlimit(limit: &crate::storage::containers::UlimitRecord) -> Result<PosixRlimit, Error> {
    let kind = PosixRlimitType::from_str(&limit.name)
        .map_err(|_| Error::Unknown { what: "resource limit", name: limit.name.clone() })?;
    PosixRlimitBuilder::default()
        .typ(kind)
        .soft(limit.soft.unwrap_or(u64::MAX))
        .hard(limit.hard.unwrap_or(u64::MAX))
        .build()
        .map_err(|source| Error::Spec { what: limit.name.clone(), source })
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Result<Mount, Error> {
    MountBuilder::default()
        .destination(destination)
        .typ(kind)
        .source(source)
        .options(options.iter().map(|o| (*o).to_owned()).collect::<Vec<_>>())
        .build()
        .map_err(|source| Error::Spec { what: destination.into(), source })
}

fn mounts(record: &ContainerRecord, host: &Host) -> Result<Vec<Mount>, Error> {
    let config = &record.config;
    let mut list = vec![if config.pid == NamespaceMode::Host {
        // A proc of another pid namespace than one's own cannot be mounted.
        mount("/proc", "bind", "/proc", &["rbind", "nosuid", "noexec", "nodev", "rslave"])?
    } else {
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"])?
    }];
    list.push(mount(
        "/dev",
        "tmpfs",
        "tmpfs",
        &["nosuid", "noexec", "strictatime", "mode=755", "size=65536k"],
    )?);
    list.push(if !config.network.has_sysfs() && record.mapping.is_some() {
        // sysfs belongs to the network namespace, and the host's is not ours to mount.
        mount("/sys", "bind", "/sys", &["rbind", "nosuid", "noexec", "nodev", "ro", "rslave"])?
    } else {
        let direction = if config.privileged { "rw" } else { "ro" };
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", direction])?
    });
    // Group 5 is "tty" in Debian, Fedora and Alpine alike; without it mapped, devpts refuses it.
    let tty_mapped =
        record.mapping.as_ref().is_none_or(|mapping| IdMapping::to_host(&mapping.gids, 5).is_some());
    let mut devpts = vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    devpts.extend(tty_mapped.then_some("gid=5"));
    list.push(mount("/dev/pts", "devpts", "devpts", &devpts)?);
    if config.ipc != NamespaceMode::Host {
        list.push(mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"])?);
    } else if host.mqueue {
        list.push(mount("/dev/mqueue", "bind", "/dev/mqueue", &["rbind", "nosuid", "noexec", "nodev"])?);
    }
    if !config.no_shm && !config.mounts.iter().any(|m| m.destination == "/dev/shm") {
        // That of another container is known by more than its source.
        list.push(if config.ipc == NamespaceMode::Host || host.shm_of_other {
            mount("/dev/shm", "bind", "/dev/shm", &["rbind", "nosuid", "noexec", "nodev"])?
        } else {
            mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536000"])?
        });
    }
    let direction = if config.privileged { "rw" } else { "ro" };
    if host.cgroup_mount && (config.network.has_sysfs() || record.mapping.is_none()) {
        list.push(mount(
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            &["nosuid", "noexec", "nodev", "relatime", direction],
        )?);
    }
    for (destination, source) in &host.files {
        if !config.mounts.iter().any(|m| m.destination == *destination) {
            let source = source.to_string_lossy();
            let mut options = vec!["bind", "rprivate", "nosuid", "nodev"];
            // Often a link to one of all the zones, which is not to become another.
            options.extend(destination.ends_with("/etc/localtime").then_some("dest-nofollow"));
            list.push(mount(destination, "bind", &source, &options)?);
        }
    }
    for device in &host.nodes {
        // Bound, not made: mknod(2) is not for user namespaces. "dev" lifts what a bind gets else.
        list.push(mount(
            &device.container,
            "bind",
            &device.host,
            &["bind", "rprivate", "nosuid", "noexec", "dev"],
        )?);
    }
    // What the user asked for comes last, outer places before inner ones.
    let mut asked: Vec<_> = config.mounts.iter().collect();
    asked.sort_by_key(|m| m.destination.matches('/').count());
    for m in asked {
        let mut options: Vec<&str> = m.options.iter().map(String::as_str).collect();
        let (kind, source) = match (m.kind.as_str(), &m.driver) {
            (kind @ ("tmpfs" | "ramfs" | "devpts"), _) => (kind, kind),
            // Somebody else's mount of it is bound.
            (_, Some(DriverRecord::Filesystem { kind, source }))
                if !host.borrowed.contains(&m.destination) =>
            {
                options.retain(|option| !matches!(*option, "bind" | "rbind"));
                (kind.as_str(), source.as_str())
            }
            (_, Some(DriverRecord::Bind(path))) => ("bind", path.to_str().unwrap_or_default()),
            _ => ("bind", m.source.as_str()),
        };
        if host.borrowed.contains(&m.destination) {
            options.retain(|option| !option.contains('='));
        }
        options.extend(m.copy_up.then_some("tmpcopyup"));
        list.push(mount(&m.destination, kind, source, &options)?);
    }
    Ok(list)
}

/// The execution domain that was asked for.
pub fn personality(config: &ContainerConfig) -> Option<LinuxPersonality> {
    let domain = match config.kernel.linux32? {
        true => LinuxPersonalityDomain::PerLinux32,
        false => LinuxPersonalityDomain::PerLinux,
    };
    let mut personality = LinuxPersonality::default();
    personality.set_domain(domain);
    Some(personality)
}

fn linux(record: &ContainerRecord, host: Host) -> Result<Linux, Error> {
    let config = &record.config;
    let mut linux = Linux::default();
    let unmasked = |path: &str| {
        config.unmask.iter().any(|pattern| {
            pattern == "ALL"
                || pattern == path
                || pattern.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
        })
    };
    let masked = MASKED_PATHS.iter().filter(|path| !unmasked(path)).map(|path| (*path).to_owned());
    let readonly = READONLY_PATHS.iter().filter(|path| !unmasked(path)).map(|path| (*path).to_owned());
    let mut resources = host.resources.unwrap_or_default();
    resources.set_devices(host.devices.map(|given| {
        let mut deny = LinuxDeviceCgroup::default();
        deny.set_allow(false).set_access(Some("rwm".into()));
        std::iter::once(deny).chain(given).collect()
    }));
    linux
        .set_namespaces(Some(namespaces(record, host.join)?))
        .set_personality(personality(config))
        .set_uid_mappings(record.mapping.as_ref().map(|m| id_mappings(&m.uids)).transpose()?)
        .set_gid_mappings(record.mapping.as_ref().map(|m| id_mappings(&m.gids)).transpose()?)
        .set_masked_paths(Some(masked.chain(config.mask.iter().cloned()).collect()))
        .set_readonly_paths(Some(readonly.collect()))
        .set_rootfs_propagation(Some("private".into()))
        .set_seccomp(host.seccomp)
        .set_cgroups_path(host.cgroup_path)
        .set_resources(Some(resources))
        .set_intel_rdt(config.limits.rdt_class.clone().map(|class| {
            let mut rdt = LinuxIntelRdt::default();
            rdt.set_clos_id(Some(class));
            rdt
        }))
        .set_sysctl(Some(sysctls(record, host.writable_sysctls)));
    Ok(linux)
}

/// What was asked for, and `ping` for the container's root without CAP_NET_RAW, as in Podman.
fn sysctls(record: &ContainerRecord, writable: bool) -> HashMap<String, String> {
    let mut sysctls: HashMap<_, _> = record.config.sysctls.clone().into_iter().collect();
    if record.config.network.is_own() && writable {
        // The kernel takes only ids that are mapped.
        let group = record.mapping.as_ref().and_then(|m| m.gids.first()).map_or(0, |range| range.container);
        sysctls.entry("net.ipv4.ping_group_range".to_owned()).or_insert_with(|| format!("{group} {group}"));
    }
    sysctls
}

/// The kinds of namespaces that a container gets for itself; that of its ids is another one's if it was `joined_user`.
fn made(record: &ContainerRecord, joined_user: bool) -> impl Iterator<Item = LinuxNamespaceType> {
    use LinuxNamespaceType as T;
    let config = &record.config;
    let own = |mode: &NamespaceMode| *mode == NamespaceMode::Private;
    let wanted = [
        (T::User, record.mapping.is_some() && !joined_user),
        (T::Mount, true),
        (T::Pid, own(&config.pid)),
        (T::Ipc, own(&config.ipc)),
        (T::Uts, own(&config.uts)),
        (T::Network, config.network.is_own()),
        (T::Cgroup, own(&config.cgroupns)),
    ];
    wanted.into_iter().filter(|(_, wanted)| *wanted).map(|(kind, _)| kind)
}

/// Those of them that need not be compared with ours ([`plan::own_kinds`]).
pub fn own_kinds(record: &ContainerRecord) -> u64 {
    plan::own_among(made(record, false))
}

fn namespaces(
    record: &ContainerRecord,
    join: Vec<(LinuxNamespaceType, PathBuf)>,
) -> Result<Vec<LinuxNamespace>, Error> {
    let joined_user = join.iter().any(|(kind, _)| *kind == LinuxNamespaceType::User);
    let new = made(record, joined_user).map(|kind| (kind, None));
    new.chain(join.into_iter().map(|(kind, path)| (kind, Some(path))))
        .map(|(kind, path)| {
            let mut builder = LinuxNamespaceBuilder::default().typ(kind);
            if let Some(path) = path {
                builder = builder.path(path);
            }
            builder.build().map_err(|source| Error::Spec { what: kind.to_string(), source })
        })
        .collect()
}

fn id_mappings(ranges: &[IdRange]) -> Result<Vec<LinuxIdMapping>, Error> {
    ranges
        .iter()
        .map(|range| {
            LinuxIdMappingBuilder::default()
                .container_id(range.container)
                .host_id(range.host)
                .size(range.size)
                .build()
                .map_err(|source| Error::Spec { what: "id mapping".into(), source })
        })
        .collect()
}
