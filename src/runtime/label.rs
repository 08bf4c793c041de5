//! Labels of AppArmor and SELinux. They are asked of the kernel for the next exec, through a file of
//! the container's own proc.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::OFlags;

use super::init::{Doing, PROC_MAGIC};
use super::plan::Labels;
use super::protocol::Failure;
use crate::sys::path::Root;

/// Which of the security modules that give labels this kernel has switched on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Modules {
    /// AppArmor.
    pub apparmor: bool,
    /// SELinux.
    pub selinux: bool,
}

impl Modules {
    /// Asks the kernel.
    pub fn present() -> Self {
        let yes =
            std::fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|b| b.first() == Some(&b'Y'));
        let filesystems = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
        let selinux = filesystems.lines().any(|line| line.ends_with("\tselinuxfs"));
        Self { apparmor: yes, selinux: selinux && Path::new("/sys/fs/selinux/enforce").exists() }
    }
}

/// Labels the program that is executed next.
pub(super) fn of_the_next_program(labels: &Labels) -> Result<(), Failure> {
    if let Some(profile) = &labels.apparmor {
        let action = || format!("process.apparmorProfile: taking on \"{profile}\"");
        // Where several modules are stacked, the plain file is the first one's.
        let file = open("self/attr/apparmor/exec").or_else(|_| open("self/attr/exec")).doing(action)?;
        rustix::io::write(&file, format!("exec {profile}").as_bytes()).doing(action)?;
    }
    if let Some(label) = &labels.selinux {
        let action = || format!("process.selinuxLabel: taking on \"{label}\"");
        let file = open("self/attr/exec").doing(action)?;
        rustix::io::write(&file, label.as_bytes()).doing(action)?;
    }
    Ok(())
}

/// Opens a file of the container's proc and of nothing that was mounted over it: what is written
/// must not go elsewhere (CVE-2025-52881).
fn open(path: &str) -> io::Result<OwnedFd> {
    let proc = Root::open(Path::new("/proc"))?;
    if rustix::fs::fstatfs(&proc)?.f_type as u64 != PROC_MAGIC {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    proc.open_on_one_mount(Path::new(path), OFlags::WRONLY)
}
