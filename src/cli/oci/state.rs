//! `state`.

use super::args::Parsed;
use super::common::{container, state_value};
use super::{Done, Global, print};

pub(super) fn show_state(global: &Global, parsed: &Parsed) -> Done {
    let dir = container(global, parsed, 1)?;
    let value = state_value(&dir, &dir.read()?)?;
    print(&format!("{value:#}\n"))
}
