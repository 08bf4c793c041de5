//! Trying everything once.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::{Findings, Helper, Inside, RuntimeDir, StoreFindings, SubIds, Trial, Tried, UserNamespace};
use crate::base::idmap::IdMapping;
use crate::base::report;
use crate::cgroup;
use crate::network::netlink::{self, End};
use crate::network::nft::{Batch, Family};
use crate::security::idmap::{self, RungKind};
use crate::security::refused::{Signs, status};
use crate::storage::{self, Paths, Store};
use crate::sys::mount::{self, Filesystem, Overlay};
use crate::sys::netlink as socket;
use crate::sys::process::{self, CloneOptions};
use crate::sys::seccomp::{Filter, Instruction};
use crate::sys::{capability, child, ids, mountinfo, namespace, tree, userns};

/// Kinds of namespaces that a container has, by their names in `user.max_*_namespaces`. Of processes last: what
/// is born afterwards is in it.
const KINDS: [(&str, i32); 6] = [
    ("mnt", libc::CLONE_NEWNS),
    ("ipc", libc::CLONE_NEWIPC),
    ("uts", libc::CLONE_NEWUTS),
    ("cgroup", libc::CLONE_NEWCGROUP),
    ("net", libc::CLONE_NEWNET),
    ("pid", libc::CLONE_NEWPID),
];

fn tried<T>(result: io::Result<T>) -> Tried {
    result.err().map(|error| error.raw_os_error().unwrap_or(libc::EIO))
}

/// Looks at everything. `told`: the places of the store were told by flags. The caller must be single-threaded.
pub fn gather(paths: &Paths, told: bool) -> Findings {
    let (uid, gid) = (ids::euid(), ids::egid());
    let root = uid == 0;
    let rung = idmap::rung();
    let name = idmap::user_name(uid);
    let many = (rung.kind == RungKind::Subordinate).then(|| child::call(Some(&rung.mapping), || ()));
    let soft = |resource| ids::limit(resource).map_or(u64::MAX, |(soft, _)| soft);
    let nodes = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];
    let readable = |path: &str| rustix::fs::access(path, rustix::fs::Access::READ_OK).is_ok();
    let is_node = |path: &&str| {
        fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_char_device()) && readable(path)
    };
    Findings {
        uid,
        signs: Signs::gather(),
        no_new_privileges: status("NoNewPrivs").is_some_and(|value| value == "1"),
        proc: Path::new("/proc/self/status").exists(),
        sub_ids: ["/etc/subuid", "/etc/subgid"].map(|file| sub_ids(file, name.as_deref(), uid)),
        helpers: ["newuidmap", "newgidmap"].map(helper),
        many_ids: many.and_then(Result::err).map(|error| report::chain(&error)),
        userns: user_namespace(rung.kind == RungKind::Root, uid, gid),
        store: store(paths, &rung.mapping, root),
        runtime_dir: if root || told { RuntimeDir::Unneeded } else { runtime_dir(uid) },
        memfd: tried(memfd()),
        seccomp: filter(),
        nodes: nodes.into_iter().filter(|path| !is_node(path)).collect(),
        tun: tried(fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun")),
        files: soft(libc::RLIMIT_NOFILE),
        file_size: soft(libc::RLIMIT_FSIZE),
        cgroup: cgroup::availability(),
        cgroup_mount: cgroup::tree().map(|tree| tree.mount),
        shell: std::os::unix::process::parent_id(),
        free_ids: idmap::free_range(),
        trial: None,
        // SYSFS_MAGIC of linux/magic.h.
        sysfs: rustix::fs::statfs("/sys").is_ok_and(|stat| stat.f_type == 0x6265_6572),
        systemd: Path::new("/run/systemd/system").is_dir(),
        lingering: name.as_ref().is_some_and(|name| Path::new("/var/lib/systemd/linger").join(name).exists()),
        rung,
        name,
    }
}

fn sub_ids(file: &str, name: Option<&str>, uid: u32) -> SubIds {
    let content = match fs::read(file) {
        Ok(content) => content,
        Err(error) => {
            return SubIds {
                unreadable: Some(error.raw_os_error().unwrap_or(libc::EIO)),
                ..SubIds::default()
            };
        }
    };
    let ranges = idmap::subordinate(&content, name, uid);
    let number = uid.to_string();
    let text = String::from_utf8_lossy(&content);
    let own = |line: &&str| {
        let who = line.trim().split(':').next().unwrap_or_default();
        Some(who) == name || who == number
    };
    let counts = |line: &str| !idmap::subordinate(line.as_bytes(), name, uid).is_empty();
    let ill = text.lines().filter(own).filter(|line| !counts(line)).map(str::to_owned).collect();
    let overlaps = |line: &&str| {
        let mut fields = line.trim().split(':').skip(1).map(|field| field.parse::<u64>().ok());
        let (Some(Some(first)), Some(Some(count))) = (fields.next(), fields.next()) else { return false };
        ranges
            .iter()
            .any(|r| first < u64::from(r.host) + u64::from(r.size) && u64::from(r.host) < first + count)
    };
    let other = text.lines().filter(|line| !own(line)).find(overlaps);
    let shared_with = other.and_then(|line| line.split(':').next()).map(|who| who.trim().to_owned());
    SubIds { unreadable: None, ranges, ill, shared_with }
}

fn helper(name: &str) -> Helper {
    let Some(path) = userns::find_helper(name) else { return Helper::default() };
    let nosuid = idmap::is_nosuid(&path);
    Helper { privileged: idmap::privileged(&path), nosuid, path: Some(path) }
}

/// Makes a user namespace in a child, and tries in there what a container needs.
fn user_namespace(unneeded: bool, uid: u32, gid: u32) -> UserNamespace {
    let work = || {
        if !unneeded {
            match userns::enter(&IdMapping::single(0, uid, 0, gid)) {
                Err(userns::Error::Create(error)) => {
                    return Err((error.raw_os_error().unwrap_or(0), String::new()));
                }
                Err(error) => return Err((0, report::chain(&error))),
                Ok(()) => {}
            }
        }
        Ok(inside())
    };
    match child::call::<Result<Inside, (i32, String)>, _>(None, work) {
        Ok(Ok(inside)) if unneeded => UserNamespace::Unneeded(inside),
        Ok(Ok(inside)) => UserNamespace::Works(inside),
        Ok(Err((0, chain))) => UserNamespace::Unmapped(chain),
        Ok(Err((errno, _))) => UserNamespace::Refused(errno),
        Err(child::Error::Fork(error)) => {
            UserNamespace::Refused(error.raw_os_error().unwrap_or(libc::EAGAIN))
        }
        Err(error) => UserNamespace::Unmapped(report::chain(&error)),
    }
}

/// In a process of its own, with nothing else to do.
fn inside() -> Inside {
    let mut inside = Inside::default();
    for (kind, flag) in KINDS {
        let made = tried(namespace::unshare(flag as u64));
        if kind == "net" && made.is_none() {
            (inside.veth, inside.nft) = network();
        }
        inside.namespaces.push((kind.to_owned(), made));
    }
    let kind = |fstype: &str| Filesystem { fstype: fstype.to_owned(), ..Filesystem::default() };
    inside.tmpfs = tried(mount::can_mount(&kind("tmpfs")));
    // The first process of the new pid namespace.
    inside.proc = match process::spawn(CloneOptions::default(), || {
        tried(mount::can_mount(&kind("proc"))).map_or(0, |errno| errno as u8)
    })
    .and_then(|first| process::wait(&first.pidfd))
    {
        Ok(process::ExitStatus::Code(0)) => None,
        Ok(process::ExitStatus::Code(errno)) => Some(errno.into()),
        Ok(process::ExitStatus::Signal(_)) => Some(libc::EINTR),
        Err(error) => Some(error.raw_os_error().unwrap_or(libc::EIO)),
    };
    inside
}

/// Devices and rules in the network namespace of the caller.
fn network() -> (Tried, Tried) {
    let errno = |error: &io::Error| socket::errno(error).or(error.raw_os_error()).unwrap_or(libc::EIO);
    let ask = |family, requests: &[socket::Request]| -> Tried {
        let mut socket = match socket::Socket::open(family) {
            Ok(socket) => socket,
            Err(error) => return Some(errno(&error)),
        };
        socket.send(requests).err().map(|refused| errno(&refused.source))
    };
    let veth = match fs::File::open("/proc/self/ns/net") {
        Ok(here) => {
            let end = |index, name| End { index, name, mac: None, mtu: None };
            let number = here.as_fd().as_raw_fd();
            ask(socket::Family::Route, &[netlink::veth(&end(10, "probe0"), &end(11, "probe1"), number, None)])
        }
        Err(error) => Some(errno(&error)),
    };
    let mut batch = Batch::new();
    batch.table(Family::Inet, "probe", true);
    (veth, ask(socket::Family::Netfilter, &batch.finish()))
}

fn store(paths: &Paths, mapping: &IdMapping, root: bool) -> StoreFindings {
    let mut found = StoreFindings { root: paths.root.clone(), ..StoreFindings::default() };
    let mapping = (!root).then_some(mapping);
    let opened = Store::open(paths);
    found.owner = fs::metadata(&paths.root).ok().map(|metadata| metadata.uid());
    let there = paths.root.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
    // A ramfs counts nothing.
    if let Ok(stat) = rustix::fs::statvfs(there)
        && stat.f_blocks > 0
    {
        found.free = Some((
            stat.f_bavail.saturating_mul(stat.f_frsize),
            if stat.f_files == 0 { u64::MAX } else { stat.f_favail },
        ));
    }
    found.fstype = fstype(there);
    // As what root's commands leave that ran with this user's home.
    let parts = fs::read_dir(&paths.root).into_iter().flatten().flatten();
    let own = found.owner;
    found.foreign = parts
        .filter_map(|part| Some((part.path(), part.metadata().ok()?.uid())))
        .find(|(_, owner)| own.is_some_and(|own| *owner != own));
    match opened {
        Ok(store) => found.overlay = overlay(&store, mapping),
        Err(error) => {
            let (errno, path) = match &error {
                storage::Error::Io { path, source, .. } => (source.raw_os_error(), path.clone()),
                storage::Error::Owner { path, .. } | storage::Error::Open { path, .. } => {
                    (None, path.clone())
                }
                _ => (None, paths.root.clone()),
            };
            found.closed = Some((report::chain(&error), errno, path));
        }
    }
    found
}

/// The type of the file system that a path is on.
fn fstype(path: &Path) -> String {
    let Ok(path) = fs::canonicalize(path) else { return String::new() };
    let mounts = mountinfo::of(0).unwrap_or_default();
    let over = mounts.iter().filter(|mount| path.starts_with(&mount.point));
    // Of several in one place the last is on top.
    over.max_by_key(|mount| mount.point.components().count())
        .map(|mount| mount.fstype.clone())
        .unwrap_or_default()
}

/// Stacks two directories of the store, in a mount that is attached nowhere.
fn overlay(store: &Store, mapping: Option<&IdMapping>) -> Tried {
    let dir = store.path(format!("staging/probe-{}", std::process::id()));
    let probe = || -> io::Result<()> {
        let part = |name: &str| -> io::Result<PathBuf> {
            let path = dir.join(name);
            fs::create_dir_all(&path).map(|()| path)
        };
        let overlay = Overlay {
            lower: vec![part("lower")?],
            upper: part("upper")?,
            work: part("work")?,
            volatile: false,
            userxattr: mapping.is_some(),
        };
        namespace::unshare(libc::CLONE_NEWNS as u64)?;
        mount::can_overlay(&overlay)
    };
    let tried = child::call(mapping, || {
        let tried = tried(probe());
        let _ = tree::remove_all(&dir);
        tried
    });
    // What keeps the child from its ids is told elsewhere.
    tried.unwrap_or(None)
}

/// Runs a container, with a network or without: this program in a root of its own. It is started anew, as by its
/// user.
pub fn run(paths: &Paths, network: bool) -> Trial {
    let failed = |action: &str, error: &io::Error| Trial::Failed(format!("{action}: {error}"), None);
    let dir = paths.root.join(format!("staging/trial-{}", std::process::id()));
    let program = match fs::read_link("/proc/self/exe") {
        Ok(program) => program,
        Err(error) => return failed("finding this program", &error),
    };
    if let Err(error) = fs::create_dir(&dir) {
        return failed("making a root", &error);
    }
    let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
    let place = |name: &str, path: &Path| vec![name.into(), path.as_os_str().to_owned()];
    let mut mount = program.as_os_str().to_owned();
    mount.push(":/hello:ro");
    let args = [
        place("--root", &paths.root),
        place("--runroot", &paths.runroot),
        words(if network { &["run", "--rm"] } else { &["run", "--rm", "--network", "none"] }),
        words(&["-v"]),
        vec![mount],
        place("--rootfs", &dir),
        words(&["/hello"]),
    ]
    .concat();
    let outcome = process::complaint_of(&program, &args);
    let _ = tree::remove_all(&dir);
    match outcome {
        Ok((0, _)) => Trial::Ran,
        Ok((code, said)) => {
            let line = |with: &str| said.lines().find_map(|line| line.strip_prefix(with)).map(str::to_owned);
            let error = line("error: ").unwrap_or_else(|| format!("it ended with the exit code {code}"));
            Trial::Failed(error, line("hint: "))
        }
        Err(error) => failed("starting this program", &error),
    }
}

fn runtime_dir(uid: u32) -> RuntimeDir {
    let Some(dir) = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from) else { return RuntimeDir::Unset };
    match fs::metadata(&dir) {
        _ if !dir.is_absolute() => RuntimeDir::Relative,
        Err(_) => RuntimeDir::Missing,
        Ok(metadata) if metadata.uid() != uid => RuntimeDir::Foreign(metadata.uid()),
        Ok(_) => RuntimeDir::Good,
    }
}

fn memfd() -> io::Result<()> {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    // MFD_EXEC, which kernels before Linux 6.3 do not know.
    let executable = rustix::fs::MemfdFlags::from_bits_retain(0x10);
    match rustix::fs::memfd_create("umiak-probe", flags | executable) {
        Err(rustix::io::Errno::INVAL) => rustix::fs::memfd_create("umiak-probe", flags)?,
        other => other?,
    };
    Ok(())
}

/// Loads a filter that lets everything through, in a child.
fn filter() -> Tried {
    // BPF_RET | BPF_K, SECCOMP_RET_ALLOW.
    let allow = Filter { program: vec![Instruction { code: 6, jt: 0, jf: 0, k: 0x7fff_0000 }], flags: 0 };
    let work = || tried(capability::no_new_privileges().and_then(|()| allow.load()));
    child::call(None, work).unwrap_or(None)
}
