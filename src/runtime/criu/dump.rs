//! From a running container to images.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::request::{self, Details, ExternalMount, Kind, Options};
use super::session::{self, Session, Step};
use super::{DESCRIPTORS, EXTERNAL, Error, make_dir, open_dir, open_work};
use crate::cgroup::freeze;
use crate::runtime::plan::{self, InitPlan, Inputs, MountKind, Op};
use crate::runtime::state::Record;
use crate::runtime::{CreateRequest, Rootfs};
use crate::sys::mountinfo::{self, Mount};
use crate::sys::path::Root;
use crate::sys::{ids, mount, process};

/// What is to be dumped.
#[derive(Debug)]
pub struct Dump<'a> {
    /// The container, which runs.
    pub record: &'a Record,
    /// Its configuration.
    pub spec: oci_spec::runtime::Spec,
    /// How.
    pub options: Options,
    /// A descriptor of the caller's that is told when pages can be fetched (`--status-fd`).
    pub status_fd: Option<OwnedFd>,
}

/// Dumps a container. Unless it is left running, its processes have been killed when this returns.
/// After an error it runs on, and what criu has written is gone but for its log.
pub fn checkpoint(dump: Dump<'_>) -> Result<(), Error> {
    if ids::euid() != 0 {
        return Err(Error::NotRoot);
    }
    let program = session::find()?;
    let record = dump.record;
    let mut options = dump.options;
    options.config_file = super::config_file(&dump.spec);
    check_parent(&options)?;
    let made = make_dir("making the images' directory", &options.images)?;
    let before = names(&options.images);
    let was_frozen = record.cgroup.as_deref().is_some_and(freeze::is_frozen);
    let result = run(record, dump.spec, &options, &program, dump.status_fd);
    if result.is_err() {
        // A criu that was killed has not done this itself.
        if let Some(group) = record.cgroup.as_deref().filter(|group| !was_frozen && freeze::is_frozen(group))
        {
            let _ = freeze::thaw(group);
        }
        clear(&options, made, &before);
    }
    result
}

/// That the earlier images are there: criu would only say that all is new.
fn check_parent(options: &Options) -> Result<(), Error> {
    let Some(parent) = &options.parent else { return Ok(()) };
    if parent.is_absolute() {
        return Err(Error::Invalid(format!(
            "--parent-path: \"{}\" is not relative to the images' directory",
            parent.display()
        )));
    }
    let path = options.images.join(parent);
    // The images' directory itself may be missing yet.
    let plain = path.components().fold(PathBuf::new(), |mut path, part| {
        match part {
            std::path::Component::ParentDir => drop(path.pop()),
            other => path.push(other),
        }
        path
    });
    let there = std::fs::metadata(&path).or_else(|_| std::fs::metadata(plain));
    match there {
        Ok(meta) if meta.is_dir() => Ok(()),
        Ok(_) => Err(io::Error::from_raw_os_error(libc::ENOTDIR)),
        Err(source) => Err(source),
    }
    .map_err(|source| Error::Path { what: "opening the earlier images in", path, source })
}

fn names(dir: &Path) -> HashSet<OsString> {
    std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name()).collect()
}

/// Removes what a failed dump has left, but not criu's log, which tells why.
fn clear(options: &Options, made: bool, before: &HashSet<OsString>) {
    let log = request::log_name(Kind::Dump);
    for name in names(&options.images) {
        let is_log = options.work.is_none() && name == log;
        if !before.contains(&name) && !is_log {
            let _ = std::fs::remove_file(options.images.join(name));
        }
    }
    if made {
        // Unless the log is in it.
        let _ = std::fs::remove_dir(&options.images);
    }
}

fn run(
    record: &Record,
    spec: oci_spec::runtime::Spec,
    options: &Options,
    program: &Path,
    status_fd: Option<OwnedFd>,
) -> Result<(), Error> {
    let images = open_dir("opening the images' directory", &options.images)?;
    let work = open_work(options)?;
    let kind = if options.pre_dump { Kind::PreDump } else { Kind::Dump };
    let mut details = Details {
        images_fd: images.as_raw_fd(),
        work_fd: work.as_ref().map(AsRawFd::as_raw_fd),
        pid: Some(record.pid),
        root: record.rootfs.clone(),
        freezer: record.cgroup.clone(),
        ..Details::default()
    };
    let request = CreateRequest::new(
        record.id.clone(),
        spec,
        record.bundle.clone(),
        Rootfs::Dir(record.rootfs.clone()),
    );
    let terminal = request.spec.process().as_ref().and_then(|p| p.terminal()).unwrap_or(false);
    let plan = plan::plan(&request, Inputs { filter: None, terminal, root: true })?;
    for (kind, name, key) in EXTERNAL {
        if let Some((_, path)) = plan.namespaces.join.iter().find(|(joined, _)| *joined == kind) {
            let stat = std::fs::metadata(path).map_err(|source| Error::Path {
                what: "looking at the namespace",
                path: path.clone(),
                source,
            })?;
            details.external.push(format!("{name}[{}]:{key}", stat.ino()));
        }
    }
    if kind == Kind::Dump {
        let looking = |source| Error::Path {
            what: "looking at the mounts of process",
            path: record.pid.to_string().into(),
            source,
        };
        let mounts = mountinfo::of(record.pid).map_err(looking)?;
        let root = Root::open(Path::new(&format!("/proc/{}/root", record.pid))).map_err(looking)?;
        details.mounts = external_mounts(&plan, &mounts, &root).map_err(looking)?;
        let (descriptors, external) = descriptors(record.pid, &mounts);
        details.external.extend(external);
        let path = options.images.join(DESCRIPTORS);
        let text = serde_json::to_vec(&descriptors)
            .map_err(|source| Error::Descriptors { path: path.clone(), source })?;
        crate::sys::atomic::write(&path, &text, 0o600, crate::sys::atomic::Durability::Volatile)
            .map_err(|source| Error::Path { what: "writing", path, source })?;
    }
    let mut session = Session::start(kind, options, program, process::CloneOptions::default(), &[], || true)?;
    session.ask(&request::request(kind, options, &details))?;
    let mut status_fd = status_fd;
    loop {
        match session.next()? {
            Step::Done => return Ok(()),
            Step::At { name, .. } => {
                if name == "status-ready"
                    && let Some(fd) = status_fd.take()
                {
                    // Who asked for it and is gone needs no word.
                    let _ = rustix::io::write(&fd, &[0]);
                }
                session.go_on()?;
            }
        }
    }
}

/// The mounts that come from outside, by the places where the kernel has them: links in the rootfs
/// and what lies over what have been settled when they were made.
fn external_mounts(plan: &InitPlan, mounts: &[Mount], root: &Root) -> io::Result<Vec<ExternalMount>> {
    let mut list: Vec<ExternalMount> = Vec::new();
    let find = |target: &Path, flags: OFlags| -> io::Result<Option<&Mount>> {
        match root.open_in(target, OFlags::PATH | flags, 0) {
            Ok(fd) => {
                let id = mount::id_of(&fd)?;
                let whole = |found: &&Mount| root.place_of(&fd).is_ok_and(|place| place == found.point);
                Ok(mounts.iter().find(|mount| mount.id == id).filter(whole))
            }
            // Something else was mounted over it, or it was taken away.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => Ok(None),
            Err(error) => Err(error),
        }
    };
    let mut add = |mount: &Mount, value: &Path| {
        if !list.iter().any(|known| known.key == mount.point) {
            list.push(ExternalMount { key: mount.point.clone(), value: value.to_owned() });
        }
    };
    for op in &plan.ops {
        match op {
            Op::Mount(op) => {
                let MountKind::Bind { recursive, links, .. } = &op.kind else { continue };
                let flags = if links.destination { OFlags::NOFOLLOW } else { OFlags::empty() };
                let Some(top) = find(&op.target, flags)? else { continue };
                add(top, &top.point);
                if *recursive {
                    // What came along with it, but not what the configuration put on it.
                    let own =
                        |m: &Mount| plan.ops.iter().any(|o| matches!(o, Op::Mount(o) if o.target == m.point));
                    for mount in below(mounts, top.id).into_iter().filter(|m| !own(m)) {
                        add(mount, &mount.point);
                    }
                }
            }
            Op::BindNode(node) | Op::MadeNode { node, .. } => {
                if let Some(mount) = find(&node.path, OFlags::empty())? {
                    add(mount, &mount.point);
                }
            }
            Op::Mask(path) => {
                let found = find(path, OFlags::empty())?;
                if let Some(mount) = found.filter(|mount| mount.root == Path::new("/null")) {
                    add(mount, Path::new("/dev/null"));
                }
            }
            _ => {}
        }
    }
    Ok(list)
}

/// The mounts on a mount, on those and so on.
fn below(mounts: &[Mount], top: u64) -> Vec<&Mount> {
    let mut list: Vec<&Mount> =
        mounts.iter().filter(|mount| mount.parent == top && mount.id != top).collect();
    let mut at = 0;
    while let Some(id) = list.get(at).map(|mount| mount.id) {
        list.extend(mounts.iter().filter(|mount| mount.parent == id));
        at += 1;
    }
    list
}

/// What the init's descriptors 0, 1 and 2 are, by names that stand for them in the images; and which
/// of them criu has to be told that they come from outside. Pipes it recognises itself.
fn descriptors(pid: i32, mounts: &[Mount]) -> (Vec<String>, Vec<String>) {
    let mut external = Vec::new();
    let names = (0..3).map(|number| {
        let path = PathBuf::from(format!("/proc/{pid}/fd/{number}"));
        let Ok(link) = std::fs::read_link(&path) else { return String::new() };
        let link = link.to_string_lossy().into_owned();
        let info = std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).unwrap_or_default();
        let mount: Option<u64> =
            info.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
        let inside = mount.is_none_or(|id| mounts.iter().any(|mount| mount.id == id));
        // Pipes, sockets and the like have no place anywhere.
        if !link.starts_with('/') || inside {
            return link;
        }
        let (Ok(stat), Some(mount)) = (std::fs::metadata(&path), mount) else { return link };
        let name = if is_terminal(&stat) {
            format!("tty[{:x}:{:x}]", stat.rdev(), stat.dev())
        } else {
            format!("file[{mount:x}:{:x}]", stat.ino())
        };
        if !external.contains(&name) {
            external.push(name.clone());
        }
        name
    });
    let names = names.collect();
    (names, external)
}

/// `UNIX98_PTY_SLAVE_MAJOR` and the seven after it, and the consoles of `TTY_MAJOR`.
fn is_terminal(stat: &std::fs::Metadata) -> bool {
    let character = stat.mode() & libc::S_IFMT == libc::S_IFCHR;
    character && matches!(rustix::fs::major(stat.rdev()), 4 | 136..=143)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(id: u64, parent: u64, point: &str) -> Mount {
        Mount { id, parent, root: "/".into(), point: point.into(), fstype: "ext4".into() }
    }

    #[test]
    fn what_came_along_with_a_mount() {
        let mounts = [
            mount(1, 0, "/"),
            mount(2, 1, "/a"),
            mount(3, 2, "/a/b"),
            mount(4, 3, "/a/b/c"),
            mount(5, 1, "/d"),
        ];
        let ids = |top| below(&mounts, top).iter().map(|mount| mount.id).collect::<Vec<_>>();
        assert_eq!((ids(2), ids(5)), (vec![3, 4], vec![]));
    }

    #[test]
    fn earlier_images_must_be_there() {
        let of = |images: &str, parent: &str| {
            let options =
                Options { images: images.into(), parent: Some(parent.into()), ..Options::default() };
            check_parent(&options)
        };
        assert!(of("/tmp/nosuch-images", "../").is_ok());
        assert!(matches!(of("/tmp", "/tmp"), Err(Error::Invalid(_))));
        assert!(matches!(of("/tmp", "nosuch-parent"), Err(Error::Path { .. })));
    }
}
