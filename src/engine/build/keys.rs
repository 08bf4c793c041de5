//! What the keys of steps have beside the instruction itself.

use std::path::Path;

use serde_json::{Value, json};

use super::builder::Builder;
use super::context::Context;
use super::copy::{Job, Origin, Verdict};
use super::request::BuildRequest;
use super::state::State;
use crate::image::dockerfile::{Copy, Mount};

/// What the flags make of every `RUN` that it can tell: its network, its names, its rights, its mounts. How much
/// memory and time it may take is not among it, and no more are the values of variables that name proxies.
pub(super) fn surroundings(request: &BuildRequest) -> Value {
    let run = &request.run;
    json!({
        "network": run.networks, "hosts": [json!(run.add_hosts), json!(run.no_hosts), json!(run.no_hostname)],
        "dns": [&run.dns, &run.dns_search, &run.dns_options],
        "capabilities": [&run.cap_add, &run.cap_drop], "security": run.security_opt, "ulimits": run.ulimits,
        "groups": run.group_add, "volumes": run.volumes, "mounts": run.mounts, "devices": run.devices,
        "shm": run.shm_size,
        "namespaces": [&run.userns, &run.pid, &run.ipc, &run.uts, &run.cgroupns],
        "ids": [&run.uidmaps, &run.gidmaps], "names": [&run.subuidname, &run.subgidname],
        "times": times(request),
    })
}

/// What the times of files in new layers are made; nothing if they stay what they are.
pub(super) fn times(request: &BuildRequest) -> Value {
    request.times.clamp.map_or(Value::Null, |latest| json!([latest, request.times.exact]))
}

impl Builder<'_> {
    /// What is in the files of a context that a step has mounted, as [`super::copy::Copied::digest`] has it.
    ///
    /// What cannot be read is never known to be what it was.
    pub(super) fn content(&self, context: &Context, mount: &Mount, state: &State) -> String {
        let Some(root) = context.root() else { return String::new() };
        let source = escaped(mount.source.as_deref().unwrap_or("/"));
        let copy = Copy { sources: vec![source], destination: "/mounted/".to_owned(), ..Copy::default() };
        let ignored = |_: &Path, _: bool| Verdict::Kept;
        let job = Job {
            copy: &copy,
            origin: Origin::Context { root, ignored: &ignored },
            fetched: &[],
            below: &[],
            workdir: state.workdir(),
            times: self.request.times,
            now: 0,
        };
        let examined = self.apart(|| job.examine().map_err(|error| error.told()));
        examined.map_or_else(|_| format!("at {}", self.now), |copied| copied.digest.to_string())
    }
}

/// A path as a pattern that nothing but it fits.
fn escaped(path: &str) -> String {
    let mut text = String::new();
    for c in path.chars() {
        if matches!(c, '*' | '?' | '[' | '\\') {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_no_patterns() {
        for (path, pattern) in [("/", "/"), ("a b", "a b"), ("x[1]*/\\?", "x\\[1]\\*/\\\\\\?")] {
            assert_eq!(escaped(path), pattern);
        }
    }
}
