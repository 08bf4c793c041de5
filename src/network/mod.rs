//! The network of containers (L3): planned as data, set up in a router namespace of its own, and relayed to
//! the host's network by a process that goes with the container.

pub mod dns;
pub mod ids;
pub mod leases;
pub mod plan;
pub mod policy;
