//! From images to a running container.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::Hook;
use rustix::fs::{FileType, OFlags};

use super::request::{self, Details, ExternalMount, Kind, Options};
use super::session::{self, Session, Step};
use super::{DESCRIPTORS, EXTERNAL, Error, open_dir, open_work};
use crate::cgroup::{self, Outcome, Unit};
use crate::runtime::hooks::{self, HookState};
use crate::runtime::plan::{self, InitPlan, Inputs, MountKind, MountOp, Op};
use crate::runtime::{CreateRequest, Rootfs, Stdio, create};
use crate::sys::mount::{self, BindOptions, Propagation, PropagationKind};
use crate::sys::path::Root;
use crate::sys::process::{self, CloneOptions};
use crate::sys::{ids, mountinfo, namespace, pty, socket};

/// A container that is back but stands still until it is released. Dropping it before kills it.
#[derive(Debug)]
pub struct Restored {
    /// The init, as the caller sees it; the caller's child.
    pub pid: i32,
    /// Its start time in clock ticks since boot (field 22 of `/proc/PID/stat`).
    pub start_time: u64,
    /// The init; readable when it ends.
    pub pidfd: OwnedFd,
    /// The master of its terminal, if [`Stdio::Terminal`] was asked for.
    pub terminal: Option<OwnedFd>,
    /// The control group directory, if it has one of its own.
    pub cgroup: Option<PathBuf>,
    /// The systemd unit that the group belongs to, if systemd made it.
    pub unit: Option<Unit>,
    /// Why it has none.
    pub no_cgroup: Option<String>,
    session: Option<Session>,
}

impl Restored {
    /// Lets it run. To be called once it is recorded.
    pub fn release(&mut self) -> Result<(), Error> {
        let Some(session) = &mut self.session else { return Ok(()) };
        session.go_on()?;
        while let Step::At { .. } = session.next()? {
            session.go_on()?;
        }
        // Only what was released is not ended when this is dropped.
        self.session = None;
        Ok(())
    }
}

impl Drop for Restored {
    fn drop(&mut self) {
        if let Some(mut session) = self.session.take() {
            session.kill();
            let _ = process::pidfd_signal(&self.pidfd, libc::SIGKILL);
            let _ = process::wait(&self.pidfd);
            if let Some(group) = &self.cgroup {
                let _ = cgroup::destroy(group, self.unit.as_ref());
            }
        }
    }
}

/// A control group that is removed unless the container lives.
struct Place {
    cgroup: Option<PathBuf>,
    unit: Option<Unit>,
    reason: Option<String>,
}

impl Place {
    /// Makes the container's group, with criu in it: what it restores is born there.
    fn make(request: &CreateRequest, pid: i32) -> Result<Self, Error> {
        let outcome = cgroup::create(&request.cgroup_request())?;
        match outcome {
            Outcome::Made(group) => {
                let place = Self { cgroup: Some(group.path.clone()), unit: None, reason: None };
                group.add(pid)?;
                Ok(place)
            }
            Outcome::Later(scope) => {
                let (group, unit) = scope.start(pid)?;
                Ok(Self { cgroup: Some(group.path), unit: Some(unit), reason: None })
            }
            Outcome::None(reason) => Ok(Self { cgroup: None, unit: None, reason: Some(reason) }),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(group) = &self.cgroup {
            let _ = cgroup::destroy(group, self.unit.as_ref());
        }
    }
}

/// Restores a container; it stands still when this returns. `scratch` is a path where a directory
/// can be made. The caller must be single-threaded.
pub fn restore(request: &CreateRequest, mut options: Options, scratch: &Path) -> Result<Restored, Error> {
    if ids::euid() != 0 {
        return Err(Error::NotRoot);
    }
    let program = session::find()?;
    options.config_file = super::config_file(&request.spec);
    // Before anything is made; criu gets others.
    drop((open_dir("opening the images' directory", &options.images)?, open_work(&options)?));
    let terminal = matches!(request.stdio, Stdio::Terminal | Stdio::ConsoleSocket(_));
    let plan = plan::plan(request, Inputs { filter: None, terminal, root: true })?;
    refuse(&plan)?;
    let mut details = Details { root: scratch.to_owned(), ..Details::default() };
    if !terminal {
        details.inherited = standard(&options.images)?;
    }
    let console = create::connect_console(&request.stdio)?;
    let namespaces = namespaces(&plan, &mut details)?;
    let Rootfs::Dir(rootfs) = &request.rootfs else { return Err(Error::Unsupported("an overlay")) };
    std::fs::create_dir(scratch).map_err(|source| Error::Path {
        what: "making",
        path: scratch.to_owned(),
        source,
    })?;
    let made = RemoveDir(scratch);

    let (ours, theirs) = socket::packet_pair().map_err(Error::Run)?;
    let fds: Vec<BorrowedFd<'_>> = namespaces.iter().map(AsFd::as_fd).collect();
    // What is mounted for criu is mounted in a namespace of its own, and gone with it.
    let clone = CloneOptions { namespaces: libc::CLONE_NEWNS as u64, ..Default::default() };
    let mut session = Session::start(Kind::Restore, &options, &program, clone, &fds, || {
        let told = prepare(&plan, rootfs, scratch);
        let text = serde_json::to_vec(&told).unwrap_or_default();
        // As they are in criu's mount namespace: it could mount nothing in others.
        let (Ok(images), Ok(work)) = (open_dir("", &options.images), open_dir("", options.log_dir())) else {
            return false;
        };
        socket::send(&theirs, &text, Some(images.as_fd())).is_ok()
            && socket::send(&theirs, b"W", Some(work.as_fd())).is_ok()
            && told.is_ok()
    })?;
    drop(theirs);
    let died = || Error::Prepare("its process died".to_owned());
    let (told, images) = socket::receive(&ours).map_err(Error::Run)?;
    let mounts: Result<Vec<ExternalMount>, String> = serde_json::from_slice(&told).map_err(|_| died())?;
    details.mounts = mounts.map_err(Error::Prepare)?;
    let (_, work) = socket::receive(&ours).map_err(Error::Run)?;
    let (images, work) = images.zip(work).ok_or_else(died)?;
    details.images_fd = images.as_raw_fd();
    details.work_fd = Some(work.as_raw_fd());
    let mut place = Place::make(request, session.pid())?;
    details.cgroups = groups_of(session.pid()).map_err(Error::Run)?;
    session.ask(&request::request(Kind::Restore, &options, &details))?;
    let mut watch = Watch { request, plan: &plan, console: console.as_ref(), terminal: None };
    let pid = watch.until_restored(&mut session)?;
    drop(made);
    let pidfd = process::pidfd_open(pid).map_err(Error::Run)?;
    let start_time = process::start_time(pid).map_err(Error::Run)?;
    Ok(Restored {
        pid,
        start_time,
        pidfd,
        terminal: watch.terminal.take(),
        cgroup: place.cgroup.take(),
        unit: place.unit.take(),
        no_cgroup: place.reason.take(),
        session: Some(session),
    })
}

/// An empty directory that goes in the end.
struct RemoveDir<'a>(&'a Path);

impl Drop for RemoveDir<'_> {
    fn drop(&mut self) {
        let _ = rustix::fs::rmdir(self.0);
    }
}

/// What was made for the container from outside at its creation and that criu cannot make again.
fn refuse(plan: &InitPlan) -> Result<(), Error> {
    if !plan.net_devices.is_empty() {
        return Err(Error::Unsupported("a container with linux.netDevices"));
    }
    if plan.cache.is_some() {
        return Err(Error::Unsupported("a container with linux.intelRdt"));
    }
    let mapped =
        |op: &Op| matches!(op, Op::Mount(MountOp { kind: MountKind::Bind { ids: Some(_), .. }, .. }));
    if plan.ops.iter().any(mapped) {
        return Err(Error::Unsupported("a mount with mapped ids"));
    }
    Ok(())
}

/// The namespaces that the configuration joins: criu gets some as descriptors, others as files.
fn namespaces(plan: &InitPlan, details: &mut Details) -> Result<Vec<OwnedFd>, Error> {
    let mut fds = Vec::new();
    for (kind, path) in &plan.namespaces.join {
        if let Some((_, _, key)) = EXTERNAL.iter().find(|(external, ..)| external == kind) {
            let fd = namespace::open(path).map_err(|source| Error::Path {
                what: "opening the namespace",
                path: path.clone(),
                source,
            })?;
            // 3 is criu's socket.
            details.inherited.push(((*key).to_owned(), 4 + fds.len() as i32));
            fds.push(fd);
            continue;
        }
        let name = namespace::KINDS.iter().find(|(known, _)| known == kind).map(|(_, name)| *name);
        match name {
            Some(name @ ("ipc" | "uts" | "time" | "user")) => details.joined.push((name, path.clone())),
            _ => return Err(Error::Unsupported("joining a mount or cgroup namespace")),
        }
    }
    Ok(fds)
}

/// Which of the caller's descriptors 0, 1 and 2 take the place of what the container had there.
fn standard(images: &Path) -> Result<Vec<(String, i32)>, Error> {
    let path = images.join(DESCRIPTORS);
    let text =
        std::fs::read(&path).map_err(|source| Error::Path { what: "reading", path: path.clone(), source })?;
    let names: Vec<String> =
        serde_json::from_slice(&text).map_err(|source| Error::Descriptors { path, source })?;
    let mut list: Vec<(String, i32)> = Vec::new();
    for (name, number) in names.into_iter().zip(0..3) {
        let external = ["pipe:[", "file[", "tty["].iter().any(|kind| name.starts_with(kind));
        if external && !list.iter().any(|(known, _)| *known == name) {
            list.push((name, number));
        }
    }
    Ok(list)
}

/// The groups of a process, controller by controller, as criu wants them.
fn groups_of(pid: i32) -> io::Result<Vec<(String, String)>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let mut list = Vec::new();
    for line in text.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        list.extend(controllers.split(',').map(|name| (name.to_owned(), path.to_owned())));
    }
    Ok(list)
}

/// In a mount namespace of criu's: makes the rootfs a mount, as criu demands, and what places for
/// mounts it lacks; returns what is to be bound where.
fn prepare(plan: &InitPlan, rootfs: &Path, scratch: &Path) -> Result<Vec<ExternalMount>, String> {
    let told = |what: &'static str| {
        move |error: io::Error| format!("{what}: {}", crate::base::report::chain(&error))
    };
    let slave = Propagation { kind: PropagationKind::Slave, recursive: true };
    mount::change_propagation(Path::new("/"), slave).map_err(told("cutting off the host's mounts"))?;
    let host = mountinfo::of(0).map_err(told("reading the mounts"))?;
    let open = |path: &Path| mount::open_path(path).map_err(io::Error::from);
    let whole = BindOptions { recursive: true, ..Default::default() };
    let mounted = open(rootfs)
        .and_then(|from| mount::bind(from, open(scratch)?, whole))
        .map_err(told("mounting the rootfs"))?;
    let root = match mounted {
        Some(mounted) => Root::from_fd(mounted),
        None => Root::open(scratch).map_err(told("opening the rootfs"))?,
    };
    let ops: Vec<&MountOp> =
        plan.ops.iter().filter_map(|op| if let Op::Mount(op) = op { Some(op) } else { None }).collect();
    let mut list = Vec::new();
    let mut covering = Vec::new();
    for op in &ops {
        let place = |error: io::Error| {
            format!("the place of mount \"{}\": {}", op.target.display(), crate::base::report::chain(&error))
        };
        covering.extend(prepare_mount(op, &ops, &root, &host, &mut list).map_err(place)?);
    }
    for mounted in covering.iter().rev() {
        mount::detach(mounted).map_err(told("unmounting"))?;
    }
    for op in &plan.ops {
        match op {
            Op::BindNode(node) | Op::MadeNode { node, .. } => {
                list.push(ExternalMount { key: node.path.clone(), value: node.path.clone() });
            }
            _ => {}
        }
    }
    // What masked files are.
    list.push(ExternalMount { key: "/dev/null".into(), value: "/dev/null".into() });
    Ok(list)
}

/// Makes the place of one mount, and what criu is to bind there. A mount on which there are places of
/// others is made, to be taken away again: its root is returned.
fn prepare_mount(
    op: &MountOp,
    all: &[&MountOp],
    root: &Root,
    host: &[mountinfo::Mount],
    list: &mut Vec<ExternalMount>,
) -> io::Result<Option<OwnedFd>> {
    let under = |other: &MountOp| op.target != other.target && op.target.starts_with(&other.target);
    // On a file system that criu makes, it makes such places, too.
    let on_other = all.iter().any(|other| under(other) && matches!(other.kind, MountKind::Filesystem { .. }));
    let (source, recursive, links) = match &op.kind {
        MountKind::Bind { source, recursive, links, .. } => (source, *recursive, *links),
        MountKind::Filesystem { .. } if !on_other => {
            return root.create_dir_all(&op.target, 0o755).map(|_| None);
        }
        _ => return Ok(None),
    };
    let mut flags = OFlags::PATH | OFlags::CLOEXEC;
    if links.source || links.copy {
        flags |= OFlags::NOFOLLOW;
    }
    let from = rustix::fs::open(source, flags, rustix::fs::Mode::empty())?;
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&from)?.st_mode);
    if kind == FileType::Symlink {
        // A link that was copied is in the rootfs.
        return if links.copy { Ok(None) } else { Err(io::ErrorKind::Unsupported.into()) };
    }
    let to = match (on_other, kind) {
        (true, _) => None,
        (false, FileType::Directory) => Some(root.create_dir_all(&op.target, 0o755)?),
        (false, _) => Some(root.create_file(&op.target, 0o644)?),
    };
    let key = to.as_ref().map_or_else(|| Ok(op.target.clone()), |to| root.place_of(to))?;
    let real = std::fs::read_link(format!("/proc/self/fd/{}", from.as_raw_fd()))?;
    if recursive {
        for mount in host.iter().filter(|mount| mount.point != real) {
            if let Ok(rest) = mount.point.strip_prefix(&real) {
                list.push(ExternalMount { key: key.join(rest), value: mount.point.clone() });
            }
        }
    }
    list.push(ExternalMount { key, value: source.clone() });
    let has_places =
        all.iter().any(|other| other.target != op.target && other.target.starts_with(&op.target));
    match to.filter(|_| has_places) {
        Some(to) => mount::bind(&from, &to, BindOptions { recursive, ..Default::default() }),
        None => Ok(None),
    }
}

/// Our part of a restore.
struct Watch<'a> {
    request: &'a CreateRequest,
    plan: &'a InitPlan,
    console: Option<&'a OwnedFd>,
    terminal: Option<OwnedFd>,
}

impl Watch<'_> {
    /// Accompanies criu until all processes are there and stand still; returns the init.
    fn until_restored(&mut self, session: &mut Session) -> Result<i32, Error> {
        loop {
            let Step::At { name, pid, fd } = session.next()? else {
                return Err(Error::Invalid("criu said nothing of the restored processes".to_owned()));
            };
            match (name.as_str(), pid) {
                ("setup-namespaces", Some(pid)) => self.set_up(pid)?,
                ("orphan-pts-master", _) => {
                    let master = fd.ok_or_else(|| Error::Run(io::ErrorKind::InvalidData.into()))?;
                    match self.console {
                        Some(socket) => pty::send_master(socket, &master).map_err(Error::Run)?,
                        None => self.terminal = Some(master),
                    }
                }
                // It waits for the answer.
                ("post-restore", Some(pid)) => return Ok(pid),
                _ => {}
            }
            session.go_on()?;
        }
    }

    /// What a container's maker does from outside once there are namespaces.
    fn set_up(&self, pid: i32) -> Result<(), Error> {
        if self.plan.namespaces.unshare & libc::CLONE_NEWNET as u64 != 0 {
            let path = PathBuf::from(format!("/proc/{pid}/ns/net"));
            let network = namespace::open(&path).map_err(|source| Error::Path {
                what: "opening the namespace",
                path,
                source,
            })?;
            let child = process::spawn(CloneOptions::default(), || {
                let up = namespace::join(&network, libc::CLONE_NEWNET as u64)
                    .and_then(|()| namespace::loopback_up());
                up.err().map_or(0, |e| e.raw_os_error().unwrap_or(libc::EIO) as u8)
            })
            .map_err(Error::Run)?;
            match process::wait(&child.pidfd).map_err(Error::Run)? {
                process::ExitStatus::Code(0) => {}
                process::ExitStatus::Code(errno) => {
                    let source = io::Error::from_raw_os_error(errno.into());
                    return Err(super::super::Error::host("bringing lo up", source).into());
                }
                process::ExitStatus::Signal(_) => return Err(super::super::Error::Died.into()),
            }
        }
        let Some(all) = self.request.spec.hooks() else { return Ok(()) };
        let annotations: BTreeMap<_, _> =
            self.request.spec.annotations().clone().unwrap_or_default().into_iter().collect();
        let state = HookState {
            oci_version: self.request.spec.version().clone(),
            id: self.request.id.clone(),
            status: "creating",
            pid,
            bundle: self.request.bundle.clone(),
            annotations,
        };
        #[allow(deprecated)]
        let prestart: &[Hook] = all.prestart().as_deref().unwrap_or_default();
        let both = prestart.iter().chain(all.create_runtime().iter().flatten()).cloned();
        hooks::run(&both.collect::<Vec<_>>(), &state).map_err(super::super::Error::from)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipes_and_outer_files_are_taken_from_the_caller() {
        let dir =
            std::env::temp_dir().join(format!("umiak-criu-{:x}", crate::sys::atomic::random().unwrap()));
        std::fs::create_dir(&dir).unwrap();
        assert!(standard(&dir).is_err());
        std::fs::write(dir.join(DESCRIPTORS), br#"["file[1f:5]","pipe:[77]","pipe:[77]"]"#).unwrap();
        assert_eq!(standard(&dir).unwrap(), [("file[1f:5]".to_owned(), 0), ("pipe:[77]".to_owned(), 1)]);
        std::fs::write(dir.join(DESCRIPTORS), br#"["/dev/null","",""]"#).unwrap();
        assert_eq!(standard(&dir).unwrap(), []);
        std::fs::write(dir.join(DESCRIPTORS), b"{").unwrap();
        assert!(standard(&dir).is_err());
        std::fs::remove_dir_all(dir).unwrap();
    }
}
