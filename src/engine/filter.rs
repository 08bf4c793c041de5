//! Which system calls a container may make.

use oci_spec::runtime::LinuxSeccomp;

use super::{Engine, Error};
use crate::monitor::answers;
use crate::runtime::filters;
use crate::seccomp::{self, Changes, Emulation};
use crate::storage::containers::{ContainerConfig, ContainerRecord, SeccompChoice};
use crate::sys::host;
use crate::sys::seccomp::Filter;

/// What the runtime is told: a filter, a profile to make one of, or neither.
#[derive(Default)]
pub(super) struct Seccomp {
    pub profile: Option<LinuxSeccomp>,
    pub filter: Option<Filter>,
}

impl Engine {
    /// The filter that a container's configuration chooses. It is kept for the next one that chooses the same: to make
    /// it takes a tenth of an `exec`.
    pub(super) fn seccomp(&self, record: &ContainerRecord) -> Result<Seccomp, Error> {
        let config = &record.config;
        let emulation = emulation(record);
        let no_tcp = answers::connects(record);
        // Whose connection is made for him is to hear of signals meanwhile.
        let changes = Changes { emulation, told: answers::told(record), interruptible: no_tcp, no_tcp };
        if config.seccomp == SeccompChoice::Unconfined && changes == Changes::default() {
            return Ok(Seccomp::default());
        }
        let mut profile = None;
        let made = || -> Result<Filter, Error> {
            profile = profile_of(config)?;
            Ok(seccomp::compile_with(profile.as_ref(), &changes)?)
        };
        let source = source(&config.seccomp, &config.capabilities, &changes);
        let filter = filters::kept(&self.paths.runroot.join("filters"), &source, changes.listens(), made)?;
        // Who listens is named in the profile, unless we do.
        let profile = profile.filter(|_| filter.has_listener() && !changes.listens());
        Ok(Seccomp { profile, filter: Some(filter) })
    }
}

/// All that the filter depends on.
fn source(choice: &SeccompChoice, capabilities: &[String], changes: &Changes) -> Vec<u8> {
    let kernel = matches!(choice, SeccompChoice::Profile { .. }).then(host::kernel_version);
    let mut capabilities = capabilities.to_vec();
    capabilities.sort_unstable();
    format!("{choice:?} {kernel:?} {capabilities:?} {changes:?}").into_bytes()
}

/// The ids of a container whose ownership is emulated.
fn emulation(record: &ContainerRecord) -> Option<Emulation> {
    let ids = record.mapping.as_ref().filter(|_| record.config.one_id.emulated)?;
    match (&ids.uids[..], &ids.gids[..]) {
        ([uid], [gid]) => Some(Emulation { uid: uid.container, gid: gid.container }),
        _ => None,
    }
}

/// The profile that a container's configuration chooses.
fn profile_of(config: &ContainerConfig) -> Result<Option<LinuxSeccomp>, Error> {
    match &config.seccomp {
        SeccompChoice::Unconfined => Ok(None),
        SeccompChoice::Default => {
            let capabilities = config.capabilities.iter().filter_map(|name| name.parse().ok()).collect();
            Ok(Some(seccomp::default_profile(&capabilities)))
        }
        SeccompChoice::Profile { path, content } => {
            let conditions = seccomp::file::Conditions {
                capabilities: &config.capabilities,
                architecture: crate::image::manifest::own_architecture(),
                kernel: host::kernel_version(),
            };
            seccomp::file::parse(content, &conditions)
                .map(Some)
                .map_err(|source| Error::SeccompProfile { path: path.clone(), source })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp::Told;

    #[test]
    fn what_makes_another_filter_has_another_source() {
        let plain = source(&SeccompChoice::Default, &[], &Changes::default());
        let with = |capabilities: &[&str]| {
            let capabilities: Vec<_> = capabilities.iter().map(|name| (*name).to_owned()).collect();
            source(&SeccompChoice::Default, &capabilities, &Changes::default())
        };
        assert_ne!(with(&["SYS_ADMIN"]), plain);
        assert_eq!(with(&["CHOWN", "SYS_ADMIN"]), with(&["SYS_ADMIN", "CHOWN"]));
        let changed = |changes| source(&SeccompChoice::Default, &[], &changes);
        let emulation = Some(Emulation { uid: 0, gid: 0 });
        assert_ne!(changed(Changes { emulation, ..Changes::default() }), plain);
        assert_ne!(changed(Changes { told: vec![Told::always("chown")], ..Changes::default() }), plain);
        let profile = |content: &str| {
            let choice = SeccompChoice::Profile { path: "/p".into(), content: content.to_owned() };
            source(&choice, &[], &Changes::default())
        };
        assert_ne!(profile("{}"), profile("{ }"));
        assert_ne!(profile("{}"), plain);
    }
}
