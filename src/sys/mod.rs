//! The kernel's interface (L1): the only layer with `unsafe`, that forks, that turns a number
//! into an owned file descriptor, or that touches a path inside a rootfs.
#![allow(unsafe_code)]

pub mod atomic;
pub mod beside;
pub mod bpf;
pub mod capability;
pub mod child;
pub mod copy;
pub mod daemon;
pub mod flatten;
pub mod host;
pub mod ids;
pub mod implied;
pub mod inet;
pub mod landlock;
pub mod lock;
pub mod making;
pub mod mapped;
pub mod marks;
pub mod merged;
pub mod mount;
pub mod mountinfo;
pub mod namespace;
pub mod netdevice;
pub mod netlink;
pub mod notify;
pub mod owners;
pub mod packet;
pub mod parallel;
pub mod path;
pub mod process;
pub mod pseudo;
pub mod pty;
pub mod sched;
pub mod seal;
pub mod seccomp;
pub mod share;
pub mod signal;
pub mod socket;
pub mod sockopt;
pub mod transfer;
pub mod transplant;
pub mod tree;
pub mod usage;
pub mod userns;
pub mod visit;
