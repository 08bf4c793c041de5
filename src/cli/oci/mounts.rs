//! `mounts`: crun's command for mounts of a container that is there already.

use std::path::PathBuf;

use super::args::{Parsed, UsageError};
use super::common::stored_spec;
use super::{Done, Error, Global};
use crate::runtime::config;
use crate::runtime::live;
use crate::runtime::state::{Dir, Status};
use crate::sys::ids;

pub(super) fn mounts(global: &Global, parsed: &Parsed) -> Done {
    let argument =
        |at: usize, what| parsed.arguments.get(at).map(String::as_str).ok_or(UsageError::Missing(what));
    let action = argument(0, "\"add\" or \"remove\"")?;
    if !matches!(action, "add" | "remove") {
        let meant = crate::base::suggest::closest(action, ["add", "remove"]).map(str::to_owned);
        return Err(UsageError::Command { name: format!("mounts {action}"), meant }.into());
    }
    let dir = Dir::new(&global.root, argument(1, "the container id")?)?;
    let file = PathBuf::from(argument(2, "the file with the mounts")?);
    if let Some(extra) = parsed.arguments.get(3) {
        return Err(UsageError::Extra(extra.clone()).into());
    }
    let record = dir.read()?;
    let _lock = dir.lock()?;
    let status = dir.status(&record)?.0;
    if status == Status::Stopped {
        return Err(Error::WrongState { action: "change the mounts of", status: status.as_str() });
    }
    if status == Status::Created && ids::euid() != 0 {
        return Err(Error::NotStarted { action: "change the mounts of" });
    }
    let bytes = std::fs::read(&file).map_err(|source| Error::Read { path: file.clone(), source })?;
    let config = |source| Error::Config { path: file.clone(), source };
    if action == "add" {
        let list = config::parse_mounts(&bytes).map_err(config)?;
        live::add_mounts(&record, &stored_spec(&dir)?, &list)?;
    } else {
        // Of what is to go only the place counts.
        live::remove_mounts(&record, &config::parse_mount_places(&bytes).map_err(config)?)?;
    }
    Ok(0)
}
