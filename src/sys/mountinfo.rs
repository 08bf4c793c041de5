//! The mounts that a process sees (proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// A mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Its number in this mount namespace.
    pub id: u64,
    /// That of the mount it is on.
    pub parent: u64,
    /// Which part of the file system it shows.
    pub root: PathBuf,
    /// Where it is, as the process sees it.
    pub point: PathBuf,
    /// The file system's type.
    pub fstype: String,
}

/// The mounts of process `pid`; 0 is the caller itself.
pub fn of(pid: i32) -> io::Result<Vec<Mount>> {
    let who = if pid == 0 { "self".to_owned() } else { pid.to_string() };
    Ok(parse(&std::fs::read(Path::new("/proc").join(who).join("mountinfo"))?))
}

fn parse(text: &[u8]) -> Vec<Mount> {
    text.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut words = line.split(|byte| *byte == b' ');
    let number = |word: &[u8]| std::str::from_utf8(word).ok()?.parse().ok();
    let (id, parent) = (number(words.next()?)?, number(words.next()?)?);
    let root = unescape(words.nth(1)?);
    let point = unescape(words.next()?);
    // Optional fields end with a dash.
    words.find(|word| *word == b"-")?;
    let fstype = String::from_utf8_lossy(words.next()?).into_owned();
    Some(Mount { id, parent, root, point, fstype })
}

/// Spaces, tabs, newlines and backslashes are written as three octal digits.
fn unescape(word: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(word.len());
    let mut at = 0;
    while at < word.len() {
        let octal = (word[at] == b'\\').then(|| word.get(at + 1..at + 4)).flatten();
        let value = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(value.unwrap_or(word[at]));
        at += if value.is_some() { 4 } else { 1 };
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_whatever_their_names() {
        let text = b"36 35 98:0 /a\\040b /m\\134n rw,noatime master:1 shared:7 - ext3 /dev/root rw\nx\n37 36 0:5 / / rw - proc proc rw\n";
        let expected =
            Mount { id: 36, parent: 35, root: "/a b".into(), point: "/m\\n".into(), fstype: "ext3".into() };
        let list = parse(text);
        assert_eq!((list.len(), &list[0]), (2, &expected));
        assert!(!of(0).unwrap().is_empty());
    }
}
