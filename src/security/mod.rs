//! Capabilities, id mappings and what else decides over privileges.

pub mod idmap;
