//! Places in `/proc` and `/sys` that tell of the host or act on it.

/// Hidden from containers: what leaks the host's secrets (keys, memory), timings that help attacks
/// (power, thermal and interrupt counters), or switches of the firmware.
pub const MASKED_PATHS: &[&str] = &[
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/dev/block",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/fs/selinux",
];

/// May be read but not written: kernel parameters that are not namespaced.
pub const READONLY_PATHS: &[&str] =
    &["/proc/asound", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
