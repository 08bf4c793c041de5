//! Pulls into a real store: hostile layers, transports, and a registry that misbehaves.

mod chunked;
mod fuzz;
mod hostile;
mod misbehaves;
mod peers;
mod recipe;
mod registry;
mod share;
#[path = "../common/skip.rs"]
mod skip;
mod store;
mod support;
mod upload;
