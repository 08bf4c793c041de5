//! What running a container tells beyond what was looked at by itself.

use super::diagnose::{fine, ill};
use super::{Diagnosis, Findings, State, Trial, UserNamespace};

/// Whether a container may tell more than is known of what is broken: not where no container gets as far as that.
pub fn may_tell_more(found: &Findings) -> bool {
    let refused = matches!(found.userns, UserNamespace::Refused(_) | UserNamespace::Unmapped(_));
    !refused && found.store.closed.is_none() && found.proc
}

pub(super) const TRIAL: &str = "a container";

/// Where the kernel alone would not have said no.
pub(super) const FILTERED: &str =
    " (a seccomp filter is in force around this shell, and may be what refuses it)";
pub(super) const UNFILTERED: &str = "start umiak outside of that filter, or let it allow mount, open_tree, fsopen, move_mount, \
                          pivot_root, openat2, setns and sockets of the family netlink";

pub(super) fn sysfs(found: &Findings) -> Option<Diagnosis> {
    (!found.sysfs).then(|| {
        let text = "there is no sysfs on /sys, as in a chroot that was not prepared";
        ill("sysfs", State::Lesser, "no-sysfs", text, "as root: mount -t sysfs sysfs /sys")
    })
}

/// What nothing else has foretold.
pub(super) fn trial(found: &Findings) -> Option<Diagnosis> {
    Some(match found.trial.as_ref()? {
        Trial::Ran => fine(TRIAL, "one was run"),
        Trial::Failed(error, hint) => {
            let refused = error.contains("operation not permitted");
            if refused && found.signs.filtered {
                // Everything else that is tried was let through, so it is one of the calls that a start takes beyond.
                return Some(ill(
                    TRIAL,
                    State::Broken,
                    "seccomp-filter",
                    format!("{error}{FILTERED}"),
                    UNFILTERED,
                ));
            }
            let cure = hint.clone().unwrap_or_else(|| {
                "look into the kernel's log (dmesg), and at what surrounds this shell: filters, limits, mounts".to_owned()
            });
            ill(TRIAL, State::Broken, "trial-failed", error.clone(), cure)
        }
    })
}
