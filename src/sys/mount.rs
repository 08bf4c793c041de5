//! Mounts. Everything is mounted by descriptors: a file system or a copy of a tree is made
//! detached, gets its attributes, and is then moved onto an open directory or file, so that no path
//! is resolved twice. Kernels and sandboxes without the new calls get mount(2) on
//! `/proc/self/fd/N`, which names the same open object.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags,
};

/// `MOUNT_ATTR_*` of mount_setattr(2).
pub mod attr {
    /// Read-only.
    pub const RDONLY: u64 = 0x1;
    /// Set-user-id bits and file capabilities do not count.
    pub const NOSUID: u64 = 0x2;
    /// Device nodes cannot be opened.
    pub const NODEV: u64 = 0x4;
    /// Nothing can be executed.
    pub const NOEXEC: u64 = 0x8;
    /// Mask of the access time modes; its zero is `relatime`.
    pub const ATIME: u64 = 0x70;
    /// No access times.
    pub const NOATIME: u64 = 0x10;
    /// Exact access times.
    pub const STRICTATIME: u64 = 0x20;
    /// No access times of directories.
    pub const NODIRATIME: u64 = 0x80;
    /// Symbolic links are not followed.
    pub const NOSYMFOLLOW: u64 = 0x20_0000;
}

/// Attributes of a mount to be set and cleared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes {
    /// [`attr`] bits to set.
    pub set: u64,
    /// [`attr`] bits to clear.
    pub clear: u64,
}

impl Attributes {
    /// Nothing is to be changed.
    pub fn is_empty(self) -> bool {
        self.set == 0 && self.clear == 0
    }
}

/// Which mounts see new mounts below which (mount_namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Propagation {
    /// The kind.
    pub kind: PropagationKind,
    /// Of the mounts below, too.
    pub recursive: bool,
}

/// Kinds of propagation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PropagationKind {
    /// To and from peers.
    Shared,
    /// From the master only.
    Slave,
    /// None.
    Private,
    /// None, and it cannot be bound.
    Unbindable,
}

impl Propagation {
    fn flags(self) -> MountPropagationFlags {
        let kind = match self.kind {
            PropagationKind::Shared => MountPropagationFlags::SHARED,
            PropagationKind::Slave => MountPropagationFlags::DOWNSTREAM,
            PropagationKind::Private => MountPropagationFlags::PRIVATE,
            PropagationKind::Unbindable => MountPropagationFlags::UNBINDABLE,
        };
        if self.recursive { kind | MountPropagationFlags::REC } else { kind }
    }
}

/// A file system to be mounted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filesystem {
    /// Its type, `proc`.
    pub fstype: String,
    /// What `/proc/self/mounts` shows first; a device for those that have one.
    pub source: Option<String>,
    /// Its own options.
    pub options: Vec<(String, Option<String>)>,
    /// Attributes of the mount.
    pub attributes: Attributes,
}

fn no_such_call(error: Errno) -> bool {
    error == Errno::NOSYS
}

fn proc_path(fd: impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()))
}

/// Mounts a file system on an open directory; returns the root of the new mount, if the kernel
/// has the calls that give it.
pub fn filesystem(fs: &Filesystem, target: impl AsFd) -> io::Result<Option<OwnedFd>> {
    made_filesystem(None, fs, target)
}

/// The same with what [`detached`] has made of it, if it has.
pub fn made_filesystem(
    made: Option<OwnedFd>,
    fs: &Filesystem,
    target: impl AsFd,
) -> io::Result<Option<OwnedFd>> {
    match made.map_or_else(|| detached(fs), Ok) {
        Ok(mount) => {
            attach(&mount, target)?;
            Ok(Some(mount))
        }
        Err(Errno::NOSYS) => {
            legacy(fs, target)?;
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Tries whether a file system of this kind may be mounted here, by a mount that is attached nowhere. A kernel
/// without such mounts (before Linux 5.2) is not asked.
pub fn can_mount(fs: &Filesystem) -> io::Result<()> {
    match detached(fs) {
        Ok(_) | Err(Errno::NOSYS) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// A file system that is mounted nowhere yet.
pub fn detached(fs: &Filesystem) -> Result<OwnedFd, Errno> {
    let context = rustix::mount::fsopen(fs.fstype.as_str(), FsOpenFlags::FSOPEN_CLOEXEC)?;
    if let Some(source) = &fs.source {
        rustix::mount::fsconfig_set_string(&context, "source", source.as_str())?;
    }
    for (key, value) in &fs.options {
        match value {
            Some(value) => rustix::mount::fsconfig_set_string(&context, key.as_str(), value.as_str())?,
            None => rustix::mount::fsconfig_set_flag(&context, key.as_str())?,
        }
    }
    rustix::mount::fsconfig_create(&context)?;
    let attributes = MountAttrFlags::from_bits_retain(fs.attributes.set as u32);
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

fn legacy(fs: &Filesystem, target: impl AsFd) -> io::Result<()> {
    let options: Vec<String> = fs
        .options
        .iter()
        .map(|(key, value)| value.as_ref().map_or_else(|| key.clone(), |value| format!("{key}={value}")))
        .collect();
    let data = CString::new(options.join(",")).map_err(|_| io::ErrorKind::InvalidInput)?;
    let source = fs.source.as_deref().unwrap_or(&fs.fstype);
    let flags = mount_flags(fs.attributes.set);
    rustix::mount::mount(source, proc_path(target), fs.fstype.as_str(), flags, Some(data.as_c_str()))?;
    Ok(())
}

fn mount_flags(attributes: u64) -> MountFlags {
    let pairs = [
        (attr::RDONLY, MountFlags::RDONLY),
        (attr::NOSUID, MountFlags::NOSUID),
        (attr::NODEV, MountFlags::NODEV),
        (attr::NOEXEC, MountFlags::NOEXEC),
        (attr::NOATIME, MountFlags::NOATIME),
        (attr::STRICTATIME, MountFlags::STRICTATIME),
        (attr::NODIRATIME, MountFlags::NODIRATIME),
    ];
    pairs
        .iter()
        .filter(|(bit, _)| attributes & bit != 0)
        .fold(MountFlags::empty(), |all, (_, flag)| all | *flag)
}

/// An overlay file system.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Overlay {
    /// Read-only layers, the topmost first; at least one.
    pub lower: Vec<PathBuf>,
    /// Where changes go.
    pub upper: PathBuf,
    /// The kernel's scratch directory, on the file system of `upper`.
    pub work: PathBuf,
    /// Spare all syncs: for changes that are thrown away.
    pub volatile: bool,
    /// Keep overlay's own marks in `user.overlay.*`, which a user namespace may write.
    pub userxattr: bool,
}

/// Mounts an overlay on an open directory, with these attributes; returns as [`filesystem`] does.
///
/// Layers are given one by one (`lowerdir+`, Linux 6.7), because all of them together must fit a
/// page for mount(2) and 255 bytes for fsconfig(2). What overlay would take for a separator, or is
/// too long, and everything for older kernels, is named by a descriptor.
pub fn overlay(overlay: &Overlay, attributes: u64, target: impl AsFd) -> io::Result<Option<OwnedFd>> {
    match overlay_detached(overlay, attributes) {
        Ok(mount) => {
            attach(&mount, target)?;
            Ok(Some(mount))
        }
        Err(Errno::NOSYS | Errno::INVAL) => overlay_legacy(overlay, attributes, target).map(|()| None),
        Err(error) => Err(error.into()),
    }
}

/// Whether such an overlay can be mounted, in a mount namespace of this process's user namespace. Where the kernel
/// cannot tell without mounting it (before Linux 5.2), it can.
pub fn can_overlay(overlay: &Overlay) -> io::Result<()> {
    match overlay_detached(overlay, 0) {
        Ok(_) | Err(Errno::NOSYS) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// An overlay that is mounted nowhere yet ([`attach`]); Linux 6.7 or later.
pub fn overlay_mount(overlay: &Overlay, attributes: u64) -> io::Result<OwnedFd> {
    Ok(overlay_detached(overlay, attributes)?)
}

fn overlay_detached(overlay: &Overlay, attributes: u64) -> Result<OwnedFd, Errno> {
    let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let mut held = Vec::new();
    let mut set = |key: &str, path: &Path| -> Result<(), Errno> {
        let bytes = path.as_os_str().as_bytes();
        let plain = bytes.len() < 256 && !bytes.iter().any(|b| matches!(b, b':' | b'\\' | b','));
        if plain {
            return rustix::mount::fsconfig_set_string(&context, key, path);
        }
        let fd = open_path(path)?;
        rustix::mount::fsconfig_set_string(&context, key, proc_path(&fd))?;
        held.push(fd);
        Ok(())
    };
    for layer in &overlay.lower {
        set("lowerdir+", layer)?;
    }
    set("upperdir", &overlay.upper)?;
    set("workdir", &overlay.work)?;
    for (wanted, name) in [(overlay.volatile, "volatile"), (overlay.userxattr, "userxattr")] {
        if wanted {
            rustix::mount::fsconfig_set_flag(&context, name)?;
        }
    }
    rustix::mount::fsconfig_create(&context)?;
    let attributes = MountAttrFlags::from_bits_retain(attributes as u32);
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

fn overlay_legacy(overlay: &Overlay, attributes: u64, target: impl AsFd) -> io::Result<()> {
    let mut held = Vec::new();
    let mut name = |path: &Path| -> io::Result<String> {
        let fd = open_path(path)?;
        let name = proc_path(&fd).display().to_string();
        held.push(fd);
        Ok(name)
    };
    let lower = overlay.lower.iter().map(|l| name(l)).collect::<io::Result<Vec<_>>>()?.join(":");
    let mut data =
        format!("lowerdir={lower},upperdir={},workdir={}", name(&overlay.upper)?, name(&overlay.work)?);
    for (wanted, option) in [(overlay.volatile, ",volatile"), (overlay.userxattr, ",userxattr")] {
        if wanted {
            data.push_str(option);
        }
    }
    let data = CString::new(data).map_err(|_| io::ErrorKind::InvalidInput)?;
    rustix::mount::mount(
        "overlay",
        proc_path(target),
        "overlay",
        mount_flags(attributes),
        Some(data.as_c_str()),
    )?;
    Ok(())
}

/// Opens a path on the host as a mere handle, following links.
pub fn open_path(path: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}

/// What [`bind`] does besides binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BindOptions {
    /// With the mounts below the source.
    pub recursive: bool,
    /// Attributes of the bound mount.
    pub attributes: Attributes,
    /// Attributes of it and all below it.
    pub recursive_attributes: Attributes,
}

/// Binds an open object onto another; returns as [`filesystem`] does.
pub fn bind(source: impl AsFd, target: impl AsFd, options: BindOptions) -> io::Result<Option<OwnedFd>> {
    match copy_tree(&source, options) {
        Ok(mount) => {
            attach(&mount, target)?;
            Ok(Some(mount))
        }
        Err(error) if no_such_call(error) => {
            bind_legacy(source.as_fd(), target.as_fd(), options)?;
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Makes a detached copy of the mount that `source` is in, from `source` on.
fn copy_tree(source: impl AsFd, options: BindOptions) -> Result<OwnedFd, Errno> {
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if options.recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let mount = rustix::mount::open_tree(source, "", flags)?;
    if !options.recursive_attributes.is_empty() {
        set_attributes(&mount, options.recursive_attributes, true)?;
    }
    if !options.attributes.is_empty() {
        set_attributes(&mount, options.attributes, false)?;
    }
    Ok(mount)
}

fn bind_legacy(source: BorrowedFd<'_>, target: BorrowedFd<'_>, options: BindOptions) -> io::Result<()> {
    if !options.recursive_attributes.is_empty() {
        // Only mount_setattr(2) can do that.
        return Err(io::Error::from_raw_os_error(libc::ENOSYS));
    }
    // Opened anew afterwards, for the old descriptor is below the new mount.
    let (from, to) = (proc_path(source), std::fs::read_link(proc_path(target))?);
    if options.recursive {
        rustix::mount::mount_bind_recursive(from, proc_path(target))?;
    } else {
        rustix::mount::mount_bind(from, proc_path(target))?;
    }
    if !options.attributes.is_empty() {
        let mounted = open_path(&to)?;
        remount_legacy(mounted.as_fd(), options.attributes)?;
    }
    Ok(())
}

/// The old way to change a bind mount: all of its flags are given again, because in a user
/// namespace those that the host set are locked and leaving one out is refused.
fn remount_legacy(mount: BorrowedFd<'_>, attributes: Attributes) -> io::Result<()> {
    let now = rustix::fs::fstatvfs(mount)?.f_flag.bits() & 0xf;
    let flags = mount_flags(now & !attributes.clear | attributes.set);
    rustix::mount::mount_remount(proc_path(mount), MountFlags::BIND | flags, c"")?;
    Ok(())
}

/// The path by which this process can name an open object, as long as it is open.
pub fn name_of(fd: impl AsFd) -> PathBuf {
    proc_path(fd)
}

/// Moves a detached mount onto an open object.
pub fn attach(mount: impl AsFd, target: impl AsFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(mount, "", target, "", flags)?)
}

/// Makes a detached copy of the mount at an open path of the caller's own mount namespace. It can be
/// attached by a process in another one, also where that could not open the path.
pub fn detached_copy(source: impl AsFd, recursive: bool) -> io::Result<OwnedFd> {
    let options = BindOptions { recursive, ..Default::default() };
    Ok(copy_tree(source, options)?)
}

/// The number of the mount that an open object is on, as in [`super::mountinfo::Mount::id`].
pub fn id_of(fd: impl AsFd) -> io::Result<u64> {
    let flags = rustix::fs::AtFlags::EMPTY_PATH;
    Ok(rustix::fs::statx(fd, "", flags, rustix::fs::StatxFlags::MNT_ID)?.stx_mnt_id)
}

/// Takes the mount whose root is open away from its place, with all that is mounted below. What is open
/// there stays usable.
pub fn detach(mount: impl AsFd) -> io::Result<()> {
    Ok(rustix::mount::unmount(proc_path(mount), UnmountFlags::DETACH)?)
}

/// Shows the files of a detached copy with the ids of a user namespace (mount_setattr(2), "ID-mapped
/// mounts"). Needs `CAP_SYS_ADMIN` in the user namespace that mounted the file system.
pub fn map_ids(mount: impl AsFd, userns: impl AsFd, recursive: bool) -> io::Result<()> {
    const MOUNT_ATTR_IDMAP: u64 = 0x10_0000;
    let userns = userns.as_fd().as_raw_fd() as u64;
    let value = MountAttr { set: MOUNT_ATTR_IDMAP, clear: 0, propagation: 0, userns };
    Ok(mount_setattr(mount.as_fd(), &value, recursive)?)
}

/// Makes the mount that the directory at an absolute path lies in private: what is mounted on that
/// directory then is not propagated to the mount's peers, and pivot_root(2) does not refuse it.
pub fn make_surrounding_private(path: &Path) -> io::Result<()> {
    let mount_of = |path: &Path| -> io::Result<u64> {
        let flags = rustix::fs::AtFlags::empty();
        let stat = rustix::fs::statx(rustix::fs::CWD, path, flags, rustix::fs::StatxFlags::MNT_ID)?;
        Ok(stat.stx_mnt_id)
    };
    let id = mount_of(path)?;
    let mut root = path;
    while let Some(parent) = root.parent() {
        if mount_of(parent)? != id {
            break;
        }
        root = parent;
    }
    change_propagation(root, Propagation { kind: PropagationKind::Private, recursive: false })
}

#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

fn set_attributes(mount: impl AsFd, attributes: Attributes, recursive: bool) -> Result<(), Errno> {
    // Access time modes are one field of several bits: it is cleared before one is set.
    let atime = if attributes.set & attr::ATIME != 0 { attr::ATIME } else { 0 };
    let value = MountAttr { set: attributes.set, clear: attributes.clear | atime, propagation: 0, userns: 0 };
    mount_setattr(mount.as_fd(), &value, recursive)
}

fn mount_setattr(mount: BorrowedFd<'_>, value: &MountAttr, recursive: bool) -> Result<(), Errno> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    let empty: &std::ffi::CStr = c"";
    // SAFETY: the kernel reads an empty path and one mount_attr of the size that is given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            empty.as_ptr(),
            flags,
            std::ptr::from_ref(value),
            size_of::<MountAttr>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO))
    }
}

/// Changes attributes of the mount whose root is open.
pub fn change_attributes(mount: impl AsFd, attributes: Attributes, recursive: bool) -> io::Result<()> {
    match set_attributes(&mount, attributes, recursive) {
        Err(error) if no_such_call(error) && !recursive => remount_legacy(mount.as_fd(), attributes),
        other => Ok(other?),
    }
}

/// Changes the propagation of the mount at an absolute path of the caller's own.
pub fn change_propagation(path: &Path, propagation: Propagation) -> io::Result<()> {
    Ok(rustix::mount::mount_change(path, propagation.flags())?)
}

/// Changes the propagation of the mount whose root is open.
pub fn change_propagation_fd(mount: impl AsFd, propagation: Propagation) -> io::Result<()> {
    let flag = u64::from((propagation.flags() - MountPropagationFlags::REC).bits());
    let value = MountAttr { set: 0, clear: 0, propagation: flag, userns: 0 };
    match mount_setattr(mount.as_fd(), &value, propagation.recursive) {
        Err(error) if no_such_call(error) => change_propagation(&proc_path(mount), propagation),
        other => Ok(other?),
    }
}

/// Makes the open directory, which must be a mount's root, the root of this mount namespace, and
/// lets go of the old one.
///
/// With `shared`, the old root's mounts may have peers outside, which are to keep theirs.
pub fn pivot(root: impl AsFd, shared: bool) -> io::Result<()> {
    let old = if shared { Some(open_path(Path::new("/"))?) } else { None };
    rustix::process::fchdir(root)?;
    // pivot_root(2), "pivot_root(".", ".")": the old root is stacked on the new one.
    rustix::process::pivot_root(".", ".")?;
    if let Some(old) = old {
        rustix::process::fchdir(old)?;
        let cut = Propagation { kind: PropagationKind::Slave, recursive: true };
        change_propagation(Path::new("."), cut)?;
    }
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;
    Ok(())
}

/// The same where pivot_root(2) is impossible, on a ramfs: moves the mount over `/`. The old root
/// stays reachable for who may mount and chroot.
pub fn move_over_root(root: impl AsFd) -> io::Result<()> {
    rustix::process::fchdir(root)?;
    rustix::mount::mount_move(".", "/")?;
    rustix::process::chroot(".")?;
    rustix::process::chdir("/")?;
    Ok(())
}

/// Makes a directory the caller's root, without a change of mounts. Who may chroot can leave it.
pub fn chroot(root: impl AsFd) -> io::Result<()> {
    rustix::process::fchdir(root)?;
    rustix::process::chroot(".")?;
    rustix::process::chdir("/")?;
    Ok(())
}

/// A directory that is mounted onto itself, in the caller's mount namespace; unmounted when this is
/// dropped, with all that is mounted on it.
#[derive(Debug)]
pub struct Held(Option<PathBuf>);

impl Held {
    /// Mounts it, with what is mounted on it already, and keeps what will be from its peers. The root itself
    /// is refused: it could not be unmounted.
    pub fn new(path: &Path) -> io::Result<Self> {
        // Links are not followed when it is unmounted.
        let path = &std::fs::canonicalize(path)?;
        if path.parent().is_none() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let target = open_path(path)?;
        let options = BindOptions { recursive: true, ..Default::default() };
        let mounted = bind(&target, &target, options)?;
        let held = Self(Some(path.to_owned()));
        let private = Propagation { kind: PropagationKind::Private, recursive: true };
        match mounted {
            Some(mounted) => change_propagation_fd(mounted, private)?,
            None => change_propagation(path, private)?,
        }
        Ok(held)
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.0.clone().unwrap_or_default()
    }

    /// Leaves it mounted until [`release`].
    pub fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(path) = self.0.take() {
            // Nobody is left to tell.
            let _ = release(&path);
        }
    }
}

/// Unmounts what was held; what is still in use goes with its last user.
pub fn release(path: &Path) -> io::Result<()> {
    let flags = rustix::mount::UnmountFlags::DETACH | rustix::mount::UnmountFlags::NOFOLLOW;
    match rustix::mount::unmount(path, flags) {
        // It is not mounted any more.
        Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        other => Ok(other?),
    }
}
