//! Landlock (landlock(7)): rules that a process takes upon itself and its children for good.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// `LANDLOCK_ACCESS_NET_CONNECT_TCP`.
const CONNECT_TCP: u64 = 1 << 1;
/// The version of the interface that knows the network, of Linux 6.7.
const NETWORK: libc::c_long = 4;

/// Whether the kernel has rules for the network.
pub fn rules_network() -> bool {
    const VERSION: libc::c_int = 1;
    // SAFETY: asks for the version: no structure is read.
    let version = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<libc::c_void>(), 0_usize, VERSION)
    };
    version >= NETWORK
}

/// Takes from the calling thread and its children to connect a TCP socket, whose ever it is. Others may do it for
/// them. It needs what a seccomp filter needs. A socket can be dissolved still, and sent by `MSG_FASTOPEN`, which
/// the kernel does not ask about: that is for a filter to see.
pub fn connect_no_tcp() -> io::Result<()> {
    // handled_access_fs and handled_access_net of struct landlock_ruleset_attr.
    let attributes = [0_u64, CONNECT_TCP];
    // SAFETY: the structure has as many bytes as is said, and is only read.
    let fd = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, attributes.as_ptr(), size_of_val(&attributes), 0)
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel made it, and nobody else knows of it.
    let rules = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
    // SAFETY: takes integers.
    match unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
