//! Capabilities, id mappings and what else decides over privileges.

pub mod capability;
pub mod idmap;
pub mod passwd;
