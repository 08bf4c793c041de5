//! Capabilities, id mappings and what else decides over privileges (L2).

pub mod capability;
pub mod idmap;
pub mod passwd;
pub mod paths;
pub mod refused;
