//! `start`.

use super::args::Parsed;
use super::common::{container, run_hooks, stored_hooks};
use super::{Done, Error, Global};
use crate::runtime;
use crate::runtime::state::Status;

pub(super) fn start(global: &Global, parsed: &Parsed) -> Done {
    let dir = container(global, parsed, 1)?;
    let record = dir.read()?;
    match dir.status(&record)?.0 {
        Status::Created => {}
        status => return Err(Error::WrongState { action: "start", status: status.as_str() }),
    }
    let result = runtime::start(&dir.gate());
    dir.mark_started();
    result?;
    if let Some(spec) = stored_hooks(&dir, "poststart")? {
        run_hooks(&spec, &record, "running", |hooks| hooks.poststart().clone());
    }
    Ok(0)
}
