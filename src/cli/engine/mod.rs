//! The engine's commands, with Podman's names, flags and exit codes.

mod surface;
pub mod unsupported;
