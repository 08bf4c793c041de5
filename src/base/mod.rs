//! Pure values that every layer speaks in (L0): no system call is made below this module.

pub mod address;
pub mod digest;
pub mod id;
pub mod idmap;
pub mod report;
pub mod signal;
pub mod size;
pub mod suggest;
pub mod template;
pub mod time;
