//! From a made container to the program: the part that a container's init and an exec share. The
//! order is fixed, and each step says what it must come before.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use oci_spec::runtime::Hook;
use rustix::fs::{FileType, Mode, OFlags};

use super::Stdio;
use super::hooks::{self, HookState};
use super::init::{Doing, send};
use super::label;
use super::plan::{Limit, ProcessPlan, UserChoice};
use super::protocol::{DETACH, Failure, FailureKind, GO, Message, START, WRITING_STUB};
use crate::security::passwd::{self, Identity};
use crate::sys::path::Root;
use crate::sys::seccomp::Filter;
use crate::sys::{capability, ids, process, pty, sched, seal, signal, socket};

/// The init's end of the connection with who made it, later with who starts it.
pub(super) struct Channel {
    socket: OwnedFd,
    /// Where a later `start` connects to.
    listener: Option<OwnedFd>,
    /// There is no gate: an exec starts at once.
    gated: bool,
}

impl Channel {
    pub fn new(socket: OwnedFd, listener: Option<OwnedFd>, gated: bool) -> Self {
        Self { socket, listener, gated }
    }

    /// The same connection once more: for a process that is forked off.
    pub fn duplicate(&self) -> Result<Self, Failure> {
        let socket = self.socket.try_clone().doing(|| "duplicating a socket".to_owned())?;
        Ok(Self { socket, listener: None, gated: self.gated })
    }

    pub fn say(&self, message: &Message, fd: Option<BorrowedFd<'_>>) -> Result<(), Failure> {
        socket::send(&self.socket, &message.encode(), fd).doing(|| "talking to the runtime".to_owned())
    }

    /// Sends the listener of the filter that this process has just got.
    fn hand_over(&self, listener: BorrowedFd<'_>) -> Result<(), Failure> {
        socket::hand_over(&self.socket, &Message::Listener.encode(), listener)
            .doing(|| "talking to the runtime".to_owned())
    }

    /// Tells a failure; returns the exit code to end with. If nobody listens any more there is
    /// nobody to tell.
    pub fn fail(&self, failure: Failure) -> u8 {
        let code = failure.exit_code();
        let _ = send(&self.socket, &Message::Failed(failure));
        code
    }

    pub fn wait_for(&self, word: &[u8]) -> Result<(), Failure> {
        let (message, _) = socket::receive(&self.socket).doing(|| "waiting for the runtime".to_owned())?;
        if message == word {
            Ok(())
        } else {
            // The parent has died or given up.
            Err(Failure {
                kind: FailureKind::Setup,
                errno: libc::ECANCELED,
                chain: vec!["waiting for the runtime".to_owned()],
            })
        }
    }

    /// Says that everything is ready, and waits for the word to start.
    fn pass_gate(&mut self) -> Result<(), Failure> {
        if !self.gated {
            return Ok(());
        }
        self.say(&Message::Ready, None)?;
        let Some(listener) = self.listener.take() else { return self.wait_for(START) };
        self.wait_for(DETACH)?;
        loop {
            let action = || "waiting at the start gate".to_owned();
            self.socket = socket::accept(&listener).doing(action)?;
            // Who connects and goes away has not started anything.
            if self.wait_for(START).is_ok() {
                return Ok(());
            }
        }
    }
}

/// What a process is launched with beside its plan.
pub(super) struct Surroundings<'a> {
    pub channel: &'a mut Channel,
    pub stdio: &'a Stdio,
    pub slave: Option<OwnedFd>,
    pub start_hooks: &'a [Hook],
    pub hook_state: HookState,
}

/// Becomes the program; returns only if that failed.
pub(super) fn launch(plan: &ProcessPlan, surroundings: Surroundings<'_>) -> Failure {
    match become_program(plan, surroundings) {
        Ok(never) => match never {},
        Err(failure) => failure,
    }
}

fn become_program(
    plan: &ProcessPlan,
    surroundings: Surroundings<'_>,
) -> Result<std::convert::Infallible, Failure> {
    let Surroundings { channel, stdio, slave, start_hooks, mut hook_state } = surroundings;
    // After the pivot the container's root is ours.
    let root = Root::open(Path::new("/")).doing(|| "opening the rootfs".to_owned())?;
    let mut env = plan.env.clone();
    let identity = identify(plan, &root, &mut env)?;
    // A session of its own: nothing inside can push input into the caller's terminal (TIOCSTI).
    match process::setsid() {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {}
        other => other.doing(|| "making a session".to_owned())?,
    }
    connect_stdio(stdio, slave, identity.uid)?;
    if plan.new_keyring {
        match ids::new_keyring() {
            // No keys in this kernel, or all of the user's quota taken: then there are none to use.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::ENOSYS | libc::EPERM | libc::EDQUOT | libc::EACCES)
                ) => {}
            other => other.doing(|| "making a session keyring".to_owned())?,
        }
    }
    if let Some(persona) = plan.persona {
        ids::set_personality(persona).doing(|| "setting the personality".to_owned())?;
    }
    if let Some((mode, nodes)) = &plan.memory_policy {
        sched::set_memory_policy(*mode, nodes)
            .doing(|| format!("linux.memoryPolicy: taking memory from nodes {nodes:?}"))?;
    }
    plan.limits.iter().try_for_each(|limit| set_limit(&with_room(limit), plan.clamp_limits))?;
    set_scheduling(plan)?;
    let entered = enter_cwd(plan, &root, &identity);
    // No descriptor but the wanted ones passes the exec (CVE-2024-21626, CVE-2016-9962).
    process::close_on_exec_from(3 + plan.preserve_fds, None).doing(|| "closing descriptors".to_owned())?;
    process::keep_open(&plan.preserve_list).doing(|| "passing descriptors on".to_owned())?;
    signal::reset();
    rustix::process::umask(Mode::from_raw_mode(plan.umask));

    drop_privileges(plan, &identity, channel)?;
    // A directory that root may not enter (on a network file system) the user perhaps may.
    if entered.is_err() {
        enter_cwd(plan, &root, &identity)?;
    }
    let filter = plan.privileges.filter.as_ref().filter(|_| plan.privileges.no_new_privileges);
    let (early, late) =
        if filter.is_some_and(Filter::has_listener) { (filter, None) } else { (None, filter) };
    // A container without a process can be made, but not started.
    let program = plan.args.first().map(|name| find_program(name, &env)).transpose()?;
    if let Some(filter) = early {
        load_filter(filter, channel)?;
    }

    // Where nothing else is to be done then, the stub waits for the word, and is there already when it comes.
    let waits = channel.gated && channel.listener.is_none() && start_hooks.is_empty() && program.is_some();
    if !waits {
        channel.pass_gate()?;
    }
    let Some(program) = program else {
        let chain = vec!["process: the configuration has none to be started".to_owned()];
        return Err(Failure { kind: FailureKind::Setup, errno: 0, chain });
    };
    if plan.listen_fds > 0 {
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        env.retain(|entry| {
            !entry.as_bytes().starts_with(b"LISTEN_FDS=") && !entry.as_bytes().starts_with(b"LISTEN_PID=")
        });
        env.extend(CString::new(format!("LISTEN_FDS={}", plan.listen_fds)));
        env.extend(CString::new(format!("LISTEN_PID={pid}")));
    }
    if !start_hooks.is_empty() {
        hook_state.status = "created";
        hook_state.pid = rustix::process::getpid().as_raw_nonzero().get();
        hooks::run(start_hooks, &hook_state).map_err(|error| Failure {
            kind: FailureKind::Hook,
            errno: 0,
            chain: vec!["running startContainer hooks".into(), crate::base::report::chain(&error)],
        })?;
    }
    label::of_the_next_program(&plan.labels)?;
    let last = seal::Last {
        program: &program,
        report: channel.socket.as_fd(),
        waits,
        filter: late,
        init: plan.init,
    };
    let stub = last.written().doing(|| WRITING_STUB.to_owned())?;
    // Now that nothing is written any more.
    for limit in plan.limits.iter().filter(|limit| with_room(limit) != **limit) {
        set_limit(limit, plan.clamp_limits)?;
    }
    if waits {
        channel.say(&Message::Ready, None)?;
    }
    let error = stub.execute(channel.socket.as_fd(), &plan.args, &env);
    if error.raw_os_error() == Some(libc::E2BIG) {
        let shown = String::from_utf8_lossy(plan.args[0].as_bytes());
        return Err(Failure::new(FailureKind::NotExecutable, format!("exec: \"{shown}\""), &error));
    }
    Err(Failure::new(FailureKind::Setup, "executing the stub", &error))
}

/// At most this much of an image's passwd or group file is read.
const USER_FILE_LIMIT: u64 = 4 << 20;

fn read_user_file(root: &Root, path: &str) -> Result<Vec<u8>, Failure> {
    match root.read(Path::new(path), USER_FILE_LIMIT) {
        // An image need not have one.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP)) => {
            Ok(Vec::new())
        }
        other => other.doing(|| format!("reading \"{path}\"")),
    }
}

fn unknown(error: passwd::LookupError) -> Failure {
    Failure { kind: FailureKind::UnknownUser, errno: 0, chain: vec![error.to_string()] }
}

/// The ids of the process's user, for what is to be its own.
pub(super) fn who(plan: &ProcessPlan, root: &Root) -> Result<(u32, u32), Failure> {
    match &plan.user {
        UserChoice::Ids { uid, gid, .. } => Ok((*uid, *gid)),
        UserChoice::Name { name, .. } if matches!(name.as_str(), "" | "0" | "root" | "0:0") => Ok((0, 0)),
        UserChoice::Name { .. } => {
            let identity = identify(plan, root, &mut Vec::new())?;
            Ok((identity.uid, identity.gid))
        }
    }
}

/// Who the process is; also sets `HOME` where the environment has none.
fn identify(plan: &ProcessPlan, root: &Root, env: &mut Vec<CString>) -> Result<Identity, Failure> {
    let has_home = env.iter().any(|entry| entry.as_bytes().starts_with(b"HOME="));
    let identity = match &plan.user {
        UserChoice::Ids { uid, gid, groups } => {
            let home = if has_home {
                Vec::new()
            } else {
                let passwd = read_user_file(root, "/etc/passwd").unwrap_or_default();
                passwd::home_of(*uid, &passwd).unwrap_or_else(|| b"/".to_vec())
            };
            Identity { uid: *uid, gid: *gid, groups: groups.clone(), home }
        }
        UserChoice::Name { name, groups } => {
            let named = passwd::has_names(name);
            // What a program inside put there must not keep a user out who is known by number.
            let read = |path| match read_user_file(root, path) {
                Err(_) if !named => Ok(Vec::new()),
                other => other,
            };
            let (passwd, group) = (read("/etc/passwd")?, read("/etc/group")?);
            let mut identity = passwd::resolve(name, &passwd, &group).map_err(unknown)?;
            for group in groups {
                if !identity.groups.contains(group) {
                    identity.groups.push(*group);
                }
            }
            identity
        }
    };
    let mut identity = identity;
    if !plan.groups_by_name.is_empty() {
        let group = read_user_file(root, "/etc/group")?;
        for name in &plan.groups_by_name {
            let id = passwd::group_id(name, &group).map_err(unknown)?;
            if !identity.groups.contains(&id) {
                identity.groups.push(id);
            }
        }
    }
    if !has_home {
        let home = [b"HOME=".as_slice(), &identity.home].concat();
        env.extend(CString::new(home));
    }
    Ok(identity)
}

fn connect_stdio(stdio: &Stdio, slave: Option<OwnedFd>, uid: u32) -> Result<(), Failure> {
    let action = || "connecting standard input and output".to_owned();
    match (slave, stdio) {
        (Some(slave), _) => {
            pty::control(&slave).doing(|| "taking control of the terminal".to_owned())?;
            for number in 0..3 {
                process::install_fd(&slave, number).doing(action)?;
            }
        }
        (None, Stdio::Fds { stdin, stdout, stderr }) => {
            // If the caller's own standard descriptors were closed, these may have such numbers and
            // would replace each other: first all are out of the way.
            let fds = [stdin, stdout, stderr].map(process::above_standard);
            for (number, fd) in fds.into_iter().enumerate() {
                process::install_fd(fd.doing(action)?, number as i32).doing(action)?;
            }
        }
        (None, _) => {}
    }
    give_stdio(uid);
    Ok(())
}

/// Lets the user open `/dev/stdout` and its like again: pipes and terminals become the user's.
/// Whose owner cannot be changed stays as it is, and so do devices and files that others use.
fn give_stdio(uid: u32) {
    let standard = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    for fd in standard {
        let Ok(stat) = rustix::fs::fstat(fd) else { continue };
        let kind = FileType::from_raw_mode(stat.st_mode);
        let terminal = kind == FileType::CharacterDevice && rustix::termios::isatty(fd);
        if stat.st_uid != uid && (terminal || matches!(kind, FileType::Fifo | FileType::Socket)) {
            let _ = rustix::fs::fchown(fd, Some(rustix::fs::Uid::from_raw(uid)), None);
        }
    }
}

/// A machine's root may itself lack the right to raise limits. What is asked for counts: if the
/// soft limit fits under the hard one that there is, or may be less, the process gets it.
fn set_limit(limit: &Limit, clamp: bool) -> Result<(), Failure> {
    let action = || format!("setting {} to {}:{}", limit.name, limit.soft, limit.hard);
    match ids::set_limit(limit.resource, limit.soft, limit.hard) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            let (_, hard) = ids::limit(limit.resource).doing(action)?;
            if limit.soft > hard && !clamp {
                return Err(error).doing(action);
            }
            ids::set_limit(limit.resource, limit.soft.min(hard), hard.min(limit.hard)).doing(action)
        }
        other => other.doing(action),
    }
}

/// The limit that counts until the stub is written: one for the size of files must leave room for it.
fn with_room(limit: &Limit) -> Limit {
    const ROOM: u64 = 1 << 16;
    match limit.resource {
        libc::RLIMIT_FSIZE => Limit { soft: limit.soft.max(ROOM), hard: limit.hard.max(ROOM), ..*limit },
        _ => *limit,
    }
}

fn enter_cwd(plan: &ProcessPlan, root: &Root, identity: &Identity) -> Result<(), Failure> {
    let action = || format!("changing to the working directory \"{}\"", plan.cwd.display());
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let directory = match root.open_in(&plan.cwd, flags, 0) {
        Err(error) if plan.create_cwd && error.kind() == io::ErrorKind::NotFound => {
            let made = root.create_dir_all(&plan.cwd, 0o755).doing(action)?;
            let owner = (rustix::fs::Uid::from_raw(identity.uid), rustix::fs::Gid::from_raw(identity.gid));
            if identity.uid != 0 {
                // A new directory is the user's; on file systems that know no owners it stays as it is.
                let _ = rustix::fs::chownat(
                    &made,
                    "",
                    Some(owner.0),
                    Some(owner.1),
                    rustix::fs::AtFlags::EMPTY_PATH,
                );
            }
            made
        }
        other => other.doing(action)?,
    };
    rustix::process::fchdir(directory).doing(action)?;
    check_cwd(plan)
}

/// That the working directory is inside (CVE-2024-21626): the kernel marks one that is not. Asked at
/// once: a filter that is loaded before the program may deny the call.
fn check_cwd(plan: &ProcessPlan) -> Result<(), Failure> {
    let action = || format!("checking the working directory \"{}\"", plan.cwd.display());
    let cwd = rustix::process::getcwd(Vec::new()).doing(action)?;
    if cwd.as_bytes().starts_with(b"/") {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::EXDEV)).doing(action)
    }
}

/// The order: the bounding set while CAP_SETPCAP is there; the filter, unless the stub loads it,
/// while CAP_SYS_ADMIN is; groups before the user, after whom nothing may be changed any more;
/// the remaining sets after the user, whose change would clear them; no_new_privs last, because
/// before it only a filter that we could load without it has been loaded.
fn drop_privileges(plan: &ProcessPlan, identity: &Identity, channel: &Channel) -> Result<(), Failure> {
    let sets = &plan.privileges.capabilities;
    let action = |what: &'static str| move || what.to_owned();
    capability::limit_bounding(sets.bounding).doing(action("limiting the bounding capabilities"))?;
    if let (Some(filter), false) = (&plan.privileges.filter, plan.privileges.no_new_privileges) {
        load_filter(filter, channel)?;
    }
    capability::keep_over_setuid(true).doing(action("keeping capabilities"))?;
    set_groups(plan, identity)?;
    let becoming = |what: &'static str, id: u32| {
        move |error: io::Error| match error.raw_os_error() {
            // The id is not in the user namespace's map.
            Some(libc::EINVAL) => {
                Failure::new(FailureKind::Unmapped, format!("becoming {what} {id} (is it mapped?)"), &error)
            }
            _ => Failure::new(FailureKind::Setup, format!("becoming {what} {id}"), &error),
        }
    };
    ids::set_gid(identity.gid).map_err(becoming("group", identity.gid))?;
    ids::set_uid(identity.uid).map_err(becoming("user", identity.uid))?;
    // The filter may be one that says of ids that are not there that they were taken.
    for (what, wanted, have) in [("group", identity.gid, ids::egid()), ("user", identity.uid, ids::euid())] {
        if wanted != have {
            return Err(becoming(what, wanted)(io::Error::from_raw_os_error(libc::EINVAL)));
        }
    }
    let known = u64::MAX >> (63 - capability::last());
    let sets = capability::Sets {
        bounding: sets.bounding & known,
        effective: sets.effective & known,
        permitted: sets.permitted & known,
        inheritable: sets.inheritable & known,
        ambient: sets.ambient & known & sets.permitted & sets.inheritable,
    };
    capability::set(&sets).doing(action("setting capabilities"))?;
    capability::set_ambient(sets.ambient).doing(action("setting ambient capabilities"))?;
    // A change of ids sets it to fs.suid_dumpable, which an administrator may have made 1.
    process::set_undumpable().doing(action("hiding the init"))?;
    if plan.privileges.no_new_privileges {
        capability::no_new_privileges().doing(action("setting no_new_privs"))?;
    }
    Ok(())
}

/// Loads a filter here and not in the stub; its listener, if it has one, goes to who made us, who
/// sends it on.
fn load_filter(filter: &Filter, channel: &Channel) -> Result<(), Failure> {
    let listener = filter.load().doing(|| "loading the seccomp filter".to_owned())?;
    if let Some(listener) = listener {
        channel.hand_over(listener.as_fd())?;
        channel.wait_for(GO)?;
    }
    Ok(())
}

fn set_scheduling(plan: &ProcessPlan) -> Result<(), Failure> {
    if let Some((class, level)) = plan.scheduling.io {
        sched::set_io_priority(class, level)
            .doing(|| format!("process.ioPriority: setting class {class}, priority {level}"))?;
    }
    if let Some(policy) = &plan.scheduling.policy {
        sched::set_policy(policy).doing(|| "process.scheduler: setting the policy".to_owned())?;
    }
    Ok(())
}

fn set_groups(plan: &ProcessPlan, identity: &Identity) -> Result<(), Failure> {
    if plan.keep_groups && ids::groups().is_ok_and(|groups| !groups.is_empty()) {
        return Ok(());
    }
    // With one id mapped, setgroups is denied and no other group exists. Then groups that are
    // merely the image's own are left out; those that were asked for are not.
    let asked = match &plan.user {
        UserChoice::Ids { groups, .. } | UserChoice::Name { groups, .. } => groups,
    };
    let asked = !asked.is_empty() || !plan.groups_by_name.is_empty();
    let error = match ids::set_groups(&identity.groups) {
        // The filter may be one that only says so.
        Ok(()) if asked && !identity.groups.iter().all(|id| has_group(*id)) => {
            io::Error::from_raw_os_error(libc::EPERM)
        }
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    if matches!(error.raw_os_error(), Some(libc::EPERM | libc::EINVAL)) && !asked {
        return Ok(());
    }
    Err(error).doing(|| format!("setting the supplementary groups {:?}", identity.groups))
}

/// Whether a group is among the caller's supplementary ones.
fn has_group(id: u32) -> bool {
    ids::groups().is_ok_and(|groups| groups.contains(&id))
}

/// Finds the program as execvp(3) would, as the user who will run it.
fn find_program(name: &CString, env: &[CString]) -> Result<OsString, Failure> {
    let bytes = name.as_bytes();
    let shown = String::from_utf8_lossy(bytes);
    let failed = |kind, why: Option<&str>, errno| Failure {
        kind,
        errno,
        chain: [Some(format!("exec: \"{shown}\"")), why.map(str::to_owned)].into_iter().flatten().collect(),
    };
    if bytes.contains(&b'/') {
        let path = OsStr::from_bytes(bytes);
        return match executable(path) {
            Ok(()) => Ok(path.to_owned()),
            Err(libc::ENOENT | libc::ENOTDIR) => Err(failed(FailureKind::NotFound, None, libc::ENOENT)),
            Err(errno) => Err(failed(FailureKind::NotExecutable, None, errno)),
        };
    }
    if bytes.is_empty() {
        return Err(failed(FailureKind::NotFound, Some("the name is empty"), libc::ENOENT));
    }
    let path = env.iter().find_map(|entry| entry.as_bytes().strip_prefix(b"PATH="));
    let path = path.unwrap_or(b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    let mut denied = None;
    for directory in path.split(|b| *b == b':') {
        let directory = if directory.is_empty() { b"." } else { directory };
        let candidate = OsString::from_vec([directory, b"/", bytes].concat());
        match executable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(errno @ (libc::EACCES | libc::EISDIR)) => denied = Some(errno),
            _ => {}
        }
    }
    match denied {
        Some(errno) => Err(failed(FailureKind::NotExecutable, None, errno)),
        None => Err(failed(FailureKind::NotFound, Some("executable file not found in $PATH"), libc::ENOENT)),
    }
}

fn executable(path: &OsStr) -> Result<(), i32> {
    let stat = rustix::fs::stat(path).map_err(rustix::io::Errno::raw_os_error)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => return Err(libc::EISDIR),
        FileType::RegularFile => {}
        _ => return Err(libc::EACCES),
    }
    rustix::fs::access(path, rustix::fs::Access::EXEC_OK).map_err(rustix::io::Errno::raw_os_error)
}
