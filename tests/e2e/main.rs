//! End-to-end tests: the binary as a user calls it, as root and as an ordinary user.
//! `scripts/test` runs them all; what they need is told in `support`.
#![allow(clippy::disallowed_methods, clippy::disallowed_macros)]

mod support;

mod artifacts;
mod callers;
mod cgroups;
mod chunked;
mod clone;
mod commit;
mod containerd;
mod copy;
mod daemons;
mod death;
mod errors;
mod escape;
mod events;
mod files;
mod flags;
mod friendly;
mod health;
mod images;
mod lifecycle;
mod lists;
mod logging;
mod login;
mod manage;
mod mounts;
mod names;
mod peers;
mod push;
mod registries;
mod restart;
mod robustness;
mod run;
mod search;
mod shape;
mod signing;
mod start;
mod stats;
mod store;
mod terminal;
mod trust;
mod update;
mod userns;
mod volumes;
