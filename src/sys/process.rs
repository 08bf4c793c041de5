//! Processes: cloning, waiting, identity.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::panic::AssertUnwindSafe;

use rustix::process::{Pid, PidfdFlags, WaitIdOptions};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// It exited with this code.
    Code(u8),
    /// This signal ended it.
    Signal(i32),
}

impl ExitStatus {
    /// The status as shells and engines tell it: the code, or 128 + the signal.
    pub fn code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128u8.wrapping_add(signal as u8),
        }
    }
}

/// A process that [`spawn`] made.
#[derive(Debug)]
pub struct Child {
    /// As the caller sees it.
    pub pid: i32,
    /// Readable when the process ends.
    pub pidfd: OwnedFd,
}

/// Too large for the type that libc gives it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// How [`spawn`] clones.
#[derive(Debug, Default, Clone, Copy)]
pub struct CloneOptions<'a> {
    /// `CLONE_NEW*` flags, clone(2).
    pub namespaces: u64,
    /// Be born in this cgroup v2 directory.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Make a sibling: the new process is a child of the caller's parent.
    pub sibling: bool,
    /// Closed in the child: the caller's end of a connection between the two, whose end the child
    /// could else never see.
    pub close: Option<BorrowedFd<'a>>,
}

/// Forks; the child runs `child` in a copy of this process and exits with the code it returns.
///
/// Only for single-threaded callers: a lock that another thread held would stay locked in the
/// child for ever. No handlers run at fork or exit, so nothing buffered is written twice.
pub fn spawn(options: CloneOptions<'_>, child: impl FnOnce() -> u8) -> io::Result<Child> {
    let mut pidfd: RawFd = -1;
    let args = clone_args(options, &mut pidfd);
    // SAFETY: `args` is valid for its size, no stack is given and no memory shared, so the child
    // goes on in a copy of this address space like after fork(2).
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) };
    let pid = match pid {
        -1 if io::Error::last_os_error().raw_os_error() == Some(libc::ENOSYS) && options.cgroup.is_none() => {
            old_clone(args.flags | args.exit_signal, &mut pidfd)
        }
        pid => pid,
    };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => run_child(options.close, child),
        pid => {
            // SAFETY: the kernel put a new descriptor there, and nobody else knows of it.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Child { pid: pid as i32, pidfd })
        }
    }
}

/// clone(2), for who may not call its successor: the filters of many containers forbid that, because they cannot
/// look at its arguments.
fn old_clone(flags: u64, pidfd: &mut RawFd) -> libc::c_long {
    // SAFETY: no stack is given and no memory shared, as in `spawn`; the kernel writes the descriptor to `pidfd`,
    // and reads none of the other addresses, which stand in another order on each architecture.
    unsafe { libc::syscall(libc::SYS_clone, flags, 0, std::ptr::from_mut(pidfd), 0, 0) }
}

/// Like [`spawn`], but as vfork(2) does it: the child borrows the caller's memory, and the caller waits
/// until it has executed a program or ended. Nothing is copied and no page faulted in twice, which is
/// most of what starting a process costs.
///
/// The child must not wait for the caller, and what it changes in memory stays changed. Whoever can
/// trace the child can write to the caller: to be used only where what the child meets has no power over
/// this process's memory (ptrace(2): none in a user namespace below that of our own exec, as long as the
/// memory is not dumpable). The caller's dumpable attribute, which is the memory's, is put back at the end.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub fn spawn_sharing<F: FnOnce() -> u8>(options: CloneOptions<'_>, child: F) -> io::Result<Child> {
    extern "C" fn enter<F: FnOnce() -> u8>(borrowed: *mut (Option<BorrowedFd<'_>>, Option<F>)) -> ! {
        // SAFETY: what the caller passed, which waits meanwhile.
        let (close, child) = unsafe { &mut *borrowed };
        let child = child.take();
        run_child(*close, || child.map_or(125, |child| child()))
    }
    let mut pidfd: RawFd = -1;
    let mut args = clone_args(options, &mut pidfd);
    args.flags |= (libc::CLONE_VM | libc::CLONE_VFORK) as u64;
    let dumpable = rustix::process::dumpable_behavior()?;
    let mut borrowed = (options.close, Some(child));
    let enter: extern "C" fn(*mut (Option<BorrowedFd<'_>>, Option<F>)) -> ! = enter::<F>;
    let result: isize;
    // SAFETY: `args` is valid for its size. The child, whose stack pointer is the caller's, calls `enter`
    // and never comes back, so it writes below the frame of this function only, and the caller does not
    // run before that is over. It touches the memory of `borrowed` and what the closure borrows, which an
    // assembly block may. The frame pointer stays the caller's, so that a backtrace of the child finds its
    // way up.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 as isize => result,
            in("rdi") &raw const args,
            in("rsi") size_of::<libc::clone_args>(),
            in("r12") &raw mut borrowed,
            in("r13") enter,
            lateout("rcx") _,
            lateout("r11") _,
        );
        #[cfg(target_arch = "aarch64")]
        std::arch::asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x0, x20",
            "blr x21",
            "brk 1",
            "2:",
            inlateout("x0") &raw const args => result,
            in("x1") size_of::<libc::clone_args>(),
            in("x8") libc::SYS_clone3,
            in("x20") &raw mut borrowed,
            in("x21") enter,
            lateout("x30") _,
        );
    }
    // The child hid the memory from others; it has its own by now.
    let _ = rustix::process::set_dumpable_behavior(dumpable);
    if result == -(libc::ENOSYS as isize)
        && let Some(child) = borrowed.1.take()
    {
        return spawn(options, child);
    }
    made(result, pidfd)
}

/// The child that a bare clone3(2) with `CLONE_PIDFD` has made, by what that returned and where it put the descriptor.
pub(super) fn made(result: isize, pidfd: RawFd) -> io::Result<Child> {
    if result < 0 {
        return Err(io::Error::from_raw_os_error(-result as i32));
    }
    // SAFETY: the kernel put a new descriptor there, and nobody else knows of it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Child { pid: result as i32, pidfd })
}

/// Where we cannot share, a copy does as well.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub fn spawn_sharing<F: FnOnce() -> u8>(options: CloneOptions<'_>, child: F) -> io::Result<Child> {
    spawn(options, child)
}

pub(super) fn clone_args(options: CloneOptions<'_>, pidfd: &mut RawFd) -> libc::clone_args {
    // SAFETY: an all-zero clone_args asks for nothing; every field is an integer.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = options.namespaces | libc::CLONE_PIDFD as u64;
    args.pidfd = std::ptr::from_mut(pidfd) as u64;
    if let Some(cgroup) = options.cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    if options.sibling {
        // The kernel demands that no exit signal is given: the parent's one is inherited.
        args.flags |= libc::CLONE_PARENT as u64;
    } else {
        args.exit_signal = libc::SIGCHLD as u64;
    }
    args
}

/// What a new process does from its first moment to its end.
fn run_child(close: Option<BorrowedFd<'_>>, child: impl FnOnce() -> u8) -> ! {
    if let Some(fd) = close {
        // SAFETY: its owner is in the frames of the caller, to which the child never returns; the
        // descriptor table is the child's own.
        unsafe { libc::close(fd.as_raw_fd()) };
    }
    // An unwinding panic must not run on into the parent's stack frames.
    let code = std::panic::catch_unwind(AssertUnwindSafe(child)).unwrap_or(125);
    exit_now(code)
}

/// Ends the process at once, without destructors or exit handlers: how a forked child ends.
pub fn exit_now(code: u8) -> ! {
    // SAFETY: ends the process, touching nothing.
    unsafe { libc::_exit(i32::from(code)) }
}

/// Waits for a child by its pidfd and reaps it.
pub fn wait(pidfd: impl AsFd) -> io::Result<ExitStatus> {
    loop {
        match rustix::process::waitid(rustix::process::WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
            Ok(None) => return Err(io::ErrorKind::WouldBlock.into()),
            Ok(Some(status)) => {
                return Ok(match status.exit_status() {
                    Some(code) => ExitStatus::Code(code as u8),
                    None => ExitStatus::Signal(status.terminating_signal().unwrap_or(libc::SIGKILL)),
                });
            }
        }
    }
}

/// Opens a pidfd of a process (also of one that is no child).
pub fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?)
}

/// Sends `signal` (a number; real-time signals too) to the process of a pidfd.
pub fn pidfd_signal(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    // SAFETY: takes integers and a null siginfo.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Waits until a pidfd's process has ended, at most `milliseconds`; tells whether it has.
pub fn wait_end(pidfd: impl AsFd, milliseconds: u32) -> io::Result<bool> {
    let mut fds = [rustix::event::PollFd::from_borrowed_fd(pidfd.as_fd(), rustix::event::PollFlags::IN)];
    let timeout = rustix::time::Timespec {
        tv_sec: i64::from(milliseconds / 1000),
        tv_nsec: i64::from(milliseconds % 1000) * 1_000_000,
    };
    match rustix::event::poll(&mut fds, Some(&timeout)) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// What [`stat`] reads of `/proc/PID/stat` (proc_pid_stat(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Field 3: `R`, `S`, `Z`, …
    pub state: u8,
    /// Field 22, in clock ticks since boot.
    pub start_time: u64,
}

/// More of `/proc/PID/stat`, for showing it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetailedStat {
    /// Field 2, without what is no text.
    pub name: String,
    /// Field 3: `R`, `S`, `Z`, …
    pub state: char,
    /// Field 4.
    pub parent: i32,
    /// Field 7, the terminal's device number.
    pub terminal: u32,
    /// Fields 14 and 15 together, in clock ticks.
    pub processor_time: u64,
    /// Field 19.
    pub nice: i32,
    /// Field 22, in clock ticks since boot.
    pub start_time: u64,
}

/// Reads what is shown of a process.
pub fn detailed_stat(pid: i32) -> io::Result<DetailedStat> {
    let text = std::fs::read(format!("/proc/{pid}/stat"))?;
    parse_detailed_stat(&text).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn parse_detailed_stat(text: &[u8]) -> Option<DetailedStat> {
    let start = text.iter().position(|b| *b == b'(')?;
    let end = text.iter().rposition(|b| *b == b')')?;
    let rest: Vec<&str> = std::str::from_utf8(text.get(end + 2..)?).ok()?.split_ascii_whitespace().collect();
    // The first of them is field 3.
    let field = |number: usize| rest.get(number - 3).copied();
    let number = |n| field(n)?.parse::<u64>().ok();
    Some(DetailedStat {
        name: String::from_utf8_lossy(text.get(start + 1..end)?).into_owned(),
        state: field(3)?.chars().next()?,
        parent: field(4)?.parse().ok()?,
        terminal: field(7)?.parse::<i32>().ok()? as u32,
        processor_time: number(14)? + number(15)?,
        nice: field(19)?.parse().ok()?,
        start_time: number(22)?,
    })
}

/// The user that a process runs as.
pub fn owner(pid: i32) -> io::Result<u32> {
    // Not the directory's owner, which is root where a process is not dumpable.
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Uid:"));
    let uid = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    uid.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Reads a file of the kernel's, of at most 4096 bytes, which it gives at once: one that has no size for
/// [`std::fs::read`] to know is read by that in many small pieces.
pub fn read_small(path: &str) -> io::Result<Vec<u8>> {
    let file = rustix::fs::open(path, rustix::fs::OFlags::CLOEXEC, rustix::fs::Mode::empty())?;
    let mut bytes = Vec::with_capacity(4096);
    rustix::io::read(&file, rustix::buffer::spare_capacity(&mut bytes))?;
    Ok(bytes)
}

/// Reads a process's state and start time.
pub fn stat(pid: i32) -> io::Result<Stat> {
    parse_stat(&read_small(&format!("/proc/{pid}/stat"))?).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The start time of process `pid` in clock ticks since boot (field 22 of `/proc/PID/stat`).
pub fn start_time(pid: i32) -> io::Result<u64> {
    Ok(stat(pid)?.start_time)
}

/// Whether process `pid` is still the one that started then, and more than a zombie: who has lost
/// its parent may wait long for somebody to reap it.
pub fn is_alive(pid: i32, start_time: u64) -> bool {
    stat(pid).is_ok_and(|stat| stat.start_time == start_time && !matches!(stat.state, b'Z' | b'X'))
}

/// A pidfd of process `pid` if [`is_alive`] says so. The descriptor is had first: what is checked is what is
/// held.
pub fn open_alive(pid: i32, start_time: u64) -> Option<OwnedFd> {
    let pidfd = pidfd_open(pid).ok()?;
    is_alive(pid, start_time).then_some(pidfd)
}

fn parse_stat(text: &[u8]) -> Option<Stat> {
    // The command's name, field 2, may contain anything, also `)`: the fields start after the last one.
    let end = text.iter().rposition(|b| *b == b')')?;
    let rest = std::str::from_utf8(text.get(end + 2..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let start_time = fields.nth(18)?.parse().ok()?;
    Some(Stat { state, start_time })
}

/// Whether process `pid` is the first of its pid namespace: all others in there end with it
/// (pid_namespaces(7)). Of one that is gone it is said, too.
pub fn is_namespace_init(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    line.and_then(|numbers| numbers.split_whitespace().last()).is_none_or(|innermost| innermost == "1")
}

/// Makes the caller the leader of a new session.
pub fn setsid() -> io::Result<()> {
    rustix::process::setsid()?;
    Ok(())
}

/// The caller is killed when the thread that made it ends; it is an error if `parent` has ended already. A change
/// of ids or capabilities takes that back (prctl(2), `PR_SET_PDEATHSIG`).
pub fn die_with_parent(parent: u32) -> io::Result<()> {
    // SAFETY: the option takes an integer.
    if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if std::os::unix::process::parent_id() == parent { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
}

/// Takes `/proc/PID` of the caller away from its user (prctl(2), `PR_SET_DUMPABLE`): what runs
/// inside a container cannot reach our binary through `/proc/PID/exe` (CVE-2019-5736).
pub fn set_undumpable() -> io::Result<()> {
    Ok(rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?)
}

/// Takes [`set_undumpable`] back: for one that makes processes which must not inherit it.
pub fn set_dumpable() -> io::Result<()> {
    Ok(rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable)?)
}

/// Lets these descriptors pass an exec. One that is not open is an error (EBADF).
pub fn keep_open(fds: &[u32]) -> io::Result<()> {
    for fd in fds {
        // SAFETY: changes only a flag of a descriptor.
        if unsafe { libc::fcntl(*fd as i32, libc::F_SETFD, 0) } == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Which of these descriptors is not open. To be asked before anything else is opened.
pub fn first_closed(fds: &[u32]) -> Option<u32> {
    // SAFETY: reads only a flag of a descriptor.
    fds.iter().copied().find(|fd| unsafe { libc::fcntl(*fd as i32, libc::F_GETFD) } == -1)
}

/// Marks all descriptors from `first` on close-on-exec, but `keep`.
pub fn close_on_exec_from(first: u32, keep: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mark = |from: u32, to: u32| {
        if from > to {
            return Ok(());
        }
        // SAFETY: changes only flags of descriptors.
        let result = unsafe { libc::syscall(libc::SYS_close_range, from, to, libc::CLOSE_RANGE_CLOEXEC) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    let ranges = || match keep.map(|fd| fd.as_raw_fd() as u32) {
        Some(keep) if keep >= first => {
            if keep > first {
                mark(first, keep - 1)?;
            }
            mark(keep + 1, u32::MAX)
        }
        _ => mark(first, u32::MAX),
    };
    match ranges() {
        // Before Linux 5.11 there is no such call, or not this flag.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL)) => {
            close_on_exec_by_listing(first, keep)
        }
        other => other,
    }
}

fn close_on_exec_by_listing(first: u32, keep: Option<BorrowedFd<'_>>) -> io::Result<()> {
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let Some(number) = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        if number as u32 >= first && keep.is_none_or(|fd| fd.as_raw_fd() != number) {
            // SAFETY: changes only a flag; a descriptor that is gone by now (the listing's own) is no matter.
            unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
    Ok(())
}

/// Makes `fd` descriptor `number` (0, 1 or 2, or one to be preserved), not closed at exec.
pub fn install_fd(fd: impl AsFd, number: RawFd) -> io::Result<()> {
    let raw = fd.as_fd().as_raw_fd();
    // SAFETY: dup2 onto itself changes nothing, so the flag is taken off; else it replaces `number`,
    // which is a standard descriptor that nobody in this process owns as an OwnedFd.
    let result =
        unsafe { if raw == number { libc::fcntl(raw, libc::F_SETFD, 0) } else { libc::dup2(raw, number) } };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Opens `/dev/null` on those of the descriptors 0, 1 and 2 that are closed, so that nothing that
/// is opened later gets such a number by chance.
pub fn ensure_standard_fds() -> io::Result<()> {
    for number in 0..3 {
        // SAFETY: asks for a flag.
        if unsafe { libc::fcntl(number, libc::F_GETFD) } == -1 {
            let null = rustix::fs::open("/dev/null", rustix::fs::OFlags::RDWR, rustix::fs::Mode::empty())?;
            if null.as_raw_fd() == number {
                // Stays open as what it is.
                std::mem::forget(null);
            } else {
                install_fd(&null, number)?;
            }
        }
    }
    Ok(())
}

/// Duplicates a descriptor to a number above 2, close-on-exec.
pub fn above_standard(fd: impl AsFd) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, 3)?)
}

/// Whether a descriptor of this number is open.
pub fn is_open(number: RawFd) -> bool {
    // SAFETY: asks for a flag.
    unsafe { libc::fcntl(number, libc::F_GETFD) != -1 }
}

/// Runs a host program (hooks, newuidmap): argument 0 is `args[0]`, the environment is exactly `env`.
/// `stdin` becomes its standard input; output goes where ours goes.
pub fn run_program(
    path: &std::path::Path,
    args: &[std::ffi::OsString],
    env: Option<&[std::ffi::OsString]>,
    stdin: std::process::Stdio,
) -> io::Result<std::process::Child> {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::process::CommandExt;
    // The one place beside the user namespace's helpers where a foreign program is run.
    #[allow(clippy::disallowed_methods)]
    let mut command = std::process::Command::new(path);
    if let Some((name, rest)) = args.split_first() {
        command.arg0(name).args(rest);
    }
    if let Some(env) = env {
        command.env_clear();
        for entry in env {
            let bytes = entry.as_bytes();
            let at = bytes.iter().position(|b| *b == b'=').unwrap_or(bytes.len());
            let value = bytes.get(at + 1..).unwrap_or_default();
            command.env(std::ffi::OsStr::from_bytes(&bytes[..at]), std::ffi::OsStr::from_bytes(value));
        }
    }
    command.stdin(stdin).spawn()
}

/// What a program that was asked said.
#[derive(Debug)]
pub struct Said {
    /// How it ended.
    pub status: std::process::ExitStatus,
    /// Its standard output.
    pub output: Vec<u8>,
}

/// Runs a host program (a credential helper) with the caller's environment and `input` on its
/// standard input, and returns what it says on its standard output, at most 1 MiB. One that is not
/// done after `milliseconds` is killed, and the error is `TimedOut`.
pub fn ask_program(
    path: &std::path::Path,
    args: &[&str],
    input: &[u8],
    milliseconds: u32,
) -> io::Result<Said> {
    use std::io::{Read, Write};
    const MOST: usize = 1 << 20;
    #[allow(clippy::disallowed_methods, reason = "one that the user's configuration names")]
    let mut command = std::process::Command::new(path);
    let piped = std::process::Stdio::piped;
    let mut child = command.args(args).stdin(piped()).stdout(piped()).spawn()?;
    let mut talk = || {
        let pidfd = pidfd_open(child.id() as i32)?;
        if let Some(mut stdin) = child.stdin.take() {
            // So little fits into the pipe.
            match stdin.write_all(input) {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
                _ => {}
            }
        }
        let mut output = Vec::new();
        let mut stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let end = std::time::Instant::now() + std::time::Duration::from_millis(milliseconds.into());
        let left = || {
            let left = end.saturating_duration_since(std::time::Instant::now()).as_millis();
            u32::try_from(left).unwrap_or(u32::MAX)
        };
        loop {
            if left() == 0 {
                return Err(io::ErrorKind::TimedOut.into());
            }
            if !wait_end(&stdout, left())? {
                continue;
            }
            let mut buffer = [0; 4096];
            match stdout.read(&mut buffer)? {
                0 => break,
                count => output.extend_from_slice(&buffer[..count]),
            }
            if output.len() > MOST {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
        }
        while !wait_end(&pidfd, left())? {
            if left() == 0 {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        Ok(output)
    };
    let output = talk();
    if output.is_err() {
        child.kill()?;
    }
    let status = child.wait()?;
    Ok(Said { status, output: output? })
}

/// Becomes a host program (criu), with these descriptors as 3, 4 and so on and no others beside the
/// standard ones; returns only if that failed. For a process that [`spawn`] made.
pub fn become_program(path: &std::path::Path, args: &[&str], fds: &[BorrowedFd<'_>]) -> io::Error {
    use std::os::unix::process::CommandExt;
    let install = || {
        let past = 3 + fds.len() as RawFd;
        // First all are out of the way, or they would replace each other.
        let fds = fds.iter().map(|fd| Ok(rustix::io::fcntl_dupfd_cloexec(fd, past)?));
        let fds = fds.collect::<io::Result<Vec<_>>>()?;
        close_on_exec_from(3, None)?;
        fds.iter().zip(3..).try_for_each(|(fd, number)| install_fd(fd, number))
    };
    if let Err(error) = install() {
        return error;
    }
    #[allow(clippy::disallowed_methods, reason = "a helper that is an optional part of a command")]
    std::process::Command::new(path).args(args).exec()
}

/// Becomes the program of a command line, found as a shell would, with these variables beside the caller's
/// environment; returns only if that failed.
pub fn become_command(words: &[std::ffi::OsString], environment: &[(&str, std::ffi::OsString)]) -> io::Error {
    use std::os::unix::process::CommandExt;
    let Some((program, args)) = words.split_first() else { return io::ErrorKind::InvalidInput.into() };
    #[allow(clippy::disallowed_methods, reason = "the user's own program takes this one's place")]
    std::process::Command::new(program).args(args).envs(environment.iter().map(|(k, v)| (k, v))).exec()
}

/// Takes over a descriptor that the caller of this program has opened for it and names by its number.
/// Its number is closed.
pub fn take_fd(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: makes a new descriptor of it if it is open at all.
    let taken = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) };
    if taken == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was just made and nobody else knows of it; and the other is by contract the
    // program's caller's, of which no part of this program is an owner.
    unsafe {
        libc::close(number);
        Ok(OwnedFd::from_raw_fd(taken))
    }
}

/// Starts a program of `PATH` that is listened to: its standard output and its standard error are pipes.
pub fn listen_to_program(
    program: &str,
    args: &[String],
) -> io::Result<(std::process::Child, OwnedFd, std::process::ChildStderr)> {
    use std::process::Stdio;
    #[allow(clippy::disallowed_methods, reason = "journalctl, which alone knows the journal's files")]
    let mut command = std::process::Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    match (child.stdout.take(), child.stderr.take()) {
        (Some(out), Some(err)) => Ok((child, out.into(), err)),
        _ => Err(io::ErrorKind::BrokenPipe.into()),
    }
}

/// Runs a program to its end with the caller's environment and nothing on its standard input; its exit code, and
/// what it says on its standard error.
pub fn complaint_of(program: &std::path::Path, args: &[std::ffi::OsString]) -> io::Result<(u8, String)> {
    #[allow(clippy::disallowed_methods, reason = "this program itself")]
    let output = std::process::Command::new(program)
        .args(args)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok((output.status.code().map_or(255, |code| code as u8), said))
}

/// Runs a program of `PATH` to its end; returns its standard output and its exit code.
pub fn output_of(program: &str, args: &[String]) -> io::Result<(Vec<u8>, u8)> {
    #[allow(
        clippy::disallowed_methods,
        reason = "one that the user asks for by name, as `ps ARGUMENTS` does"
    )]
    let output = std::process::Command::new(program)
        .args(args)
        .stdin(std::process::Stdio::null())
        .stderr(std::process::Stdio::inherit())
        .output()?;
    Ok((output.stdout, output.status.code().map_or(255, |code| code as u8)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_survive_hostile_names() {
        let text = b"12 (a) S 1 (b)) Z 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 19";
        let expected = DetailedStat {
            name: "a) S 1 (b)".into(),
            state: 'Z',
            parent: 1,
            terminal: 4,
            processor_time: 23,
            nice: 16,
            start_time: 4242,
        };
        assert_eq!(parse_detailed_stat(text), Some(expected));
    }

    #[test]
    fn stat_survives_hostile_names() {
        let text = b"12 (a) S 1 (b)) Z 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 19";
        assert_eq!(parse_stat(text), Some(Stat { state: b'Z', start_time: 4242 }));
        assert!(start_time(std::process::id() as i32).unwrap() > 0);
    }

    #[test]
    fn a_borrower_writes_to_our_memory_and_gives_it_back_as_it_was() {
        let before = rustix::process::dumpable_behavior().unwrap();
        let mut told = 0;
        let child = spawn_sharing(CloneOptions::default(), || {
            told = std::process::id();
            set_undumpable().unwrap();
            let inner = spawn_sharing(CloneOptions::default(), || 7).unwrap();
            // Hidden it stays, whatever a borrower of the borrower did.
            let hidden = rustix::process::dumpable_behavior().unwrap();
            assert_eq!(hidden, rustix::process::DumpableBehavior::NotDumpable);
            wait(&inner.pidfd).unwrap().code() + 1
        })
        .unwrap();
        // No waiting: it has ended when the call returns.
        assert_eq!(told, child.pid as u32);
        assert_eq!(wait(&child.pidfd).unwrap(), ExitStatus::Code(8));
        assert_eq!(rustix::process::dumpable_behavior().unwrap(), before);
        assert_eq!(
            wait(&spawn_sharing(CloneOptions::default(), || panic!("as it shall")).unwrap().pidfd).unwrap(),
            ExitStatus::Code(125)
        );
        let refused = CloneOptions { cgroup: Some(rustix::stdio::stdin()), ..Default::default() };
        assert!(spawn_sharing(refused, || 0).is_err());
    }

    #[test]
    fn programs_are_asked() {
        let shell = std::path::Path::new("/bin/sh");
        let said = ask_program(shell, &["-c", "read x; echo $x; exit 3"], b"a word\n", 60_000).unwrap();
        assert_eq!((said.status.code(), said.output.as_slice()), (Some(3), b"a word\n".as_slice()));
        let late = ask_program(shell, &["-c", "exec sleep 100"], b"", 50).unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        let endless = ask_program(shell, &["-c", "while :; do echo xxxxxxxxxxxxxxxxx; done"], b"", 60_000);
        assert_eq!(endless.unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert!(ask_program(std::path::Path::new("/no/such"), &[], b"", 1000).is_err());
    }

    #[test]
    fn who_is_the_first_of_a_namespace() {
        assert!(is_namespace_init(1) && !is_namespace_init(std::process::id() as i32));
    }

    #[test]
    fn statuses_as_shells_tell_them() {
        assert_eq!(ExitStatus::Code(3).code(), 3);
        assert_eq!(ExitStatus::Signal(9).code(), 137);
    }
}
