//! Carrying out the mounts of a plan, in the init.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};

use super::Rootfs;
use super::init::{Doing, PROC_MAGIC};
use super::plan::{Links, MountKind, MountOp};
use super::protocol::{Failure, FailureKind};
use crate::sys::copy;
use crate::sys::mount::{self, Attributes, BindOptions, Filesystem, Overlay, attr};
use crate::sys::path::Root;

/// Paths of the host that were opened before this process became root of its user namespace, and with
/// that somebody else than the caller, to whom the caller's directories may be closed.
#[derive(Default)]
pub(super) struct Opened(Vec<(PathBuf, OwnedFd)>);

impl Opened {
    /// What is missing is told by the step that needs it, and by its name.
    pub fn new(paths: &[PathBuf]) -> Self {
        Self(paths.iter().filter_map(|path| Some((path.clone(), mount::open_path(path).ok()?))).collect())
    }

    fn get(&self, path: &Path) -> Option<io::Result<OwnedFd>> {
        self.0.iter().find(|(opened, _)| opened == path).map(|(_, fd)| fd.try_clone())
    }

    fn or_open(&self, path: &Path) -> io::Result<OwnedFd> {
        self.get(path).unwrap_or_else(|| Ok(mount::open_path(path)?))
    }
}

pub(super) fn mount_rootfs(rootfs: &Rootfs, attributes: u64, opened: &Opened) -> Result<Root, Failure> {
    let (place, overlay) = match rootfs {
        Rootfs::Dir(path) => (path, None),
        // Any directory would do to attach it to; this one surely exists.
        Rootfs::Overlay(overlay) => (&overlay.upper, Some(overlay)),
    };
    let action = || format!("mounting the rootfs \"{}\"", place.display());
    let target = opened.or_open(place).doing(action)?;
    match overlay {
        Some(overlay) => mount::overlay(overlay, attributes, &target).map(drop).map_err(|error| {
            // ENOENT: a layer whose tree is not for overlayfs.
            let refused = [libc::ENODEV, libc::EINVAL, libc::EPERM, libc::EOPNOTSUPP, libc::ENOENT];
            let kind = match error.raw_os_error() {
                Some(errno) if refused.contains(&errno) => FailureKind::NoOverlay,
                _ => FailureKind::Setup,
            };
            Failure::new(kind, action(), &error)
        })?,
        None => {
            let attributes = Attributes { set: attributes, clear: 0 };
            let options = BindOptions { recursive: true, attributes, ..Default::default() };
            if let Some(mounted) = mount::bind(&target, &target, options).doing(action)? {
                return Ok(Root::from_fd(mounted));
            }
        }
    }
    // Opened again: the old descriptor is below the mount.
    Root::open(place).doing(action)
}

/// Attaches a rootfs that the init's maker has mounted.
pub(super) fn attach_rootfs(
    rootfs: &Rootfs,
    made: Option<OwnedFd>,
    opened: &Opened,
) -> Result<Root, Failure> {
    let (Rootfs::Dir(place) | Rootfs::Overlay(Overlay { upper: place, .. })) = rootfs;
    let action = || format!("mounting the rootfs \"{}\"", place.display());
    let made = made.ok_or(io::ErrorKind::Unsupported).map_err(io::Error::from).doing(action)?;
    let target = opened.or_open(place).doing(action)?;
    mount::attach(&made, &target).doing(action)?;
    Ok(Root::from_fd(made))
}

/// Tells the ids of the process's user.
pub(super) type Whose<'a> = dyn Fn() -> Result<(u32, u32), Failure> + 'a;

/// The new file system of a mount, if it looks at no ids but its maker's, and at nothing in the rootfs.
pub(super) fn can_be_made_ahead(op: &MountOp) -> Option<&Filesystem> {
    let MountKind::Filesystem { filesystem, copy_up: false, .. } = &op.kind else { return None };
    let can = match filesystem.fstype.as_str() {
        "proc" | "sysfs" | "mqueue" => true,
        "tmpfs" => has_mode(filesystem),
        _ => false,
    };
    can.then_some(filesystem)
}

fn has_mode(filesystem: &Filesystem) -> bool {
    filesystem.options.iter().any(|(key, _)| key == "mode")
}

/// Makes one mount; `early` is a copy of its source that was made before the init, or a file system that was made ahead.
pub(super) fn carry_out_mount(
    op: &MountOp,
    root: &Root,
    early: Option<OwnedFd>,
    opened: &Opened,
    whose: &Whose<'_>,
) -> Result<(), Failure> {
    let target = op.target.display();
    match &op.kind {
        MountKind::Bind { source, recursive, copy_up, links, ids, .. } => {
            let action = || format!("binding \"{}\" to \"{target}\"", source.display());
            let own = || match &op.details().overlay {
                Some(details) => mount_overlay(&details.overlay, opened),
                None => open_source(source, *links, opened),
            };
            let other = ids.is_some() || op.details().borrowed.is_some() || op.details().has_ids();
            let (from, is_early) = choose_source(own, early, other).doing(action)?;
            let from = match &op.details().subpath {
                Some(path) => below(from, path)
                    .doing(|| format!("finding \"{}\" in what is mounted at \"{target}\"", path.display()))?,
                None => from,
            };
            let kind = FileType::from_raw_mode(rustix::fs::fstat(&from).doing(action)?.st_mode);
            if links.copy && kind == FileType::Symlink {
                return copy_link(&from, &op.target, root).doing(action);
            }
            let missing = op.details().claim && root.open_in(&op.target, OFlags::PATH, 0).is_err();
            let to = open_target(op, kind, *links, root).doing(action)?;
            check_not_over_proc(op, root, &to, Some(&from)).doing(action)?;
            if *copy_up && kind == FileType::Directory {
                let action = || format!("filling the volume at \"{target}\" from the image");
                copy::fill(&to, &from).doing(action)?;
            }
            give_away(op, &from, missing, whose)?;
            if is_early {
                return mount::attach(&from, &to).and_then(|()| finish_mount(&from, op)).doing(action);
            }
            bind(&from, to, *recursive, op).doing(action)
        }
        MountKind::Filesystem { filesystem, fallback, copy_up } => {
            let name = &filesystem.fstype;
            mount_filesystem((filesystem, early), fallback.as_deref(), *copy_up, op, root)
                .doing(|| format!("mounting \"{name}\" at \"{target}\""))?;
            if !op.details().chown && !op.details().claim {
                return Ok(());
            }
            let mounted = root
                .open_in(&op.target, OFlags::PATH | OFlags::DIRECTORY, 0)
                .doing(|| format!("opening \"{target}\""))?;
            give_away(op, &mounted, op.details().claim, whose)
        }
        MountKind::Remount => (|| {
            let mounted = root.open_in(&op.target, OFlags::PATH, 0)?;
            finish_mount(&mounted, op)
        })()
        .doing(|| format!("remounting \"{target}\"")),
    }
}

/// Mounts an overlay where nobody looks, on one of its own directories, and returns its root. That place
/// is out of sight after the pivot.
fn mount_overlay(planned: &Overlay, opened: &Opened) -> io::Result<OwnedFd> {
    let lower = planned.lower.iter().map(|path| opened.or_open(path)).collect::<io::Result<Vec<_>>>()?;
    let (upper, work) = (opened.or_open(&planned.upper)?, opened.or_open(&planned.work)?);
    let overlay = Overlay {
        lower: lower.iter().map(mount::name_of).collect(),
        upper: mount::name_of(&upper),
        work: mount::name_of(&work),
        ..*planned
    };
    match mount::overlay(&overlay, 0, &work)? {
        Some(mounted) => Ok(mounted),
        None => Ok(mount::open_path(&planned.work)?),
    }
}

/// Opens a path in an open directory that somebody else may have filled: no link leads out of it.
fn below(directory: OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    Root::from_fd(directory).open_in(path, OFlags::PATH, 0)
}

/// Gives what is mounted to the process's user, where that was asked for.
fn give_away(op: &MountOp, mounted: &OwnedFd, missing: bool, whose: &Whose<'_>) -> Result<(), Failure> {
    if !op.details().chown && !missing {
        return Ok(());
    }
    let action = || format!("changing the owner of what is mounted at \"{}\"", op.target.display());
    let owner = whose()?;
    if op.details().chown {
        return copy::give(mounted, owner).doing(action);
    }
    if owner == (0, 0) {
        return Ok(());
    }
    copy::give_empty(mounted, owner).doing(action)
}

/// Makes a bind mount of a copy of its source, in a container that is there already, where the source
/// itself is out of sight.
pub(super) fn attach_copy(op: &MountOp, root: &Root, copy: Option<OwnedFd>) -> Result<(), Failure> {
    let MountKind::Bind { source, links, .. } = &op.kind else { return Ok(()) };
    let action = || format!("binding \"{}\" to \"{}\"", source.display(), op.target.display());
    let copy = copy.ok_or(io::ErrorKind::Unsupported).doing(action)?;
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&copy).doing(action)?.st_mode);
    let to = open_target(op, kind, *links, root).doing(action)?;
    check_not_over_proc(op, root, &to, Some(&copy)).doing(action)?;
    // First the attributes: nobody in there is to see it without them.
    finish_mount(&copy, op).and_then(|()| mount::attach(&copy, &to)).doing(action)
}

/// What is bound: the source as the init itself opens it, or the copy that its maker made; whether
/// it is the copy. In the init's own view of the host's mounts their flags are locked
/// (mount_namespaces(7)), in a copy they are not: it is for what the init cannot have otherwise.
fn choose_source(
    own: impl FnOnce() -> io::Result<OwnedFd>,
    early: Option<OwnedFd>,
    other_ids: bool,
) -> io::Result<(OwnedFd, bool)> {
    match early {
        None => Ok((own()?, false)),
        Some(copy) if other_ids => Ok((copy, true)),
        Some(copy) => match own() {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok((copy, true)),
            other => Ok((other?, false)),
        },
    }
}

pub(super) fn open_source(source: &Path, links: Links, opened: &Opened) -> io::Result<OwnedFd> {
    if !links.source
        && !links.copy
        && let Some(opened) = opened.get(source)
    {
        return opened;
    }
    let mut flags = OFlags::PATH | OFlags::CLOEXEC;
    if links.source || links.copy {
        flags |= OFlags::NOFOLLOW;
    }
    let from = rustix::fs::open(source, flags, Mode::empty())?;
    let link = FileType::from_raw_mode(rustix::fs::fstat(&from)?.st_mode) == FileType::Symlink;
    // Only the last name's link is told apart from what it names.
    if link && !links.source && !links.copy { Ok(mount::open_path(source)?) } else { Ok(from) }
}

/// Opens the place of a bind mount, made where it is missing.
fn open_target(op: &MountOp, kind: FileType, links: Links, root: &Root) -> io::Result<OwnedFd> {
    if links.destination {
        match root.open_in(&op.target, OFlags::PATH | OFlags::NOFOLLOW, 0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
    }
    if kind == FileType::Directory {
        root.create_dir_all(&op.target, 0o755)
    } else {
        root.create_file(&op.target, 0o644)
    }
}

/// Makes the same link as the open one; one that says the same may be there already.
fn copy_link(link: &OwnedFd, target: &Path, root: &Root) -> io::Result<()> {
    let text = rustix::fs::readlinkat(link, "", Vec::new())?;
    let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let parent = root.create_dir_all(parent, 0o755)?;
    match rustix::fs::symlinkat(&text, &parent, name) {
        Err(rustix::io::Errno::EXIST) => {
            let same = rustix::fs::readlinkat(&parent, name, Vec::new()).is_ok_and(|there| there == text);
            if same { Ok(()) } else { Err(io::ErrorKind::AlreadyExists.into()) }
        }
        other => Ok(other?),
    }
}

/// Files of a proc file system that may be covered: what lxcfs and checkpointing replace, and what
/// no protection rests on.
const COVERABLE: [&str; 10] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

/// Refuses a mount over the container's proc or a part of it: an image's volume or a link could
/// else take its place and with it what masks and labels rely on (CVE-2019-16884, CVE-2023-28642).
/// The kernel is asked what stands there, so the path's spelling is of no matter.
fn check_not_over_proc(op: &MountOp, root: &Root, to: &OwnedFd, from: Option<&OwnedFd>) -> io::Result<()> {
    let is_proc = |fd: &OwnedFd| Ok::<_, io::Error>(rustix::fs::fstatfs(fd)?.f_type as u64 == PROC_MAGIC);
    if !is_proc(to)? || from.map_or(Ok(false), is_proc)? {
        return Ok(());
    }
    let plain = op.target.strip_prefix("/").unwrap_or(&op.target);
    let coverable = COVERABLE.iter().any(|path| op.target == Path::new(path));
    if coverable && root.open_strict(plain, OFlags::PATH, 0).is_ok() {
        return Ok(());
    }
    Err(io::Error::other("nothing may be mounted over the container's proc"))
}

fn bind(from: &OwnedFd, to: OwnedFd, recursive: bool, op: &MountOp) -> io::Result<()> {
    let options =
        BindOptions { recursive, attributes: op.attributes, recursive_attributes: op.recursive_attributes };
    let bound = match mount::bind(from, &to, options) {
        // In a user namespace the access times of the host's mounts are locked; they protect nothing.
        Err(error) if error.raw_os_error() == Some(libc::EPERM) && has_access_times(&options) => {
            mount::bind(from, &to, without_access_times(options))
        }
        other => other,
    };
    match bound? {
        Some(mounted) => set_propagation(&mounted, op),
        None => set_propagation(&to, op),
    }
}

const ACCESS_TIMES: u64 = attr::ATIME | attr::NODIRATIME;

fn has_access_times(options: &BindOptions) -> bool {
    let all = [options.attributes, options.recursive_attributes];
    all.iter().any(|a| (a.set | a.clear) & ACCESS_TIMES != 0)
}

fn without_access_times(options: BindOptions) -> BindOptions {
    let strip = |a: Attributes| Attributes { set: a.set & !ACCESS_TIMES, clear: a.clear & !ACCESS_TIMES };
    BindOptions {
        attributes: strip(options.attributes),
        recursive_attributes: strip(options.recursive_attributes),
        ..options
    }
}

fn finish_mount(mounted: impl AsFd, op: &MountOp) -> io::Result<()> {
    if !op.recursive_attributes.is_empty() {
        mount::change_attributes(&mounted, op.recursive_attributes, true)?;
    }
    if !op.attributes.is_empty() {
        mount::change_attributes(&mounted, op.attributes, false)?;
    }
    set_propagation(&mounted, op)
}

fn set_propagation(mounted: impl AsFd, op: &MountOp) -> io::Result<()> {
    op.propagation.iter().try_for_each(|p| mount::change_propagation_fd(&mounted, *p))
}

fn mount_filesystem(
    (filesystem, made): (&Filesystem, Option<OwnedFd>),
    fallback: Option<&Path>,
    copy_up: bool,
    op: &MountOp,
    root: &Root,
) -> io::Result<()> {
    if op.target == Path::new("/") {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let (real, alike) = match filesystem.fstype.as_str() {
        "proc" | "sysfs" => (true, false),
        "tmpfs" => (false, !has_mode(filesystem)),
        _ => (false, false),
    };
    let existing = match real || alike {
        true => root.open_in(&op.target, OFlags::PATH | OFlags::DIRECTORY, 0).ok(),
        false => None,
    };
    if real && existing.is_some() {
        // Later writes to /proc/sys and masks below it rely on the real thing being at that very
        // path, so a link is refused (CVE-2019-19921).
        let relative = op.target.strip_prefix("/").unwrap_or(&op.target);
        root.open_strict(relative, OFlags::PATH | OFlags::DIRECTORY, 0)?;
    }
    let mut filesystem = filesystem.clone();
    if let (true, Some(directory)) = (alike, &existing) {
        // A tmpfs over an image's directory looks like it.
        let mode = rustix::fs::fstat(directory)?.st_mode & 0o7777;
        filesystem.options.push(("mode".to_owned(), Some(format!("{mode:o}"))));
    }
    let target = match existing {
        Some(directory) => directory,
        None => root.create_dir_all(&op.target, 0o755)?,
    };
    let late_ro = copy_up && filesystem.attributes.set & attr::RDONLY != 0;
    if late_ro {
        filesystem.attributes.set &= !attr::RDONLY;
    }
    if filesystem.fstype != "proc" {
        check_not_over_proc(op, root, &target, None)?;
    }
    match mount::made_filesystem(made, &filesystem, &target) {
        Ok(mounted) => {
            let mounted = match mounted {
                Some(mounted) => mounted,
                None => root.open_in(&op.target, OFlags::PATH | OFlags::DIRECTORY, 0)?,
            };
            if copy_up {
                copy::tree(&target, &mounted)?;
            }
            if late_ro || !op.recursive_attributes.is_empty() {
                return finish_mount(&mounted, op);
            }
            set_propagation(&mounted, op)
        }
        Err(error) => match fallback {
            Some(path) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::EBUSY)) => {
                // What the options say of the one mount holds for those that come along with it.
                let all = Attributes {
                    set: op.attributes.set | op.recursive_attributes.set,
                    clear: op.recursive_attributes.clear,
                };
                let op =
                    MountOp { attributes: Attributes::default(), recursive_attributes: all, ..op.clone() };
                bind(&mount::open_path(path)?, target, true, &op)
            }
            _ => Err(error),
        },
    }
}
