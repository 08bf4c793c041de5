//! `info`: what this machine gives containers and what it does not, with the command that would
//! give more.

use std::fs;

use serde_json::{Value, json};

use super::doctor::{self, Diagnosis, Findings, Tried};
use super::{Engine, Error};
use crate::image::manifest::own_architecture;
use crate::network::nft::QueueKind;
use crate::security::idmap::RungKind;
use crate::storage::containers::Status;
use crate::sys::host;

impl Engine {
    /// Podman's shape where Podman has a word for it, and `isolation` for the rungs of ours.
    pub fn info(&self) -> Result<Value, Error> {
        let found = doctor::gather(&self.paths, true);
        let mut host = self.host(&found);
        host["isolation"] = self.isolation(&found);
        Ok(json!({
            "host": host,
            "plugins": {
                "volume": ["local"],
                "network": ["bridge"],
                "log": ["k8s-file", "json-file", "journald", "none", "passthrough"],
                "authorization": null,
            },
            "registries": {},
            "store": self.store_value()?,
            "version": version_value(),
        }))
    }

    fn host(&self, found: &Findings) -> Value {
        let rung = self.rung();
        let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
        let (memory, swap) = (memory("Mem"), memory("Swap"));
        let (distribution, version, codename) = distribution();
        let ranges = |ranges: &[crate::base::idmap::IdRange]| {
            ranges
                .iter()
                .map(|r| json!({ "container_id": r.container, "host_id": r.host, "size": r.size }))
                .collect::<Vec<_>>()
        };
        let cgroup = &found.cgroup;
        let pure = crate::cgroup::tree().is_some_and(|tree| tree.mount.ends_with("cgroup"));
        json!({
            "arch": own_architecture(),
            "cgroupManager": if cgroup.by_systemd { "systemd" } else { "cgroupfs" },
            "cgroupVersion": if pure { "v2" } else { "v1" },
            "cgroupControllers": cgroup.controllers,
            "cpus": std::thread::available_parallelism().map_or(1, usize::from),
            "distribution": { "distribution": distribution, "version": version, "codename": codename },
            "eventLogger": "file",
            "linkmode": "static",
            "networkBackend": "umiak",
            "remoteSocket": { "exists": false, "path": "" },
            "serviceIsRemote": false,
            "slirp4netns": { "executable": "", "package": "", "version": "" },
            "swapFree": swap.1,
            "swapTotal": swap.0,
            "uptime": uptime(),
            "hostname": host::name(),
            "idMappings": { "uidmap": ranges(&rung.mapping.uids), "gidmap": ranges(&rung.mapping.gids) },
            "kernel": kernel,
            "logDriver": "k8s-file",
            "memTotal": memory.0,
            "memFree": memory.1,
            "ociRuntime": {
                "name": "umiak",
                "package": "",
                "path": fs::read_link("/proc/self/exe").unwrap_or_default(),
                "version": env!("CARGO_PKG_VERSION"),
            },
            "os": "linux",
            "rootlessNetworkCmd": "",
            "security": security(rung.kind),
        })
    }

    /// The rung of each ladder, and why.
    fn isolation(&self, found: &Findings) -> Value {
        let (rung, cgroup) = (self.rung(), &found.cgroup);
        json!({
            "ids": {
                "rung": match rung.kind {
                    RungKind::Root => "root",
                    RungKind::Subordinate => "subordinate ids",
                    RungKind::Single => "one id",
                },
                "why": rung.why,
                "hint": rung.hint,
                "otherMappings": self.other_mappings(),
                "owners": if rung.kind == RungKind::Single { "emulated" } else { "real" },
            },
            "files": files_rung(found.store.overlay),
            "cgroup": {
                "rung": match (cgroup.available, cgroup.controllers.iter().any(|name| name == "memory")) {
                    (false, _) => "none",
                    (true, false) => "tracking",
                    (true, true) => "limits",
                },
                "why": cgroup.why,
                "hint": cgroup.hint,
            },
            "network": network_rung(&self.paths.runroot),
            "checks": doctor::diagnose(found).iter().map(Diagnosis::value).collect::<Vec<_>>(),
        })
    }

    fn store_value(&self) -> Result<Value, Error> {
        let disk = rustix::fs::statvfs(&self.paths.root).ok();
        let blocks = |count: fn(&rustix::fs::StatVfs) -> u64| {
            disk.as_ref().map_or(0, |disk| count(disk).saturating_mul(disk.f_frsize))
        };
        let (mut running, mut paused) = (0, 0);
        let ids = self.containers.ids()?;
        for id in &ids {
            match super::pause::told(self.containers.status(id)?) {
                Status::Running(_) => running += 1,
                Status::Paused(_) => paused += 1,
                _ => {}
            }
        }
        Ok(json!({
            "configFile": "",
            "graphOptions": {},
            "graphRootAllocated": blocks(|disk| disk.f_blocks),
            "graphRootUsed": blocks(|disk| disk.f_blocks.saturating_sub(disk.f_bfree)),
            "graphStatus": {},
            "imageCopyTmpDir": self.paths.root.join("staging"),
            "containerStore": {
                "number": ids.len(),
                "paused": paused,
                "running": running,
                "stopped": ids.len() - running - paused,
            },
            "graphDriverName": "overlay",
            "graphRoot": self.paths.root,
            "imageStore": { "number": self.store.images()?.len() },
            "runRoot": self.paths.runroot,
            "volumePath": self.paths.root.join("volumes"),
        }))
    }
}

fn security(kind: RungKind) -> Value {
    let capabilities: Vec<_> =
        crate::security::capability::DEFAULT.iter().map(|name| format!("CAP_{name}")).collect();
    json!({
        "apparmorEnabled": std::path::Path::new("/sys/kernel/security/apparmor").exists(),
        "capabilities": capabilities.join(","),
        "rootless": kind != RungKind::Root,
        "seccompEnabled": true,
        "seccompProfilePath": "",
        "selinuxEnabled": std::path::Path::new("/sys/fs/selinux/enforce").exists(),
    })
}

/// How containers get the files of their images in this store: what came of trying.
fn files_rung(overlay: Tried) -> Value {
    match overlay.map(std::io::Error::from_raw_os_error) {
        None => json!({ "rung": "overlay", "why": "layers are stacked by the kernel" }),
        Some(why) => json!({
            "rung": "copies",
            "why": format!("each container copies its image: overlayfs cannot write to this file system ({why})"),
            "hint": "--root names a directory on another file system: ext4, xfs, btrfs, tmpfs",
        }),
    }
}

/// What `version` tells.
pub fn version_value() -> Value {
    json!({
        "APIVersion": env!("CARGO_PKG_VERSION"),
        "Version": env!("CARGO_PKG_VERSION"),
        "GoVersion": "",
        "GitCommit": "",
        "BuiltTime": "",
        "Built": 0,
        "OsArch": format!("linux/{}", own_architecture()),
        "Os": "linux",
    })
}

/// How long the machine has been up, in Go's words.
fn uptime() -> String {
    let text = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds = text.split_whitespace().next().and_then(|word| word.parse::<f64>().ok()).unwrap_or(0.0);
    let whole = seconds as u64;
    let days = seconds / 86400.0;
    format!("{}h {}m {:.2}s (Approximately {days:.2} days)", whole / 3600, whole / 60 % 60, seconds % 60.0)
}

/// Total and free memory (`Mem`, `Swap`) in bytes.
fn memory(kind: &str) -> (u64, u64) {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    let field = |name: &str| field(&format!("{kind}{name}:")).unwrap_or(0) * 1024;
    (field("Total"), field("Free"))
}

/// Name, version and code name of the distribution (os-release(5)).
fn distribution() -> (String, String, String) {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or("unknown").trim_matches('"').to_owned()
    };
    (field("ID"), field("VERSION_ID"), field("VERSION_CODENAME"))
}

/// How a container's packets come to the host, as the last one that was started found it.
fn network_rung(runroot: &std::path::Path) -> Value {
    let found = std::fs::read_to_string(runroot.join(crate::monitor::QUEUE_FILE)).unwrap_or_default();
    let (rung, why) = match QueueKind::of_word(&found) {
        Some(QueueKind::Native | QueueKind::Target) => (
            "tproxy",
            "the kernel hands connections to the relay, and holds them until their destination answers",
        ),
        Some(QueueKind::Absent) => (
            "tproxy without holding",
            "the kernel has no queues of packets (nfnetlink_queue): connections are accepted before they are dialled",
        ),
        Some(QueueKind::Frames) => (
            "frames",
            "the kernel has no rules that hand over (nf_tables with tproxy): the relay carries frames by hand, which is slower",
        ),
        Some(QueueKind::Helper) => (
            "slirp4netns",
            "the kernel gives no other way, and pasta is not installed: no ports, no rules, no shared networks, and link-local addresses are open",
        ),
        Some(QueueKind::Pasta) => (
            "pasta",
            "the kernel gives no other way: no rules, no shared networks, and link-local addresses are open",
        ),
        None => ("unknown", "no container with a network of its own has been started since the machine was"),
    };
    json!({ "rung": rung, "why": why })
}

impl Engine {
    /// What it costs to give a container other ids than the usual ones.
    fn other_mappings(&self) -> &'static str {
        match self.rung().kind {
            RungKind::Single => "--userns=keep-id costs nothing: all files are of the one id",
            RungKind::Root if self.can_map_layers() => {
                "--userns=auto and --uidmap cost nothing: the kernel shows the image's files with other ids"
            }
            RungKind::Subordinate | RungKind::Root => {
                "--userns=keep-id and auto, and --uidmap, copy the image's files before a container's first start, with \
                 their owners changed"
            }
        }
    }
}
