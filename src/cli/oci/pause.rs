//! `pause` and `resume`.

use std::path::PathBuf;

use super::args::Parsed;
use super::common::container;
use super::{Done, Error, Global};
use crate::cgroup::freeze;
use crate::runtime::state::Status;

pub(super) fn pause(global: &Global, parsed: &Parsed) -> Done {
    let (status, group) = find(global, parsed, "pause")?;
    match status {
        Status::Running | Status::Created => {
            freeze::freeze(&group)?;
            Ok(0)
        }
        _ => Err(Error::WrongState { action: "pause", status: status.as_str() }),
    }
}

pub(super) fn resume(global: &Global, parsed: &Parsed) -> Done {
    let (status, group) = find(global, parsed, "resume")?;
    match status {
        Status::Paused => {
            freeze::thaw(&group)?;
            Ok(0)
        }
        _ => Err(Error::WrongState { action: "resume", status: status.as_str() }),
    }
}

fn find(global: &Global, parsed: &Parsed, what: &'static str) -> Result<(Status, PathBuf), Error> {
    let dir = container(global, parsed, 1)?;
    let record = dir.read()?;
    let status = dir.status(&record)?.0;
    let id = record.id;
    Ok((status, record.cgroup.ok_or(Error::Ungrouped { id, what })?))
}
