//! From what was seen to causes and cures. Pure.

use std::io;

use super::trial::{FILTERED, TRIAL, UNFILTERED, sysfs, trial};
use super::user_ids::user_ids;
use super::{Diagnosis, Findings, Inside, RuntimeDir, State, Trial, UserNamespace};
use crate::security::refused::{Cause, Stage};

/// Bytes below which a store is full, and below which it soon is.
const NOTHING: u64 = 1 << 20;
const LITTLE: u64 = 256 << 20;

/// What an error number says, as a part of a sentence.
pub(super) fn words(errno: i32) -> String {
    let text = io::Error::from_raw_os_error(errno).to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

/// One diagnosis a topic, in the order of a container's birth.
pub fn diagnose(found: &Findings) -> Vec<Diagnosis> {
    let mut all = vec![user_namespaces(found), user_ids(found)];
    all.extend(namespaces(found));
    all.extend([
        mounts(found),
        seccomp(found),
        program(found),
        store(found),
        files(found),
        runtime_dir(found),
    ]);
    all.extend([
        devices(found),
        network(found),
        limits(found),
        lingering(found),
        processes(found),
        tun(found),
    ]);
    all.extend(sysfs(found));
    match (all.iter_mut().find(|one| one.state == State::Broken), &found.trial) {
        (Some(broken), Some(Trial::Failed(error, _))) => {
            broken.text = format!("{}; a container that was tried: {error}", broken.text);
        }
        (Some(_), Some(Trial::Ran)) => {
            all.push(fine(TRIAL, "one was run, in spite of what is said to be broken"));
        }
        (None, _) => all.extend(trial(found)),
        (Some(_), None) => {}
    }
    all
}

pub(super) fn fine(topic: &'static str, text: impl Into<String>) -> Diagnosis {
    Diagnosis { topic, state: State::Fine, cause: "ok", text: text.into(), cure: None }
}

pub(super) fn ill(
    topic: &'static str,
    state: State,
    cause: &'static str,
    text: impl Into<String>,
    cure: impl Into<String>,
) -> Diagnosis {
    Diagnosis { topic, state, cause, text: text.into(), cure: Some(cure.into()) }
}

fn of_cause(topic: &'static str, Cause { id, text, cure }: Cause) -> Diagnosis {
    ill(topic, State::Broken, id, text, cure)
}

const USERNS: &str = "user namespaces";

fn user_namespaces(found: &Findings) -> Diagnosis {
    match &found.userns {
        UserNamespace::Unneeded(_) => fine(USERNS, "not needed: umiak runs as root"),
        UserNamespace::Refused(errno) => of_cause(USERNS, found.signs.cause(Stage::Made, *errno)),
        UserNamespace::Unmapped(chain) if !found.proc => ill(
            USERNS,
            State::Broken,
            "no-proc",
            format!("there is no proc file system on /proc ({chain})"),
            "as root: mount -t proc proc /proc",
        ),
        UserNamespace::Unmapped(chain) => {
            let cause = found.signs.cause(Stage::Used, libc::EPERM);
            of_cause(USERNS, Cause { text: format!("{} ({chain})", cause.text), ..cause })
        }
        // Nothing at all can be done in it: what makes namespaces powerless, not what forbids one kind.
        UserNamespace::Works(inside) if powerless(inside) => {
            let errno = inside.tmpfs.unwrap_or(libc::EPERM);
            of_cause(USERNS, found.signs.cause(Stage::Used, errno))
        }
        UserNamespace::Works(_) => fine(USERNS, "one was made, with all powers in it"),
    }
}

/// Whether a user namespace gives nothing.
fn powerless(inside: &Inside) -> bool {
    let refused = |tried: Option<i32>| matches!(tried, Some(libc::EPERM | libc::EACCES | libc::ENOSYS));
    let made = |(_, tried): &(String, Option<i32>)| tried.is_none();
    // Without a mount namespace of one's own nothing can be mounted anyway.
    let mounts = inside.namespaces.iter().any(|one| one.0 == "mnt" && made(one));
    !inside.namespaces.iter().any(made) || (mounts && refused(inside.tmpfs))
}

/// What a user namespace gave, if it gave anything.
pub(super) fn inside(found: &Findings) -> Option<&Inside> {
    match &found.userns {
        UserNamespace::Unneeded(inside) => Some(inside),
        UserNamespace::Works(inside) if !powerless(inside) => Some(inside),
        _ => None,
    }
}

fn namespaces(found: &Findings) -> Option<Diagnosis> {
    const TOPIC: &str = "namespaces";
    let inside = inside(found)?;
    let failed = inside.namespaces.iter().find_map(|(kind, tried)| Some((kind, (*tried)?)));
    let Some((kind, errno)) = failed else {
        return Some(fine(TOPIC, "mount, pid, net, ipc, uts and cgroup can be made"));
    };
    if matches!(errno, libc::ENOSPC | libc::EUSERS) {
        return Some(of_cause(TOPIC, found.signs.cause(Stage::Made, errno)));
    }
    let text = format!("a {kind} namespace cannot be made: {}", words(errno));
    Some(ill(
        TOPIC,
        State::Broken,
        "namespace-refused",
        text,
        "a kernel with all kinds of namespaces (CONFIG_NAMESPACES)",
    ))
}

fn mounts(found: &Findings) -> Diagnosis {
    const TOPIC: &str = "proc";
    let Some(inside) = inside(found) else { return fine(TOPIC, "not tried: see user namespaces") };
    // Without a namespace of its own it would be the host's.
    if inside.namespaces.iter().any(|(_, tried)| tried.is_some()) {
        return fine(TOPIC, "not tried: see namespaces");
    }
    match inside.proc {
        None => fine(TOPIC, "a container can mount its own"),
        Some(libc::EPERM) => {
            let where_ = match found.signs.container {
                Some("docker") => {
                    "start the Docker container around with --security-opt systempaths=unconfined"
                }
                Some("kubernetes") => "in the pod's securityContext: procMount: Unmasked",
                Some(_) => "start the container around with --security-opt unmask=ALL",
                None => "as root: unmount what is mounted below /proc (findmnt -R /proc)",
            };
            let text =
                "the kernel mounts no new proc where parts of /proc are covered, as they are in containers";
            ill(TOPIC, State::Broken, "proc-covered", text, where_)
        }
        Some(errno) => ill(
            TOPIC,
            State::Broken,
            "proc-refused",
            format!("a proc cannot be mounted: {}", words(errno)),
            "look into the kernel\'s log for denials (dmesg)",
        ),
    }
}

fn seccomp(found: &Findings) -> Diagnosis {
    const TOPIC: &str = "system call filter";
    match found.seccomp {
        None => fine(TOPIC, "the kernel takes seccomp filters"),
        Some(errno) => {
            let text = format!("the kernel takes no seccomp filter: {}", words(errno));
            let cure = "a kernel with CONFIG_SECCOMP_FILTER; until then --security-opt seccomp=unconfined";
            ill(TOPIC, State::Broken, "no-seccomp", text, cure)
        }
    }
}

fn program(found: &Findings) -> Diagnosis {
    const TOPIC: &str = "start of programs";
    match found.memfd {
        None => fine(TOPIC, "files in memory can be executed"),
        Some(libc::EACCES) => ill(
            TOPIC,
            State::Broken,
            "memfd-noexec",
            "vm.memfd_noexec is 2: files in memory cannot be executed, by which every container is started",
            "as root: sysctl vm.memfd_noexec=1",
        ),
        Some(errno) => {
            let text = format!("no file in memory can be made (memfd_create): {}", words(errno));
            ill(
                TOPIC,
                State::Broken,
                "no-memfd",
                text,
                "allow memfd_create in the seccomp filter around, or a kernel with CONFIG_MEMFD_CREATE",
            )
        }
    }
}

const STORE: &str = "store";

fn store(found: &Findings) -> Diagnosis {
    let store = &found.store;
    let root = store.root.display();
    if let Some((chain, errno, path)) = &store.closed {
        let path = path.display();
        let elsewhere = "--root DIR, or XDG_DATA_HOME, names a directory elsewhere";
        let (cause, cure) = match errno {
            _ if store.owner.is_some_and(|owner| owner != found.uid) => {
                ("foreign-store", format!("as root: chown -R {} {root}; or {elsewhere}", found.uid))
            }
            Some(libc::EROFS) => ("read-only-store", elsewhere.to_owned()),
            Some(libc::EACCES | libc::EPERM) => {
                ("closed-store", format!("as root: chown -R {} {path}; or {elsewhere}", found.uid))
            }
            Some(libc::ENOSPC | libc::EDQUOT) => {
                ("full-store", format!("free some space: df {path}; {elsewhere}"))
            }
            Some(libc::EFBIG) => ("file-size-limit", "ulimit -f unlimited".to_owned()),
            Some(libc::ENOENT | libc::ENOTDIR) => ("no-directory", elsewhere.to_owned()),
            None if chain.contains("mode") => ("open-directory", format!("chmod go-w {path}")),
            _ => ("ill-store", elsewhere.to_owned()),
        };
        return ill(STORE, State::Broken, cause, chain.clone(), cure);
    }
    if let Some((path, owner)) = &store.foreign {
        let text = format!("{} belongs to another user ({owner})", path.display());
        let cure = format!("as root: chown -R {} {}", found.uid, path.display());
        return ill(STORE, State::Broken, "foreign-store", text, cure);
    }
    let Some((bytes, inodes)) = store.free else { return fine(STORE, format!("{root}")) };
    if inodes == 0 || bytes < NOTHING {
        let what = if inodes == 0 { "inode" } else { "space" };
        let text = format!("{root} has no {what} left");
        return ill(
            STORE,
            State::Broken,
            "full-store",
            text,
            "umiak system prune, or --root DIR on another file system",
        );
    }
    if bytes < LITTLE {
        let text = format!("{root} has {} MB left: few images fit", bytes >> 20);
        return ill(
            STORE,
            State::Lesser,
            "little-space",
            text,
            "umiak system prune, or --root DIR on another file system",
        );
    }
    fine(STORE, format!("{root} on {}, {} MB free", store.fstype, bytes >> 20))
}

fn files(found: &Findings) -> Diagnosis {
    const TOPIC: &str = "files of images";
    let refused = |inside: &Inside| inside.namespaces.iter().any(|(_, tried)| tried.is_some());
    match (inside(found), &found.store.closed, found.store.overlay) {
        (None, ..) => fine(TOPIC, "not tried: see user namespaces"),
        (Some(inside), ..) if refused(inside) => fine(TOPIC, "not tried: see namespaces"),
        (_, Some(_), _) => fine(TOPIC, "not tried: see store"),
        (_, _, None) => fine(TOPIC, "layers are stacked by the kernel"),
        (_, _, Some(errno)) => ill(
            TOPIC,
            State::Lesser,
            "no-overlay",
            format!(
                "each container copies its image: overlayfs does not work on the store's file system, {} ({})",
                found.store.fstype,
                words(errno)
            ),
            "--root DIR, or XDG_DATA_HOME, names a directory on ext4, xfs, btrfs or tmpfs",
        ),
    }
}

fn runtime_dir(found: &Findings) -> Diagnosis {
    const TOPIC: &str = "runtime directory";
    let uid = found.uid;
    let log_in =
        format!("as root: loginctl enable-linger {uid}; then export XDG_RUNTIME_DIR=/run/user/{uid}");
    match &found.runtime_dir {
        RuntimeDir::Unneeded => fine(TOPIC, "not needed"),
        RuntimeDir::Good => fine(TOPIC, "$XDG_RUNTIME_DIR"),
        RuntimeDir::Unset => ill(
            TOPIC,
            State::Lesser,
            "no-runtime-dir",
            "$XDG_RUNTIME_DIR is not set: what is needed until the next boot is kept in /run/user or /tmp",
            log_in,
        ),
        RuntimeDir::Relative => ill(
            TOPIC,
            State::Lesser,
            "relative-runtime-dir",
            "$XDG_RUNTIME_DIR is no absolute path, and not used",
            log_in,
        ),
        RuntimeDir::Missing => ill(
            TOPIC,
            State::Lesser,
            "runtime-dir-gone",
            "the directory of $XDG_RUNTIME_DIR is not there",
            log_in,
        ),
        RuntimeDir::Foreign(owner) => {
            let text = format!(
                "$XDG_RUNTIME_DIR belongs to user {owner}: it was taken over from another login (su, sudo)"
            );
            let cure =
                format!("export XDG_RUNTIME_DIR=/run/user/{uid}, or log in with machinectl shell {uid}@");
            ill(TOPIC, State::Lesser, "foreign-runtime-dir", text, cure)
        }
    }
}

fn devices(found: &Findings) -> Diagnosis {
    const TOPIC: &str = "devices";
    match found.nodes.first() {
        None => fine(TOPIC, "the harmless ones are there"),
        Some(name) => {
            let text = format!("{name} is no character device that can be read");
            let cure = "as root: mount -t devtmpfs devtmpfs /dev, or make the node anew (mknod)";
            ill(TOPIC, State::Broken, "no-device", text, cure)
        }
    }
}

/// The topic of containers' networks.
pub const NETWORK: &str = "network";

fn network(found: &Findings) -> Diagnosis {
    const TOPIC: &str = NETWORK;
    let Some(inside) = inside(found) else { return fine(TOPIC, "not tried: see user namespaces") };
    if inside.namespaces.iter().any(|(kind, tried)| kind == "net" && tried.is_some()) {
        return fine(TOPIC, "not tried: see namespaces");
    }
    let cure = "--network=host or --network=none runs containers without";
    match (inside.veth, inside.nft) {
        (None, None) => fine(TOPIC, "containers get devices and rules of their own"),
        (Some(errno), _) => {
            let text = format!("a pair of network devices (veth) cannot be made: {}", words(errno));
            if errno == libc::EPERM && found.signs.filtered {
                return ill(
                    TOPIC,
                    State::Lesser,
                    "seccomp-filter",
                    text + FILTERED,
                    format!("{UNFILTERED}; {cure}"),
                );
            }
            ill(TOPIC, State::Lesser, "no-veth", text, format!("as root: modprobe veth; {cure}"))
        }
        (_, Some(errno)) => {
            let text = format!("a table of packet rules (nftables) cannot be made: {}", words(errno));
            ill(TOPIC, State::Lesser, "no-nftables", text, format!("as root: modprobe nf_tables; {cure}"))
        }
    }
}

fn limits(found: &Findings) -> Diagnosis {
    const TOPIC: &str = "limits";
    let cgroup = &found.cgroup;
    if cgroup.available && !cgroup.controllers.is_empty() {
        return fine(TOPIC, format!("by control groups: {}", cgroup.controllers.join(", ")));
    }
    let delegate = "as root: mkdir -p /etc/systemd/system/user@.service.d && printf '[Service]\\nDelegate=cpu cpuset io memory \
                    pids\\n' > /etc/systemd/system/user@.service.d/delegate.conf && systemctl daemon-reload; then log in anew";
    let place = found.cgroup_mount.as_deref().unwrap_or(std::path::Path::new("/sys/fs/cgroup"));
    let place = place.join(format!("user-{}", found.uid)).display().to_string();
    let group = format!(
        "as root: mkdir {place} && chown -R {} {place} && echo {} > {place}/cgroup.procs",
        found.uid, found.shell
    );
    let (cause, cure) = match (found.systemd, found.uid) {
        _ if cgroup.why.contains("no cgroup v2 tree") => (
            "no-cgroup-v2",
            "as root: mount -t cgroup2 cgroup2 /sys/fs/cgroup, or boot with systemd.unified_cgroup_hierarchy=1",
        ),
        (_, 0) => ("no-controllers", "boot with systemd.unified_cgroup_hierarchy=1"),
        (true, _) => ("no-delegation", delegate),
        (false, _) => ("no-delegation", group.as_str()),
    };
    let text = if cgroup.available {
        "processes can be tracked and not limited: the v2 tree has no controllers".to_owned()
    } else {
        format!("memory, CPU and processes cannot be limited: {}", cgroup.why)
    };
    // What control groups say themselves of this machine comes first.
    let cure = cgroup.hint.clone().unwrap_or_else(|| cure.to_owned());
    ill(TOPIC, State::Lesser, cause, text, cure)
}

fn lingering(found: &Findings) -> Diagnosis {
    const TOPIC: &str = "lingering";
    if found.uid == 0 || !found.systemd {
        return fine(TOPIC, "containers go on when their user logs out");
    }
    if found.lingering {
        return fine(TOPIC, "the user's services go on without a login");
    }
    let who = found.name.clone().unwrap_or_else(|| found.uid.to_string());
    let text = "systemd may end containers when their user logs out";
    ill(TOPIC, State::Lesser, "no-lingering", text, format!("loginctl enable-linger {who}"))
}

fn processes(found: &Findings) -> Diagnosis {
    const TOPIC: &str = "limits of this shell";
    if found.files < 64 {
        let text = format!("only {} files can be open (ulimit -n)", found.files);
        return ill(TOPIC, State::Broken, "few-files", text, "ulimit -n 1024");
    }
    if found.file_size < 64 << 20 {
        let text =
            format!("no file may be larger than {} KiB (ulimit -f): images are", found.file_size >> 10);
        return ill(TOPIC, State::Broken, "file-size-limit", text, "ulimit -f unlimited");
    }
    fine(TOPIC, "open files and sizes of files suffice")
}

fn tun(found: &Findings) -> Diagnosis {
    const TOPIC: &str = "tun";
    match found.tun {
        None => fine(TOPIC, "/dev/net/tun can be opened"),
        Some(errno) => {
            fine(TOPIC, format!("/dev/net/tun cannot be opened ({}); umiak does without", words(errno)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Helper, StoreFindings, SubIds, may_tell_more};
    use super::*;
    use crate::base::idmap::{IdMapping, IdRange};
    use crate::cgroup::Availability;
    use crate::security::idmap::Rung;
    use crate::security::idmap::RungKind;
    use crate::security::refused::Signs;

    /// A machine on which all is well.
    fn well() -> Findings {
        let names = ["mnt", "ipc", "uts", "cgroup", "net", "pid"];
        let namespaces = names.map(|name| (name.to_owned(), None)).to_vec();
        let ids = || SubIds {
            ranges: vec![IdRange { container: 0, host: 100_000, size: 65536 }],
            ..SubIds::default()
        };
        let helper = || Helper { path: Some("/usr/bin/newuidmap".into()), privileged: true, nosuid: false };
        Findings {
            uid: 1000,
            name: Some("otter".into()),
            signs: Signs { most: Some(1000), ..Signs::default() },
            no_new_privileges: false,
            proc: true,
            rung: Rung {
                kind: RungKind::Subordinate,
                mapping: IdMapping::default(),
                why: "enough".into(),
                hint: None,
            },
            sub_ids: [ids(), ids()],
            helpers: [helper(), helper()],
            many_ids: None,
            userns: UserNamespace::Works(Inside { namespaces, ..Inside::default() }),
            store: StoreFindings { free: Some((1 << 40, 1 << 20)), ..StoreFindings::default() },
            runtime_dir: RuntimeDir::Good,
            memfd: None,
            seccomp: None,
            nodes: Vec::new(),
            tun: None,
            files: 1024,
            file_size: u64::MAX,
            cgroup: Availability {
                available: true,
                controllers: vec!["memory".into()],
                why: String::new(),
                by_systemd: false,
                hint: None,
            },
            cgroup_mount: None,
            shell: 1,
            free_ids: 100_000,
            trial: None,
            sysfs: true,
            systemd: true,
            lingering: true,
        }
    }

    fn ills(change: impl FnOnce(&mut Findings)) -> Vec<(&'static str, State)> {
        let mut found = well();
        change(&mut found);
        let all = diagnose(&found);
        for one in &all {
            assert_eq!(one.state == State::Fine, one.cause == "ok", "{one:?}");
            assert!(!one.text.is_empty() && !one.text.contains('\n'), "{one:?}");
        }
        all.into_iter().filter(|one| one.cause != "ok").map(|one| (one.cause, one.state)).collect()
    }

    fn inside_of(found: &mut Findings) -> &mut Inside {
        let UserNamespace::Works(inside) = &mut found.userns else { panic!("no namespace") };
        inside
    }

    #[test]
    fn a_healthy_machine_has_nothing() {
        assert_eq!(ills(|_| {}), []);
    }

    /// Each change has one cause and no other: what follows from it is not told as another fault.
    #[test]
    fn each_fault_is_told_once() {
        use State::{Broken, Lesser};
        type Change = fn(&mut Findings);
        let single = |found: &mut Findings| found.rung.kind = RungKind::Single;
        let cases: &[(Change, &str, State)] = &[
            (|f| f.userns = UserNamespace::Refused(libc::EINVAL), "no-user-namespaces", Broken),
            (
                |f| {
                    f.signs.most = Some(0);
                    f.userns = UserNamespace::Refused(libc::ENOSPC);
                    f.many_ids = Some("refused".into());
                },
                "max-user-namespaces",
                Broken,
            ),
            (
                |f| {
                    f.signs.apparmor = Some(1);
                    inside_of(f).tmpfs = Some(libc::EPERM);
                    inside_of(f).proc = Some(libc::EPERM);
                    f.store.overlay = Some(libc::EPERM);
                },
                "apparmor-userns",
                Broken,
            ),
            (
                |f| {
                    f.proc = false;
                    f.userns = UserNamespace::Unmapped("no uid_map".into());
                },
                "no-proc",
                Broken,
            ),
            (|f| f.helpers[0] = Helper::default(), "no-helper", Lesser),
            (|f| f.helpers[1].privileged = false, "helper-without-powers", Lesser),
            (|f| f.helpers[1].nosuid = true, "helper-nosuid", Lesser),
            (|f| f.sub_ids[0] = SubIds::default(), "no-subids", Lesser),
            (
                |f| f.sub_ids[1] = SubIds { ill: vec!["otter:x".into()], ..SubIds::default() },
                "ill-subid-line",
                Lesser,
            ),
            (|f| f.sub_ids[0].unreadable = Some(libc::ENOENT), "no-subid-file", Lesser),
            (|f| f.sub_ids[0].ranges[0].size = 9, "few-subids", Lesser),
            (|f| f.sub_ids[0].shared_with = Some("stoat".into()), "shared-subids", Lesser),
            (|f| f.many_ids = Some("no".into()), "helper-refuses", Broken),
            (|f| f.many_ids = Some("x: exec format error".into()), "helper-no-program", Broken),
            (|f| f.store.foreign = Some(("/s/containers".into(), 0)), "foreign-store", Broken),
            (|f| f.sysfs = false, "no-sysfs", Lesser),
            (
                |f| {
                    f.signs.filtered = true;
                    inside_of(f).veth = Some(libc::EPERM);
                },
                "seccomp-filter",
                Lesser,
            ),
            (
                |f| {
                    f.signs.filtered = true;
                    f.trial =
                        Some(Trial::Failed("making x: operation not permitted".into(), Some("y".into())));
                },
                "seccomp-filter",
                Broken,
            ),
            (|f| f.no_new_privileges = true, "no-new-privileges", Lesser),
            (
                |f| {
                    f.signs.forbidden = vec!["net"];
                    inside_of(f).namespaces[4].1 = Some(libc::ENOSPC);
                },
                "namespace-limit",
                Broken,
            ),
            (|f| inside_of(f).proc = Some(libc::EPERM), "proc-covered", Broken),
            (|f| inside_of(f).veth = Some(libc::EOPNOTSUPP), "no-veth", Lesser),
            (|f| inside_of(f).nft = Some(libc::EPROTONOSUPPORT), "no-nftables", Lesser),
            (|f| f.seccomp = Some(libc::EINVAL), "no-seccomp", Broken),
            (|f| f.memfd = Some(libc::EACCES), "memfd-noexec", Broken),
            (|f| f.store.overlay = Some(libc::EINVAL), "no-overlay", Lesser),
            (|f| f.store.free = Some((1, 1)), "full-store", Broken),
            (|f| f.store.free = Some((1 << 30, 0)), "full-store", Broken),
            (|f| f.store.free = Some((100 << 20, 9)), "little-space", Lesser),
            (|f| f.runtime_dir = RuntimeDir::Unset, "no-runtime-dir", Lesser),
            (|f| f.runtime_dir = RuntimeDir::Missing, "runtime-dir-gone", Lesser),
            (|f| f.runtime_dir = RuntimeDir::Foreign(7), "foreign-runtime-dir", Lesser),
            (|f| f.nodes = vec!["/dev/null"], "no-device", Broken),
            (|f| f.cgroup.controllers.clear(), "no-delegation", Lesser),
            (|f| f.lingering = false, "no-lingering", Lesser),
            (|f| f.files = 10, "few-files", Broken),
            (|f| f.file_size = 4096, "file-size-limit", Broken),
        ];
        for (change, cause, state) in cases {
            assert_eq!(ills(change), [(*cause, *state)]);
        }
        assert_eq!(ills(single), []);
        for (errno, cause) in
            [(libc::EROFS, "read-only-store"), (libc::EACCES, "closed-store"), (libc::ENOSPC, "full-store")]
        {
            let closed = Some(("creating".to_owned(), Some(errno), "/x".into()));
            assert_eq!(ills(|f| f.store.closed = closed), [(cause, Broken)]);
        }
    }

    #[test]
    fn a_container_that_does_not_run_is_told_as_it_tells() {
        assert_eq!(ills(|f| f.trial = Some(Trial::Ran)), []);
        // Where something is broken already it is evidence, and no cause of its own.
        for (trial, told) in [
            (Trial::Failed("nothing came".into(), None), "; a container that was tried: nothing came"),
            (Trial::Ran, "in spite of"),
        ] {
            let mut found = well();
            (found.memfd, found.trial) = (Some(libc::EACCES), Some(trial));
            assert!(may_tell_more(&found));
            let all = diagnose(&found);
            assert_eq!(all.iter().filter(|one| one.state == State::Broken).count(), 1);
            assert!(all.iter().any(|one| one.text.contains(told)), "{told}");
        }
        let failed = |f: &mut Findings| f.trial = Some(Trial::Failed("x".into(), Some("y".into())));
        assert_eq!(ills(failed), [("trial-failed", State::Broken)]);
    }

    #[test]
    fn ids_that_nobody_has_are_given_by_one_command() {
        let cure = |change: fn(&mut Findings)| {
            let mut found = well();
            found.free_ids = 231_072;
            change(&mut found);
            diagnose(&found).into_iter().find_map(|one| one.cure).unwrap()
        };
        let both = "as root: usermod --add-subuids 231072-296607 --add-subgids 231072-296607 otter";
        assert_eq!(cure(|f| f.sub_ids = Default::default()), both);
        let one = "as root: usermod --add-subgids 231072-296607 otter";
        assert_eq!(cure(|f| f.sub_ids[1].ranges.clear()), one);
    }

    #[test]
    fn every_fault_but_the_unknown_has_a_cure() {
        let mut found = well();
        found.helpers[0].privileged = false;
        let all = diagnose(&found);
        let cure = all.iter().find_map(|one| one.cure.clone()).unwrap();
        assert_eq!(cure, "as root: chown root /usr/bin/newuidmap && chmod u+s /usr/bin/newuidmap");
    }
}
