//! Umiak pulls and runs OCI containers for an ordinary user, without a daemon and without
//! helper programs. The layers, and who may import whom, are told in `docs/architecture.md`
//! and held by `tests/layering.rs`.
#![recursion_limit = "256"]

pub mod base;
pub mod cgroup;
pub mod cli;
pub mod engine;
pub mod image;
pub mod monitor;
pub mod network;
pub mod runtime;
pub mod seccomp;
pub mod security;
pub mod storage;
pub mod sys;
