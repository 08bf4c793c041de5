//! A container's own group.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;
use rustix::fs::{Mode, OFlags};

use super::resources::{self, Setting, Weight};
use super::tree::{self, Tree};
use super::{Error, Unit, add, apply, devices, io_error, is_real_root, systemd};
use crate::sys::ids;

/// Who makes the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Manager {
    /// We do, in the kernel's file system.
    #[default]
    Cgroupfs,
    /// systemd does, asked over D-Bus: the machine's for root, else the user's own.
    Systemd,
    /// Nobody: the container goes without.
    Disabled,
}

/// What [`create`] needs to know.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The specification's `cgroupsPath`: absolute below the tree's root, else below the caller's own
    /// group; without one the name is `umiak-ID`, for root `/umiak/ID`. For systemd it is
    /// `slice:prefix:name`.
    pub wanted: Option<&'a Path>,
    /// The container.
    pub id: &'a str,
    /// The specification's `resources`.
    pub resources: Option<&'a LinuxResources>,
    /// The specification's annotations, some of which are properties for systemd.
    pub annotations: Option<&'a HashMap<String, String>>,
    /// Who makes the group.
    pub manager: Manager,
    /// As the callers of a runtime expect: controllers that only count are there too, and device
    /// rules are in force also if there is none but the usual ones.
    pub complete: bool,
}

/// A container's group.
#[derive(Debug)]
pub struct Group {
    /// Its directory.
    pub path: PathBuf,
    dir: OwnedFd,
}

impl AsFd for Group {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

impl Group {
    /// Moves a process into the group.
    pub fn add(&self, pid: i32) -> Result<(), Error> {
        add(&self.path, pid)
    }
}

/// What came of the wish for a group.
#[derive(Debug)]
pub enum Outcome {
    /// Here it is.
    Made(Group),
    /// It can only be made around a process.
    Later(Scope),
    /// There is none, for this reason.
    None(String),
}

/// Makes a container's group and sets its limits.
pub fn create(request: &Request<'_>) -> Result<Outcome, Error> {
    let settings = resources::settings(request.resources)?;
    let limits_devices = request.resources.is_some_and(|resources| resources.devices().is_some());
    let rules = (request.complete || limits_devices).then(|| apply::device_rules(request.resources));
    let rules = rules.transpose()?;
    // Callers of a runtime send device rules always, and for containers without a group, too.
    let insisted = limits_devices && !request.complete;
    let none = |reason: String| {
        let setting = settings.iter().find(|s| s.weight == Weight::Wanted);
        match setting.map(|s| s.field).or(insisted.then_some("the use of devices")) {
            Some(field) => Err(Error::Unavailable { resource: field.to_owned(), reason }),
            None => Ok(Outcome::None(reason)),
        }
    };
    if request.manager == Manager::Disabled {
        return none("control groups are switched off".to_owned());
    }
    let Some(tree) = tree::tree() else { return none("there is no cgroup v2 tree".to_owned()) };
    if request.manager == Manager::Systemd {
        let place = systemd::place(request.wanted, request.id, !is_real_root(), request.annotations)?;
        let id = request.id.to_owned();
        let replace = !request.complete;
        return Ok(Outcome::Later(Scope { tree, place, id, settings, rules, replace }));
    }
    let needed = apply::controllers(&settings);
    let root = ids::euid() == 0;
    let mut relative = tree::place(&tree, request.wanted, request.id, &needed, root)?;
    let mut path = tree.mount.join(&relative);
    let mut made = make(&path);
    if root && made.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::PermissionDenied) && !is_real_root() {
        // Root of a user namespace, as under a rootless engine, is a user here.
        relative = tree::place(&tree, request.wanted, request.id, &needed, false)?;
        path = tree.mount.join(&relative);
        made = make(&path);
    }
    match made {
        Ok(()) => {}
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
            ) && (error.kind() == io::ErrorKind::ReadOnlyFilesystem || !is_real_root()) =>
        {
            return none(format!(
                "\"{}\" is not delegated to this user",
                path.parent().unwrap_or(&tree.mount).display()
            ));
        }
        Err(error) => return Err(io_error("creating", &path, error)),
    }
    let result = fill(&tree, &relative, &settings, rules.as_deref(), request.complete);
    if result.is_err() {
        let _ = std::fs::remove_dir(&path);
    }
    result.map(Outcome::Made)
}

/// A group that systemd is to make.
#[derive(Debug)]
pub struct Scope {
    tree: Tree,
    place: systemd::Place,
    id: String,
    settings: Vec<Setting>,
    rules: Option<Vec<devices::Rule>>,
    /// Names of such scopes are the engine's own, one a container.
    replace: bool,
}

impl Scope {
    /// Makes the group with this process in it, and sets its limits. If that fails nothing is left but
    /// the process, which is to be killed.
    pub fn start(self, pid: i32) -> Result<(Group, Unit), Error> {
        let relative = systemd::start(&self.place, &self.id, &[pid], &self.settings, self.replace)?;
        let unit = Unit { name: self.place.name.clone(), user: self.place.user };
        let path = self.tree.mount.join(&relative);
        let result = (|| {
            apply::enable(&self.tree.mount, &relative, &self.settings, false)?;
            apply::apply(&path, &self.settings)?;
            if let Some(rules) = &self.rules {
                apply::apply_devices(&path, rules)?;
            }
            open(path)
        })();
        if result.is_err() {
            let _ = systemd::stop(&unit);
        }
        Ok((result?, unit))
    }
}

/// Has the caller's systemd make a group for a container that runs without one; `processes` are those of the
/// container, its first one first, and are asked for until all are in there. Memory that they have counts as what it
/// was before; what they take from now on is theirs. None if there is no systemd to be asked.
pub fn adopt(id: &str, processes: &dyn Fn() -> Vec<i32>) -> Result<Option<PathBuf>, Error> {
    let user = !is_real_root();
    let Some(tree) = tree::tree().filter(|_| systemd::is_reachable(user)) else { return Ok(None) };
    let place = systemd::place(None, id, user, None)?;
    let relative = systemd::start(&place, id, &processes(), &[], true)?;
    let unit = Unit { name: place.name, user };
    // Those that were born meanwhile, of parents that were still outside.
    for _ in 0..10 {
        let outside = processes().into_iter().filter(|pid| {
            tree::group_of(&pid.to_string()).is_some_and(|group| !group.starts_with(&relative))
        });
        let outside: Vec<i32> = outside.collect();
        if outside.is_empty() {
            break;
        }
        outside.iter().try_for_each(|pid| systemd::attach(&unit, *pid))?;
    }
    Ok(Some(tree.mount.join(relative)))
}

fn fill(
    tree: &Tree,
    relative: &Path,
    settings: &[Setting],
    rules: Option<&[devices::Rule]>,
    complete: bool,
) -> Result<Group, Error> {
    let path = tree.mount.join(relative);
    // A hybrid tree's few controllers are the machine's own business, unless they are asked for.
    let everything = complete && !tree.is_hybrid();
    apply::enable(&tree.mount, relative, settings, everything)?;
    apply::apply(&path, settings)?;
    if let Some(rules) = rules {
        apply::apply_devices(&path, rules)?;
    }
    open(path)
}

fn open(path: PathBuf) -> Result<Group, Error> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(&path, flags, Mode::empty()).map_err(|e| io_error("opening", &path, e))?;
    Ok(Group { path, dir })
}

/// Where [`create`] puts the group of a container that asks for no place of its own: for finding
/// what a killed process left before it could record it. For a user it depends on where the caller
/// itself is, so it may miss.
pub fn own_path(id: &str) -> Option<PathBuf> {
    place(None, id)
}

/// As [`own_path`], for a container that may ask for a place.
pub fn place(wanted: Option<&Path>, id: &str) -> Option<PathBuf> {
    let tree = tree::tree()?;
    let relative = tree::place(&tree, wanted, id, &[], ids::euid() == 0).ok()?;
    Some(tree.mount.join(relative))
}

/// Makes the group and what is missing above it. One that exists and is empty is what a killed
/// `create` left, and made anew: its limits were another's. One in use is an error, because limits
/// and `kill` would hit others.
fn make(path: &Path) -> io::Result<()> {
    let one = |path: &Path| rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)).map_err(io::Error::from);
    match one(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let parent = path.parent().ok_or(error)?;
            make_parents(parent)?;
            one(path)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // Its init may be about to end.
            super::remove(path)?;
            one(path)
        }
        other => other,
    }
}

fn make_parents(path: &Path) -> io::Result<()> {
    match std::fs::create_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}
