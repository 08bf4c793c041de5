//! `spec`: an example configuration to start from.

use serde_json::{Value, json};

use super::args::{Known, Parsed};
use super::{Done, Error};
use crate::sys::atomic::{self, Durability};
use crate::sys::ids;

pub(super) const OPTIONS: &[Known] =
    &[("bundle", Some('b'), true), ("file", Some('f'), true), ("rootless", None, false)];

pub(super) fn write(parsed: &Parsed) -> Done {
    let path = std::path::Path::new(parsed.value("bundle").unwrap_or("."))
        .join(parsed.value("file").unwrap_or("config.json"));
    let text = format!("{:#}\n", example(parsed.has("rootless")));
    atomic::create_new(&path, text.as_bytes(), 0o644, Durability::Volatile)
        .map_err(|source| Error::Io { action: format!("writing \"{}\"", path.display()), source })?;
    Ok(0)
}

fn example(rootless: bool) -> Value {
    let caps = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    let mut namespaces = vec!["pid", "network", "ipc", "uts", "mount", "cgroup"];
    if rootless {
        namespaces.push("user");
    }
    let namespaces: Vec<Value> = namespaces.into_iter().map(|kind| json!({"type": kind})).collect();
    let mut pts = vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    if !rootless {
        pts.push("gid=5");
    }
    let mut linux = json!({
        "namespaces": namespaces,
        "maskedPaths": ["/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
            "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"],
        "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
    });
    if rootless {
        linux["uidMappings"] = json!([{"containerID": 0, "hostID": ids::euid(), "size": 1}]);
        linux["gidMappings"] = json!([{"containerID": 0, "hostID": ids::egid(), "size": 1}]);
    }
    let bounding = caps.iter().filter_map(|name| serde_json::from_value(json!(name)).ok()).collect();
    linux["seccomp"] = json!(crate::seccomp::default_profile(&bounding));
    json!({
        "ociVersion": "1.2.1",
        "process": {
            "terminal": true,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "umiak",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": pts},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
                "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
                "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs",
                "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]},
        ],
        "linux": linux,
    })
}
