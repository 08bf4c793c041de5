//! Patterns of file names, as a shell's: `*`, `?`, `[a-z]` and `[!a-z]` within one name of a path.

use std::io;
use std::path::{Component, Path, PathBuf};

/// More matches are refused: each becomes a mount.
const MOST: usize = 4096;

/// The paths that a pattern matches, in order.
pub fn expand(pattern: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = vec![PathBuf::from("/")];
    for component in pattern.components() {
        let Component::Normal(name) = component else { continue };
        let name = name.to_string_lossy();
        let mut next = Vec::new();
        for path in found {
            if !name.contains(['*', '?', '[']) {
                let path = path.join(&*name);
                next.extend(path.symlink_metadata().is_ok().then_some(path));
                continue;
            }
            // What is no directory, or may not be read, holds nothing that matches.
            for entry in std::fs::read_dir(&path).into_iter().flatten() {
                let entry = entry?.file_name();
                let text = entry.to_string_lossy();
                let hidden = text.starts_with('.') && !name.starts_with('.');
                if !hidden && matches(name.as_bytes(), text.as_bytes()) {
                    next.push(path.join(&entry));
                }
            }
            if next.len() > MOST {
                return Err(io::Error::other(format!("more than {MOST} files match")));
            }
        }
        found = next;
    }
    found.sort();
    Ok(found)
}

/// Whether a name fits a pattern. Goes back to the last `*` only, so its time is the product of the lengths.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match one(&pattern[p..], name[n]) {
            _ if pattern.get(p) == Some(&b'*') => {
                star = Some((p + 1, n));
                p += 1;
                continue;
            }
            Some(length) => {
                p += length;
                n += 1;
                continue;
            }
            None => {}
        }
        let Some((after, from)) = star else { return false };
        star = Some((after, from + 1));
        (p, n) = (after, from + 1);
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// How long the part of the pattern is that fits this byte.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern.first()? {
        b'?' => Some(1),
        b'[' => {
            let close = pattern.iter().skip(2).position(|b| *b == b']').map(|at| at + 2);
            let Some(close) = close else { return (byte == b'[').then_some(1) };
            let set = &pattern[1..close];
            let (not, set) = match set.first() {
                Some(b'!' | b'^') => (true, &set[1..]),
                _ => (false, set),
            };
            let mut inside = false;
            let mut at = 0;
            while at < set.len() {
                if at + 2 < set.len() && set[at + 1] == b'-' {
                    inside |= (set[at]..=set[at + 2]).contains(&byte);
                    at += 3;
                } else {
                    inside |= set[at] == byte;
                    at += 1;
                }
            }
            (inside != not).then_some(close + 1)
        }
        b'\\' if pattern.len() > 1 => (pattern[1] == byte).then_some(2),
        literal => (*literal == byte).then_some(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let fits = |pattern: &str, name: &str| matches(pattern.as_bytes(), name.as_bytes());
        for (pattern, name) in [
            ("*", "a"),
            ("a*c", "abbc"),
            ("*.so*", "libx.so.1"),
            ("?x", "ax"),
            ("[a-c]1", "b1"),
            ("[!a]", "b"),
            ("[x", "[x"),
            ("a\\*", "a*"),
            ("**", ""),
        ] {
            assert!(fits(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in
            [("a", "b"), ("a*", "ba"), ("?", ""), ("[a-c]", "d"), ("[!a]", "a"), ("a\\*", "ab")]
        {
            assert!(!fits(pattern, name), "{pattern} {name}");
        }
    }
}
