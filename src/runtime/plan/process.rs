//! The process of a spec (`config.md`, "Process").

use std::ffi::CString;
use std::path::PathBuf;

use oci_spec::runtime::{Capabilities, PosixRlimitType, Process};

use super::{PlanError, invalid, unsupported};
use crate::security::capability;
use crate::sys::capability::Sets;
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

/// The process: of a container or of an exec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessPlan {
    /// Program and arguments; at least one.
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
    /// Be or have a reaping init.
    pub init: bool,
    /// Descriptors from 3 on that go through.
    pub preserve_fds: u32,
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
    refuse_unsupported(process)?;
    let strings = |list: &Option<Vec<String>>, field: &str| -> Result<Vec<CString>, PlanError> {
        let list = list.as_deref().unwrap_or_default().iter();
        list.map(|s| CString::new(s.as_str()).map_err(|_| invalid(format!("{field} has a zero byte"))))
            .collect()
    };
    let args = strings(process.args(), "process.args")?;
    if args.is_empty() {
        return Err(invalid("process.args is empty"));
    }
    let cwd = process.cwd().clone();
    if !cwd.is_absolute() {
        return Err(invalid(format!("process.cwd \"{}\" is not absolute", cwd.display())));
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
        umask: user.umask().unwrap_or(0o022) & 0o777,
        limits: limits(process)?,
        privileges: Privileges {
            capabilities: capabilities(process),
            no_new_privileges: process.no_new_privileges().unwrap_or(false),
            filter,
        },
        persona: None,
        init: false,
        preserve_fds: 0,
        new_keyring: true,
        clamp_limits: false,
    })
}

fn refuse_unsupported(process: &Process) -> Result<(), PlanError> {
    let is = |present: bool, name: &str| if present { Err(unsupported(name)) } else { Ok(()) };
    let label = |label: &Option<String>| label.as_deref().is_some_and(|l| !matches!(l, "" | "unconfined"));
    is(label(process.apparmor_profile()), "process.apparmorProfile")?;
    is(label(process.selinux_label()), "process.selinuxLabel")?;
    is(process.io_priority().is_some(), "process.ioPriority")?;
    is(process.scheduler().is_some(), "process.scheduler")?;
    is(process.exec_cpu_affinity().is_some(), "process.execCPUAffinity")
}

fn limits(process: &Process) -> Result<Vec<Limit>, PlanError> {
    let mut limits: Vec<Limit> = Vec::new();
    for limit in process.rlimits().as_deref().unwrap_or_default() {
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
            return Err(invalid(format!("{name}: the soft limit {soft} is above the hard limit {hard}")));
        }
        if limits.iter().any(|known| known.name == name) {
            return Err(invalid(format!("process.rlimits has {name} twice")));
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
