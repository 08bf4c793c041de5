//! Becoming a process of one's own: fork without exec, and leaving the parent's things behind.

use std::io;
use std::os::fd::RawFd;

/// Which side of a fork this is.
#[derive(Debug)]
pub enum Fork {
    /// The new process.
    Child,
    /// The old one, with the new one's pid.
    Parent(i32),
}

/// fork(2). The caller must be single-threaded: another thread's locks would stay taken for ever
/// in the child.
pub fn fork() -> io::Result<Fork> {
    // SAFETY: single-threaded by contract, so the child's memory is consistent.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(pid)),
    }
}

/// Closes every descriptor from 3 on but those in `keep`.
pub fn close_fds_except(keep: &[RawFd]) {
    let mut keep: Vec<RawFd> = keep.iter().copied().filter(|fd| *fd >= 3).collect();
    keep.sort_unstable();
    keep.dedup();
    let mut first: u32 = 3;
    for fd in keep {
        let fd = fd as u32;
        if fd > first {
            close_range(first, fd - 1);
        }
        first = fd + 1;
    }
    close_range(first, u32::MAX);
}

/// Closes descriptors that somebody else opened for a process of ours.
pub fn close_fds(fds: &[u32]) {
    fds.iter().for_each(|fd| close_range(*fd, *fd));
}

fn close_range(first: u32, last: u32) {
    // SAFETY: no owner of these descriptors uses them again: this process keeps only what was named.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if result != 0 {
        // Before Linux 5.9. The limit bounds what can be open.
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(65_536);
        for fd in first..=last.min(limit as u32) {
            // SAFETY: as above.
            unsafe { libc::close(fd as i32) };
        }
    }
}

/// Gives memory that was freed back to the kernel: for a process that has done most of what needs
/// memory and will live long.
pub fn release_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) touches only free memory.
    unsafe {
        libc::malloc_trim(0);
    }
}
