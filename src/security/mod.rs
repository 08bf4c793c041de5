//! Capabilities, id mappings and what else decides over privileges.
