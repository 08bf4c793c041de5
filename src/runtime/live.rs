//! Mounts of a container that is there already: more of them, or fewer.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Mount, Spec};
use rustix::fs::{Mode, OFlags};

use super::init::{Doing, send};
use super::mounting::{self, Opened};
use super::plan::{self, MountKind, MountOp};
use super::protocol::{Failure, Message};
use super::state::Record;
use super::{Error, early};
use crate::sys::mount::{self, Propagation, PropagationKind};
use crate::sys::path::Root;
use crate::sys::process::{self, CloneOptions};
use crate::sys::{ids, namespace, socket, userns};

/// Makes these mounts in a container; all or none.
pub fn add_mounts(record: &Record, spec: &Spec, mounts: &[Mount]) -> Result<(), Error> {
    let ops = plan::plan_more_mounts(spec, mounts, &record.bundle)?;
    // What the host has can be opened by its root before it goes in; by others only by root of the
    // container's user namespace, in a copy of the host's mounts.
    let copies = if ids::euid() == 0 { Some(early::copies(&ops)?) } else { None };
    inside(record, &|hosts: Hosts<'_>| {
        let copies = match &copies {
            Some(copies) => copies.iter().map(|copy| copy.as_ref().map(OwnedFd::try_clone).transpose()),
            None => return hosts.with_copies(&ops, |copies, hosts| add(&ops, copies, hosts)),
        };
        let copies = copies.collect::<io::Result<Vec<_>>>().doing(|| "duplicating a mount".to_owned())?;
        hosts.enter()?;
        add(&ops, copies, &hosts)
    })
}

/// Takes away what is mounted at these destinations of a container, in reverse order.
pub fn remove_mounts(record: &Record, destinations: &[PathBuf]) -> Result<(), Error> {
    inside(record, &|hosts: Hosts<'_>| {
        hosts.enter()?;
        let root = Root::open(Path::new("/")).doing(|| "opening the rootfs".to_owned())?;
        for target in destinations.iter().rev() {
            let action = || format!("unmounting \"{}\"", target.display());
            let mounted = root.open_in(target, OFlags::PATH, 0).doing(action)?;
            if !is_mount(&mounted).doing(action)? {
                return Err(io::Error::other("nothing is mounted there")).doing(action);
            }
            hosts.detach(&mounted).doing(action)?;
        }
        Ok(())
    })
}

fn add(ops: &[MountOp], copies: Vec<Option<OwnedFd>>, hosts: &Hosts<'_>) -> Result<(), Failure> {
    let root = Root::open(Path::new("/")).doing(|| "opening the rootfs".to_owned())?;
    let mut made = Vec::new();
    let result = ops.iter().zip(copies).try_for_each(|(op, copy)| {
        match (&op.kind, copy) {
            (MountKind::Bind { .. }, copy) => mounting::attach_copy(op, &root, copy)?,
            _ => mounting::carry_out_mount(op, &root, None, &Opened::default(), &|| Ok((0, 0)))?,
        }
        if !matches!(op.kind, MountKind::Remount) {
            let action = || format!("opening \"{}\"", op.target.display());
            made.push(root.open_in(&op.target, OFlags::PATH, 0).doing(action)?);
        }
        Ok(())
    });
    if result.is_err() {
        for mounted in made.iter().rev() {
            // The first error is the one to be told.
            let _ = hosts.detach(mounted);
        }
    }
    result
}

/// Whether an open object is the root of a mount (statx(2)).
fn is_mount(fd: &OwnedFd) -> io::Result<bool> {
    let stat = rustix::fs::statx(fd, "", rustix::fs::AtFlags::EMPTY_PATH, rustix::fs::StatxFlags::empty())?;
    Ok(stat.stx_attributes.contains(rustix::fs::StatxAttributes::MOUNT_ROOT))
}

/// What a process takes along into a container.
struct Hosts<'a> {
    container: &'a OwnedFd,
    namespaces: u64,
    /// The host's `/proc`: the container's may be anything.
    proc: &'a OwnedFd,
    /// The process is in the container's user namespace already.
    is_root: bool,
}

impl Hosts<'_> {
    fn enter_user(&mut self) -> Result<(), Failure> {
        let user = libc::CLONE_NEWUSER as u64;
        if self.namespaces & user != 0 && !self.is_root {
            let action = || "joining the container's user namespace".to_owned();
            namespace::join(self.container, user).doing(action)?;
            userns::become_root().doing(action)?;
            process::set_undumpable().doing(|| "hiding the process".to_owned())?;
        }
        self.is_root = true;
        Ok(())
    }

    /// Joins what is left of the container's namespaces; the container's root is the process's then.
    fn enter(&self) -> Result<(), Failure> {
        let mut this = Hosts { ..*self };
        this.enter_user()?;
        let rest = self.namespaces & !(libc::CLONE_NEWUSER as u64);
        namespace::join(self.container, rest).doing(|| "joining the container's namespaces".to_owned())
    }

    /// Copies what is to be bound as root of the container's user namespace, then goes in.
    fn with_copies(
        mut self,
        ops: &[MountOp],
        work: impl FnOnce(Vec<Option<OwnedFd>>, &Hosts<'_>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.enter_user()?;
        let action = || "copying the host's mounts".to_owned();
        namespace::unshare(libc::CLONE_NEWNS as u64).doing(action)?;
        let slave = Propagation { kind: PropagationKind::Slave, recursive: true };
        mount::change_propagation(Path::new("/"), slave).doing(action)?;
        let copy = |op: &MountOp| match &op.kind {
            MountKind::Bind { source, recursive, links, .. } => {
                let action = || format!("binding \"{}\" to \"{}\"", source.display(), op.target.display());
                let from = mounting::open_source(source, *links, &Opened::default()).doing(action)?;
                mount::detached_copy(from, *recursive).map(Some).doing(action)
            }
            _ => Ok(None),
        };
        let copies = ops.iter().map(copy).collect::<Result<Vec<_>, _>>()?;
        self.enter()?;
        work(copies, &self)
    }

    /// Unmounts by a descriptor, named in the host's `/proc`.
    fn detach(&self, mounted: &OwnedFd) -> io::Result<()> {
        rustix::process::fchdir(self.proc)?;
        let name = format!("self/fd/{}", mounted.as_raw_fd());
        let done = rustix::mount::unmount(name.as_str(), rustix::mount::UnmountFlags::DETACH);
        rustix::process::chdir("/")?;
        Ok(done?)
    }
}

/// Does something in the container's namespaces, in a process of its own that nothing in there can
/// look into.
fn inside(record: &Record, work: &dyn Fn(Hosts<'_>) -> Result<(), Failure>) -> Result<(), Error> {
    let container = process::open_alive(record.pid, record.start_time).ok_or(Error::NotRunning)?;
    let namespaces = namespace::differing(record.pid, 0)
        .map_err(|e| Error::host("reading the container's namespaces", e))?;
    if namespaces & libc::CLONE_NEWNS as u64 == 0 {
        return Err(Error::host("joining the container's mount namespace", io::ErrorKind::InvalidInput));
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let proc =
        rustix::fs::open("/proc", flags, Mode::empty()).map_err(|e| Error::host("opening /proc", e))?;
    let failed = |e: io::Error| Error::host("making a process in the container", e);
    let (ours, theirs) = socket::packet_pair().map_err(failed)?;
    let tell = |result: Result<(), Failure>| match result {
        Ok(()) => u8::from(send(&theirs, &Message::Ready).is_err()),
        Err(failure) => {
            let code = failure.exit_code();
            let _ = send(&theirs, &Message::Failed(failure));
            code
        }
    };
    let child = process::spawn(CloneOptions { close: Some(ours.as_fd()), ..Default::default() }, || {
        if let Err(failure) = process::set_undumpable().doing(|| "hiding the process".to_owned()) {
            return tell(Err(failure));
        }
        let pid = libc::CLONE_NEWPID as u64;
        let hosts = Hosts { container: &container, namespaces, proc: &proc, is_root: false };
        if namespaces & pid == 0 {
            return tell(work(hosts));
        }
        // A proc file system shows the processes of who mounts it: that must not be the host's. The
        // namespace is joined by the children of who joins it, and joining needs power over it.
        let mut hosts = hosts;
        let second = hosts
            .enter_user()
            .and_then(|()| namespace::join(&container, pid).doing(|| "joining the pid namespace".to_owned()))
            .and_then(|()| {
                let rest = Hosts { namespaces: namespaces & !pid, ..hosts };
                let made = process::spawn(CloneOptions::default(), || tell(work(rest)));
                made.doing(|| "making a process in the container".to_owned())
            });
        match second {
            Ok(second) => u8::from(process::wait(&second.pidfd).is_err()),
            Err(failure) => tell(Err(failure)),
        }
    })
    .map_err(failed)?;
    drop(theirs);
    let (told, _) = socket::receive(&ours).map_err(failed)?;
    process::wait(&child.pidfd).map_err(failed)?;
    match Message::decode(&told) {
        Some(Message::Ready) => Ok(()),
        Some(Message::Failed(failure)) => Err(Error::Inside(failure)),
        _ => Err(Error::Died),
    }
}
