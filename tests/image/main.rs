//! Pulls into a real store: hostile layers, transports, and a registry that misbehaves.

mod hostile;
mod peers;
mod registry;
mod store;
mod support;
