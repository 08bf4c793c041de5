//! The kernel's interface (L1): the only layer with `unsafe`, that forks, that turns a number
//! into an owned file descriptor, or that touches a path inside a rootfs.
#![allow(unsafe_code)]

pub mod atomic;
pub mod child;
pub mod daemon;
pub mod host;
pub mod lock;
pub mod path;
pub mod process;
pub mod tree;
pub mod userns;
