//! User namespaces: making them and mapping their ids (user_namespaces(7)).

use std::io::{self, Read, Write};

use rustix::pipe::{PipeFlags, pipe_with};

use crate::base::idmap::{IdMapping, map_text};

/// Ids could not be mapped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused a user namespace.
    #[error("creating a user namespace")]
    Create(#[source] io::Error),
    /// The maps could not be written.
    #[error("mapping the ids of the user namespace")]
    Map(#[source] io::Error),
}

/// Makes the (single-threaded) caller root of a new user namespace with this mapping; for work on
/// files that belong to mapped ids.
#[allow(clippy::disallowed_methods)] // newuidmap and newgidmap are the only foreign programs.
pub fn enter(mapping: &IdMapping) -> Result<(), Error> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(|e| Error::Map(e.into()))?;
    let parent = std::process::id();
    // SAFETY: single-threaded by contract.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        drop(writer);
        let mut byte = [0];
        let _ = std::fs::File::from(reader).read(&mut byte);
        let run = |program: &str, ranges: &[crate::base::idmap::IdRange]| {
            let numbers = ranges.iter().flat_map(|r| [r.container, r.host, r.size]).map(|n| n.to_string());
            let mut command = std::process::Command::new(program);
            command.arg(parent.to_string()).args(numbers).status().is_ok_and(|s| s.success())
        };
        let direct = rustix::process::geteuid().is_root() || mapping.uids.iter().all(|r| r.size == 1);
        let ok = if direct {
            let write = |name: &str, text: String| std::fs::write(format!("/proc/{parent}/{name}"), text).is_ok();
            let _ = rustix::process::geteuid().is_root() || write("setgroups", "deny".into());
            write("uid_map", map_text(&mapping.uids)) && write("gid_map", map_text(&mapping.gids))
        } else {
            run("newuidmap", &mapping.uids) && run("newgidmap", &mapping.gids)
        };
        // SAFETY: ends the helper process at once.
        unsafe { libc::_exit(i32::from(!ok)) }
    }
    drop(reader);
    // SAFETY: a flag and no pointers.
    if unsafe { libc::unshare(libc::CLONE_NEWUSER) } != 0 {
        return Err(Error::Create(io::Error::last_os_error()));
    }
    std::fs::File::from(writer).write_all(b"G").map_err(Error::Map)?;
    let mut status = 0;
    // SAFETY: our own child and a valid pointer.
    unsafe { libc::waitpid(pid, &raw mut status, 0) };
    // SAFETY: system calls with plain integers.
    let become_root = unsafe { libc::setresgid(0, 0, 0) == 0 && libc::setresuid(0, 0, 0) == 0 };
    if status != 0 || !become_root {
        return Err(Error::Map(io::Error::from_raw_os_error(libc::EPERM)));
    }
    Ok(())
}
