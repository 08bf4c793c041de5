//! A mark on a process that the kernel hands on to those that it makes and keeps over exec: the soft limit of
//! `RLIMIT_LOCKS`, at which no Linux since 2.6 looks (getrlimit(2)). A process can change its own.

use std::io;

/// Soft and hard limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The mark.
    pub value: u64,
    /// What it can never be above again.
    pub most: u64,
}

fn call(pid: i32, new: Option<libc::rlimit64>) -> io::Result<Mark> {
    let mut old = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    let new = new.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the kernel reads the one, if there is one, and writes the other.
    let result = unsafe { libc::syscall(libc::SYS_prlimit64, pid, libc::RLIMIT_LOCKS, new, &raw mut old) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Mark { value: old.rlim_cur, most: old.rlim_max })
}

/// That of a process, which may be named by any of its threads.
pub fn get(pid: i32) -> io::Result<Mark> {
    call(pid, None)
}

/// Sets it. Needs `CAP_SYS_RESOURCE` in the process's user namespace, or to be the same user.
pub fn set(pid: i32, mark: Mark) -> io::Result<()> {
    call(pid, Some(libc::rlimit64 { rlim_cur: mark.value, rlim_max: mark.most })).map(drop)
}

#[cfg(test)]
mod tests {
    use super::super::process::{CloneOptions, spawn, wait};
    use super::*;

    #[test]
    fn it_is_handed_on() {
        // The test harness has threads; what the child does here takes no lock.
        let child = spawn(CloneOptions::default(), || {
            let own = rustix::process::getpid().as_raw_nonzero().get();
            let before = get(own).unwrap();
            set(own, Mark { value: before.most / 3, most: before.most / 2 }).unwrap();
            let one = spawn(CloneOptions::default(), || {
                let mark = get(0).unwrap();
                u8::from(mark != Mark { value: before.most / 3, most: before.most / 2 })
            });
            let code = wait(&one.unwrap().pidfd).unwrap().code();
            u8::from(
                code != 0 || set(own, Mark { value: before.most / 2 + 1, most: before.most / 2 }).is_ok(),
            )
        })
        .unwrap();
        assert_eq!(wait(&child.pidfd).unwrap().code(), 0);
    }
}
