//! `checkpoint`.

use std::path::PathBuf;

use super::args::{Known, Parsed, UsageError};
use super::common::{container, stored_spec};
use super::delete::forget;
use super::{Done, Error, Global};
use crate::runtime::criu::{self, CgroupMode, Dump, NetworkLock, Options};
use crate::runtime::state::Status;
use crate::sys::process;

pub(super) const OPTIONS: &[Known] = &[
    ("image-path", None, true),
    ("work-path", None, true),
    ("parent-path", None, true),
    ("leave-running", None, false),
    ("pre-dump", None, false),
    ("tcp-established", None, false),
    ("tcp-skip-in-flight", None, false),
    ("link-remap", None, false),
    ("ext-unix-sk", None, false),
    ("shell-job", None, false),
    ("file-locks", None, false),
    ("lazy-pages", None, false),
    ("status-fd", None, true),
    ("page-server", None, true),
    ("manage-cgroups-mode", None, true),
    ("network-lock", None, true),
    ("empty-ns", None, true),
    ("auto-dedup", None, false),
];

pub(super) fn checkpoint(global: &Global, parsed: &Parsed) -> Done {
    let dir = container(global, parsed, 1)?;
    let record = dir.read()?;
    let options = options(parsed)?;
    let status_fd = match given(parsed, "status-fd") {
        None | Some("-1") => None,
        Some(text) => {
            let invalid = || UsageError::Invalid { option: "--status-fd", value: text.to_owned() };
            let number = text.parse().ok().filter(|number| *number > 2).ok_or_else(invalid)?;
            Some(process::take_fd(number).map_err(|_| invalid())?)
        }
    };
    let _lock = dir.lock()?;
    let (status, pidfd) = dir.status(&record)?;
    let (Status::Running | Status::Paused, Some(pidfd)) = (status, pidfd) else {
        return Err(Error::WrongState { action: "checkpoint", status: status.as_str() });
    };
    let goes_on = options.leave_running || options.pre_dump;
    criu::checkpoint(Dump { record: &record, spec: stored_spec(&dir)?, options, status_fd })?;
    if !goes_on {
        // Criu has killed it; its parent may not have noticed yet.
        let waited = process::wait_end(&pidfd, 10_000);
        waited.map_err(|source| Error::Io { action: "waiting for the container".to_owned(), source })?;
        forget(global, &dir, &record)?;
    }
    Ok(0)
}

/// The value of an option that is no empty text, which callers give for none.
pub(super) fn given<'a>(parsed: &'a Parsed, name: &str) -> Option<&'a str> {
    parsed.value(name).filter(|value| !value.is_empty())
}

/// What `checkpoint` and `restore` have in common.
pub(super) fn options(parsed: &Parsed) -> Result<Options, Error> {
    let invalid = |option, value: &str| UsageError::Invalid { option, value: value.to_owned() };
    let absolute = |path: &str| {
        std::path::absolute(path)
            .map_err(|source| Error::Io { action: format!("looking for \"{path}\""), source })
    };
    let cgroups = given(parsed, "manage-cgroups-mode")
        .map(|text| CgroupMode::parse(text).ok_or_else(|| invalid("--manage-cgroups-mode", text)));
    let network_lock = given(parsed, "network-lock")
        .map(|text| NetworkLock::parse(text).ok_or_else(|| invalid("--network-lock", text)));
    let page_server = given(parsed, "page-server")
        .map(|text| page_server(text).ok_or_else(|| invalid("--page-server", text)));
    // Network namespaces are empty in any case.
    if let Some(other) = parsed.values("empty-ns").find(|name| *name != "network") {
        return Err(invalid("--empty-ns", other).into());
    }
    Ok(Options {
        images: absolute(given(parsed, "image-path").unwrap_or("checkpoint"))?,
        work: given(parsed, "work-path").map(absolute).transpose()?,
        parent: given(parsed, "parent-path").map(PathBuf::from),
        leave_running: parsed.has("leave-running"),
        pre_dump: parsed.has("pre-dump"),
        tcp_established: parsed.has("tcp-established"),
        tcp_skip_in_flight: parsed.has("tcp-skip-in-flight"),
        tcp_close: parsed.has("tcp-close"),
        link_remap: parsed.has("link-remap"),
        ext_unix_sk: parsed.has("ext-unix-sk"),
        shell_job: parsed.has("shell-job"),
        file_locks: parsed.has("file-locks"),
        auto_dedup: parsed.has("auto-dedup"),
        lazy_pages: parsed.has("lazy-pages"),
        page_server: page_server.transpose()?,
        cgroups: cgroups.transpose()?,
        network_lock: network_lock.transpose()?,
        lsm_profile: given(parsed, "lsm-profile").map(str::to_owned),
        lsm_mount_context: given(parsed, "lsm-mount-context").map(str::to_owned),
        config_file: None,
    })
}

/// `ADDRESS:PORT`, an IPv6 address in brackets.
fn page_server(text: &str) -> Option<(String, u16)> {
    let (address, port) = text.rsplit_once(':')?;
    let address = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    let port = port.parse().ok().filter(|port| *port > 0)?;
    (!address.is_empty()).then(|| (address.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::page_server;

    #[test]
    fn page_servers() {
        assert_eq!(page_server("10.0.0.1:99"), Some(("10.0.0.1".into(), 99)));
        assert_eq!(page_server("[::1]:99"), Some(("::1".into(), 99)));
        for bad in ["", "x", ":1", "a:", "a:0", "a:70000", "[]:1"] {
            assert_eq!(page_server(bad), None, "{bad}");
        }
    }
}
