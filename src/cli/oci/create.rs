//! `create` and `run`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use oci_spec::runtime::Spec;

use super::args::{Known, Parsed};
use super::common::{container, parse_spec, preserved, run_hooks, stdio, write_pid_file};
use super::delete::forget;
use super::{Done, Error, Global};
use crate::runtime::state::{self, Dir, Record};
use crate::runtime::{self, CreateRequest, Created, Gate, Rootfs};
use crate::sys::process;

pub(super) const OPTIONS: &[Known] = &[
    ("bundle", Some('b'), true),
    ("config", Some('f'), true),
    ("console-socket", None, true),
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
    bundle: PathBuf,
    preserve_fds: u32,
    /// `run`, not `create`.
    run: bool,
    /// This process waits for the container's.
    foreground: bool,
}

pub(super) fn create(global: &Global, parsed: &Parsed, run: bool) -> Done {
    let id = container(global, parsed, 1).map(|_| parsed.arguments[0].as_str())?;
    let bundle = std::path::absolute(parsed.value("bundle").unwrap_or("."))
        .and_then(std::fs::canonicalize)
        .map_err(|source| Error::Io {
        action: format!("opening bundle \"{}\"", parsed.value("bundle").unwrap_or(".")),
        source,
    })?;
    let config_path = bundle.join(parsed.value("config").unwrap_or("config.json"));
    let config =
        std::fs::read(&config_path).map_err(|source| Error::Read { path: config_path.clone(), source })?;
    let spec = parse_spec(&config_path, &config)?;
    process::ensure_standard_fds()
        .map_err(|source| Error::Io { action: "opening /dev/null".to_owned(), source })?;
    let preserve_fds = preserved(parsed)?;

    let (dir, lock) = Dir::claim(&global.root, id)?;
    let foreground = run && !parsed.has("detach");
    let order = Order { global, parsed, id, spec, bundle, preserve_fds, run, foreground };
    let result = make(&order, &dir).and_then(|(created, record)| {
        dir.write(&record, &config)?;
        write_pid_file(parsed, created.pid)?;
        Ok((created, record))
    });
    let (mut created, record) = match result {
        Ok(made) => made,
        Err(error) => {
            // The id is free again; what cannot be removed is taken over by the next create.
            let _ = dir.remove();
            return Err(error);
        }
    };
    drop(lock);
    if !run {
        return created.detach().map(|()| 0).map_err(Error::from);
    }
    if let Err(error) = created.start() {
        drop(created);
        let _ = dir.remove();
        return Err(error.into());
    }
    run_hooks(&order.spec, &record, "running", |hooks| hooks.poststart().clone());
    if !foreground {
        return Ok(0);
    }
    let status = super::foreground::wait(&created.pidfd, created.terminal.take())?;
    if !parsed.has("keep") {
        forget(&dir, &record)?;
    }
    Ok(status.code())
}

fn make(order: &Order<'_>, dir: &Dir) -> Result<(Created, Record), Error> {
    let Order { parsed, bundle, .. } = order;
    let root = order.spec.root().as_ref().map(|root| bundle.join(root.path()));
    let rootfs = root.ok_or_else(|| Error::Unsupported("the configuration has no root".to_owned()))?;
    let terminal = order.spec.process().as_ref().and_then(|p| p.terminal()).unwrap_or(false);
    let id = order.id.to_owned();
    let mut request =
        CreateRequest::new(id.clone(), order.spec.clone(), bundle.clone(), Rootfs::Dir(rootfs.clone()));
    request.clamp_limits = true;
    request.stdio = stdio(parsed, terminal, order.foreground)?;
    request.gate = if order.run { Gate::Held } else { Gate::Path(dir.gate()) };
    request.preserve_fds = order.preserve_fds;
    request.no_pivot = parsed.has("no-pivot");
    request.no_new_keyring = parsed.has("no-new-keyring");
    request.cgroup = order.global.cgroups;
    request.complete_cgroup = true;
    let annotations: BTreeMap<String, String> =
        order.spec.annotations().clone().unwrap_or_default().into_iter().collect();
    let created = runtime::create(request)?;
    let record = Record {
        format: 1,
        oci_version: order.spec.version().clone(),
        id,
        pid: created.pid,
        start_time: created.start_time,
        boot_id: state::boot_id(),
        bundle: bundle.clone(),
        rootfs,
        created: jiff::Timestamp::now().to_string(),
        annotations,
        cgroup: created.cgroup.clone(),
        unit: created.unit.clone(),
        resources: None,
    };
    Ok((created, record))
}
