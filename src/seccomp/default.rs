//! The default profile: what programs in containers need, and nothing that only administrators of
//! the host or of namespaces do. Everything that is not named is unknown to the program (ENOSYS), so
//! that it falls back to something older; what is known and refused is refused by EPERM.

use std::collections::HashSet;

use oci_spec::runtime::{
    Arch, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompOperator, LinuxSyscall,
};

/// Let through for everybody.
const ALLOWED: &str = "
_llseek _newselect accept accept4 access adjtimex alarm arch_prctl arm_fadvise64_64 arm_sync_file_range
bind brk cachestat capget capset chdir chmod chown chown32 clock_getres clock_getres_time64 clock_gettime
clock_gettime64 clock_nanosleep clock_nanosleep_time64 close close_range connect copy_file_range creat
dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait
epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64
fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl
fcntl64 fdatasync fgetxattr file_getattr file_setattr flistxattr flock fork fremovexattr fsetxattr fstat
fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64
futex_wait futex_waitv futex_wake futimesat get_robust_list get_thread_area getcpu getcwd getdents
getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer
getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresgid32 getresuid
getresuid32 getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday getuid getuid32
getxattr getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy
io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ioctl ioprio_get ioprio_set ipc kill
landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32 lgetxattr link linkat
listen listmount listxattr listxattrat llistxattr lremovexattr lseek lsetxattr lsm_get_self_attr
lsm_list_modules lsm_set_self_attr lstat lstat64 madvise map_shadow_stack membarrier memfd_create
memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 mprotect mq_getsetattr
mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink
mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep
newfstatat nice open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc
pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease
process_vm_readv process_vm_writev pselect6 pselect6_time64 ptrace pwrite64 pwritev pwritev2 read
readahead readdir readlink readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg
remap_file_pages removexattr removexattrat rename renameat renameat2 restart_syscall riscv_flush_icache
riscv_hwprobe rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn
rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max
sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler
sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam
sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop semtimedop_time64 send
sendfile sendfile64 sendmmsg sendmsg sendto set_robust_list set_thread_area set_tid_address setfsgid
setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setitimer setpgid setpriority
setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid
setsockopt setuid setuid32 setxattr setxattrat sgetmask shmat shmctl shmdt shmget shutdown sigaction
sigaltstack signal signalfd signalfd4 sigpending sigprocmask sigreturn sigsuspend socketcall socketpair
splice ssetmask stat stat64 statfs statfs64 statmount statx symlink symlinkat sync sync_file_range syncfs
sysinfo tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64
timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime
timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask uname unlink unlinkat uretprobe utime
utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write writev";

/// Let through with a capability, else refused.
const BY_CAPABILITY: &[(&[Capability], &str)] = &[
    (
        &[Capability::SysAdmin],
        "clone3 fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr move_mount open_tree \
         open_tree_attr pivot_root quotactl quotactl_fd setdomainname sethostname setns swapoff swapon umount umount2 unshare",
    ),
    (&[Capability::SysAdmin, Capability::Bpf], "bpf"),
    (&[Capability::SysAdmin, Capability::Perfmon], "perf_event_open"),
    (&[Capability::SysAdmin], "fanotify_init"),
    (&[Capability::DacReadSearch], "open_by_handle_at"),
    (&[Capability::SysBoot], "kexec_file_load kexec_load reboot"),
    (&[Capability::SysChroot], "chroot"),
    (&[Capability::SysModule], "delete_module finit_module init_module"),
    (&[Capability::SysPacct], "acct"),
    (&[Capability::SysPtrace], "kcmp pidfd_getfd process_madvise"),
    (&[Capability::SysRawio], "ioperm iopl"),
    (
        &[Capability::SysTime],
        "clock_adjtime clock_adjtime64 clock_settime clock_settime64 settimeofday stime",
    ),
    (&[Capability::SysTtyConfig], "vhangup"),
    (
        &[Capability::SysNice],
        "get_mempolicy mbind migrate_pages move_pages set_mempolicy set_mempolicy_home_node",
    ),
    (&[Capability::Syslog], "syslog"),
];

/// Refused, whatever the capabilities: keyrings are not namespaced, and the rest has a history.
const REFUSED: &str = "add_key keyctl request_key userfaultfd";

/// The flags of clone(2) that make namespaces: cgroup, uts, ipc, user, pid, net, mount.
const NAMESPACE_FLAGS: u64 = 0x7e02_0000;

/// Our own default profile for a container whose bounding set is `capabilities`.
pub fn default_profile(capabilities: &HashSet<Capability>) -> LinuxSeccomp {
    let mut rules = vec![rule(ALLOWED, LinuxSeccompAction::ScmpActAllow, None)];
    for (needed, names) in BY_CAPABILITY {
        if needed.iter().any(|capability| capabilities.contains(capability)) {
            rules.push(rule(names, LinuxSeccompAction::ScmpActAllow, None));
        } else {
            // The C library tries clone3 first and takes clone if there is none; its flags lie in memory
            // where a filter cannot look.
            let names: Vec<&str> = names.split_whitespace().filter(|name| *name != "clone3").collect();
            rules.push(rule(&names.join(" "), LinuxSeccompAction::ScmpActErrno, Some(libc::EPERM)));
        }
    }
    rules.push(rule(REFUSED, LinuxSeccompAction::ScmpActErrno, Some(libc::EPERM)));
    rules.extend(clone_rules(capabilities.contains(&Capability::SysAdmin)));
    rules.extend(special_rules());
    let mut profile = LinuxSeccomp::default();
    profile
        .set_default_action(LinuxSeccompAction::ScmpActErrno)
        .set_default_errno_ret(Some(libc::ENOSYS as u32))
        .set_architectures(Some(vec![
            Arch::ScmpArchX86_64,
            Arch::ScmpArchX86,
            Arch::ScmpArchAarch64,
            Arch::ScmpArchArm,
        ]))
        .set_syscalls(Some(rules));
    profile
}

fn rule(names: &str, action: LinuxSeccompAction, errno: Option<i32>) -> LinuxSyscall {
    let mut rule = LinuxSyscall::default();
    rule.set_names(names.split_whitespace().map(str::to_owned).collect())
        .set_action(action)
        .set_errno_ret(errno.map(|errno| errno as u32));
    rule
}

fn argument(index: usize, op: LinuxSeccompOperator, value: u64, value_two: Option<u64>) -> LinuxSeccompArg {
    let builder = LinuxSeccompArgBuilder::default().index(index).op(op).value(value);
    let built = match value_two {
        Some(value_two) => builder.value_two(value_two).build(),
        None => builder.build(),
    };
    built.expect("all required fields are set above")
}

/// New processes and threads for everybody, new namespaces only for administrators.
fn clone_rules(administrator: bool) -> Vec<LinuxSyscall> {
    let mut allowed = rule("clone", LinuxSeccompAction::ScmpActAllow, None);
    if administrator {
        return vec![allowed];
    }
    allowed.set_args(Some(vec![argument(
        0,
        LinuxSeccompOperator::ScmpCmpMaskedEq,
        NAMESPACE_FLAGS,
        Some(0),
    )]));
    let mut refused = Vec::new();
    for bit in (0..64).map(|n| 1_u64 << n).filter(|bit| NAMESPACE_FLAGS & bit != 0) {
        let mut one = rule("clone", LinuxSeccompAction::ScmpActErrno, Some(libc::EPERM));
        one.set_args(Some(vec![argument(0, LinuxSeccompOperator::ScmpCmpMaskedEq, bit, Some(bit))]));
        refused.push(one);
    }
    refused.push(allowed);
    refused
}

/// Calls of which only some uses are let through.
fn special_rules() -> Vec<LinuxSyscall> {
    use LinuxSeccompOperator::{ScmpCmpEq, ScmpCmpNe};
    let mut rules = Vec::new();
    // Linux's own personality, 32-bit addresses and both without address randomisation's opposite, and the
    // question (0xffffffff) what it is now.
    for persona in [0, 0x0008, 0x2_0000, 0x2_0008, 0xffff_ffff] {
        let mut allowed = rule("personality", LinuxSeccompAction::ScmpActAllow, None);
        allowed.set_args(Some(vec![argument(0, ScmpCmpEq, persona, None)]));
        rules.push(allowed);
    }
    // Virtual machines' sockets reach the hypervisor past all network namespaces.
    let mut sockets = rule("socket", LinuxSeccompAction::ScmpActAllow, None);
    sockets.set_args(Some(vec![argument(0, ScmpCmpNe, libc::AF_VSOCK as u64, None)]));
    rules.push(sockets);
    let mut vsock = rule("socket", LinuxSeccompAction::ScmpActErrno, Some(libc::EAFNOSUPPORT));
    vsock.set_args(Some(vec![argument(0, ScmpCmpEq, libc::AF_VSOCK as u64, None)]));
    rules.push(vsock);
    rules
}

#[cfg(test)]
mod tests {
    use super::super::compile;
    use super::super::interpret::{Call, run};
    use super::super::numbers::Architecture;
    use super::*;

    const ALLOW: u32 = 0x7fff_0000;
    const EPERM: u32 = 0x0005_0001;
    const ENOSYS: u32 = 0x0005_0000 | libc::ENOSYS as u32;

    fn ask(capabilities: &[Capability], architecture: Architecture, name: &str, first: u64) -> u32 {
        let profile = default_profile(&capabilities.iter().copied().collect());
        let filter = compile(&profile).unwrap();
        let mut call =
            Call { number: architecture.number(name), architecture: architecture.audit(), ..Call::default() };
        call.arguments[0] = first;
        run(&filter.program, &call).0
    }

    const NATIVE: Architecture = Architecture::NATIVE;

    #[test]
    fn ordinary_calls_pass_and_administration_needs_capabilities() {
        for name in ["read", "execve", "openat2", "clone", "socket", "futex", "exit_group"] {
            assert_eq!(ask(&[], NATIVE, name, 0), ALLOW, "{name}");
        }
        for name in ["mount", "setns", "unshare", "bpf", "init_module", "reboot", "keyctl", "chroot"] {
            assert_eq!(ask(&[], NATIVE, name, 0), EPERM, "{name}");
        }
        assert_eq!(ask(&[Capability::SysAdmin], NATIVE, "mount", 0), ALLOW);
        assert_eq!(ask(&[Capability::SysChroot], NATIVE, "chroot", 0), ALLOW);
        for name in ["io_uring_setup", "clone3"] {
            assert_eq!(ask(&[], NATIVE, name, 0), ENOSYS, "{name}");
        }
    }

    #[test]
    fn no_bit_of_a_new_namespace_passes() {
        for bit in (0..32).map(|n| 1_u64 << n) {
            let expected = if NAMESPACE_FLAGS & bit != 0 { EPERM } else { ALLOW };
            assert_eq!(ask(&[], NATIVE, "clone", bit | 17), expected, "{bit:#x}");
        }
        assert_eq!(ask(&[Capability::SysAdmin], NATIVE, "clone", NAMESPACE_FLAGS), ALLOW);
    }

    #[test]
    fn special_cases() {
        assert_eq!(ask(&[], NATIVE, "personality", 0), ALLOW);
        assert_eq!(ask(&[], NATIVE, "personality", 0x40000), ENOSYS);
        assert_eq!(
            ask(&[], NATIVE, "socket", libc::AF_VSOCK as u64),
            0x0005_0000 | libc::EAFNOSUPPORT as u32
        );
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn thirty_two_bit_programs_run() {
        assert_eq!(ask(&[], Architecture::X86, "socketcall", 0), ALLOW);
        assert_eq!(ask(&[], Architecture::X86, "mount", 0), EPERM);
    }

    #[test]
    fn the_filter_is_short_to_run() {
        let filter = compile(&default_profile(&HashSet::new())).unwrap();
        let longest = NATIVE
            .calls()
            .into_iter()
            .map(|(_, number)| {
                let call = Call { number, architecture: NATIVE.audit(), ..Call::default() };
                run(&filter.program, &call).1
            })
            .max();
        assert!(filter.program.len() < 400, "{} instructions", filter.program.len());
        assert!(longest < Some(60), "{longest:?} steps");
    }

    #[test]
    fn every_name_is_a_call_of_some_architecture() {
        let all: Vec<_> = [
            Architecture::X86_64,
            Architecture::X86,
            Architecture::Aarch64,
            Architecture::Arm,
            Architecture::Riscv64,
        ]
        .iter()
        .map(|architecture| architecture.calls())
        .collect();
        let lists = BY_CAPABILITY.iter().map(|(_, names)| *names).chain([ALLOWED, REFUSED]);
        for name in lists.flat_map(str::split_whitespace) {
            assert!(all.iter().flatten().any(|(known, _)| *known == name), "{name}");
        }
    }
}
