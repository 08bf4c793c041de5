//! Id mappings of user namespaces, as data.

use serde::{Deserialize, Serialize};

/// One line of `/proc/PID/uid_map` (user_namespaces(7)): `size` ids from `container` on inside
/// are the ids from `host` on outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// First id inside the namespace.
    pub container: u32,
    /// First id outside.
    pub host: u32,
    /// How many ids.
    pub size: u32,
}

/// The mapping of a user namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMapping {
    /// Ranges of user ids.
    pub uids: Vec<IdRange>,
    /// Ranges of group ids.
    pub gids: Vec<IdRange>,
}

impl IdMapping {
    /// Only one id of each kind: `container_*` inside is `host_*` outside.
    pub fn single(container_uid: u32, host_uid: u32, container_gid: u32, host_gid: u32) -> Self {
        let one = |container, host| vec![IdRange { container, host, size: 1 }];
        Self { uids: one(container_uid, host_uid), gids: one(container_gid, host_gid) }
    }

    /// Whether only one id of each kind is mapped.
    pub fn is_single(&self) -> bool {
        let one = |ranges: &[IdRange]| matches!(ranges, [only] if only.size == 1);
        one(&self.uids) && one(&self.gids)
    }

    /// The host's id of the container's `id`, if it is mapped.
    pub fn to_host(ranges: &[IdRange], id: u32) -> Option<u32> {
        ranges
            .iter()
            .find(|r| id >= r.container && id - r.container < r.size)
            .map(|r| r.host + (id - r.container))
    }
}

/// The text that the kernel takes for `/proc/PID/uid_map`.
pub fn map_text(ranges: &[IdRange]) -> String {
    ranges.iter().map(|r| format!("{} {} {}\n", r.container, r.host, r.size)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn translates_and_prints() {
        let ranges = [
            IdRange { container: 0, host: 1000, size: 1 },
            IdRange { container: 1, host: 100_000, size: 65536 },
        ];
        assert_eq!(IdMapping::to_host(&ranges, 0), Some(1000));
        assert_eq!(IdMapping::to_host(&ranges, 33), Some(100_032));
        assert_eq!(IdMapping::to_host(&ranges, 70_000), None);
        assert_eq!(map_text(&ranges), "0 1000 1\n1 100000 65536\n");
    }
}
