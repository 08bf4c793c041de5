//! `create` and `run`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder, LinuxNamespace, LinuxNamespaceType, Spec};

use super::args::{Known, Parsed};
use super::common::{
    container, leave_out_capabilities, listening, only_has_ours, prepare, preserved, run_poststart,
    send_pidfd, stdio, write_pid_file,
};
use super::delete::forget;
use super::notify::Notify;
use super::{Done, Error, Global};
use crate::base::idmap::{IdMapping, IdRange};
use crate::runtime::filters::Prepared;
use crate::runtime::label::Modules;
use crate::runtime::state::{Dir, Record};
use crate::runtime::{self, CreateRequest, Created, Gate, Rootfs};
use crate::security::idmap;
use crate::sys::seccomp::Filter;
use crate::sys::{host, ids, process};

pub(super) const OPTIONS: &[Known] = &[
    ("bundle", Some('b'), true),
    ("config", Some('f'), true),
    ("console-socket", None, true),
    ("pidfd-socket", None, true),
    ("pid-file", None, true),
    ("preserve-fds", None, true),
    ("no-pivot", None, false),
    ("no-new-keyring", None, false),
    ("no-subreaper", None, false),
    ("detach", Some('d'), false),
    ("keep", None, false),
];

/// What is to be made, read from the command line and the bundle.
struct Order<'a> {
    global: &'a Global,
    parsed: &'a Parsed,
    id: &'a str,
    spec: Spec,
    filter: Option<Filter>,
    bundle: PathBuf,
    preserve_fds: u32,
    /// `run`, not `create`.
    run: bool,
    /// This process waits for the container's.
    foreground: bool,
}

pub(super) fn create(global: &Global, parsed: &Parsed, run: bool) -> Done {
    let id = container(global, parsed, 1).map(|_| parsed.arguments[0].as_str())?;
    let bundle = open_bundle(parsed)?;
    let config_path = bundle.join(parsed.value("config").unwrap_or("config.json"));
    let config =
        std::fs::read(&config_path).map_err(|source| Error::Read { path: config_path.clone(), source })?;
    let Prepared { mut spec, filter, warnings } = prepare(&config_path, &config)?;
    warnings.iter().for_each(|warning| global.log.warn(warning));
    add_user_namespace(&mut spec);
    leave_out_mount_label(global, &mut spec);
    if only_has_ours(&spec)
        && let Some(process) = spec.process_mut()
    {
        leave_out_capabilities(&global.log, process);
    }
    let preserve_fds = preserved(parsed)?;

    let (dir, lock) = Dir::claim(&global.root, id)?;
    let foreground = run && !parsed.has("detach");
    let notify = Notify::wanted(&dir);
    if let Some(notify) = &notify
        && let Err(error) = notify.prepare(&mut spec)
    {
        let _ = dir.remove();
        return Err(error);
    }
    let order = Order { global, parsed, id, spec, filter, bundle, preserve_fds, run, foreground };
    let result = dir.begin(&config).map_err(Error::from).and_then(|()| make(&order, &dir)).and_then(
        |(created, record)| {
            dir.write(&record)?;
            write_pid_file(parsed, created.pid)?;
            send_pidfd(parsed, &created.pidfd)?;
            Ok((created, record))
        },
    );
    let (mut created, record) = match result {
        Ok(made) => made,
        Err(error) => {
            // The id is free again; what cannot be removed is taken over by the next create.
            let _ = dir.remove();
            return Err(error);
        }
    };
    created.keep_outside();
    if !run {
        // The init has it open, too, until it is started: nobody could change the container before.
        lock.release()
            .map_err(|source| Error::Io { action: "unlocking the container".to_owned(), source })?;
        return created.detach().map(|()| 0).map_err(Error::from);
    }
    drop(lock);
    // Whoever is ready before we listen would not be heard.
    let listening = notify.map_or(Ok(None), |notify| notify.listen(record.pid));
    let started = listening.and_then(|listening| {
        created.start()?;
        run_poststart(&order.spec, &record)?;
        Ok(listening)
    });
    let listening = match started {
        Ok(listening) => listening,
        Err(error) => {
            // It is stopped and deleted, as if it had never started.
            let _ = process::pidfd_signal(&created.pidfd, libc::SIGKILL);
            let _ = process::wait(&created.pidfd);
            // Why it failed says more than what could not be cleared away, and is not hidden by it.
            if let Err(second) = forget(global, &dir, &record) {
                global.log.warn(&crate::base::report::chain(&second));
            }
            return Err(error);
        }
    };
    if !foreground {
        return listening.map_or(Ok(()), |listening| listening.wait(&created.pidfd)).map(|()| 0);
    }
    let status = super::foreground::wait(&created.pidfd, created.terminal.take(), listening)?;
    if !parsed.has("keep") {
        forget(global, &dir, &record)?;
    }
    Ok(status.code())
}

/// The bundle's directory, absolute.
pub(super) fn open_bundle(parsed: &Parsed) -> Result<PathBuf, Error> {
    let given = parsed.value("bundle").unwrap_or(".");
    std::path::absolute(given)
        .and_then(std::fs::canonicalize)
        .map_err(|source| Error::Io { action: format!("opening bundle \"{given}\""), source })
}

/// The rootfs, which has to be there.
pub(super) fn rootfs_of(spec: &Spec, bundle: &Path) -> Result<PathBuf, Error> {
    let root = spec.root().as_ref().map(|root| bundle.join(root.path()));
    let rootfs = root.ok_or(Error::Contradiction("root: it is missing"))?;
    if std::fs::metadata(&rootfs).is_ok_and(|m| m.is_dir()) { Ok(rootfs) } else { Err(Error::Rootfs(rootfs)) }
}

fn make(order: &Order<'_>, dir: &Dir) -> Result<(Created, Record), Error> {
    let Order { parsed, bundle, .. } = order;
    let begun = runtime::begin(&order.spec);
    let rootfs = rootfs_of(&order.spec, bundle)?;
    let terminal = order.spec.process().as_ref().and_then(|p| p.terminal()).unwrap_or(false);
    let id = order.id.to_owned();
    let mut request =
        CreateRequest::new(id.clone(), order.spec.clone(), bundle.clone(), Rootfs::Dir(rootfs.clone()));
    request.begun = begun;
    request.filter = order.filter.clone();
    request.clamp_limits = true;
    request.stdio = stdio(parsed, terminal, order.foreground)?;
    request.gate = if order.run { Gate::Held } else { Gate::Path(dir.gate()) };
    request.preserve_fds = order.preserve_fds;
    request.listen_fds = listening();
    request.create_cwd = true;
    request.no_pivot = parsed.has("no-pivot");
    request.no_new_keyring = parsed.has("no-new-keyring");
    request.cgroup = order.global.cgroups;
    request.complete_cgroup = true;
    let annotations: BTreeMap<String, String> =
        order.spec.annotations().clone().unwrap_or_default().into_iter().collect();
    let created = runtime::create(request)?;
    if order.global.rootless == Some(false)
        && let Some(reason) = &created.no_cgroup
    {
        return Err(Error::Rootless(reason.clone()));
    }
    let record = Record {
        format: 1,
        oci_version: order.spec.version().clone(),
        id,
        pid: created.pid,
        start_time: created.start_time,
        boot_id: host::boot_id().to_owned(),
        bundle: bundle.clone(),
        rootfs,
        created: jiff::Timestamp::now().to_string(),
        annotations,
        cgroup: created.cgroup.clone(),
        cache: created.cache.clone(),
        outside: created.outside(),
        unit: created.unit.clone(),
        resources: None,
    };
    Ok((created, record))
}

/// A label of files confines nobody by itself: it says what processes with labels may reach. Those get
/// theirs or an error; where no process has any, files need none. Other runtimes ignore it silently.
fn leave_out_mount_label(global: &Global, spec: &mut Spec) {
    let Some(linux) = spec.linux_mut().as_mut() else { return };
    let given = linux.mount_label().as_deref().is_some_and(|label| !label.is_empty());
    if given && !Modules::present().selinux {
        global.log.warn("linux.mountLabel: SELinux is not there, or switched off: files get no label");
        linux.set_mount_label(None);
    }
}

/// An ordinary user's container needs a user namespace; a configuration without one, or without a
/// mapping for it, gets all the ids that the user has (as crun does). Root's needs none, and one that it
/// asks for without a mapping has root's own id alone: nothing else would be anybody's inside.
fn add_user_namespace(spec: &mut Spec) {
    let Some(linux) = spec.linux_mut().as_mut() else { return };
    let mut namespaces = linux.namespaces().clone().unwrap_or_default();
    let user = namespaces.iter().find(|namespace| namespace.typ() == LinuxNamespaceType::User);
    let joined = user.is_some_and(|user| user.path().is_some());
    let mapped = |list: &Option<Vec<LinuxIdMapping>>| list.as_ref().is_some_and(|list| !list.is_empty());
    if joined || mapped(linux.uid_mappings()) || mapped(linux.gid_mappings()) {
        return;
    }
    let root = ids::euid() == 0;
    if root && user.is_none() {
        return;
    }
    if user.is_none() {
        let mut namespace = LinuxNamespace::default();
        namespace.set_typ(LinuxNamespaceType::User);
        namespaces.push(namespace);
        linux.set_namespaces(Some(namespaces));
    }
    let own = || vec![IdRange { container: 0, host: 0, size: 1 }];
    let mapping = if root { IdMapping { uids: own(), gids: own() } } else { idmap::rung().mapping };
    let list = |ranges: &[IdRange]| {
        let of = |range: &IdRange| {
            let mapping = LinuxIdMappingBuilder::default().container_id(range.container);
            mapping.host_id(range.host).size(range.size).build().ok()
        };
        ranges.iter().map(of).collect()
    };
    linux.set_uid_mappings(list(&mapping.uids));
    linux.set_gid_mappings(list(&mapping.gids));
}
