//! Writing settings into a group's files.

use std::io;
use std::path::Path;

use oci_spec::runtime::LinuxResources;
use rustix::fs::{Mode, OFlags};

use super::resources::{self, Setting, Weight};
use super::tree::words;
use super::{Error, Unit, devices, io_error, systemd, write};

/// The controllers that settings take, each once.
pub(super) fn controllers(settings: &[Setting]) -> Vec<&str> {
    let mut list: Vec<&str> = Vec::new();
    let wanted = settings.iter().filter(|s| s.weight != Weight::Harmless && !s.controller.is_empty());
    for setting in wanted {
        if !list.contains(&setting.controller.as_str()) {
            list.push(&setting.controller);
        }
    }
    list
}

/// The controllers that somebody would miss, each with the field that asks for it.
pub(super) fn needed(settings: &[Setting]) -> Vec<(&str, &'static str)> {
    let mut list: Vec<(&str, &'static str)> = Vec::new();
    for setting in settings.iter().filter(|s| is_asked_for(s) && !s.controller.is_empty()) {
        if !list.iter().any(|(controller, _)| *controller == setting.controller) {
            list.push((&setting.controller, setting.field));
        }
    }
    list
}

/// Hands the controllers that the settings need down from the tree's root to the group. With
/// `everything`, those too that only count, as far as that is possible.
pub(super) fn enable(
    mount: &Path,
    relative: &Path,
    settings: &[Setting],
    everything: bool,
) -> Result<(), Error> {
    let wanted = controllers(settings);
    if wanted.is_empty() && !everything {
        return Ok(());
    }
    // The root's own list, where it is not hidden by a cgroup namespace, is the kernel's.
    let offered = words(mount, "cgroup.controllers");
    let must = |controller: &&str| settings.iter().any(|s| s.controller == *controller && is_asked_for(s));
    let needed: Vec<&str> = wanted.iter().copied().filter(|controller| must(controller)).collect();
    for controller in &needed {
        if !offered.iter().any(|c| c == controller) {
            let reason = format!("the cgroup v2 controller \"{controller}\" is not there");
            return Err(Error::Unavailable { resource: field_of(settings, controller), reason });
        }
    }
    let mut all: Vec<&str> = offered.iter().map(String::as_str).collect();
    all.retain(|controller| everything || wanted.contains(controller));
    let mut at = mount.to_owned();
    for part in relative.components() {
        let enabled = words(&at, "cgroup.subtree_control");
        let missing: Vec<&str> = all.iter().copied().filter(|c| !enabled.iter().any(|e| e == c)).collect();
        // A group with processes would take the controllers that work on threads, and from then on no
        // processes in the groups below it. (The root is exempt, and has no type.)
        if !missing.is_empty()
            && at.join("cgroup.type").exists()
            && std::fs::read_to_string(at.join("cgroup.procs")).is_ok_and(|text| !text.is_empty())
        {
            match missing.iter().find(|controller| needed.contains(controller)) {
                Some(controller) => {
                    let source = io::Error::from_raw_os_error(libc::EBUSY);
                    return Err(refused(settings, controller, &at, source));
                }
                None => break,
            }
        }
        let file = at.join("cgroup.subtree_control");
        let text = missing.iter().map(|c| format!("+{c}")).collect::<Vec<_>>().join(" ");
        // All at once; one that cannot be enabled must not keep the others from it.
        if !missing.is_empty() && write(&file, &text).is_err() {
            for controller in missing {
                match write(&file, &format!("+{controller}")) {
                    Err(source) if needed.contains(&controller) => {
                        return Err(refused(settings, controller, &at, source));
                    }
                    _ => {}
                }
            }
        }
        at.push(part);
    }
    Ok(())
}

/// Whether somebody would miss it.
fn is_asked_for(setting: &Setting) -> bool {
    matches!(setting.weight, Weight::Implied | Weight::Wanted)
}

fn field_of(settings: &[Setting], controller: &str) -> String {
    let wanted = settings.iter().find(|s| s.controller == controller && is_asked_for(s));
    wanted.map_or_else(|| controller.to_owned(), |s| s.field.to_owned())
}

fn refused(settings: &[Setting], controller: &str, group: &Path, source: io::Error) -> Error {
    let resource = field_of(settings, controller);
    if source.kind() == io::ErrorKind::NotFound {
        let reason = format!("the controller \"{controller}\" is not delegated to \"{}\"", group.display());
        return Error::Unavailable { resource, reason };
    }
    Error::Enable { resource, controller: controller.to_owned(), path: group.to_owned(), source }
}

/// Writes the settings into the group.
pub(super) fn apply(group: &Path, settings: &[Setting]) -> Result<(), Error> {
    // What the kernel finds invalid next to an old value may be valid after the later ones.
    let mut again = Vec::new();
    for setting in settings {
        match apply_one(group, setting) {
            Err(Error::Write { source, .. }) if source.raw_os_error() == Some(libc::EINVAL) => {
                again.push(setting);
            }
            other => other?,
        }
    }
    again.into_iter().try_for_each(|setting| apply_one(group, setting))
}

fn apply_one(group: &Path, setting: &Setting) -> Result<(), Error> {
    let mut path = group.join(&setting.file);
    let mut value = &setting.value;
    let mut result = write(&path, value);
    if let (Err(error), Some((file, other))) = (&result, &setting.otherwise)
        && error.kind() == io::ErrorKind::NotFound
    {
        path = group.join(file);
        value = other;
        result = write(&path, value);
    }
    let Err(source) = result else { return Ok(()) };
    let resource = setting.field.to_owned();
    match setting.weight {
        Weight::Harmless => Ok(()),
        Weight::Implied | Weight::Usual if source.kind() == io::ErrorKind::NotFound => Ok(()),
        _ if source.kind() == io::ErrorKind::NotFound => {
            let reason =
                format!("there is no \"{}\": this kernel or its configuration lacks it", path.display());
            Err(Error::Unavailable { resource, reason })
        }
        _ => Err(Error::Write { resource, value: value.clone(), path, source }),
    }
}

/// Puts device rules into force at a group.
pub(super) fn apply_devices(group: &Path, rules: &[devices::Rule]) -> Result<(), Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(group, flags, Mode::empty()).map_err(|e| io_error("opening", group, e))?;
    devices::apply(&dir, rules).map_err(|e| io_error("attaching the device rules to", group, e))
}

/// The rules that a configuration has.
pub(super) fn device_rules(resources: Option<&LinuxResources>) -> Result<Vec<devices::Rule>, Error> {
    devices::rules(resources.and_then(|r| r.devices().as_deref()).unwrap_or_default())
}

/// Changes the limits of a container that has a group: `old` is what it was made with, with all
/// updates since, `change` what is to be different. Returns what counts from now on. Nothing is
/// changed if `change` makes no sense.
pub fn update(
    group: &Path,
    unit: Option<&Unit>,
    old: &LinuxResources,
    change: &LinuxResources,
) -> Result<LinuxResources, Error> {
    let merged = resources::merge(old, change)?;
    let mut settings = resources::settings(Some(&merged))?;
    for setting in settings.iter_mut().filter(|setting| setting.weight == Weight::Harmless) {
        // To take a limit off is something that can fail, too, where there may be one.
        setting.weight = Weight::Implied;
    }
    let rules = (old.devices() != merged.devices()).then(|| device_rules(Some(&merged))).transpose()?;
    check_usage(group, &merged)?;
    if let Some(unit) = unit {
        systemd::set(unit, &settings)?;
    }
    if let Some(tree) = super::tree()
        && let Ok(relative) = group.strip_prefix(&tree.mount)
    {
        // Those that the container was made with are there already.
        let missing: Vec<Setting> =
            settings.iter().filter(|s| !group.join(&s.file).exists()).cloned().collect();
        enable(&tree.mount, relative, &missing, false)?;
    }
    apply(group, &settings)?;
    if let Some(rules) = rules {
        apply_devices(group, &rules)?;
    }
    Ok(merged)
}

/// Puts other limits into force at a container's group: `new` in place of `old`, all or none of them.
pub fn replace(
    group: &Path,
    unit: Option<&Unit>,
    old: &LinuxResources,
    new: &LinuxResources,
) -> Result<(), Error> {
    let (before, mut settings) = (resources::settings(Some(old))?, resources::settings(Some(new))?);
    for mut setting in resources::lifted(&before, &settings) {
        if setting.controller == "cpuset" {
            // The kernel takes no empty set from a group with processes: all that there are, then.
            let all = group.parent().map(|parent| parent.join(format!("{}.effective", setting.file)));
            let Some(Ok(text)) = all.map(std::fs::read_to_string) else { continue };
            setting.value = text.trim().to_owned();
        }
        settings.push(setting);
    }
    settings.retain(|setting| !before.contains(setting));
    if let Some(tree) = super::tree()
        && let Ok(relative) = group.strip_prefix(&tree.mount)
    {
        let missing: Vec<Setting> =
            settings.iter().filter(|s| !group.join(&s.file).exists()).cloned().collect();
        enable(&tree.mount, relative, &missing, false)?;
    }
    let kept: Vec<Kept> = settings.iter().filter_map(|setting| Kept::of(group, setting)).collect();
    let result = apply(group, &settings)
        // Told last, it has nothing to be told again if the kernel refuses.
        .and_then(|()| unit.map_or(Ok(()), |unit| Ok(systemd::set(unit, &settings)?)));
    if result.is_err() {
        kept.iter().rev().for_each(Kept::restore);
    }
    result
}

/// A file's content before it was changed.
struct Kept {
    path: std::path::PathBuf,
    text: String,
}

impl Kept {
    fn of(group: &Path, setting: &Setting) -> Option<Self> {
        let files = [(setting.file.as_str(), &setting.value)].into_iter();
        let mut files = files.chain(setting.otherwise.as_ref().map(|(file, value)| (*file, value)));
        let (path, text, value) = files.find_map(|(file, value)| {
            let path = group.join(file);
            let text = std::fs::read_to_string(&path).ok()?;
            Some((path, text, value))
        })?;
        // Files with a line a device show nothing of those that have no limit.
        let key = value.split(' ').next().unwrap_or_default();
        let text = match value.contains(' ') && (key.contains(':') || key == "default") {
            false => text,
            true => match text.lines().find(|line| line.split(' ').next() == Some(key)) {
                Some(line) => line.to_owned(),
                None if setting.file == "io.max" => format!("{key} rbps=max wbps=max riops=max wiops=max"),
                None => format!("{key} default"),
            },
        };
        Some(Self { path, text })
    }

    fn restore(&self) {
        // What cannot be taken back is told by the error that made us.
        let _ = write(&self.path, if self.text.is_empty() { "\n" } else { &self.text });
    }
}

/// `memory.checkBeforeUpdate`: rather no new limit than processes that are killed for it.
pub(super) fn check_usage(group: &Path, resources: &LinuxResources) -> Result<(), Error> {
    let Some(memory) = resources.memory().filter(|memory| memory.check_before_update() == Some(true)) else {
        return Ok(());
    };
    let Ok(text) = std::fs::read_to_string(group.join("memory.current")) else { return Ok(()) };
    let Ok(usage) = text.trim().parse::<u64>() else { return Ok(()) };
    for (resource, limit) in [("memory.swap", memory.swap()), ("memory.limit", memory.limit())] {
        if let Some(limit) = limit.filter(|limit| *limit > 0)
            && limit as u64 <= usage
        {
            return Err(Error::InUse { resource, limit, usage });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch() -> std::path::PathBuf {
        let dir =
            std::env::temp_dir().join(format!("umiak-apply-{:x}", crate::sys::atomic::random().unwrap()));
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    fn settings(json: &str) -> Vec<Setting> {
        resources::settings(Some(&serde_json::from_str(json).unwrap())).unwrap()
    }

    #[test]
    fn a_missing_file_matters_as_much_as_its_setting() {
        let dir = scratch();
        apply(&dir, &settings(r#"{"pids":{"limit":-1}}"#)).unwrap();
        assert!(matches!(apply(&dir, &settings(r#"{"pids":{"limit":5}}"#)), Err(Error::Unavailable { .. })));
        std::fs::write(dir.join("memory.max"), "").unwrap();
        apply(&dir, &settings(r#"{"memory":{"limit":5,"swap":5}}"#)).unwrap();
        assert_eq!(std::fs::read_to_string(dir.join("memory.max")).unwrap(), "5");
        assert!(apply(&dir, &settings(r#"{"memory":{"limit":5,"swap":6}}"#)).is_err());
        std::fs::write(dir.join("io.weight"), "").unwrap();
        apply(&dir, &settings(r#"{"blockIO":{"weight":10}}"#)).unwrap();
        assert_eq!(std::fs::read_to_string(dir.join("io.weight")).unwrap(), "default 1");
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn usage_is_compared_where_asked_for() {
        let dir = scratch();
        std::fs::write(dir.join("memory.current"), "100\n").unwrap();
        let check = |json: &str| check_usage(&dir, &serde_json::from_str(json).unwrap());
        assert!(check(r#"{"memory":{"limit":50}}"#).is_ok());
        assert!(check(r#"{"memory":{"limit":50,"checkBeforeUpdate":true}}"#).is_err());
        assert!(check(r#"{"memory":{"limit":101,"checkBeforeUpdate":true}}"#).is_ok());
        std::fs::remove_dir_all(dir).unwrap();
    }
}
