//! How the kernel schedules the caller: policy, processors, input and output, memory nodes.

use std::io;

fn check(result: libc::c_long) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// `struct sched_attr` of sched_setattr(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Policy {
    /// Of this structure; [`set_policy`] fills it in.
    pub size: u32,
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// -20 to 19, for `SCHED_OTHER` and `SCHED_BATCH`.
    pub nice: i32,
    /// 1 to 99, for `SCHED_FIFO` and `SCHED_RR`.
    pub priority: u32,
    /// Nanoseconds, for `SCHED_DEADLINE`.
    pub runtime: u64,
    /// Nanoseconds, for `SCHED_DEADLINE`.
    pub deadline: u64,
    /// Nanoseconds, for `SCHED_DEADLINE`.
    pub period: u64,
}

/// Sets the caller's scheduling policy. Needs `CAP_SYS_NICE` for more than it has.
pub fn set_policy(policy: &Policy) -> io::Result<()> {
    let policy = Policy { size: size_of::<Policy>() as u32, ..*policy };
    // SAFETY: the kernel reads as much of the structure as its first field says, which is all of it.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const policy, 0) })
}

/// Sets the caller's class (1 real time, 2 best effort, 3 idle) and level (0 to 7) of ioprio_set(2).
pub fn set_io_priority(class: u32, level: u32) -> io::Result<()> {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    // SAFETY: takes integers.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, class << 13 | level & 0x1fff) })
}

/// A set of processors or memory nodes, as the kernel has it.
fn mask(numbers: &[u32]) -> Vec<u64> {
    let words = numbers.iter().max().map_or(1, |most| *most as usize / 64 + 1);
    let mut mask = vec![0_u64; words];
    for number in numbers {
        mask[*number as usize / 64] |= 1 << (number % 64);
    }
    mask
}

/// Lets the caller run on these processors only (sched_setaffinity(2)).
pub fn set_affinity(processors: &[u32]) -> io::Result<()> {
    let mask = mask(processors);
    // SAFETY: the kernel reads as many bytes as are given.
    check(unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, mask.len() * 8, mask.as_ptr()) })
}

/// Sets where the caller's memory comes from (set_mempolicy(2)): a mode with its flags, and nodes.
pub fn set_memory_policy(mode: u32, nodes: &[u32]) -> io::Result<()> {
    if nodes.is_empty() {
        // SAFETY: no nodes are given.
        return check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, std::ptr::null::<u64>(), 0) });
    }
    let mask = mask(nodes);
    // The kernel takes one bit less than it is told.
    let bits = mask.len() * 64 + 1;
    // SAFETY: the kernel reads as many bits as there are.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask.as_ptr(), bits) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_have_as_many_words_as_they_need() {
        assert_eq!(mask(&[0, 3]), [9]);
        assert_eq!(mask(&[64]), [0, 1]);
        assert_eq!(size_of::<Policy>(), 48, "SCHED_ATTR_SIZE_VER0");
    }

    #[test]
    fn one_may_always_lower_oneself() {
        std::thread::spawn(|| {
            set_policy(&Policy { policy: libc::SCHED_BATCH as u32, nice: 5, ..Policy::default() }).unwrap();
            set_io_priority(3, 0).unwrap();
        })
        .join()
        .unwrap();
    }
}
