//! `--chmod`: a mode, or changes of one, as chmod(1) has them.

use super::Error;

/// What `--chmod` makes of a mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chmod {
    /// This one.
    Exactly(u32),
    /// What the changes, one after the other, make of it.
    Changes(Vec<Change>),
}

/// One change: `u=rwX`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Bits that it is about (`07777` at most).
    who: u32,
    sign: char,
    /// Bits, repeated for user, group and others.
    bits: u32,
    /// `X`: execution, for directories and what can be executed already.
    execute: bool,
    /// The bits of the user (6), the group (3) or others (0), by how far they are from the last.
    of: Option<u32>,
}

/// What a change that does not say whose bits it is about leaves alone, as the usual umask(2) has it.
const UMASK: u32 = 0o022;

const USER: u32 = 0o4700;
const GROUP: u32 = 0o2070;
const OTHERS: u32 = 0o1007;

impl Chmod {
    /// Reads it.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let wrong = || Error::Mode(text.to_owned());
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777);
            return mode.map(Self::Exactly).ok_or_else(wrong);
        }
        let mut changes = Vec::new();
        for clause in text.split(',') {
            let signs = |c| matches!(c, '+' | '-' | '=');
            let at = clause.find(signs).ok_or_else(wrong)?;
            let (people, mut rest) = clause.split_at(at);
            let mut who = 0;
            for person in people.chars() {
                who |= match person {
                    'u' => USER,
                    'g' => GROUP,
                    'o' => OTHERS,
                    'a' => 0o7777,
                    _ => return Err(wrong()),
                };
            }
            while let Some(sign) = rest.chars().next() {
                let after = &rest[1..];
                let end = after.find(signs).unwrap_or(after.len());
                let who = if people.is_empty() { 0o7777 & !UMASK } else { who };
                changes.push(Change::parse(who, sign, &after[..end]).ok_or_else(wrong)?);
                rest = &after[end..];
            }
        }
        Ok(Self::Changes(changes))
    }

    /// The mode (12 bits) that comes of one.
    pub fn apply(&self, mode: u32, directory: bool) -> u32 {
        match self {
            Self::Exactly(mode) => *mode,
            Self::Changes(changes) => {
                changes.iter().fold(mode & 0o7777, |mode, change| change.apply(mode, directory))
            }
        }
    }
}

impl Change {
    fn parse(who: u32, sign: char, what: &str) -> Option<Self> {
        let mut change = Self { who, sign, bits: 0, execute: false, of: None };
        match what {
            "u" => change.of = Some(6),
            "g" => change.of = Some(3),
            "o" => change.of = Some(0),
            _ => {
                for letter in what.chars() {
                    match letter {
                        'r' => change.bits |= 0o444,
                        'w' => change.bits |= 0o222,
                        'x' => change.bits |= 0o111,
                        'X' => change.execute = true,
                        's' => change.bits |= 0o6000,
                        't' => change.bits |= 0o1000,
                        _ => return None,
                    }
                }
            }
        }
        Some(change)
    }

    fn apply(&self, mode: u32, directory: bool) -> u32 {
        let mut bits = self.bits;
        if self.execute && (directory || mode & 0o111 != 0) {
            bits |= 0o111;
        }
        if let Some(shift) = self.of {
            bits |= (mode >> shift & 0o7) * 0o111;
        }
        let bits = bits & self.who;
        // chmod(1): `=` leaves the set-id bits of directories, which mean something else, alone.
        let cleared = if directory { self.who & 0o777 } else { self.who };
        match self.sign {
            '+' => mode | bits,
            '-' => mode & !bits,
            _ => mode & !cleared | bits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_what_chmod_makes_them() {
        for (text, mode, directory, expected) in [
            ("755", 0o600, false, 0o755),
            ("4755", 0o600, true, 0o4755),
            ("0", 0o777, false, 0),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o700, false, 0o755),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("+x", 0o644, false, 0o755),
            ("+w", 0o444, false, 0o644),
            ("a+w", 0o444, false, 0o666),
            ("go-rwx", 0o777, false, 0o700),
            ("g=u", 0o740, false, 0o770),
            ("o=g-w", 0o660, false, 0o664),
            ("u+s,g+s,+t", 0o755, false, 0o7755),
            ("ug+s", 0o755, false, 0o6755),
            ("a=r", 0o4755, false, 0o444),
            ("a=rx", 0o2755, true, 0o2555),
            ("u=", 0o777, false, 0o077),
        ] {
            assert_eq!(Chmod::parse(text).unwrap().apply(mode, directory), expected, "{text} {mode:o}");
        }
        for text in ["", "8", "10000", "u", "u+q", "+x,", "z+x", "-", "755x", "0x1"] {
            // A sign alone changes nothing, as in chmod(1).
            assert_eq!(Chmod::parse(text).is_ok(), text == "-", "{text}");
        }
    }
}
