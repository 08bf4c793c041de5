//! `features`: what this runtime can do, from the tables that it does it by (`features.md`).

use serde_json::json;

use super::{Done, SPEC_VERSION, print};
use crate::runtime::plan;
use crate::seccomp;

pub(super) fn features() -> Done {
    let capabilities: Vec<String> =
        crate::security::capability::names(u64::MAX >> (63 - crate::sys::capability::last()));
    let on = json!({"enabled": true});
    let value = json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": SPEC_VERSION,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": plan::known_options(),
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": capabilities,
            "cgroup": {"v1": false, "v2": true, "systemd": true, "systemdUser": true, "rdma": true},
            "seccomp": {
                "enabled": true,
                "actions": seccomp::ACTIONS,
                "operators": seccomp::OPERATORS,
                "archs": seccomp::architectures(),
                "knownFlags": seccomp::FLAGS,
                "supportedFlags": seccomp::FLAGS,
            },
            "apparmor": on,
            "selinux": on,
            "intelRdt": {"enabled": true, "schemata": true, "monitoring": true},
            "memoryPolicy": {"modes": plan::MEMORY_MODES.map(|(name, _)| name), "flags": plan::MEMORY_FLAGS.map(|(name, _)| name)},
            "mountExtensions": {"idmap": on},
            "netDevices": on,
        },
        "annotations": {},
        "potentiallyUnsafeConfigAnnotations": [plan::KEEP_GROUPS],
    });
    print(&format!("{value:#}\n"))
}
