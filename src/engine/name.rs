//! Names for containers that were given none: a word for a way of travelling and a sea or shore.

const FIRST: &[&str] = &[
    "agile", "amber", "bold", "brave", "breezy", "bright", "brisk", "calm", "clear", "clever", "cosy",
    "crisp", "daring", "deft", "eager", "early", "easy", "fair", "fleet", "fond", "free", "fresh", "gentle",
    "glad", "golden", "grand", "happy", "hardy", "honest", "humble", "jolly", "keen", "kind", "light",
    "lively", "loyal", "lucky", "mellow", "merry", "mighty", "modest", "neat", "nimble", "noble", "patient",
    "placid", "plucky", "polite", "proud", "quick", "quiet", "ready", "robust", "serene", "sharp", "silent",
    "silver", "sleek", "snug", "sober", "spry", "stable", "steady", "still", "stout", "sturdy", "sunny",
    "swift", "tender", "tidy", "trim", "trusty", "vivid", "warm", "wise", "witty", "young", "zesty",
];

const SECOND: &[&str] = &[
    "anchor",
    "bay",
    "beacon",
    "breeze",
    "buoy",
    "canoe",
    "cape",
    "channel",
    "cliff",
    "cod",
    "compass",
    "coral",
    "cove",
    "crab",
    "current",
    "dory",
    "drift",
    "dune",
    "eider",
    "estuary",
    "fathom",
    "ferry",
    "fjord",
    "floe",
    "gale",
    "gannet",
    "gull",
    "harbour",
    "heron",
    "horizon",
    "inlet",
    "isle",
    "kayak",
    "keel",
    "kelp",
    "lagoon",
    "ledge",
    "lighthouse",
    "loon",
    "mast",
    "mist",
    "moraine",
    "narwhal",
    "oar",
    "orca",
    "otter",
    "paddle",
    "pearl",
    "petrel",
    "pier",
    "pilot",
    "plover",
    "puffin",
    "quay",
    "reef",
    "rigging",
    "rudder",
    "sail",
    "salmon",
    "sandbar",
    "seal",
    "shoal",
    "shore",
    "skerry",
    "skiff",
    "sound",
    "spray",
    "squall",
    "star",
    "strait",
    "surf",
    "swell",
    "tern",
    "tide",
    "trawler",
    "voyage",
    "walrus",
    "wave",
    "whale",
    "wharf",
];

/// A name out of 64 random bits. There are some six thousand pairs of words; who has `failed` so often to find one
/// that is free gets a number with it, which has more digits each time.
pub fn from_random(bits: u64, failed: u32) -> String {
    const WITHOUT_NUMBER: u32 = 3;
    let pick = |words: &[&'static str], bits: u64| words[bits as usize % words.len()];
    let (first, second) = (pick(FIRST, bits & 0xffff), pick(SECOND, bits >> 16 & 0xffff));
    match failed.checked_sub(WITHOUT_NUMBER) {
        None => format!("{first}_{second}"),
        Some(more) => format!("{first}_{second}{}", (bits >> 32) % 10_u64.pow(more.min(8) + 1)),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_name_is_a_name() {
        for bits in (0..10_000_u64).map(|n| n.wrapping_mul(0x1234_5678_9abc_def1)) {
            crate::base::id::check_name(&super::from_random(bits, 0)).unwrap();
            crate::base::id::check_name(&super::from_random(bits, 100)).unwrap();
        }
    }

    #[test]
    fn names_do_not_run_out() {
        let mut taken = std::collections::HashSet::new();
        let mut bits = 1_u64;
        let mut next = || {
            bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            bits ^ (bits >> 29)
        };
        for _ in 0..50_000 {
            let found = (0..20).any(|failed| taken.insert(super::from_random(next(), failed)));
            assert!(found, "{} are taken", taken.len());
        }
    }
}
