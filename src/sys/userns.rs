//! User namespaces: making them and mapping their ids (user_namespaces(7)).

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::Stdio;

use super::{beside, capability, ids, namespace, process, socket};
use crate::base::idmap::{IdMapping, IdRange, map_text};

/// Ids could not be mapped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused a user namespace.
    #[error("creating a user namespace")]
    Create(#[source] io::Error),
    /// The kernel refused a map.
    #[error("writing \"{}\"", path.display())]
    Write {
        /// `/proc/PID/uid_map`, `gid_map` or `setgroups`.
        path: PathBuf,
        /// Its answer.
        #[source]
        source: io::Error,
    },
    /// A helper is not installed or cannot be run.
    #[error("running {helper}, which the package \"uidmap\" has")]
    Helper {
        /// `newuidmap` or `newgidmap`.
        helper: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A helper refused: it says why on standard error itself.
    #[error(
        "{helper} refused the mapping {ranges}: is it in /etc/subuid and /etc/subgid, and the helper setuid root?"
    )]
    Refused {
        /// `newuidmap` or `newgidmap`.
        helper: &'static str,
        /// What was asked of it.
        ranges: String,
    },
    /// Becoming root inside.
    #[error("becoming root of the user namespace")]
    Become(#[source] io::Error),
    /// The process that was to write the maps.
    #[error("waiting for the process that maps the ids")]
    Wait(#[source] io::Error),
}

/// Whether this process is in a user namespace other than the machine's first, which maps every id to
/// itself.
pub fn is_inside() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let fields: Vec<&str> = map.split_whitespace().collect();
    !fields.is_empty() && fields != ["0", "0", "4294967295"]
}

/// Finds `newuidmap` or `newgidmap`. `PATH` of an ordinary user may lack sbin, where some
/// distributions put them.
pub fn find_helper(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/bin", "/usr/local/bin", "/usr/sbin", "/bin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .filter(|dir| dir.is_absolute())
        .chain(more)
        .map(|dir| dir.join(name))
        .find(|file| rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok())
}

/// Maps the ids of process `pid`, which is alone in a new user namespace: directly if the kernel
/// lets us (root; or one id, our own), else by the helpers, which run at the same time.
pub fn write_maps(pid: i32, mapping: &IdMapping) -> Result<(), Error> {
    if ids::euid() != 0 && !is_single(mapping) {
        return by_helpers(pid, mapping);
    }
    match directly(pid, mapping) {
        // Root of a container may lack the capabilities over the ids that its helpers have.
        Err(Error::Write { source, .. })
            if source.kind() == io::ErrorKind::PermissionDenied && !is_single(mapping) =>
        {
            by_helpers(pid, mapping)
        }
        other => other,
    }
}

fn is_single(mapping: &IdMapping) -> bool {
    let own = |ranges: &[IdRange], id| matches!(ranges, [only] if only.size == 1 && only.host == id);
    own(&mapping.uids, ids::euid()) && own(&mapping.gids, ids::egid())
}

fn directly(pid: i32, mapping: &IdMapping) -> Result<(), Error> {
    let write = |name: &str, text: &str| {
        let path = PathBuf::from(format!("/proc/{pid}/{name}"));
        // One write(2): the kernel takes a map once and whole.
        std::fs::write(&path, text).map_err(|source| Error::Write { path, source })
    };
    // CAP_SETGID, which root of a container may lack.
    let over_groups = || capability::permitted().is_ok_and(|sets| sets & 1 << 6 != 0);
    if ids::euid() != 0 || (is_single(mapping) && !over_groups()) {
        // Without privileges the kernel takes a gid map only if groups can never be dropped inside.
        write("setgroups", "deny")?;
    }
    write("uid_map", &map_text(&mapping.uids))?;
    write("gid_map", &map_text(&mapping.gids))
}

fn by_helpers(pid: i32, mapping: &IdMapping) -> Result<(), Error> {
    let gid = Helper::new("newgidmap", pid, &mapping.gids)?;
    // A copy of this process becomes it, so that this one does not wait for its execve, as posix_spawn(3) does.
    let beside = process::spawn(process::CloneOptions::default(), || gid.become_it());
    let uid = Helper::new("newuidmap", pid, &mapping.uids)?;
    let uid = uid.start().map(|child| finish_helper("newuidmap", child, &mapping.uids));
    let done = beside.and_then(|child| process::wait(&child.pidfd)).is_ok_and(|end| end.code() == 0);
    uid??;
    // Once more, if only to learn why.
    if done { Ok(()) } else { finish_helper("newgidmap", gid.start()?, &mapping.gids) }
}

/// A program that maps ids, and its arguments.
struct Helper {
    name: &'static str,
    path: PathBuf,
    args: Vec<String>,
}

impl Helper {
    fn new(name: &'static str, pid: i32, ranges: &[IdRange]) -> Result<Self, Error> {
        let missing = || Error::Helper { helper: name, source: io::ErrorKind::NotFound.into() };
        let path = find_helper(name).ok_or_else(missing)?;
        let numbers = ranges.iter().flat_map(|r| [r.container, r.host, r.size]);
        let args = [name.to_owned(), pid.to_string()].into_iter().chain(numbers.map(|n| n.to_string()));
        Ok(Self { name, path, args: args.collect() })
    }

    fn start(&self) -> Result<std::process::Child, Error> {
        let error = |source| Error::Helper { helper: self.name, source };
        let args: Vec<_> = self.args.iter().map(OsString::from).collect();
        process::run_program(&self.path, &args, None, Stdio::null()).map_err(error)
    }

    /// An exit code, if it cannot be executed.
    fn become_it(&self) -> u8 {
        let args: Vec<_> = self.args[1..].iter().map(String::as_str).collect();
        let _ = process::become_program(&self.path, &args, &[]);
        1
    }
}

/// A user namespace, and others that belong to it, which were begun before anybody is to be born in them: the helpers
/// map its ids beside what their caller does meanwhile, which takes them as long as all the rest of a container's
/// making. Dropping it ends what was begun, if the namespaces have nobody else in them; its helpers are waited for.
#[derive(Debug)]
pub struct Begun {
    mapping: IdMapping,
    kinds: u64,
    /// In the namespaces as long as someone has `ours`.
    keeper: process::Child,
    ours: OwnedFd,
    /// Read by the helpers until they are executed, and then no more.
    helpers: Vec<(beside::Program, process::Child)>,
}

impl Begun {
    /// Begins a user namespace with this mapping, and namespaces of these kinds in it. None where no helpers are
    /// needed, or where something stands in the way: who makes the namespaces then will hear what.
    pub fn begin(mapping: &IdMapping, kinds: u64) -> Option<Self> {
        if ids::euid() == 0 || is_single(mapping) {
            return None;
        }
        let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null").ok()?;
        let (ours, theirs) = socket::packet_pair().ok()?;
        let user = libc::CLONE_NEWUSER as u64;
        let keeper = beside::keeper(user, kinds, ours.as_fd(), theirs.as_fd()).ok()?;
        let mut begun =
            Self { mapping: mapping.clone(), kinds, keeper, ours, helpers: Vec::with_capacity(2) };
        for (name, ranges) in HELPERS.into_iter().zip([&mapping.uids, &mapping.gids]) {
            let helper = Helper::new(name, begun.keeper.pid, ranges).ok()?;
            let program = beside::Program::new(&helper.path, helper.args).ok()?;
            let child = program.start(null.as_fd()).ok()?;
            begun.helpers.push((program, child));
            if begun.helpers.len() == 1 {
                // Not before: who is woken is often run at once, in our place, and the network namespace takes half a
                // millisecond, while the other processor would have nothing to do.
                socket::send(&begun.ours, b"g", None).ok()?;
            }
        }
        Some(begun)
    }

    /// The mapping.
    pub fn mapping(&self) -> &IdMapping {
        &self.mapping
    }

    /// The kinds of namespaces beside the user namespace.
    pub fn kinds(&self) -> u64 {
        self.kinds
    }

    /// What a process forked from the caller needs of it.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let children = self.helpers.iter().map(|(_, child)| child).chain([&self.keeper]);
        children.map(|child| child.pidfd.as_fd()).chain([self.ours.as_fd()])
    }

    /// Whether the namespaces are there, which is waited for; their ids need not be mapped yet.
    pub fn is_there(&self) -> bool {
        matches!(socket::receive(&self.ours), Ok((told, _)) if told == beside::KEPT)
    }

    /// Joins the namespaces. The caller has their powers then, and is nobody until the ids are mapped.
    pub fn join(&self) -> io::Result<()> {
        namespace::join(&self.keeper.pidfd, self.kinds | libc::CLONE_NEWUSER as u64)
    }

    /// Waits until the ids are mapped.
    pub fn finish(&self) -> Result<(), Error> {
        for (_, child) in &self.helpers {
            // Another process may be its parent.
            while !process::wait_end(&child.pidfd, u32::MAX).map_err(Error::Wait)? {}
        }
        let pid = self.keeper.pid;
        let maps = [("uid_map", &self.mapping.uids), ("gid_map", &self.mapping.gids)];
        for (name, (file, ranges)) in HELPERS.into_iter().zip(maps) {
            let path = format!("/proc/{pid}/{file}");
            if process::read_small(&path).is_ok_and(|map| !map.is_empty()) {
                continue;
            }
            // Once more, if only to learn why.
            finish_helper(name, Helper::new(name, pid, ranges)?.start()?, ranges)?;
        }
        Ok(())
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        // Others may have its end, too. Only who made it has children there to wait for.
        let _ = rustix::net::shutdown(&self.ours, rustix::net::Shutdown::Both);
        let children = self.helpers.iter().map(|(_, child)| child).chain([&self.keeper]);
        children.for_each(|child| drop(process::wait(&child.pidfd)));
    }
}

const HELPERS: [&str; 2] = ["newuidmap", "newgidmap"];

fn finish_helper(
    helper: &'static str,
    mut child: std::process::Child,
    ranges: &[IdRange],
) -> Result<(), Error> {
    let status = child.wait().map_err(|source| Error::Helper { helper, source })?;
    if status.success() {
        Ok(())
    } else {
        Err(Error::Refused { helper, ranges: map_text(ranges).trim_end().replace('\n', ", ") })
    }
}

/// A user namespace with this mapping, which lives as long as its descriptor: for id-mapped mounts.
pub fn hold(mapping: &IdMapping) -> Result<OwnedFd, Error> {
    let (ours, theirs) = socket::packet_pair().map_err(Error::Wait)?;
    let options = process::CloneOptions {
        namespaces: libc::CLONE_NEWUSER as u64,
        close: Some(ours.as_fd()),
        ..Default::default()
    };
    let child = process::spawn(options, || {
        // Until the other end is closed.
        let _ = socket::receive(&theirs);
        0
    })
    .map_err(Error::Create)?;
    drop(theirs);
    let held = write_maps(child.pid, mapping).and_then(|()| {
        let path = PathBuf::from(format!("/proc/{}/ns/user", child.pid));
        namespace::open(&path).map_err(Error::Create)
    });
    drop(ours);
    process::wait(&child.pidfd).map_err(Error::Wait)?;
    held
}

/// Makes the caller root of its user namespace, with no supplementary groups where that is allowed.
/// Where the only id is another (`--userns keep-id`) it stays that; its capabilities, which it has had
/// since the namespace was made or joined, are the same.
pub fn become_root() -> io::Result<()> {
    become_root_with(false)
}

/// The same; with `keep_groups` the supplementary groups stay, which may give access to what they own.
pub fn become_root_with(keep_groups: bool) -> io::Result<()> {
    let unmapped = |error: &io::Error| error.raw_os_error() == Some(libc::EINVAL);
    match ids::set_gid(0) {
        Err(error) if unmapped(&error) => return Ok(()),
        other => other?,
    }
    if !keep_groups {
        match ids::set_groups(&[]) {
            // setgroups is denied in a namespace that was mapped without privileges.
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {}
            other => other?,
        }
    }
    match ids::set_uid(0) {
        Err(error) if unmapped(&error) => Ok(()),
        other => other,
    }
}

/// Makes the (single-threaded) caller root of a new user namespace with this mapping; for work on
/// files that belong to mapped ids.
pub fn enter(mapping: &IdMapping) -> Result<(), Error> {
    let (ours, theirs) = socket::packet_pair().map_err(Error::Wait)?;
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    // Each side closes the other's end: when one is killed, the other must see it and not wait for ever.
    let options = process::CloneOptions { close: Some(ours.as_fd()), ..Default::default() };
    let helper = process::spawn(options, || {
        // The maps are written from outside, by a process that stayed there.
        if !matches!(socket::receive(&theirs), Ok((message, _)) if message == b"G") {
            return 0;
        }
        let report = match write_maps(pid, mapping) {
            Ok(()) => "k".to_owned(),
            Err(error) => crate::base::report::chain(&error),
        };
        u8::from(socket::send(&theirs, report.as_bytes(), None).is_err())
    })
    .map_err(Error::Wait)?;
    drop(theirs);
    let result = (|| {
        namespace::unshare(libc::CLONE_NEWUSER as u64).map_err(Error::Create)?;
        socket::send(&ours, b"G", None).map_err(Error::Wait)?;
        let (answer, _) = socket::receive(&ours).map_err(Error::Wait)?;
        if answer == b"k" {
            become_root().map_err(Error::Become)
        } else {
            Err(Error::Wait(io::Error::other(String::from_utf8_lossy(&answer).into_owned())))
        }
    })();
    drop(ours);
    process::wait(&helper.pidfd).map_err(Error::Wait)?;
    result
}

/// Finds out by doing whether this user may make user namespaces, in a child. EACCES: they can be made, and give no
/// powers.
pub fn probe() -> io::Result<()> {
    let options = process::CloneOptions { namespaces: libc::CLONE_NEWUSER as u64, ..Default::default() };
    // A namespace that may be made but gives no capabilities (AppArmor's restriction) is of no use.
    let child = process::spawn(options, || {
        u8::from(namespace::unshare(libc::CLONE_NEWNS as u64 | libc::CLONE_NEWUTS as u64).is_err())
    })?;
    match process::wait(&child.pidfd)? {
        process::ExitStatus::Code(0) => Ok(()),
        _ => Err(io::Error::from_raw_os_error(libc::EACCES)),
    }
}
