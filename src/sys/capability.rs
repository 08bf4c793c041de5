//! The five capability sets of the caller (capabilities(7)), as bit masks.

use std::io;

/// The sets a process shall have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sets {
    /// What an exec can at most give.
    pub bounding: u64,
    /// What counts.
    pub effective: u64,
    /// What may be made effective.
    pub permitted: u64,
    /// What passes an exec of a file with inheritable capabilities.
    pub inheritable: u64,
    /// What passes any exec of a user other than root.
    pub ambient: u64,
}

const VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// The highest capability that this kernel knows. Asked of the kernel itself: the file that says so is to be had only
/// where a proc file system is, and in a container that may be anything.
pub fn last() -> u32 {
    let known = |n: &u32| prctl_value(libc::PR_CAPBSET_READ, u64::from(*n)).is_ok();
    // CAP_CHECKPOINT_RESTORE, of Linux 5.9.
    let usual = 40;
    match known(&usual) {
        true => (usual..64).take_while(known).last(),
        false => (0..usual).rev().find(known),
    }
    .unwrap_or(usual)
}

/// Drops all but `keep` from the bounding set. Needs `CAP_SETPCAP`.
pub fn limit_bounding(keep: u64) -> io::Result<()> {
    for number in 0..64 {
        if keep & 1 << number != 0 {
            continue;
        }
        match prctl(libc::PR_CAPBSET_DROP, number, 0) {
            Ok(()) => {}
            // The first number that the kernel does not know.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => break,
            // Without CAP_SETPCAP it may still be that there is nothing to drop.
            Err(_) if prctl_value(libc::PR_CAPBSET_READ, number)? == 0 => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Keeps the permitted set over a change of all user ids from 0.
pub fn keep_over_setuid(keep: bool) -> io::Result<()> {
    prctl(libc::PR_SET_KEEPCAPS, u64::from(keep), 0)
}

/// Sets effective, permitted and inheritable.
pub fn set(sets: &Sets) -> io::Result<()> {
    let half = |shift: u32| Data {
        effective: (sets.effective >> shift) as u32,
        permitted: (sets.permitted >> shift) as u32,
        inheritable: (sets.inheritable >> shift) as u32,
    };
    let header = Header { version: VERSION_3, pid: 0 };
    let data = [half(0), half(32)];
    // SAFETY: version 3 takes a header and two data structures, which it only reads.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The caller's effective set.
pub fn effective() -> io::Result<u64> {
    Ok(held()?.0)
}

/// The caller's permitted set.
pub fn permitted() -> io::Result<u64> {
    Ok(held()?.1)
}

/// The caller's effective and permitted sets.
fn held() -> io::Result<(u64, u64)> {
    let header = Header { version: VERSION_3, pid: 0 };
    let mut data = [Data::default(); 2];
    // SAFETY: version 3 takes a header and fills two data structures.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw const header, data.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let whole = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    Ok((whole(data[0].effective, data[1].effective), whole(data[0].permitted, data[1].permitted)))
}

/// Sets the ambient set, which must be a part of permitted and inheritable.
pub fn set_ambient(ambient: u64) -> io::Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as u64, 0)?;
    for number in (0..64_u64).filter(|n| ambient & 1 << n != 0) {
        prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as u64, number)?;
    }
    Ok(())
}

/// No exec gives privileges any more (`PR_SET_NO_NEW_PRIVS`).
pub fn no_new_privileges() -> io::Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0)
}

/// Whether this process and what it starts gain nothing by an exec.
pub fn has_no_new_privileges() -> bool {
    // SAFETY: takes integers.
    unsafe { libc::prctl(libc::PR_GET_NO_NEW_PRIVS, 0_u64, 0_u64, 0_u64, 0_u64) == 1 }
}

fn prctl(option: libc::c_int, a: u64, b: u64) -> io::Result<()> {
    // SAFETY: the options used here take integers.
    if unsafe { libc::prctl(option, a, b, 0_u64, 0_u64) } == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn prctl_value(option: libc::c_int, a: u64) -> io::Result<i32> {
    // SAFETY: as above.
    match unsafe { libc::prctl(option, a, 0_u64, 0_u64, 0_u64) } {
        -1 => Err(io::Error::last_os_error()),
        value => Ok(value),
    }
}
