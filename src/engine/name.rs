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

/// A name out of 64 random bits.
pub fn from_random(bits: u64) -> String {
    let pick = |words: &[&'static str], bits: u64| words[bits as usize % words.len()];
    format!("{}_{}", pick(FIRST, bits & 0xffff_ffff), pick(SECOND, bits >> 32))
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_name_is_a_name() {
        for bits in (0..10_000_u64).map(|n| n.wrapping_mul(0x1234_5678_9abc_def1)) {
            crate::base::id::check_name(&super::from_random(bits)).unwrap();
        }
    }
}
