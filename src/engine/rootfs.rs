//! The root of a container as its processes see it, for work on its files from outside: through the mount
//! namespace of one that runs; of one that does not, what would be mounted is mounted where nobody else sees it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::{Engine, Error, run};
use crate::base::idmap::IdMapping;
use crate::security::passwd;
use crate::storage::containers::{ContainerRecord, DriverRecord, RootfsSource};
use crate::sys::child::Ids;
use crate::sys::lock::Lock;
use crate::sys::mount::{self, Overlay, Propagation, PropagationKind};
use crate::sys::path::Root;
use crate::sys::process::{self, CloneOptions};
use crate::sys::{mapped, namespace, socket};

/// How a container's root can be had. While this lives a container that does not run is not started.
#[derive(Debug)]
pub(super) struct Access {
    /// The container.
    pub record: ContainerRecord,
    way: Way,
}

#[derive(Debug)]
enum Way {
    /// It runs: this is its first process.
    Live { process: OwnedFd, namespaces: u64, pid: i32 },
    /// It does not.
    Still { stack: Stack, _charge: Lock },
}

/// What a container's root is made of.
#[derive(Debug)]
struct Stack {
    /// Its directory, over which it is mounted.
    dir: PathBuf,
    base: Base,
    /// Its base, opened by the caller, who may pass directories that the container's root may not.
    opened: Option<OwnedFd>,
    /// What is mounted in it.
    binds: Vec<Bind>,
}

#[derive(Debug)]
struct Bind {
    source: PathBuf,
    /// What is mounted rather than the source.
    stacked: Option<Overlay>,
    /// What of the source.
    subpath: Option<PathBuf>,
    destination: PathBuf,
    writable: bool,
}

impl Bind {
    fn open(&self) -> io::Result<OwnedFd> {
        match &self.subpath {
            Some(subpath) => Root::open(&self.source)?.open_in(subpath, OFlags::PATH, 0),
            None => Ok(mount::open_path(&self.source)?),
        }
    }
}

#[derive(Debug)]
enum Base {
    Directory(PathBuf),
    /// Mounted by the host's root, with other ids than on disk.
    Mapped(OwnedFd),
    Overlay(Overlay),
}

impl Engine {
    /// The way to the root of a container, running or not.
    pub(super) fn access(&self, text: &str) -> Result<Access, Error> {
        loop {
            let (record, status) = self.lookup(text)?;
            if let Some(state) = status.running()
                && let Some(process) = process::open_alive(state.pid, state.start_time)
            {
                let namespaces = namespace::differing(state.pid, 0).map_err(|source| Error::Mount {
                    action: "entering",
                    name: record.name.clone(),
                    source,
                })?;
                return Ok(Access { record, way: Way::Live { process, namespaces, pid: state.pid } });
            }
            let Some(charge) = self.charge_unless_running(&record.id)? else { continue };
            let stack = self.stack(&record)?;
            return Ok(Access { record, way: Way::Still { stack, _charge: charge } });
        }
    }

    fn stack(&self, record: &ContainerRecord) -> Result<Stack, Error> {
        let dir = self.containers.dir(&record.id);
        self.copy_layers_if_needed(record)?;
        let copy = dir.join("rootfs");
        let overlay = |lower| {
            Base::Overlay(Overlay {
                lower,
                upper: dir.join("diff"),
                work: dir.join("work"),
                volatile: false,
                userxattr: run::has_user_marks(record),
            })
        };
        let base = match &record.rootfs {
            RootfsSource::Directory(path) if record.config.rootfs_overlay => overlay(vec![path.clone()]),
            RootfsSource::Directory(path) => Base::Directory(path.clone()),
            RootfsSource::Image { .. } if copy.exists() => Base::Directory(copy),
            RootfsSource::Image { layers, .. } => {
                let store = self.layer_store(record);
                overlay(layers.iter().rev().map(|chain_id| store.layer_dir(chain_id)).collect())
            }
        };
        let mounts = record.config.mounts.iter().filter(|mount| matches!(&*mount.kind, "bind" | "volume"));
        let binds = mounts.filter_map(|mount| {
            let mut stacked = None;
            let source = match &mount.driver {
                None => mount.source.clone().into(),
                Some(DriverRecord::Bind(path)) => path.clone(),
                Some(DriverRecord::Overlay { lower, upper, work }) => {
                    stacked = Some(Overlay {
                        lower: lower.clone(),
                        upper: upper.clone(),
                        work: work.clone(),
                        volatile: false,
                        userxattr: record.mapping.is_some(),
                    });
                    PathBuf::new()
                }
                // What is only there while a container runs.
                Some(DriverRecord::Filesystem { .. }) => return None,
            };
            Some(Bind {
                source,
                stacked,
                subpath: mount.subpath.clone().map(PathBuf::from),
                destination: mount.destination.clone().into(),
                // What the container writes over an overlay is its own, and gone when it ends.
                writable: mount.rw && mount.overlay.is_none(),
            })
        });
        let base = match (&record.config.rootfs_ids, base) {
            (None, base) => base,
            (Some(ids), base) => Base::Mapped(
                match &base {
                    Base::Overlay(overlay) => mapped::overlay(overlay, ids, mount::attr::NODEV),
                    Base::Directory(path) => mapped::directory(path, ids, true),
                    Base::Mapped(made) => made.try_clone(),
                }
                .map_err(|source| Error::Mount {
                    action: "mounting",
                    name: record.name.clone(),
                    source,
                })?,
            ),
        };
        let opened = match &base {
            Base::Directory(path) => mount::open_path(path).ok(),
            Base::Overlay(_) | Base::Mapped(_) => None,
        };
        Ok(Stack { dir, base, opened, binds: binds.collect() })
    }
}

impl Access {
    /// Who may do something with the container's files.
    pub fn ids(&self) -> Ids<'_> {
        match (&self.way, &self.record.mapping) {
            (Way::Live { process, namespaces, .. }, _) if namespaces & libc::CLONE_NEWUSER as u64 != 0 => {
                Ids::Of(process.as_fd())
            }
            (Way::Still { .. }, Some(mapping)) => Ids::Mapped(mapping),
            _ => Ids::Own,
        }
    }

    /// Opens the root, in a process that has [`Access::ids`] and nothing else to do: its mounts change.
    pub fn open(&self) -> io::Result<Root> {
        match &self.way {
            Way::Live { process, namespaces, .. } if namespaces & libc::CLONE_NEWNS as u64 != 0 => {
                root_of(process.as_fd()).map(Root::from_fd)
            }
            Way::Live { pid, .. } => Root::open(Path::new(&format!("/proc/{pid}/root"))),
            Way::Still { stack, .. } => stack.mount(),
        }
    }

    /// A detached mount of the root alone, for this process to attach.
    pub fn detached(&self) -> io::Result<OwnedFd> {
        match &self.way {
            Way::Live { process, namespaces, .. } if namespaces & libc::CLONE_NEWNS as u64 != 0 => {
                let user = namespaces & libc::CLONE_NEWUSER as u64;
                from_inside(process.as_fd(), user, || {
                    mount::detached_copy(mount::open_path(Path::new("/"))?, false)
                })
            }
            Way::Live { pid, .. } => {
                mount::detached_copy(mount::open_path(Path::new(&format!("/proc/{pid}/root")))?, false)
            }
            Way::Still { stack, .. } => match &stack.base {
                Base::Directory(path) => mount::detached_copy(mount::open_path(path)?, true),
                Base::Overlay(overlay) => mount::overlay_mount(overlay, mount::attr::NODEV),
                Base::Mapped(made) => made.try_clone(),
            },
        }
    }

    /// The mapping of host's ids to the container's.
    pub fn mapping(&self) -> Option<&IdMapping> {
        self.record.mapping.as_ref()
    }

    /// Whom the container's program runs as, by the files of its root.
    pub fn user(&self, root: &Root) -> (u32, u32) {
        const LIMIT: u64 = 4 << 20;
        let read = |path: &str| root.read(Path::new(path), LIMIT).unwrap_or_default();
        let text = &self.record.config.user;
        let identity = passwd::resolve(text, &read("/etc/passwd"), &read("/etc/group"));
        // Who is not known to the files cannot have been meant by a name.
        identity.map_or((0, 0), |identity| (identity.uid, identity.gid))
    }
}

/// Opens the root of a process's mount namespace, which a child of the caller's joins: the caller keeps its own
/// mounts, and its `/proc`.
fn root_of(container: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    from_inside(container, 0, || {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(rustix::fs::open("/", flags, Mode::empty())?)
    })
}

/// What `open` opens in the mount namespace of a process, and with `user` in its user namespace.
fn from_inside(
    container: BorrowedFd<'_>,
    user: u64,
    open: impl FnOnce() -> io::Result<OwnedFd>,
) -> io::Result<OwnedFd> {
    let (ours, theirs) = socket::packet_pair()?;
    let child = process::spawn(CloneOptions { close: Some(ours.as_fd()), ..Default::default() }, || {
        let opened = process::set_undumpable()
            .and_then(|()| namespace::join(container, libc::CLONE_NEWNS as u64 | user))
            .and_then(|()| open());
        let sent = match opened {
            Ok(root) => socket::send(&theirs, b"r", Some(root.as_fd())),
            Err(error) => {
                socket::send(&theirs, &error.raw_os_error().unwrap_or(libc::EIO).to_le_bytes(), None)
            }
        };
        u8::from(sent.is_err())
    })?;
    drop(theirs);
    let (told, root) = socket::receive(&ours)?;
    process::wait(&child.pidfd)?;
    root.ok_or_else(|| {
        let errno = told.first_chunk::<4>().map_or(libc::EIO, |bytes| i32::from_le_bytes(*bytes));
        io::Error::from_raw_os_error(errno)
    })
}

impl Stack {
    /// Mounts it all in a mount namespace of the caller's own. With nothing to be mounted there is none.
    fn mount(&self) -> io::Result<Root> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = |path: &Path| rustix::fs::open(path, flags, Mode::empty());
        if let (Base::Directory(path), true) = (&self.base, self.binds.is_empty()) {
            return match &self.opened {
                Some(opened) => opened.try_clone().map(Root::from_fd),
                None => Root::open(path),
            };
        }
        namespace::unshare(libc::CLONE_NEWNS as u64)?;
        let slave = Propagation { kind: PropagationKind::Slave, recursive: true };
        mount::change_propagation(Path::new("/"), slave)?;
        let target = match &self.base {
            // To this container's root the store may be closed. What is opened by absolute paths lies below it still.
            Base::Mapped(_) => open(Path::new("/"))?,
            _ => open(&self.dir)?,
        };
        match &self.base {
            Base::Directory(path) => mount::attach(mount::detached_copy(open(path)?, true)?, &target)?,
            Base::Overlay(overlay) => drop(mount::overlay(overlay, mount::attr::NODEV, &target)?),
            Base::Mapped(_) => {}
        }
        let root = match &self.base {
            Base::Mapped(made) => {
                mount::attach(made, &target)?;
                Root::from_fd(made.try_clone()?)
            }
            _ => Root::from_fd(open(&self.dir)?),
        };
        for bind in &self.binds {
            if let Some(overlay) = &bind.stacked {
                let place = root.create_dir_all(&bind.destination, 0o755)?;
                mount::overlay(overlay, mount::attr::NODEV, place)?;
                continue;
            }
            // A source that is gone is missing at the start, and not here.
            let Ok(source) = bind.open() else { continue };
            let directory = rustix::fs::fstat(&source)
                .map(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode))?
                == rustix::fs::FileType::Directory;
            let place = if directory {
                root.create_dir_all(&bind.destination, 0o755)?
            } else {
                root.create_file(&bind.destination, 0o644)?
            };
            let copy = mount::detached_copy(&source, true)?;
            if !bind.writable {
                let read_only = mount::Attributes { set: mount::attr::RDONLY, clear: 0 };
                mount::change_attributes(&copy, read_only, false)?;
            }
            mount::attach(copy, place)?;
        }
        Ok(root)
    }
}
