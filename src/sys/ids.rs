//! The caller's own user and group ids, limits, keyring and the like. All by raw calls: the C
//! library's versions would signal every thread, of which there is one.

use std::io;

fn check(result: libc::c_long) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sets real, effective and saved user id.
pub fn set_uid(uid: u32) -> io::Result<()> {
    // SAFETY: takes integers.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) })
}

/// Sets real, effective and saved group id.
pub fn set_gid(gid: u32) -> io::Result<()> {
    // SAFETY: takes integers.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) })
}

/// Sets whom files are made as, and keeps the capabilities over files, which go with a user id of 0 (capabilities(7)).
pub fn set_file_ids(uid: u32, gid: u32) -> io::Result<()> {
    let before = super::capability::permitted()?;
    // SAFETY: takes integers. These calls tell no errors, but the value of before.
    unsafe {
        libc::syscall(libc::SYS_setfsgid, gid);
        libc::syscall(libc::SYS_setfsuid, uid);
        // An id that nobody has is not taken: what it says is what is so.
        let none = u32::MAX;
        let now = (libc::syscall(libc::SYS_setfsuid, none), libc::syscall(libc::SYS_setfsgid, none));
        if now != (libc::c_long::from(uid), libc::c_long::from(gid)) {
            return Err(io::Error::from_raw_os_error(libc::EPERM));
        }
    }
    let sets = super::capability::Sets { effective: before, permitted: before, ..Default::default() };
    super::capability::set(&sets)
}

/// Sets the supplementary groups. Refused with EPERM in a user namespace with setgroups denied.
pub fn set_groups(groups: &[u32]) -> io::Result<()> {
    // SAFETY: the kernel reads `groups.len()` ids.
    check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) })
}

/// The caller's supplementary groups.
pub fn groups() -> io::Result<Vec<u32>> {
    let groups = rustix::process::getgroups()?;
    Ok(groups.into_iter().map(|group| group.as_raw()).collect())
}

/// Sets a resource limit of the caller (setrlimit(2)).
pub fn set_limit(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    let none = std::ptr::null_mut::<libc::rlimit64>();
    // SAFETY: the kernel reads one rlimit64 and writes none.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, &raw const limit, none) })
}

/// A resource limit of the caller: soft, hard.
pub fn limit(resource: u32) -> io::Result<(u64, u64)> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    let none = std::ptr::null::<libc::rlimit64>();
    // SAFETY: the kernel writes one rlimit64.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, none, &raw mut limit) })?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// Gives the caller a new session keyring, so that it cannot use its parent's keys.
pub fn new_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: no name is given.
    check(unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>())
    })
}

/// Sets the execution domain (personality(2)).
pub fn set_personality(persona: u64) -> io::Result<()> {
    // SAFETY: takes an integer.
    check(unsafe { libc::syscall(libc::SYS_personality, persona) })
}

/// Sets the NIS domain name of the UTS namespace.
pub fn set_domainname(name: &[u8]) -> io::Result<()> {
    // SAFETY: the kernel reads `name.len()` bytes.
    check(unsafe { libc::syscall(libc::SYS_setdomainname, name.as_ptr(), name.len()) })
}

/// The caller's effective user id.
pub fn euid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The caller's effective group id.
pub fn egid() -> u32 {
    rustix::process::getegid().as_raw()
}
