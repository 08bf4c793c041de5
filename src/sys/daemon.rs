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

/// How deep calls may have gone (bytes): less than the gap that the kernel keeps free below a stack (256 pages).
const DEPTH: usize = 512 << 10;

/// Lets go of what is below the stack's end.
#[inline(never)]
fn release_stack() {
    // Below a thread's stack there may be anything.
    if rustix::thread::gettid() != rustix::process::getpid() {
        return;
    }
    let here = 0_u8;
    let page = rustix::param::page_size();
    // Beyond this function's own frame and the red zone that leaf functions use without saying so, and
    // what the call of madvise itself takes.
    let end = ((&raw const here as usize) - 2 * page) / page * page;
    // SAFETY: nobody uses what is below the stack pointer; where there is no memory, nothing is done.
    unsafe {
        libc::madvise((end - DEPTH) as *mut libc::c_void, DEPTH, libc::MADV_DONTNEED);
    }
}

/// Gives memory that was freed back to the kernel, also that of deeper calls on the stack, and lets go of the
/// pages of our own code, which come back from the file as they are used: for a process that has done most of
/// what it has to and will live long.
pub fn release_memory() {
    release_stack();
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) touches only free memory.
    unsafe {
        libc::malloc_trim(0);
    }
    // Where the linker says that the program begins and its code ends.
    unsafe extern "C" {
        static __executable_start: u8;
        static etext: u8;
    }
    let page = rustix::param::page_size();
    let start = (&raw const __executable_start as usize).next_multiple_of(page);
    let end = (&raw const etext as usize) / page * page;
    if start < end {
        // SAFETY: constants and code, which nobody writes to (linkers refuse relocations in code), so all
        // pages are the file's own. A kernel that does not want to leaves them.
        unsafe {
            libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED);
        }
    }
}
