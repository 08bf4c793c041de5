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

/// Ignores a signal.
pub fn ignore(signal: i32) {
    // SAFETY: no handler of ours is installed.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Names and numbers of signals without the real-time ones, as on all architectures we run on.
const NAMES: [(&str, i32); 33] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
];

/// The number of a signal given as `9`, `KILL`, `SIGKILL`, `sigkill`, `RTMIN+1` or `RTMAX-1`.
pub fn parse(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = |text: &str| -> Option<i32> {
        if let Some(rest) = text.strip_prefix("RTMIN") {
            return if rest.is_empty() {
                Some(34)
            } else {
                rest.strip_prefix('+')?.parse::<i32>().ok()?.checked_add(34)
            };
        }
        let rest = text.strip_prefix("RTMAX")?;
        if rest.is_empty() { Some(64) } else { 64_i32.checked_sub(rest.strip_prefix('-')?.parse().ok()?) }
    };
    match NAMES.iter().find(|(known, _)| *known == name) {
        Some((_, number)) => Some(*number),
        None => real_time(name).filter(|number| (34..=64).contains(number)),
    }
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

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn names_in_every_form() {
        for (text, number) in [
            ("9", 9),
            ("KILL", 9),
            ("SIGKILL", 9),
            ("sigterm", 15),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
        ] {
            assert_eq!(parse(text), Some(number), "{text}");
        }
        for bad in ["", "0", "65", "-1", "SIG", "FOO", "RTMIN+31", "RTMIN-1"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
