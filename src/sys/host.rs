//! What the host says of itself and of us.

use std::sync::OnceLock;

/// Our user id.
pub fn uid() -> u32 {
    rustix::process::getuid().as_raw()
}

/// Our group id.
pub fn gid() -> u32 {
    rustix::process::getgid().as_raw()
}

/// The host's name.
pub fn name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The kernel's major and minor version; 0.0 if it does not tell.
pub fn kernel_version() -> (u32, u32) {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|text| text.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Nanoseconds since 1970.
pub fn now() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

/// A text that changes with every boot: `/proc/sys/kernel/random/boot_id` (random(4)).
pub fn boot_id() -> &'static str {
    static BOOT_ID: OnceLock<String> = OnceLock::new();
    BOOT_ID.get_or_init(|| {
        let text = super::process::read_small("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        String::from_utf8_lossy(&text).trim().to_owned()
    })
}

/// Clock ticks a second, the unit of times in `/proc/PID/stat`.
pub fn clock_ticks() -> u64 {
    rustix::param::clock_ticks_per_second().max(1)
}

/// Whether nothing can be written to the mount that a path is on.
pub fn is_read_only(path: &str) -> bool {
    rustix::fs::statvfs(path).is_ok_and(|stat| stat.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}
