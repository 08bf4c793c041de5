//! `restore`.

use super::args::{Known, Parsed};
use super::checkpoint::options;
use super::common::{container, parse_spec, stdio, write_pid_file};
use super::create::{open_bundle, rootfs_of};
use super::delete::forget;
use super::{Done, Error, Global};
use crate::runtime::criu::{self, Restored};
use crate::runtime::state::{Dir, Record};
use crate::runtime::{CacheGroups, CreateRequest, Rootfs};
use crate::sys::host;

pub(super) const OPTIONS: &[Known] = &[
    ("image-path", None, true),
    ("work-path", None, true),
    ("bundle", Some('b'), true),
    ("console-socket", None, true),
    ("pid-file", None, true),
    ("detach", Some('d'), false),
    ("tcp-established", None, false),
    ("tcp-close", None, false),
    ("ext-unix-sk", None, false),
    ("shell-job", None, false),
    ("file-locks", None, false),
    ("lazy-pages", None, false),
    ("manage-cgroups-mode", None, true),
    ("network-lock", None, true),
    ("empty-ns", None, true),
    ("auto-dedup", None, false),
    ("lsm-profile", None, true),
    ("lsm-mount-context", None, true),
    ("no-subreaper", None, false),
    ("no-pivot", None, false),
];

pub(super) fn restore(global: &Global, parsed: &Parsed) -> Done {
    let id = container(global, parsed, 1).map(|_| parsed.arguments[0].as_str())?;
    if parsed.has("no-pivot") {
        // It is criu that changes the root, and it knows no other way.
        return Err(Error::Unsupported("restore --no-pivot".to_owned()));
    }
    let options = options(parsed)?;
    let bundle = open_bundle(parsed)?;
    let config_path = bundle.join("config.json");
    let config =
        std::fs::read(&config_path).map_err(|source| Error::Read { path: config_path.clone(), source })?;
    let spec = parse_spec(Some(&global.log), &config_path, &config)?;
    let rootfs = rootfs_of(&spec, &bundle)?;
    let foreground = !parsed.has("detach");
    let terminal = spec.process().as_ref().and_then(|p| p.terminal()).unwrap_or(false);
    let mut request = CreateRequest::new(id.to_owned(), spec, bundle, Rootfs::Dir(rootfs.clone()));
    request.stdio = stdio(parsed, terminal, foreground)?;
    request.cgroup = global.cgroups;
    request.complete_cgroup = true;

    let (dir, lock) = Dir::claim(&global.root, id)?;
    let result = dir.begin(&config).map_err(Error::from).and_then(|()| {
        let mut restored = criu::restore(&request, options, &dir.scratch())?;
        let record = record(&request, &restored, rootfs);
        if global.rootless == Some(false)
            && let Some(reason) = &restored.no_cgroup
        {
            return Err(Error::Rootless(reason.clone()));
        }
        dir.write(&record)?;
        write_pid_file(parsed, restored.pid)?;
        restored.release()?;
        Ok((restored, record))
    });
    let (mut restored, record) = match result {
        Ok(made) => made,
        Err(error) => {
            // The id is free again; what cannot be removed is taken over by the next create.
            let _ = dir.remove();
            return Err(error);
        }
    };
    drop(lock);
    if !foreground {
        return Ok(0);
    }
    let status = super::foreground::wait(&restored.pidfd, restored.terminal.take(), None)?;
    forget(global, &dir, &record)?;
    Ok(status.code())
}

fn record(request: &CreateRequest, restored: &Restored, rootfs: std::path::PathBuf) -> Record {
    Record {
        format: 1,
        oci_version: request.spec.version().clone(),
        id: request.id.clone(),
        pid: restored.pid,
        start_time: restored.start_time,
        boot_id: host::boot_id().to_owned(),
        bundle: request.bundle.clone(),
        rootfs,
        created: jiff::Timestamp::now().to_string(),
        annotations: request.spec.annotations().clone().unwrap_or_default().into_iter().collect(),
        cgroup: restored.cgroup.clone(),
        cache: CacheGroups::default(),
        unit: restored.unit.clone(),
        resources: None,
        outside: None,
    }
}
