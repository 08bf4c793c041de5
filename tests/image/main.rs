//! Pulls into a real store: hostile layers, transports, and a registry that misbehaves.

mod hostile;
mod registry;
mod store;
mod support;
