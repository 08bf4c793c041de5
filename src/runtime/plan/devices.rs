//! Devices of a spec, and those that every container has (`config-linux.md`, "Devices").

use std::path::{Component, PathBuf};

use oci_spec::runtime::{Linux, LinuxDevice, LinuxDeviceType};

use super::{Op, PlanError, invalid};
use crate::base::idmap::{IdMapping, IdRange};

/// A device node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// In the container; the same on the host.
    pub path: PathBuf,
    /// `c`, `b` or `p`.
    pub kind: NodeKind,
    /// Device number.
    pub major: u32,
    /// Device number.
    pub minor: u32,
    /// Permissions.
    pub mode: u32,
    /// Owner inside.
    pub uid: u32,
    /// Group inside.
    pub gid: u32,
}

/// Kinds of device nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeKind {
    /// Character device.
    Char,
    /// Block device.
    Block,
    /// Named pipe.
    Fifo,
}

const DEFAULT_NODES: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

const DEFAULT_LINKS: [(&str, &str); 5] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
];

/// How devices come into a container.
#[derive(Clone, Copy)]
pub(super) struct Means<'a> {
    /// It has a user namespace, whose root can make none.
    pub in_userns: bool,
    /// Its maker can, for it: the mapping tells who owns them outside.
    pub maker: Option<&'a IdMapping>,
    /// `/dev` is not the host's.
    pub own_dev: bool,
}

pub(super) fn plan_devices(linux: &Linux, means: Means<'_>, ops: &mut Vec<Op>) -> Result<(), PlanError> {
    let Means { in_userns, maker, own_dev } = means;
    let asked: Vec<Node> = linux
        .devices()
        .as_deref()
        .unwrap_or_default()
        .iter()
        .enumerate()
        .map(|(index, device)| node(index, device))
        .collect::<Result<_, _>>()?;
    let default = DEFAULT_NODES.iter().map(|(path, major, minor)| Node {
        path: path.into(),
        kind: NodeKind::Char,
        major: *major,
        minor: *minor,
        mode: 0o666,
        uid: 0,
        gid: 0,
    });
    let mut nodes: Vec<Node> = Vec::new();
    if own_dev {
        nodes.extend(default.filter(|node| !asked.iter().any(|a| a.path == node.path)));
    }
    // A user namespace may make no devices, but pipes.
    let bound = |node: &Node| in_userns && node.kind != NodeKind::Fifo;
    for node in nodes {
        ops.push(if bound(&node) { Op::BindNode(node) } else { Op::Node(node) });
    }
    for (index, node) in asked.into_iter().enumerate() {
        ops.push(match maker {
            Some(mapping) if bound(&node) => {
                let outside = |id: u32, ranges: &[IdRange], name: &str| {
                    let unmapped = || invalid(format!("linux.devices[{index}].{name}: {id} is not mapped"));
                    IdMapping::to_host(ranges, id).ok_or_else(unmapped)
                };
                let uid = outside(node.uid, &mapping.uids, "uid")?;
                let gid = outside(node.gid, &mapping.gids, "gid")?;
                Op::MadeNode { node, owner: (uid, gid) }
            }
            _ if bound(&node) => Op::BindNode(node),
            _ => Op::Node(node),
        });
    }
    if own_dev {
        let links = DEFAULT_LINKS.iter();
        ops.extend(links.map(|(path, target)| Op::Symlink { path: path.into(), target: (*target).into() }));
    }
    Ok(())
}

fn node(index: usize, device: &LinuxDevice) -> Result<Node, PlanError> {
    let path = device.path().clone();
    let field = |name: &str| format!("linux.devices[{index}].{name}");
    let kind = match device.typ() {
        LinuxDeviceType::C | LinuxDeviceType::U => NodeKind::Char,
        LinuxDeviceType::B => NodeKind::Block,
        LinuxDeviceType::P => NodeKind::Fifo,
        LinuxDeviceType::A => {
            return Err(invalid(format!("{}: a device cannot be of type a", field("type"))));
        }
    };
    let number = |n: i64, name: &str, bits: u32| match u32::try_from(n) {
        Ok(n) if n < 1 << bits => Ok(n),
        _ => Err(invalid(format!("{}: {n} is no device number", field(name)))),
    };
    let bad = |problem: &str| Err(invalid(format!("{}: \"{}\" {problem}", field("path"), path.display())));
    if !path.is_absolute() {
        return bad("is not absolute");
    }
    if path.components().any(|c| matches!(c, Component::ParentDir)) || path.file_name().is_none() {
        return bad("is no file's");
    }
    Ok(Node {
        kind,
        // A pipe has no number.
        major: if kind == NodeKind::Fifo { 0 } else { number(device.major(), "major", 12)? },
        minor: if kind == NodeKind::Fifo { 0 } else { number(device.minor(), "minor", 20)? },
        mode: device.file_mode().unwrap_or(0o666) & 0o7777,
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
        path,
    })
}
