//! `inspect`: everything about a container, in the shape that Podman gives it.

use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::limits::Shown;
use super::list::{network_name, timestamp};
use super::network::show::port_map;
use super::{Engine, Error};
use crate::base::{signal, time};
use crate::storage::containers::{
    ContainerConfig, ContainerRecord, Exit, HealthRecord, NamespaceMode, RootfsSource, SeccompChoice, Status,
};

/// What Go prints for a time that never was.
const NEVER: &str = "0001-01-01T00:00:00Z";

fn moment(nanoseconds: i64) -> String {
    if nanoseconds == 0 { NEVER.into() } else { time::rfc3339(timestamp(nanoseconds), &TimeZone::system()) }
}

impl Engine {
    /// A container's inspection.
    pub fn inspect(&self, text: &str) -> Result<Value, Error> {
        let (record, status) = self.lookup(text)?;
        let config = &record.config;
        let args = super::specgen::args(config);
        let dir = self.containers.dir(&record.id);
        let (image, image_digest) = match &record.rootfs {
            RootfsSource::Image { id, digest, .. } => (id.hex(), digest.to_string()),
            RootfsSource::Directory(_) => (String::new(), String::new()),
        };
        let pids = status.running();
        let health = match config.health {
            // Right after the start its monitor may not have noted that the checks begin.
            Some(_) => match self.containers.health(&record.id)? {
                None if status.running().is_some() => Some(HealthRecord::default()),
                noted => noted,
            },
            None => None,
        };
        Ok(json!({
            "Id": record.id,
            "Created": moment(record.created),
            "Path": args.first(),
            "Args": args.get(1..).unwrap_or_default(),
            "State": state(&record, &status, health.as_ref(), self.containers.is_stopped(&record.id)),
            "Image": image,
            "ImageDigest": image_digest,
            "ImageName": record.image_name(),
            "Rootfs": match &record.rootfs {
                RootfsSource::Directory(path) => path.display().to_string(),
                RootfsSource::Image { .. } => String::new(),
            },
            "Pod": "",
            "ResolvConfPath": dir.join("resolv.conf"),
            "HostnamePath": dir.join("hostname"),
            "HostsPath": dir.join("hosts"),
            "StaticDir": dir,
            "OCIRuntime": "umiak",
            "ConmonPidFile": config.marks.monitor_pidfile.clone().unwrap_or_default(),
            "PidFile": config.marks.pidfile.clone().unwrap_or_default(),
            "Name": record.name,
            "RestartCount": status.restarts(),
            "Driver": "overlay",
            "MountLabel": "",
            "ProcessLabel": "",
            "AppArmorProfile": "",
            "EffectiveCaps": capabilities(config),
            "BoundingCaps": capabilities(config),
            "ExecIDs": [],
            "GraphDriver": self.graph_driver(&record, pids.is_some()),
            "Mounts": mounts(config),
            "Dependencies": [],
            "NetworkSettings": self.network_settings(&record, pids),
            "Namespace": "",
            "IsInfra": false,
            "IsService": false,
            "KubeExitCodePropagation": "invalid",
            "lockNumber": 0,
            "Config": configuration(&record),
            "HostConfig": self.host_config(&record, &status),
        }))
    }

    /// A container's inspection with what its files take.
    pub fn inspect_with_size(&self, text: &str) -> Result<Value, Error> {
        let mut value = self.inspect(text)?;
        let (record, _) = self.lookup(text)?;
        if let Some((written, all)) = self.container_sizes(&[&record])?.first() {
            value["SizeRw"] = (*written).into();
            value["SizeRootFs"] = (*all).into();
        }
        Ok(value)
    }

    fn graph_driver(&self, record: &ContainerRecord, running: bool) -> Value {
        let dir = self.containers.dir(&record.id);
        let RootfsSource::Image { layers, .. } = &record.rootfs else { return Value::Null };
        let store = self.layer_store(record);
        let lower: Vec<String> =
            layers.iter().rev().map(|chain_id| store.layer_dir(chain_id).display().to_string()).collect();
        let mut data = json!({
            "LowerDir": lower.join(":"),
            "UpperDir": dir.join("diff"),
            "WorkDir": dir.join("work"),
        });
        if running {
            // The overlay exists only in the container's own mount namespace.
            data["MergedDir"] = "/".into();
        }
        json!({ "Name": "overlay", "Data": data })
    }

    fn host_config(&self, record: &ContainerRecord, status: &Status) -> Value {
        let config = &record.config;
        let mode = |mode: &NamespaceMode| match mode {
            NamespaceMode::Private => "private".to_owned(),
            NamespaceMode::Host => "host".to_owned(),
            NamespaceMode::Container(id) => format!("container:{id}"),
            NamespaceMode::Path(path) => format!("ns:{}", path.display()),
        };
        let binds: Vec<String> = config
            .mounts
            .iter()
            .filter(|m| !matches!(m.kind.as_str(), "tmpfs" | "ramfs" | "devpts"))
            .map(|m| {
                let source = m.name.as_deref().unwrap_or(&m.source);
                format!("{source}:{}:{}", m.destination, m.options.join(","))
            })
            .collect();
        let tmpfs: serde_json::Map<String, Value> = config
            .mounts
            .iter()
            .filter(|m| m.kind == "tmpfs")
            .map(|m| (m.destination.clone(), m.options.join(",").into()))
            .collect();
        let ulimits: Vec<Value> = config
            .ulimits
            .iter()
            .map(|limit| json!({ "Name": limit.name, "Soft": limit.soft.map_or(-1, |n| n as i64), "Hard": limit.hard.map_or(-1, |n| n as i64) }))
            .collect();
        let devices: Vec<Value> = config
            .devices
            .iter()
            .map(|d| json!({ "PathOnHost": d.host, "PathInContainer": d.container, "CgroupPermissions": d.permissions }))
            .collect();
        let limits = Shown(&config.limits);
        let mut value = json!({
            "Binds": binds,
            "CgroupManager": limits.manager(status),
            "CgroupMode": mode(&config.cgroupns),
            "ContainerIDFile": config.marks.cidfile.clone().unwrap_or_default(),
            "LogConfig": {
                "Type": config.log.driver.name(),
                "Config": null,
                "Path": if config.log.driver.is_file() {
                    self.containers.log_path(record).display().to_string()
                } else {
                    String::new()
                },
                "Tag": config.log.tag.as_deref().unwrap_or_default(),
                "Size": config.log.size_max.map_or("0B".into(), crate::base::size::human),
            },
            "NetworkMode": network_name(&config.network, &config.net),
            "PortBindings": port_map(&config.net, false),
            "RestartPolicy": {
                "Name": config.restart.name(),
                "MaximumRetryCount": config.restart.bound(),
            },
            "AutoRemove": config.auto_remove,
            "Annotations": config.annotations,
            "VolumeDriver": "",
            "VolumesFrom": null,
            "CapAdd": config.cap_add,
            "CapDrop": config.cap_drop,
            "Dns": config.net.dns.servers,
            "DnsOptions": config.net.dns.options,
            "DnsSearch": config.net.dns.search.clone().unwrap_or_default(),
            "ExtraHosts": extra_hosts(&config.etc.add_hosts),
            "GroupAdd": config.who.groups,
            "IpcMode": if config.no_shm { "none".to_owned() } else { mode(&config.ipc) },
            "Cgroup": "",
            "Cgroups": limits.mode(config.cgroups),
            "Links": null,
            "OomScoreAdj": config.kernel.oom_score_adj.unwrap_or(0),
            "PidMode": mode(&config.pid),
            "Privileged": config.privileged,
            "PublishAllPorts": false,
            "ReadonlyRootfs": config.read_only,
            "SecurityOpt": config.security_opt,
            "Tmpfs": tmpfs,
            "UTSMode": mode(&config.uts),
            "UsernsMode": if record.mapping.is_some() { "private" } else { "" },
            "IDMappings": record.mapping.as_ref().map(|m| json!({
                "UidMap": m.uids.iter().map(|r| format!("{}:{}:{}", r.container, r.host, r.size)).collect::<Vec<_>>(),
                "GidMap": m.gids.iter().map(|r| format!("{}:{}:{}", r.container, r.host, r.size)).collect::<Vec<_>>(),
            })),
            "ShmSize": shm_size(config),
            "Runtime": "umiak",
            "ConsoleSize": [0, 0],
            "Isolation": "",
            "Devices": devices,
            "Ulimits": ulimits,
        });
        limits.add_to(&mut value);
        value
    }
}

/// Bytes of `/dev/shm`; 0 is no limit.
fn shm_size(config: &ContainerConfig) -> u64 {
    let mounts = config.mounts.iter().filter(|m| m.destination == "/dev/shm");
    let mut sizes = mounts.flat_map(|m| &m.options).filter_map(|option| option.strip_prefix("size="));
    sizes.next().and_then(|size| crate::base::size::parse(size).ok()).unwrap_or(65_536_000)
}

/// Podman's form: a name and an address each.
fn extra_hosts(lines: &[String]) -> Vec<String> {
    let parts = lines.iter().filter_map(|line| line.split_once('\t'));
    parts.flat_map(|(address, names)| names.split(' ').map(move |name| format!("{name}:{address}"))).collect()
}

fn capabilities(config: &ContainerConfig) -> Vec<String> {
    config.capabilities.iter().map(|name| format!("CAP_{name}")).collect()
}

/// What is known of a container's health, in Docker's and Podman's shape.
fn health_of(health: Option<&HealthRecord>) -> Value {
    let Some(health) = health else {
        return json!({ "Status": "", "FailingStreak": 0, "Log": null });
    };
    let runs = health.log.iter().map(|run| {
        json!({
            "Start": moment(run.start),
            "End": moment(run.end),
            "ExitCode": run.code,
            "Output": run.output,
        })
    });
    json!({
        "Status": health.status.name(),
        "FailingStreak": health.streak,
        "Log": runs.collect::<Vec<_>>(),
    })
}

fn state(record: &ContainerRecord, status: &Status, health: Option<&HealthRecord>, stopped: bool) -> Value {
    let (pid, monitor, started, cgroup) = match status {
        Status::Initialized(s) | Status::Running(s) | Status::Paused(s) | Status::Stopping(s) => (
            if matches!(status, Status::Stopping(_)) { 0 } else { s.pid },
            s.monitor,
            s.started,
            s.cgroup.as_ref().map(|path| path.display().to_string()).unwrap_or_default(),
        ),
        Status::Restarting(exit) | Status::Exited(exit) => (0, 0, exit.started, String::new()),
        Status::Created => (0, 0, 0, String::new()),
    };
    let (code, finished, error, unknown) = match status {
        Status::Restarting(exit) | Status::Exited(exit) => (
            exit.exit.code(),
            exit.finished,
            exit.error.clone().unwrap_or_default(),
            exit.exit == Exit::Unknown,
        ),
        _ => (0, 0, String::new(), false),
    };
    let error = if unknown && error.is_empty() { "the exit was not seen by anybody".into() } else { error };
    let oom = match status {
        Status::Running(s) | Status::Paused(s) | Status::Stopping(s) => {
            let group = s.cgroup.as_deref().filter(|_| record.config.limits.bounds_memory());
            group.is_some_and(|group| crate::cgroup::stats::oom_kills(group) > 0)
        }
        Status::Restarting(exit) | Status::Exited(exit) => exit.oom,
        Status::Created | Status::Initialized(_) => false,
    };
    json!({
        "OciVersion": "1.2.1",
        "Status": status.word(),
        "Running": matches!(status, Status::Running(_)),
        "Paused": matches!(status, Status::Paused(_)),
        "Restarting": matches!(status, Status::Restarting(_)),
        "OOMKilled": oom,
        "Dead": false,
        "Pid": pid,
        "ConmonPid": monitor,
        "ExitCode": code,
        "Error": error,
        "StartedAt": moment(started),
        "FinishedAt": moment(finished),
        "Health": health_of(health),
        "Healthcheck": health_of(health),
        "CgroupPath": cgroup,
        "StoppedByUser": stopped,
        "CheckpointedAt": NEVER,
        "RestoredAt": NEVER,
    })
}

fn mounts(config: &ContainerConfig) -> Vec<Value> {
    let shown = config.mounts.iter().filter(|m| !matches!(m.kind.as_str(), "tmpfs" | "ramfs" | "devpts"));
    shown
        .map(|m| {
            let propagation = m.options.iter().rev().find(|o| {
                ["private", "shared", "slave"].contains(&o.trim_start_matches('r')) && *o != "ro"
            });
            let mut mount = json!({
                "Type": m.kind,
                "Source": m.source,
                "Destination": m.destination,
                "Driver": if m.kind == "volume" { "local" } else { "" },
                "Mode": "",
                "Options": m.options.iter().filter(|o| !["rw", "ro", "rprivate"].contains(&o.as_str())).collect::<Vec<_>>(),
                "RW": m.rw,
                "Propagation": propagation,
            });
            if let Some(name) = &m.name {
                mount["Name"] = name.as_str().into();
            }
            mount
        })
        .collect()
}

fn configuration(record: &ContainerRecord) -> Value {
    let config = &record.config;
    let seccomp = match &config.seccomp {
        SeccompChoice::Default => "default",
        SeccompChoice::Unconfined => "unconfined",
        SeccompChoice::Profile { .. } => "profile",
    };
    let mut value = json!({
        "Hostname": config.hostname,
        "Domainname": config.kernel.domainname,
        "User": config.user,
        "AttachStdin": config.interactive,
        "AttachStdout": super::attach::Outputs::of(config).stdout,
        "AttachStderr": super::attach::Outputs::of(config).stderr,
        "Tty": config.tty,
        "OpenStdin": config.interactive,
        "StdinOnce": false,
        "Env": config.env,
        "Cmd": config.command,
        "Image": record.image_name(),
        "Volumes": null,
        "WorkingDir": config.workdir,
        "Entrypoint": config.entrypoint,
        "OnBuild": null,
        "Labels": config.labels,
        "Annotations": config.annotations,
        "StopSignal": signal::name(config.stop_signal),
        "HealthcheckOnFailureAction": config.health.as_ref().map_or("none", |health| health.on_failure.name()),
        "HealthLogDestination": log_place(config),
        "HealthcheckMaxLogCount": config.health.as_ref().map_or(5, |health| health.log_count),
        "HealthcheckMaxLogSize": config.health.as_ref().map_or(500, |health| health.log_size),
        "CreateCommand": record.create_command,
        "Umask": format!("{:04o}", config.kernel.umask.unwrap_or(0o022)),
        "Timeout": config.timeout,
        "StopTimeout": config.stop_timeout,
        "Passwd": !config.who.unlisted,
        "sdNotifyMode": "container",
        "SeccompProfile": seccomp,
    });
    if !config.net.exposed.is_empty() {
        let exposed = config.net.exposed.iter();
        let ports = exposed.map(|(port, protocol)| (format!("{port}/{}", protocol.name()), json!({})));
        value["ExposedPorts"] = ports.collect::<serde_json::Map<_, _>>().into();
    }
    if let Some(health) = &config.health {
        value["Healthcheck"] = json!({
            "Test": health.test,
            "StartPeriod": health.start_period,
            "StartInterval": health.start_interval,
            "Interval": health.interval,
            "Timeout": health.timeout,
            "Retries": health.retries,
        });
        if let Some(startup) = &health.startup {
            value["StartupHealthCheck"] = json!({
                "Test": startup.test,
                "Interval": startup.interval,
                "Timeout": startup.timeout,
                "Retries": startup.retries,
                "Successes": startup.success,
            });
        }
    }
    value
}

fn log_place(config: &ContainerConfig) -> String {
    let dir = config.health.as_ref().and_then(|health| health.log_destination.as_ref());
    dir.map_or("local".into(), |dir| dir.display().to_string())
}
