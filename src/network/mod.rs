//! The network of containers (L3): planned as data, set up in a router namespace of its own, and relayed to
//! the host's network by a process that goes with the container.

pub mod birth;
pub mod change;
pub mod dns;
pub mod fast;
mod helper;
pub mod ids;
mod keeper;
pub mod leases;
pub mod netlink;
pub mod nft;
pub mod plan;
pub mod policy;
pub mod relay;
mod router;
pub mod setup;
pub mod shared;
