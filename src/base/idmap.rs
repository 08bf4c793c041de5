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

    /// The container's id of the host's `id`, if it is mapped.
    pub fn to_container(ranges: &[IdRange], id: u32) -> Option<u32> {
        ranges.iter().find(|r| id >= r.host && id - r.host < r.size).map(|r| r.container + (id - r.host))
    }
}

/// The mapping in which `own`, a host's id, keeps its number inside: the others of `ranges`, but for
/// `own` again, follow in their order from 0 on and leave that number out. Beyond the last of them
/// nothing is mapped.
pub fn keeping(ranges: &[IdRange], own: u32) -> Vec<IdRange> {
    keeping_as(ranges, own, own)
}

/// The same with another number for `own` inside.
pub fn keeping_as(ranges: &[IdRange], own: u32, inside: u32) -> Vec<IdRange> {
    let mut kept = vec![IdRange { container: inside, host: own, size: 1 }];
    let mut next = 0_u32;
    for range in ranges.iter().filter(|r| !(r.host == own && r.size == 1)) {
        // One range below the kept number, one above it.
        let below = inside.saturating_sub(next).min(range.size);
        for (host, size) in [(range.host, below), (range.host + below, range.size - below)] {
            if next == inside {
                next += 1;
            }
            if size > 0 {
                kept.push(IdRange { container: next, host, size });
                next = next.saturating_add(size);
            }
        }
    }
    kept.sort_by_key(|range| range.container);
    kept
}

/// The text that the kernel takes for `/proc/PID/uid_map`.
pub fn map_text(ranges: &[IdRange]) -> String {
    ranges.iter().map(|r| format!("{} {} {}\n", r.container, r.host, r.size)).collect()
}

/// The ranges of a `/proc/PID/uid_map`; a line that is none is skipped.
pub fn parse_map(text: &str) -> Vec<IdRange> {
    let line = |line: &str| {
        let numbers: Vec<u32> = line.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
        let [container, host, size] = numbers[..] else { return None };
        Some(IdRange { container, host, size })
    };
    text.lines().filter_map(line).collect()
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
        assert_eq!(parse_map("         0       1000          1\n1 100000 65536\nx\n"), ranges);
        assert_eq!(IdMapping::to_container(&ranges, 100_001), Some(2));
        assert_eq!(IdMapping::to_container(&ranges, 99_999), None);
    }

    #[test]
    fn an_id_keeps_its_number() {
        let range = |container, host, size| IdRange { container, host, size };
        let ranges = [range(0, 1000, 1), range(1, 100_000, 600), range(601, 300_000, 65_000)];
        let kept = keeping(&ranges, 1000);
        let expected = [
            range(0, 100_000, 600),
            range(600, 300_000, 400),
            range(1000, 1000, 1),
            range(1001, 300_400, 64_600),
        ];
        assert_eq!(kept, expected);
        // Of every host's id there is just one inside.
        for host in [1000, 100_000, 100_599, 300_000, 300_399, 300_400, 364_999] {
            let inside = IdMapping::to_container(&kept, host).unwrap();
            assert_eq!(IdMapping::to_host(&kept, inside), Some(host));
        }
        // A number beyond all others, and the first of all.
        let few = [range(0, 5000, 1), range(1, 100_000, 600)];
        assert_eq!(keeping(&few, 5000), [range(0, 100_000, 600), range(5000, 5000, 1)]);
        assert_eq!(keeping(&[range(0, 0, 1), range(1, 7, 2)], 0), [range(0, 0, 1), range(1, 7, 2)]);
    }
}
