//! Signals: descriptors that report them, and their state across an exec.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// Blocks `signals` and reports them through a signalfd (non-blocking, close-on-exec).
pub fn signalfd(signals: &[i32]) -> io::Result<OwnedFd> {
    let set = set_of(signals);
    // SAFETY: `set` is initialised; the old mask is not asked for.
    if unsafe { libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) } == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: makes a new descriptor, which nobody else knows of.
    unsafe {
        let fd = libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd == -1 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

/// Reads the number of the next signal; none is left at `None`.
pub fn read_signal(signalfd: impl AsFd) -> io::Result<Option<i32>> {
    // SAFETY: an all-zero siginfo is valid, and read fills at most its size.
    let mut info: libc::signalfd_siginfo = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::signalfd_siginfo>();
    // SAFETY: as above.
    let read = unsafe { libc::read(signalfd.as_fd().as_raw_fd(), (&raw mut info).cast(), size) };
    if read == size as isize {
        return Ok(Some(info.ssi_signo as i32));
    }
    match io::Error::last_os_error() {
        error if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        error => Err(error),
    }
}

/// Gives every signal its default action and blocks none: what a program expects after exec
/// (Rust's runtime ignores SIGPIPE, which an exec would hand on).
pub fn reset() {
    // struct kernel_sigaction with SIG_DFL, no flags and an empty mask is all zeros.
    let default = [0_u64; 4];
    for signal in 1..=64 {
        // SAFETY: the default action runs no code of ours; the kernel reads at most 32 bytes. By a
        // raw call, because the C library keeps two signals to itself and would leave them ignored
        // if we inherited them so. The kernel refuses KILL and STOP: nothing to reset there.
        unsafe {
            let none = std::ptr::null_mut::<u8>();
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), none, size_of::<u64>())
        };
    }
    let none = set_of(&[]);
    // SAFETY: `none` is initialised.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut()) };
}

/// Does something while every signal is blocked.
pub fn blocked<T>(act: impl FnOnce() -> T) -> T {
    // SAFETY: an all-zero set is one; sigfillset fills it. The mask is put back as it was.
    unsafe {
        let (mut all, mut before) = (std::mem::zeroed(), std::mem::zeroed());
        libc::sigfillset(&mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &all, &mut before);
        let done = act();
        libc::sigprocmask(libc::SIG_SETMASK, &before, std::ptr::null_mut());
        done
    }
}

/// Ignores a signal.
pub fn ignore(signal: i32) {
    // SAFETY: no handler of ours is installed.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

fn set_of(signals: &[i32]) -> libc::sigset_t {
    // SAFETY: sigemptyset initialises the set; sigaddset refuses what is no signal.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        for signal in signals {
            libc::sigaddset(&mut set, *signal);
        }
        set
    }
}
