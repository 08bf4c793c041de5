//! Namespaces and id mappings of a spec (`config-linux.md`, "Namespaces").

use std::collections::HashMap;

use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType};

use super::{NamespacePlan, PlanError, invalid};
use crate::base::idmap::{IdMapping, IdRange};
use crate::sys::namespace::CLONE_NEWTIME;

pub(super) fn plan_namespaces(linux: &Linux) -> Result<NamespacePlan, PlanError> {
    let mut plan = NamespacePlan::default();
    let mut seen = 0;
    let mut new = 0;
    for (index, namespace) in linux.namespaces().as_deref().unwrap_or_default().iter().enumerate() {
        let kind = flag(namespace.typ());
        if seen & kind != 0 {
            return Err(invalid(format!(
                "linux.namespaces[{index}].type: {} is there twice",
                namespace.typ()
            )));
        }
        seen |= kind;
        match namespace.path().as_ref().filter(|path| !path.as_os_str().is_empty()) {
            None => new |= kind,
            Some(path) if !path.is_absolute() => {
                let path = path.display();
                return Err(invalid(format!("linux.namespaces[{index}].path: \"{path}\" is not absolute")));
            }
            Some(path) => plan.join.push((kind, path.clone())),
        }
    }
    let (mounts, user) = (libc::CLONE_NEWNS as u64, libc::CLONE_NEWUSER as u64);
    if seen & mounts == 0 && seen & user != 0 {
        // Root of that user namespace may mount nothing in ours.
        return Err(invalid(
            "linux.namespaces: with a user namespace there must be a mount namespace, new or joined",
        ));
    }
    plan.outside = seen & mounts == 0;
    // Joining the others takes capabilities that joining the user namespace gives.
    plan.join.sort_by_key(|(kind, _)| *kind != libc::CLONE_NEWUSER as u64);
    let at_clone = (libc::CLONE_NEWUSER | libc::CLONE_NEWPID) as u64;
    plan.clone = new & at_clone;
    plan.cgroup = new & libc::CLONE_NEWCGROUP as u64 != 0;
    plan.unshare = new & !(at_clone | libc::CLONE_NEWCGROUP as u64 | CLONE_NEWTIME);
    let offsets = time_offsets(linux.time_offsets().as_ref())?;
    if new & CLONE_NEWTIME != 0 {
        plan.time = Some(offsets);
    } else if !offsets.is_empty() {
        return Err(invalid("linux.timeOffsets: linux.namespaces has no new time namespace"));
    }
    Ok(plan)
}

/// What can be begun of a container before the rest of it is planned: its user namespace with this mapping, and new
/// namespaces of these kinds. Not a mount namespace: that is left to the init, whose root directory it keeps.
pub fn to_begin(linux: &Linux) -> Option<(IdMapping, u64)> {
    let plan = plan_namespaces(linux).ok().filter(|plan| plan.join.is_empty())?;
    let mapping = plan_mapping(linux, plan.clone & libc::CLONE_NEWUSER as u64 != 0).ok()??;
    let kinds = (libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS) as u64;
    Some((mapping, plan.unshare & kinds))
}

fn flag(kind: LinuxNamespaceType) -> u64 {
    match kind {
        LinuxNamespaceType::User => libc::CLONE_NEWUSER as u64,
        LinuxNamespaceType::Mount => libc::CLONE_NEWNS as u64,
        LinuxNamespaceType::Pid => libc::CLONE_NEWPID as u64,
        LinuxNamespaceType::Network => libc::CLONE_NEWNET as u64,
        LinuxNamespaceType::Ipc => libc::CLONE_NEWIPC as u64,
        LinuxNamespaceType::Uts => libc::CLONE_NEWUTS as u64,
        LinuxNamespaceType::Cgroup => libc::CLONE_NEWCGROUP as u64,
        LinuxNamespaceType::Time => CLONE_NEWTIME,
    }
}

/// The kinds of namespaces that are made for a container, but for the user namespace, of which it has
/// to be known whose it is, and the cgroup namespace, which is not made where there is no group.
pub fn own_kinds(linux: &Linux) -> u64 {
    let listed = linux.namespaces().as_deref().unwrap_or_default().iter();
    let made = listed.filter(|n| n.path().as_ref().is_none_or(|path| path.as_os_str().is_empty()));
    own_among(made.map(|namespace| namespace.typ()))
}

/// The same of the kinds that are made.
pub fn own_among(made: impl Iterator<Item = LinuxNamespaceType>) -> u64 {
    let apart = (libc::CLONE_NEWUSER | libc::CLONE_NEWCGROUP) as u64;
    made.fold(0, |all, kind| all | flag(kind)) & !apart
}

fn time_offsets(
    offsets: Option<&HashMap<String, oci_spec::runtime::LinuxTimeOffset>>,
) -> Result<String, PlanError> {
    let mut lines = Vec::new();
    for (clock, offset) in offsets.into_iter().flatten() {
        if !matches!(clock.as_str(), "monotonic" | "boottime") {
            return Err(invalid(format!("linux.timeOffsets.{clock}: this clock cannot be offset")));
        }
        let (seconds, nanoseconds) = (offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
        if nanoseconds >= 1_000_000_000 {
            return Err(invalid(format!(
                "linux.timeOffsets.{clock}.nanosecs: {nanoseconds} is a second or more"
            )));
        }
        // The kernel's own bound: what is counted must still fit for 146 years.
        if seconds.unsigned_abs() > (i64::MAX as u64 / 2) / 1_000_000_000 {
            return Err(invalid(format!("linux.timeOffsets.{clock}.secs: {seconds} is out of range")));
        }
        lines.push(format!("{clock} {seconds} {nanoseconds}\n"));
    }
    lines.sort();
    Ok(lines.concat())
}

/// What the spec says of ids, whether they are to be mapped or are already.
pub(super) fn declared_mapping(linux: &Linux) -> Option<IdMapping> {
    let mapping = IdMapping { uids: ranges(linux.uid_mappings()), gids: ranges(linux.gid_mappings()) };
    (mapping != IdMapping::default()).then_some(mapping)
}

pub(super) fn plan_mapping(linux: &Linux, new: bool) -> Result<Option<IdMapping>, PlanError> {
    let mapping = declared_mapping(linux).unwrap_or_default();
    match (new, mapping.uids.is_empty() && mapping.gids.is_empty()) {
        (false, true) => Ok(None),
        // A joined user namespace is mapped already; callers repeat the mapping for information.
        (false, false)
            if linux.namespaces().iter().flatten().any(|n| n.typ() == LinuxNamespaceType::User) =>
        {
            Ok(None)
        }
        (false, false) => {
            Err(invalid("linux.uidMappings, linux.gidMappings: linux.namespaces has no user namespace"))
        }
        (true, _) if mapping.uids.is_empty() || mapping.gids.is_empty() => {
            Err(invalid("linux.uidMappings, linux.gidMappings: a new user namespace needs both"))
        }
        (true, _) => {
            check_ranges(&mapping.uids, "linux.uidMappings")?;
            check_ranges(&mapping.gids, "linux.gidMappings")?;
            Ok(Some(mapping))
        }
    }
}

/// A mapping as the specification has it.
pub(super) fn ranges(list: &Option<Vec<LinuxIdMapping>>) -> Vec<IdRange> {
    let list = list.as_deref().unwrap_or_default().iter();
    list.map(|m| IdRange { container: m.container_id(), host: m.host_id(), size: m.size() }).collect()
}

/// What the kernel would refuse with a bare EINVAL (user_namespaces(7), "Defining user and group ID mappings").
pub(super) fn check_ranges(ranges: &[IdRange], field: &str) -> Result<(), PlanError> {
    const MOST: usize = 340;
    if ranges.len() > MOST {
        return Err(invalid(format!(
            "{field}: there are {} ranges, and the kernel takes {MOST}",
            ranges.len()
        )));
    }
    for (index, range) in ranges.iter().enumerate() {
        let field = format!("{field}[{index}]");
        if range.size == 0 {
            return Err(invalid(format!("{field}.size: it is 0")));
        }
        let over = |first: u32| first.checked_add(range.size - 1).is_none_or(|last| last == u32::MAX);
        if over(range.container) {
            return Err(invalid(format!(
                "{field}.size: {} ids from containerID {} on are too many",
                range.size, range.container
            )));
        }
        if over(range.host) {
            return Err(invalid(format!(
                "{field}.size: {} ids from hostID {} on are too many",
                range.size, range.host
            )));
        }
        let overlaps = |a: u32, b: u32, other: &IdRange| {
            a < b.saturating_add(other.size) && b < a.saturating_add(range.size)
        };
        for other in &ranges[..index] {
            if overlaps(range.container, other.container, other) || overlaps(range.host, other.host, other) {
                return Err(invalid(format!("{field}: it overlaps with another range")));
            }
        }
    }
    Ok(())
}
