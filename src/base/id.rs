//! Identifiers of containers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::digest::NIBBLES;

/// A text that cannot be a container's id or name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseIdError {
    /// An engine's id is 64 hexadecimal digits.
    #[error("\"{0}\" is not a container id")]
    Id(String),
    /// Podman's rule for names, which keeps them usable as file names.
    #[error("\"{0}\" is not a valid name: names must match [a-zA-Z0-9][a-zA-Z0-9_.-]*")]
    Name(String),
}

/// The engine's id of a container: 64 lower-case hexadecimal digits, random.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerId(String);

impl ContainerId {
    /// Makes an id out of 32 random bytes.
    pub fn from_random(bytes: [u8; 32]) -> Self {
        Self(crate::base::digest::Digest::from_bytes(bytes).hex())
    }

    /// The whole id.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first 12 digits, as listings show them.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ContainerId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if is_id(text) { Ok(Self(text.to_owned())) } else { Err(ParseIdError::Id(text.to_owned())) }
    }
}

fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().fold(0, |all, byte| all | NIBBLES[usize::from(byte)]) & 0x80 == 0
}

impl TryFrom<String> for ContainerId {
    type Error = ParseIdError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if is_id(&text) { Ok(Self(text)) } else { Err(ParseIdError::Id(text)) }
    }
}

impl From<ContainerId> for String {
    fn from(id: ContainerId) -> Self {
        id.0
    }
}

/// Whether `name` may name a container or a volume.
pub fn check_name(name: &str) -> Result<(), ParseIdError> {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
    let rest = bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    if first && rest && name.len() <= 255 { Ok(()) } else { Err(ParseIdError::Name(name.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_podmans_rule() {
        for good in ["a", "web-1", "A_b.c"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", ".", "..", "a/b", "a b", "é"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ids_are_64_hex_digits() {
        let id = ContainerId::from_random([0xab; 32]);
        assert_eq!(id.short(), "abababababab");
        assert!(id.as_str().parse::<ContainerId>().is_ok());
        assert!("abc".parse::<ContainerId>().is_err());
    }
}
