//! The messages between who reads files and who writes them: one a file, as bytes of fixed order, since names
//! and attributes are no text.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::{Item, Kind, Problem};
use crate::sys::socket;

/// What one message of the kernel's socket, and of [`socket::receive`], has room for.
const LONGEST: usize = 60_000;

/// The reader's end: tells items.
#[derive(Debug)]
pub struct Source(OwnedFd);

/// The writer's end: is told items.
#[derive(Debug)]
pub struct Stream(OwnedFd);

/// Two connected ends.
impl Source {
    /// Makes both ends.
    pub fn pair() -> io::Result<(Self, Stream)> {
        let (source, stream) = socket::packet_pair()?;
        Ok((Self(source), Stream(stream)))
    }

    /// Tells a file and hands its content over.
    pub fn send(&self, item: &Item, content: Option<OwnedFd>) -> io::Result<()> {
        let mut bytes = vec![b'I'];
        encode(item, &mut bytes);
        if bytes.len() > LONGEST {
            self.fail(&Problem::TooMuch(item.path.display().to_string()))?;
            return Err(io::Error::from_raw_os_error(libc::E2BIG));
        }
        socket::send(&self.0, &bytes, content.as_ref().map(AsFd::as_fd))
    }

    /// Tells that all has been told.
    pub fn end(&self) -> io::Result<()> {
        socket::send(&self.0, b"E", None)
    }

    /// Tells that no more comes, and why.
    pub fn fail(&self, problem: &Problem) -> io::Result<()> {
        let mut bytes = vec![b'F'];
        bytes.extend(serde_json::to_vec(problem).unwrap_or_default());
        bytes.truncate(LONGEST);
        socket::send(&self.0, &bytes, None)
    }
}

impl AsFd for Source {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Stream {
    /// The next file; `None` when all has been told.
    pub fn next(&self) -> Result<Option<(Item, Option<OwnedFd>)>, Problem> {
        let (bytes, content) = socket::receive(&self.0)
            .map_err(|error| Problem::io("receiving", Path::new("a file"), &error))?;
        match bytes.split_first() {
            Some((b'I', rest)) => {
                let item = decode(&mut { rest }).ok_or(Problem::Died)?;
                Ok(Some((item, content)))
            }
            Some((b'E', _)) => Ok(None),
            Some((b'F', rest)) => Err(serde_json::from_slice(rest).unwrap_or(Problem::Died)),
            _ => Err(Problem::Died),
        }
    }
}

fn put(bytes: &mut Vec<u8>, text: &[u8]) {
    bytes.extend((text.len() as u32).to_le_bytes());
    bytes.extend(text);
}

fn encode(item: &Item, bytes: &mut Vec<u8>) {
    let (kind, text): (u8, &OsStr) = match &item.kind {
        Kind::Directory => (0, OsStr::new("")),
        Kind::File => (1, OsStr::new("")),
        Kind::Link(first) => (2, first.as_os_str()),
        Kind::Symlink(target) => (3, target),
        Kind::Fifo => (4, OsStr::new("")),
        Kind::Device => (5, OsStr::new("")),
    };
    bytes.push(kind);
    put(bytes, text.as_bytes());
    put(bytes, item.path.as_os_str().as_bytes());
    for number in [item.mode, item.uid, item.gid, item.mtime.1, item.attributes.len() as u32] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend(item.mtime.0.to_le_bytes());
    for (name, value) in &item.attributes {
        put(bytes, name.as_bytes());
        put(bytes, value);
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*first)
}

fn text(bytes: &mut &[u8]) -> Option<OsString> {
    let length = u32::from_le_bytes(take(bytes)?) as usize;
    let (text, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(OsString::from_vec(text.to_vec()))
}

fn decode(bytes: &mut &[u8]) -> Option<Item> {
    let [kind] = take(bytes)?;
    let target = text(bytes)?;
    let path = PathBuf::from(text(bytes)?);
    let mut number = || Some(u32::from_le_bytes(take(bytes)?));
    let (mode, uid, gid, nanoseconds, count) = (number()?, number()?, number()?, number()?, number()?);
    let seconds = i64::from_le_bytes(take(bytes)?);
    let mut attributes = Vec::new();
    for _ in 0..count {
        attributes.push((text(bytes)?, text(bytes)?.into_vec()));
    }
    let kind = match kind {
        0 => Kind::Directory,
        1 => Kind::File,
        2 => Kind::Link(target.into()),
        3 => Kind::Symlink(target),
        4 => Kind::Fifo,
        5 => Kind::Device,
        _ => return None,
    };
    Some(Item { path, kind, mode, uid, gid, mtime: (seconds, nanoseconds), attributes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_arrives() {
        let (source, stream) = Source::pair().unwrap();
        let item = Item {
            path: OsString::from_vec(b"a/\xff\n".to_vec()).into(),
            kind: Kind::Symlink("x".into()),
            mode: 0o4755,
            uid: 7,
            gid: u32::MAX,
            mtime: (-3, 999_999_999),
            attributes: vec![("user.a".into(), vec![0, 1, 255]), ("user.b".into(), Vec::new())],
        };
        source.send(&item, Some(std::fs::File::open("/dev/null").unwrap().into())).unwrap();
        let (told, content) = stream.next().unwrap().unwrap();
        assert_eq!(told, item);
        assert!(content.is_some());
        source.end().unwrap();
        assert_eq!(stream.next().unwrap().map(|(item, _)| item), None);
        let problem = Problem::FileThere("x".into());
        source.fail(&problem).unwrap();
        assert_eq!(stream.next().map(|_| ()).unwrap_err(), problem);
        let much = Item { attributes: vec![("user.a".into(), vec![0; 65_000])], ..item };
        assert!(source.send(&much, None).is_err());
        assert!(matches!(stream.next(), Err(Problem::TooMuch(_))));
        drop(source);
        assert!(matches!(stream.next(), Err(Problem::Died)));
    }

    #[test]
    fn half_a_message_is_none() {
        let item = Item {
            path: "a".into(),
            kind: Kind::File,
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: (0, 0),
            attributes: vec![("user.a".into(), vec![1; 9])],
        };
        let mut bytes = Vec::new();
        encode(&item, &mut bytes);
        for length in 0..bytes.len() {
            assert_eq!(decode(&mut &bytes[..length]), None, "{length}");
        }
        assert_eq!(decode(&mut &*bytes), Some(item));
    }
}
