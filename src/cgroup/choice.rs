//! Who makes a container's group and where, and why it cannot be had with all its limits: decided before
//! anything is made. [`decide`] is pure; [`choose`] looks at the machine, and only where there is something to
//! decide.

use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;
use rustix::fs::Access;

use super::resources::{self, Setting};
use super::tree::{self, Tree, words};
use super::{Error, Manager, apply, systemd};
use crate::sys::ids;

/// What is asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wish<'a> {
    /// The container.
    pub id: &'a str,
    /// Who is to make the group; nobody in particular if `None`.
    pub manager: Option<Manager>,
    /// The group above: a slice's name, or a path, absolute below the tree's root, else below the caller's own
    /// group (root: below the tree's root).
    pub parent: Option<&'a str>,
    /// Below the caller's own group, whose processes are to move aside.
    pub split: bool,
    /// The limits.
    pub resources: Option<&'a LinuxResources>,
}

/// What was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Who makes it.
    pub manager: Manager,
    /// For [`super::Request::wanted`].
    pub path: Option<PathBuf>,
    /// The processes of this group, below the tree's root, move into its `supervisor` first.
    pub aside: Option<PathBuf>,
}

impl Choice {
    fn of(manager: Manager) -> Self {
        Self { manager, path: None, aside: None }
    }
}

/// A group that somebody names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Place {
    /// Below the tree's root.
    pub path: PathBuf,
    /// It is there.
    pub exists: bool,
    /// Groups can be made in it.
    pub writable: bool,
    /// Processes can be moved from the caller's group into it: who moves one must be allowed to write into the
    /// `cgroup.procs` of the nearest group above both (cgroups(7), "delegation containment").
    pub within_reach: bool,
    /// It has processes of its own.
    pub occupied: bool,
    /// What can be handed on from it.
    pub controllers: Vec<String>,
}

/// What the machine says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Facts {
    /// The v2 tree.
    pub tree: Option<Tree>,
    /// The controllers at its root.
    pub offered: Vec<String>,
    /// We are in a group of an outer container, which we see as the root.
    pub nested: bool,
    /// The caller is root, perhaps of a user namespace, and may write at the tree's root.
    pub root: bool,
    /// A group with all that is needed in which the caller may make others.
    pub delegated: bool,
    /// The caller's own group may be written.
    pub own_writable: bool,
    /// What can be handed on from there.
    pub own_controllers: Vec<String>,
    /// At the root of the tree that we see there are processes in the way: it is nested, and limits only what
    /// is below it if it has none of its own.
    pub root_occupied: bool,
    /// The parent that is asked for.
    pub parent: Option<Place>,
    /// The machine runs systemd.
    pub systemd: bool,
    /// One that the caller may ask can be reached: the user's, for root the machine's.
    pub bus: bool,
    /// What is delegated to the user's systemd.
    pub service: Vec<String>,
    /// The caller's user.
    pub uid: u32,
    /// The caller's shell.
    pub shell: i32,
}

/// Decides where a group is made. What has nothing to be decided makes no system call here.
pub fn choose(wish: &Wish<'_>) -> Result<Choice, Error> {
    let settings = resources::settings(wish.resources)?;
    let plain = wish.parent.is_none() && !wish.split && wish.manager != Some(Manager::Systemd);
    if wish.manager == Some(Manager::Disabled) {
        return Ok(Choice::of(Manager::Disabled));
    }
    if plain && settings.is_empty() {
        return Ok(Choice::of(Manager::Cgroupfs));
    }
    decide(wish, &settings, &gather(wish, &apply::controllers(&settings)))
}

/// The controllers that an ordinary user's systemd has for containers, if it can be asked.
pub(super) fn by_the_users_systemd(tree: &Tree) -> Option<Vec<String>> {
    let facts = gather(&Wish::default(), &[]);
    let usable = !facts.root && facts.bus && !tree.is_hybrid() && !facts.service.is_empty();
    usable.then_some(facts.service)
}

/// What would give containers all limits that people ask for; none if they can be had.
pub(super) fn advice() -> Option<String> {
    let json = serde_json::json!({"memory": {"limit": 1 << 30}, "pids": {"limit": 9}, "cpu": {"quota": 9000, "cpus": "0"}});
    let mut resources: LinuxResources = serde_json::from_value(json).ok()?;
    resources.set_devices(None);
    choose(&Wish { resources: Some(&resources), ..Wish::default() }).err()?.hint()
}

fn gather(wish: &Wish<'_>, needed: &[&str]) -> Facts {
    let found = tree::tree();
    let uid = ids::euid();
    let writable = |path: &Path| rustix::fs::access(path, Access::WRITE_OK).is_ok();
    let mut facts = Facts {
        systemd: Path::new("/run/systemd/system").exists(),
        bus: systemd::is_reachable(!super::is_real_root()),
        uid,
        shell: rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get()),
        ..Facts::default()
    };
    if let Some(tree) = &found {
        facts.offered = words(&tree.mount, "cgroup.controllers");
        facts.nested = tree.mount.join("cgroup.type").exists();
        facts.root = uid == 0 && writable(&tree.mount);
        facts.delegated = tree::delegated(tree, needed).is_some();
        let own = tree.mount.join(&tree.own);
        facts.own_writable = writable(&own) && writable(&own.join("cgroup.subtree_control"));
        facts.own_controllers = words(&own, "cgroup.controllers");
        let processes = || std::fs::read(tree.mount.join("cgroup.procs"));
        facts.root_occupied = facts.nested && processes().is_ok_and(|text| !text.is_empty());
        let service = format!("user.slice/user-{uid}.slice/user@{uid}.service");
        facts.service = words(&tree.mount.join(service), "cgroup.controllers");
        facts.parent = wish.parent.map(|parent| {
            let path = match parent.strip_prefix('/') {
                Some(absolute) => PathBuf::from(absolute),
                None if uid == 0 => PathBuf::from(parent),
                None => tree.own.join(parent),
            };
            let dir = tree.mount.join(&path);
            let both = tree.own.ancestors().find(|own| path.starts_with(own)).unwrap_or(Path::new(""));
            let occupied = std::fs::read(dir.join("cgroup.procs")).is_ok_and(|text| !text.is_empty());
            Place {
                exists: dir.is_dir(),
                writable: writable(&dir),
                within_reach: writable(&tree.mount.join(both).join("cgroup.procs")),
                occupied: occupied && dir.join("cgroup.type").exists(),
                controllers: words(&dir, "cgroup.controllers"),
                path,
            }
        });
    }
    facts.tree = found;
    facts
}

const UNIFIED: &str = "let the machine start with version 2 of control groups: put systemd.unified_cgroup_hierarchy=1 \
     on the kernel's command line (or, without systemd, mount -t cgroup2 none /sys/fs/cgroup)";

pub(super) fn decide(wish: &Wish<'_>, settings: &[Setting], facts: &Facts) -> Result<Choice, Error> {
    let needed = apply::needed(settings);
    let field = needed.first().map(|(_, field)| (*field).to_owned());
    let denied = |reason: String, cure: Option<String>| Error::Denied {
        resource: field.clone().unwrap_or_else(|| "the container".to_owned()),
        reason,
        cure,
    };
    let Some(tree) = &facts.tree else {
        return Err(denied(
            "this machine has no version 2 of control groups".to_owned(),
            Some(UNIFIED.to_owned()),
        ));
    };
    if let Some((controller, field)) = needed.iter().find(|(c, _)| !facts.offered.iter().any(|o| o == c)) {
        let (reason, cure) = if tree.is_hybrid() {
            let reason = format!(
                "the controller \"{controller}\" is version 1's on this machine (hybrid control groups)"
            );
            (reason, Some(UNIFIED.to_owned()))
        } else if facts.nested {
            (
                format!(
                    "the controller \"{controller}\" was not handed down to us from outside of this container"
                ),
                None,
            )
        } else {
            (format!("this kernel has no controller \"{controller}\", or it is switched off"), None)
        };
        return Err(Error::Denied { resource: (*field).to_owned(), reason, cure });
    }
    if wish.split {
        return split(wish, tree, facts);
    }
    if let (Some(parent), Some(place)) = (wish.parent, &facts.parent) {
        return below(wish, parent, place, &needed, facts);
    }
    match wish.manager {
        Some(Manager::Systemd) => by_systemd(wish, &needed, facts, None),
        _ if needed.is_empty() => Ok(Choice::of(Manager::Cgroupfs)),
        _ if facts.root => {
            let aside = facts.root_occupied.then(PathBuf::new);
            Ok(Choice { aside, ..Choice::of(Manager::Cgroupfs) })
        }
        Some(_) => ours(wish, &needed, tree, facts)
            .ok_or_else(|| denied(NOT_OURS.to_owned(), Some(cure(&needed, facts)))),
        None => by_systemd(wish, &needed, facts, None)
            .or_else(|error| ours(wish, &needed, tree, facts).ok_or(error)),
    }
}

/// In a group that is delegated to us: one above ours without processes, else our own, as in a service with
/// `Delegate=yes`, where we and those beside us step aside.
fn ours(wish: &Wish<'_>, needed: &[(&str, &str)], tree: &Tree, facts: &Facts) -> Option<Choice> {
    if facts.delegated {
        return Some(Choice::of(Manager::Cgroupfs));
    }
    let has = |(controller, _): &(&str, &str)| facts.own_controllers.iter().any(|own| own == controller);
    let fits = facts.own_writable && !tree.own.as_os_str().is_empty() && needed.iter().all(has);
    fits.then(|| {
        let own = above_supervisor(&tree.own);
        let path = Path::new("/").join(own).join(format!("umiak-{}", wish.id));
        Choice { manager: Manager::Cgroupfs, path: Some(path), aside: Some(own.to_owned()) }
    })
}

/// A group that we are in, or were in before a run moved us.
fn above_supervisor(own: &Path) -> &Path {
    match own.file_name().is_some_and(|name| name == SUPERVISOR) {
        true => own.parent().unwrap_or(own),
        false => own,
    }
}

const NOT_OURS: &str = "no control group with what it takes is delegated to this user";

fn by_systemd(
    wish: &Wish<'_>,
    needed: &[(&str, &str)],
    facts: &Facts,
    slice: Option<&str>,
) -> Result<Choice, Error> {
    let denied = |field: Option<&str>, reason: String| Error::Denied {
        resource: field.unwrap_or("the container").to_owned(),
        reason,
        cure: Some(cure(needed, facts)),
    };
    let first = needed.first().map(|(_, field)| *field);
    if !facts.bus {
        let reason = match (facts.systemd, wish.manager) {
            (true, Some(_)) => "no systemd of this user can be reached",
            (false, Some(_)) => "this machine does not run systemd",
            _ => NOT_OURS,
        };
        return Err(denied(first, reason.to_owned()));
    }
    let missing = |(controller, _): &&(&str, &str)| !facts.service.iter().any(|c| c == controller);
    // What the machine's own systemd has is what the kernel has.
    if facts.uid != 0
        && let Some((controller, field)) = needed.iter().find(missing)
    {
        return Err(denied(
            Some(field),
            format!("the controller \"{controller}\" is not delegated to this user"),
        ));
    }
    let path = slice.map(|slice| PathBuf::from(format!("{slice}:umiak:{}", wish.id)));
    Ok(Choice { manager: Manager::Systemd, path, aside: None })
}

/// What makes it possible, as a command.
fn cure(needed: &[(&str, &str)], facts: &Facts) -> String {
    let uid = facts.uid;
    let missing = needed.iter().any(|(c, _)| !facts.service.iter().any(|s| s == c));
    if facts.nested {
        return "the outer container must be given control groups of its own that it may write".to_owned();
    }
    if facts.systemd {
        let linger = format!("as root: loginctl enable-linger {uid}");
        return match (facts.bus || !facts.service.is_empty(), missing && !needed.is_empty()) {
            (true, true) => format!(
                "as root: mkdir -p /etc/systemd/system/user@.service.d && printf '[Service]\\nDelegate=cpu cpuset io memory \
                 pids\\n' >/etc/systemd/system/user@.service.d/delegate.conf && systemctl daemon-reload && systemctl restart \
                 user@{uid}.service (or log in anew)"
            ),
            (true, false) if facts.bus => {
                "--cgroup-manager systemd asks this user's systemd for one".to_owned()
            }
            _ => linger,
        };
    }
    let names: Vec<String> = needed.iter().map(|(controller, _)| format!("+{controller}")).collect();
    let (names, shell) = (names.join(" "), facts.shell);
    format!(
        "as root: g=/sys/fs/cgroup/user-{uid}; mkdir -p $g/shell; for d in /sys/fs/cgroup $g; do echo '{names}' \
         >$d/cgroup.subtree_control; done; chown -R {uid} $g; echo {shell} >$g/shell/cgroup.procs (which moves this shell)"
    )
}

/// Below a group that was named.
fn below(
    wish: &Wish<'_>,
    parent: &str,
    place: &Place,
    needed: &[(&str, &str)],
    facts: &Facts,
) -> Result<Choice, Error> {
    let refused = |reason: &str, cure: Option<String>| Error::Parent {
        parent: parent.to_owned(),
        reason: reason.to_owned(),
        cure,
    };
    if parent.ends_with(".slice") && !parent.contains('/') {
        if wish.manager == Some(Manager::Cgroupfs) {
            let cure = "--cgroup-manager systemd puts containers into slices".to_owned();
            return Err(refused("it is a slice of systemd, which is not to make the group", Some(cure)));
        }
        return by_systemd(wish, needed, facts, Some(parent));
    }
    if wish.manager == Some(Manager::Systemd) {
        return Err(refused("systemd puts groups into slices only: it must end with \".slice\"", None));
    }
    let shown = format!("/sys/fs/cgroup/{}", place.path.display());
    if !place.exists {
        let who = if facts.root { "" } else { "as root: " };
        return Err(refused("there is no such control group", Some(format!("{who}mkdir -p {shown}"))));
    }
    if !facts.root && (!place.writable || !place.within_reach) {
        let reason = match place.writable {
            false => "it is not this user's",
            true => "no process of this user's can be moved there from where we are",
        };
        return Err(refused(
            reason,
            Some("a group below our own, or one that was delegated with it, can be used".into()),
        ));
    }
    if !needed.is_empty() && place.occupied {
        return Err(refused(
            "it has processes of its own, and the kernel limits only what is below groups without any",
            None,
        ));
    }
    if let Some((controller, field)) =
        needed.iter().find(|(c, _)| !facts.root && !place.controllers.iter().any(|own| own == c))
    {
        return Err(Error::Denied {
            resource: (*field).to_owned(),
            reason: format!("the controller \"{controller}\" is not delegated to \"{shown}\""),
            cure: Some(format!("as root: echo +{controller} >{}/cgroup.subtree_control", above(&shown))),
        });
    }
    let path = Path::new("/").join(&place.path).join(format!("umiak-{}", wish.id));
    Ok(Choice { manager: Manager::Cgroupfs, path: Some(path), aside: None })
}

fn above(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(above, _)| above)
}

/// Beside a group for ourselves, both in what was ours.
fn split(wish: &Wish<'_>, tree: &Tree, facts: &Facts) -> Result<Choice, Error> {
    let refused = |reason: &str, cure: Option<&str>| Error::Split {
        reason: reason.to_owned(),
        cure: cure.map(str::to_owned),
    };
    if tree.own.as_os_str().is_empty() {
        return Err(refused("our own group is the root of the tree, where nothing can be split", None));
    }
    if !facts.own_writable {
        let cure = "start it in a group of its own: systemd-run --user --scope -p Delegate=yes …";
        return Err(refused("our own control group is not delegated to us", Some(cure)));
    }
    let own = above_supervisor(&tree.own);
    let path = Path::new("/").join(own).join(format!("umiak-{}", wish.id));
    Ok(Choice { manager: Manager::Cgroupfs, path: Some(path), aside: Some(own.to_owned()) })
}

/// Where the caller's processes are that have made way.
const SUPERVISOR: &str = "supervisor";

/// Moves the processes of a group, ours among them, into one below it, so that the others below can be limited.
pub fn step_aside(relative: &Path) -> Result<(), Error> {
    let Some(tree) = tree::tree() else { return Ok(()) };
    let group = tree.mount.join(relative);
    let inner = group.join(SUPERVISOR);
    match std::fs::create_dir(&inner) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(super::io_error("making", &inner, error));
        }
        _ => {}
    }
    // One that forks meanwhile has a child that is found in the next round.
    for _ in 0..100 {
        let text = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        let processes: Vec<i32> =
            text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).collect();
        if processes.is_empty() {
            break;
        }
        for pid in processes {
            match super::add(&inner, pid) {
                // It ended.
                Err(Error::Io { source, .. }) if source.raw_os_error() == Some(libc::ESRCH) => {}
                other => other?,
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// A user of a machine with systemd, in a session of a login.
    fn login() -> Facts {
        Facts {
            tree: Some(Tree {
                mount: "/sys/fs/cgroup".into(),
                own: "user.slice/user-1000.slice/session-3.scope".into(),
            }),
            offered: own(&["cpu", "cpuset", "io", "memory", "pids"]),
            systemd: true,
            bus: true,
            service: own(&["memory", "pids"]),
            uid: 1000,
            shell: 77,
            ..Facts::default()
        }
    }

    fn decided(json: &str, wish: Wish<'_>, facts: &Facts) -> Result<Choice, Error> {
        let resources: LinuxResources = serde_json::from_str(json).unwrap();
        let settings = resources::settings(Some(&resources)).unwrap();
        decide(&Wish { id: "abc", ..wish }, &settings, facts)
    }

    fn refused(json: &str, wish: Wish<'_>, facts: &Facts) -> (String, String) {
        let error = decided(json, wish, facts).unwrap_err();
        (error.to_string(), error.hint().unwrap_or_default())
    }

    const MEMORY: &str = r#"{"memory":{"limit":9}}"#;
    const CPU: &str = r#"{"cpu":{"quota":9000}}"#;

    #[test]
    fn without_limits_nobody_is_asked() {
        let choice = choose(&Wish { id: "abc", ..Wish::default() }).unwrap();
        assert_eq!(choice, Choice::of(Manager::Cgroupfs));
        let choice = decided("{}", Wish::default(), &Facts { bus: false, ..login() }).unwrap();
        assert_eq!(choice.manager, Manager::Cgroupfs);
    }

    #[test]
    fn a_users_systemd_comes_first_then_a_group_of_ones_own() {
        assert_eq!(decided(MEMORY, Wish::default(), &login()).unwrap().manager, Manager::Systemd);
        let service = Facts { bus: false, delegated: true, ..login() };
        assert_eq!(decided(MEMORY, Wish::default(), &service).unwrap().manager, Manager::Cgroupfs);
        // The user's systemd has no processors to give, but the service that we are in has.
        let both = Facts { delegated: true, ..login() };
        assert_eq!(decided(CPU, Wish::default(), &both).unwrap().manager, Manager::Cgroupfs);
        // A service with Delegate=yes, whose group we fill ourselves.
        let alone = Facts { bus: false, own_writable: true, own_controllers: own(&["cpu"]), ..login() };
        let choice = decided(CPU, Wish::default(), &alone).unwrap();
        assert!(choice.path.is_some() && choice.aside == alone.tree.as_ref().map(|tree| tree.own.clone()));
        assert!(decided(MEMORY, Wish::default(), &alone).is_err());
        // Root of an outer container, whose processes are in the root group that it sees.
        let outer = Facts { root: true, nested: true, root_occupied: true, bus: false, uid: 0, ..login() };
        let choice = decided(CPU, Wish::default(), &outer).unwrap();
        assert_eq!((choice.path, choice.aside), (None, Some("".into())));
        let root = Facts { root: true, uid: 0, ..login() };
        assert_eq!(decided(CPU, Wish::default(), &root).unwrap().manager, Manager::Cgroupfs);
        let asked = Wish { manager: Some(Manager::Systemd), ..Wish::default() };
        assert_eq!(decided(CPU, asked, &root).unwrap().manager, Manager::Systemd);
    }

    #[test]
    fn what_cannot_be_had_is_told_with_its_cure() {
        let (told, hint) = refused(CPU, Wish::default(), &login());
        assert!(told.contains("cpu.quota") && told.contains("\"cpu\" is not delegated"), "{told}");
        assert!(
            hint.contains("Delegate=cpu cpuset io memory pids") && hint.contains("user@1000.service"),
            "{hint}"
        );
        let (_, hint) = refused(MEMORY, Wish::default(), &Facts { bus: false, service: vec![], ..login() });
        assert_eq!(hint, "as root: loginctl enable-linger 1000");
        let plain = Facts { bus: false, systemd: false, ..login() };
        let (_, hint) = refused(MEMORY, Wish::default(), &plain);
        assert!(hint.contains("echo '+memory'") && hint.contains("echo 77 >"), "{hint}");
        let asked = Wish { manager: Some(Manager::Cgroupfs), ..Wish::default() };
        let (_, hint) = refused(MEMORY, asked, &login());
        assert!(hint.contains("--cgroup-manager systemd"), "{hint}");
        let asked = Wish { manager: Some(Manager::Systemd), ..Wish::default() };
        let (told, _) = refused("{}", asked, &plain);
        assert!(told.contains("does not run systemd"), "{told}");
    }

    #[test]
    fn what_the_machine_has_not() {
        let mut facts = login();
        facts.offered = own(&["hugetlb"]);
        facts.tree = Some(Tree { mount: "/sys/fs/cgroup/unified".into(), own: "".into() });
        let (told, hint) = refused(MEMORY, Wish::default(), &facts);
        assert!(told.contains("hybrid") && hint.contains("unified_cgroup_hierarchy=1"), "{told} {hint}");
        facts.tree = login().tree;
        assert!(refused(MEMORY, Wish::default(), &facts).0.contains("no controller \"memory\""));
        facts.nested = true;
        assert!(refused(MEMORY, Wish::default(), &facts).0.contains("outside of this container"));
        facts.tree = None;
        assert!(refused(MEMORY, Wish::default(), &facts).0.contains("no version 2"));
        // No limit, none refused.
        assert!(
            decided(r#"{"pids":{"limit":-1}}"#, Wish::default(), &Facts { root: true, ..login() }).is_ok()
        );
    }

    #[test]
    fn parents() {
        let fine = Place {
            path: "mine".into(),
            exists: true,
            writable: true,
            within_reach: true,
            occupied: false,
            controllers: own(&["memory"]),
        };
        let with = |place: Place| Facts { parent: Some(place), ..login() };
        let wish = |parent| Wish { parent: Some(parent), ..Wish::default() };
        let choice = decided(MEMORY, wish("/mine"), &with(fine.clone())).unwrap();
        assert_eq!((choice.manager, choice.path), (Manager::Cgroupfs, Some("/mine/umiak-abc".into())));
        let choice = decided(MEMORY, wish("my.slice"), &with(Place::default())).unwrap();
        assert_eq!((choice.manager, choice.path), (Manager::Systemd, Some("my.slice:umiak:abc".into())));
        let told = |place: Place| refused(MEMORY, wish("/mine"), &with(place));
        let (text, hint) = told(Place { exists: false, ..fine.clone() });
        assert!(
            text.contains("no such control group") && hint.ends_with("mkdir -p /sys/fs/cgroup/mine"),
            "{text} {hint}"
        );
        assert!(told(Place { writable: false, ..fine.clone() }).0.contains("not this user's"));
        assert!(told(Place { within_reach: false, ..fine.clone() }).0.contains("can be moved there"));
        assert!(told(Place { occupied: true, ..fine.clone() }).0.contains("processes of its own"));
        assert!(told(Place { controllers: vec![], ..fine.clone() }).0.contains("not delegated"));
        let by = |manager, parent| Wish { manager: Some(manager), ..wish(parent) };
        assert!(decided(MEMORY, by(Manager::Systemd, "/mine"), &with(fine.clone())).is_err());
        assert!(decided(MEMORY, by(Manager::Cgroupfs, "my.slice"), &with(fine)).is_err());
    }

    #[test]
    fn what_is_split() {
        let wish = Wish { split: true, ..Wish::default() };
        assert!(refused("{}", wish, &login()).0.contains("not delegated to us"));
        let mut facts = Facts { own_writable: true, ..login() };
        let choice = decided("{}", wish, &facts).unwrap();
        let group = "user.slice/user-1000.slice/session-3.scope";
        assert_eq!(choice.aside.as_deref(), Some(Path::new(group)));
        assert_eq!(choice.path, Some(format!("/{group}/umiak-abc").into()));
        if let Some(tree) = &mut facts.tree {
            tree.own.push(SUPERVISOR);
        }
        assert_eq!(decided("{}", wish, &facts).unwrap(), choice);
        facts.tree = Some(Tree { mount: "/sys/fs/cgroup".into(), own: "".into() });
        assert!(decided("{}", wish, &facts).is_err());
    }
}
