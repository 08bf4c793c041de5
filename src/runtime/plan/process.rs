//! The process of a spec (`config.md`, "Process").

use std::ffi::CString;
use std::path::PathBuf;

use oci_spec::runtime::{
    Capabilities, IOPriorityClass, LinuxSchedulerFlag as SchedulerFlag,
    LinuxSchedulerPolicy as SchedulerPolicy, PosixRlimitType, Process,
};

use super::{PlanError, invalid};
use crate::security::capability;
use crate::sys::capability::Sets;
use crate::sys::sched::Policy;
use crate::sys::seccomp::Filter;

/// Who the process is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserChoice {
    /// As the spec says.
    Ids {
        /// User id inside.
        uid: u32,
        /// Group id inside.
        gid: u32,
        /// Supplementary groups.
        groups: Vec<u32>,
    },
    /// `name[:group]`, to be looked up in the rootfs.
    Name {
        /// The text.
        name: String,
        /// Further groups.
        groups: Vec<u32>,
    },
}

/// A resource limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// `RLIMIT_*`.
    pub resource: u32,
    /// The limit.
    pub soft: u64,
    /// What it may be raised to.
    pub hard: u64,
    /// Its name, for errors.
    pub name: &'static str,
}

/// What the process may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Privileges {
    /// Capability sets.
    pub capabilities: Sets,
    /// `PR_SET_NO_NEW_PRIVS`.
    pub no_new_privileges: bool,
    /// The filter. With `no_new_privileges` it is loaded by the stub, last of all; else before the
    /// capability that loading takes is dropped.
    pub filter: Option<Filter>,
}

/// How a process is scheduled.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Scheduling {
    /// Policy and what belongs to it.
    pub policy: Option<Policy>,
    /// Class and level of input and output, ioprio_set(2).
    pub io: Option<(u32, u32)>,
}

/// Labels of security modules.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Labels {
    /// AppArmor's profile.
    pub apparmor: Option<String>,
    /// SELinux's context.
    pub selinux: Option<String>,
}

/// The processors of an exec (`process.execCPUAffinity`).
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Affinity {
    /// Before it is in the container's cgroup.
    pub initial: Vec<u32>,
    /// Once it is; empty for what the kernel makes of it.
    pub last: Vec<u32>,
}

/// The process: of a container or of an exec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessPlan {
    /// Program and arguments; none if the container has no process, and so cannot be started.
    pub args: Vec<CString>,
    /// Environment.
    pub env: Vec<CString>,
    /// Working directory.
    pub cwd: PathBuf,
    /// Make the working directory if it is missing.
    pub create_cwd: bool,
    /// Who.
    pub user: UserChoice,
    /// File mode mask.
    pub umask: u32,
    /// Limits.
    pub limits: Vec<Limit>,
    /// What it may do.
    pub privileges: Privileges,
    /// Execution domain.
    pub persona: Option<u64>,
    /// Mode and nodes for set_mempolicy(2), of an exec: others have it of the init.
    pub memory_policy: Option<(u32, Vec<u32>)>,
    /// How it is scheduled.
    pub scheduling: Scheduling,
    /// Labels of security modules that the program gets.
    pub labels: Labels,
    /// Keep the caller's supplementary groups (crun's `run.oci.keep_original_groups`).
    pub keep_groups: bool,
    /// As many descriptors from 3 on are listening sockets (sd_listen_fds(3)).
    pub listen_fds: u32,
    /// Be or have a reaping init.
    pub init: bool,
    /// Descriptors from 3 on that go through.
    pub preserve_fds: u32,
    /// Descriptors that go through beside them.
    pub preserve_list: Vec<u32>,
    /// Further groups, by name or number.
    pub groups_by_name: Vec<String>,
    /// Make a session keyring.
    pub new_keyring: bool,
    /// Take what there is where a resource limit cannot be raised as far as asked.
    pub clamp_limits: bool,
}

/// Plans a process.
pub(crate) fn plan_process(
    process: &Process,
    filter: Option<Filter>,
    by_name: Option<String>,
) -> Result<ProcessPlan, PlanError> {
    let strings = |list: &Option<Vec<String>>, field: &str| -> Result<Vec<CString>, PlanError> {
        let list = list.as_deref().unwrap_or_default().iter();
        let list = list.enumerate();
        list.map(|(i, s)| {
            CString::new(s.as_str()).map_err(|_| invalid(format!("{field}[{i}]: it has a zero byte")))
        })
        .collect()
    };
    let args = strings(process.args(), "process.args")?;
    if args.is_empty() {
        return Err(invalid("process.args: there is no program"));
    }
    let cwd = process.cwd().clone();
    if !cwd.is_absolute() {
        return Err(invalid(format!("process.cwd: \"{}\" is not absolute", cwd.display())));
    }
    let user = process.user();
    let groups = user.additional_gids().clone().unwrap_or_default();
    let user_choice = match by_name {
        Some(name) => UserChoice::Name { name, groups },
        None => UserChoice::Ids { uid: user.uid(), gid: user.gid(), groups },
    };
    Ok(ProcessPlan {
        args,
        env: strings(process.env(), "process.env")?,
        cwd,
        create_cwd: false,
        user: user_choice,
        umask: umask(user.umask())?,
        limits: limits(process)?,
        privileges: Privileges {
            capabilities: capabilities(process),
            no_new_privileges: process.no_new_privileges().unwrap_or(false),
            filter,
        },
        scheduling: Scheduling { policy: policy(process)?, io: io_priority(process)? },
        labels: labels(process),
        ..no_process()
    })
}

/// What stands in for the process of a container that has none.
pub(super) fn no_process() -> ProcessPlan {
    ProcessPlan {
        args: Vec::new(),
        env: Vec::new(),
        cwd: PathBuf::from("/"),
        create_cwd: false,
        user: UserChoice::Ids { uid: 0, gid: 0, groups: Vec::new() },
        umask: 0o022,
        limits: Vec::new(),
        privileges: Privileges { capabilities: Sets::default(), no_new_privileges: true, filter: None },
        persona: None,
        memory_policy: None,
        scheduling: Scheduling::default(),
        labels: Labels::default(),
        keep_groups: false,
        listen_fds: 0,
        init: false,
        preserve_fds: 0,
        preserve_list: Vec::new(),
        groups_by_name: Vec::new(),
        new_keyring: true,
        clamp_limits: false,
    }
}

fn umask(asked: Option<u32>) -> Result<u32, PlanError> {
    match asked.unwrap_or(0o022) {
        umask @ 0..=0o777 => Ok(umask),
        umask => Err(invalid(format!("process.user.umask: {umask:#o} is more than 0777"))),
    }
}

fn labels(process: &Process) -> Labels {
    let given = |label: &Option<String>| label.clone().filter(|label| !label.is_empty());
    Labels {
        // What is not confined needs no kernel that could do it.
        apparmor: given(process.apparmor_profile()).filter(|profile| profile != "unconfined"),
        selinux: given(process.selinux_label()),
    }
}

fn policy(process: &Process) -> Result<Option<Policy>, PlanError> {
    let Some(scheduler) = process.scheduler() else { return Ok(None) };
    let field = |name: &str, problem: &str| Err(invalid(format!("process.scheduler.{name}: {problem}")));
    let (policy, real_time) = match scheduler.policy() {
        SchedulerPolicy::SchedOther => (libc::SCHED_OTHER, false),
        SchedulerPolicy::SchedFifo => (libc::SCHED_FIFO, true),
        SchedulerPolicy::SchedRr => (libc::SCHED_RR, true),
        SchedulerPolicy::SchedBatch => (libc::SCHED_BATCH, false),
        // Reserved in the kernel, and made by nobody.
        SchedulerPolicy::SchedIso => return field("policy", "Linux has no SCHED_ISO"),
        SchedulerPolicy::SchedIdle => (libc::SCHED_IDLE, false),
        SchedulerPolicy::SchedDeadline => (libc::SCHED_DEADLINE, false),
    };
    let deadline = policy == libc::SCHED_DEADLINE;
    let nice = scheduler.nice().unwrap_or(0);
    if !(-20..=19).contains(&nice) {
        return field("nice", &format!("{nice} is not between -20 and 19"));
    }
    let priority = scheduler.priority().unwrap_or(0);
    match (real_time, priority) {
        (true, 1..=99) | (false, 0) => {}
        (true, _) => return field("priority", &format!("{priority} is not between 1 and 99")),
        (false, _) => return field("priority", "only SCHED_FIFO and SCHED_RR have one"),
    }
    let flag = |flag: &SchedulerFlag| match flag {
        SchedulerFlag::SchedResetOnFork => 0x01,
        SchedulerFlag::SchedFlagReclaim => 0x02,
        SchedulerFlag::SchedFlagDLOverrun => 0x04,
        SchedulerFlag::SchedFlagKeepPolicy => 0x08,
        SchedulerFlag::SchedFlagKeepParams => 0x10,
        SchedulerFlag::SchedFlagUtilClampMin => 0x20,
        SchedulerFlag::SchedFlagUtilClampMax => 0x40,
    };
    let flags: u64 = scheduler.flags().iter().flatten().map(flag).fold(0, |all, bit| all | bit);
    let times = [scheduler.runtime(), scheduler.deadline(), scheduler.period()].map(|time| time.unwrap_or(0));
    match (deadline, times) {
        (false, [0, 0, 0]) => {}
        (false, _) => return field("runtime, deadline, period", "only SCHED_DEADLINE has them"),
        (true, [runtime, deadline, period]) => {
            if runtime == 0 || runtime > deadline || (period != 0 && deadline > period) {
                return field("runtime, deadline, period", "each must be at least 1 and at most the next");
            }
        }
    }
    Ok(Some(Policy {
        policy: policy as u32,
        flags,
        nice,
        priority: priority as u32,
        runtime: times[0],
        deadline: times[1],
        period: times[2],
        ..Policy::default()
    }))
}

fn io_priority(process: &Process) -> Result<Option<(u32, u32)>, PlanError> {
    let Some(io) = process.io_priority() else { return Ok(None) };
    let class = match io.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    match (class, io.priority()) {
        // Idle has no levels, but callers may give one.
        (3, 0..=7) => Ok(Some((class, 0))),
        (_, level @ 0..=7) => Ok(Some((class, level as u32))),
        (_, level) => Err(invalid(format!("process.ioPriority.priority: {level} is not between 0 and 7"))),
    }
}

/// The processors of an exec; a container's first process has none of its own.
pub(crate) fn plan_affinity(process: &Process) -> Result<Affinity, PlanError> {
    let Some(affinity) = process.exec_cpu_affinity() else { return Ok(Affinity::default()) };
    let list = |text: &Option<String>, name: &str| match text.as_deref() {
        None | Some("") => Ok(Vec::new()),
        Some(text) => super::kernel::numbers(text, &format!("process.execCPUAffinity.{name}")),
    };
    Ok(Affinity {
        initial: list(affinity.initial(), "initial")?,
        last: list(affinity.cpu_affinity_final(), "final")?,
    })
}

fn limits(process: &Process) -> Result<Vec<Limit>, PlanError> {
    let mut limits: Vec<Limit> = Vec::new();
    for (index, limit) in process.rlimits().iter().flatten().enumerate() {
        use PosixRlimitType as Type;
        let (name, resource) = match limit.typ() {
            Type::RlimitCpu => ("RLIMIT_CPU", libc::RLIMIT_CPU),
            Type::RlimitFsize => ("RLIMIT_FSIZE", libc::RLIMIT_FSIZE),
            Type::RlimitData => ("RLIMIT_DATA", libc::RLIMIT_DATA),
            Type::RlimitStack => ("RLIMIT_STACK", libc::RLIMIT_STACK),
            Type::RlimitCore => ("RLIMIT_CORE", libc::RLIMIT_CORE),
            Type::RlimitRss => ("RLIMIT_RSS", libc::RLIMIT_RSS),
            Type::RlimitNproc => ("RLIMIT_NPROC", libc::RLIMIT_NPROC),
            Type::RlimitNofile => ("RLIMIT_NOFILE", libc::RLIMIT_NOFILE),
            Type::RlimitMemlock => ("RLIMIT_MEMLOCK", libc::RLIMIT_MEMLOCK),
            Type::RlimitAs => ("RLIMIT_AS", libc::RLIMIT_AS),
            Type::RlimitLocks => ("RLIMIT_LOCKS", libc::RLIMIT_LOCKS),
            Type::RlimitSigpending => ("RLIMIT_SIGPENDING", libc::RLIMIT_SIGPENDING),
            Type::RlimitMsgqueue => ("RLIMIT_MSGQUEUE", libc::RLIMIT_MSGQUEUE),
            Type::RlimitNice => ("RLIMIT_NICE", libc::RLIMIT_NICE),
            Type::RlimitRtprio => ("RLIMIT_RTPRIO", libc::RLIMIT_RTPRIO),
            Type::RlimitRttime => ("RLIMIT_RTTIME", libc::RLIMIT_RTTIME),
        };
        let (soft, hard) = (limit.soft(), limit.hard());
        if soft > hard {
            return Err(invalid(format!(
                "process.rlimits[{index}].soft: {name}'s {soft} is above the hard limit {hard}"
            )));
        }
        if limits.iter().any(|known| known.name == name) {
            return Err(invalid(format!("process.rlimits[{index}].type: {name} is there twice")));
        }
        limits.push(Limit { resource, soft, hard, name });
    }
    Ok(limits)
}

fn capabilities(process: &Process) -> Sets {
    let Some(all) = process.capabilities() else { return Sets::default() };
    let mask = |set: &Option<Capabilities>| {
        let numbers = set.iter().flatten().filter_map(|c| capability::number(&c.to_string()));
        numbers.fold(0_u64, |mask, number| mask | 1 << number)
    };
    Sets {
        bounding: mask(all.bounding()),
        effective: mask(all.effective()),
        permitted: mask(all.permitted()),
        inheritable: mask(all.inheritable()),
        ambient: mask(all.ambient()),
    }
}
