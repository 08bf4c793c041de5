//! What `ADD` fetches.

use std::fs::File;
use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

use super::Error;
use crate::base::digest::Digest;
use crate::base::report;
use crate::image::create::{Spool, spool_file};
use crate::image::registry::{Download, Said, is_address};
use crate::storage::Store;
use crate::sys::child;

/// Most bytes of a file that is fetched.
const MAX: u64 = 1 << 40;

/// What a source of `ADD`, or a build context, is that is no path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remote {
    /// A file at `http://…` or `https://…`: to be fetched.
    File,
    /// A Git repository.
    Git,
}

/// Whether a source of `ADD` is an address.
pub fn remote(source: &str) -> Option<Remote> {
    let scheme = |schemes: &[&str]| schemes.iter().any(|scheme| source.starts_with(scheme));
    if scheme(&["git://", "ssh://", "git+"]) || source.starts_with("git@") && source.contains(':') {
        return Some(Remote::Git);
    }
    if !is_address(source) {
        return None;
    }
    let address = source.split(['#', '?']).next().unwrap_or_default();
    Some(if address.ends_with(".git") { Remote::Git } else { Remote::File })
}

/// A file that was fetched.
#[derive(Debug)]
pub struct Fetched {
    /// The source, as written.
    pub url: String,
    /// What the server, or the address, calls it.
    pub name: Option<String>,
    /// Has its bytes from the start.
    pub file: File,
    /// How many.
    pub size: u64,
    /// Seconds since 1970, if the server says.
    pub modified: Option<i64>,
    /// Their digest.
    pub digest: Digest,
}

#[derive(Serialize, Deserialize)]
struct Answer {
    digest: Digest,
    size: u64,
    disposition: Option<String>,
    modified: Option<String>,
}

/// Fetches a file, and checks it (`--checksum`). Work is done in a process of its own: the caller must be
/// single-threaded.
pub fn fetch(store: &Store, url: &str, checksum: Option<&str>) -> Result<Fetched, Error> {
    let expected = checksum.map(expected).transpose()?;
    if remote(url) == Some(Remote::Git) {
        return Err(Error::Git(url.to_owned()));
    }
    let failed = |message| Error::Fetch { url: url.to_owned(), message };
    let file = spool_file(store).map_err(|error| failed(report::chain(&error)))?;
    let told = child::call(None, || get(&file, url).map_err(|error| report::chain(&error)));
    let told = told.map_err(|error| failed(report::chain(&error)))?;
    let Answer { digest, size, disposition, modified } = told.map_err(failed)?;
    if let Some(expected) = expected.filter(|expected| *expected != digest) {
        return Err(Error::Checksum { url: url.to_owned(), expected, found: digest });
    }
    let name = disposition.as_deref().and_then(name_in).or_else(|| name_of(url));
    let modified = modified.as_deref().and_then(seconds);
    Ok(Fetched { url: url.to_owned(), name, file, size, modified, digest })
}

/// Reads `--checksum`.
fn expected(text: &str) -> Result<Digest, Error> {
    text.parse().map_err(|_| Error::NoChecksum(text.to_owned()))
}

/// A time as HTTP has it (RFC 9110, 5.6.7): seconds since 1970.
fn seconds(text: &str) -> Option<i64> {
    jiff::fmt::rfc2822::parse(text).ok().map(|time| time.timestamp().as_second())
}

fn get(file: &File, url: &str) -> io::Result<Answer> {
    let mut download = Download::new(url);
    let mut spool = Spool::new(file);
    let mut buffer = vec![0; 128 << 10];
    let mut size = 0;
    loop {
        match download.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                size += count as u64;
                if size > MAX {
                    return Err(io::ErrorKind::FileTooLarge.into());
                }
                spool.write_all(&buffer[..count])?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let (digest, size) = spool.finish();
    let Said { disposition, modified } = download.said().clone();
    Ok(Answer { digest, size, disposition, modified })
}

/// A name that is no path, and may be a file's.
fn plain(name: &str) -> Option<String> {
    let name = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let usable = !matches!(name, "" | "." | "..") && !name.contains(|c: char| c.is_control());
    usable.then(|| name.to_owned())
}

/// The name in a `Content-Disposition` (RFC 6266).
fn name_in(disposition: &str) -> Option<String> {
    let mut found = None;
    let mut rest = disposition.split_once(';')?.1;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ';']);
        let Some((key, after)) = rest.split_once('=') else { return found };
        let value;
        if let Some(quoted) = after.trim_start().strip_prefix('"') {
            let mut text = String::new();
            let mut characters = quoted.char_indices();
            let end = loop {
                match characters.next()? {
                    (at, '"') => break at,
                    (_, '\\') => text.push(characters.next()?.1),
                    (_, c) => text.push(c),
                }
            };
            value = text;
            rest = &quoted[end + 1..];
        } else {
            let end = after.find(';').unwrap_or(after.len());
            value = after[..end].trim().to_owned();
            rest = &after[end..];
        }
        match &*key.trim().to_ascii_lowercase() {
            // It says more than the other.
            "filename*" => {
                let text = value.splitn(3, '\'').nth(2).map(decoded);
                if let Some(name) = text.and_then(|text| plain(&text)) {
                    return Some(name);
                }
            }
            "filename" => found = plain(&value),
            _ => {}
        }
        if rest.trim().is_empty() {
            return found;
        }
    }
}

/// The name that ends an address.
fn name_of(url: &str) -> Option<String> {
    let path = url.split(['#', '?']).next()?.split_once("://")?.1;
    plain(&decoded(path.split_once('/')?.1.rsplit('/').next()?))
}

/// With `%XX` as what it means.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).filter(|hex| *first == b'%' && hex.iter().all(u8::is_ascii_hexdigit));
        let hex = hex.and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_repositories() {
        for (text, expected) in [
            ("http://x/y.tar", Some(Remote::File)),
            ("https://x/y.git", Some(Remote::Git)),
            ("https://x/y.git#main:dir", Some(Remote::Git)),
            ("https://x/y.git?ref=v1", Some(Remote::Git)),
            ("https://x/y.github.io", Some(Remote::File)),
            ("git@github.com:a/b", Some(Remote::Git)),
            ("ssh://a/b", Some(Remote::Git)),
            ("git@file", None),
            ("file", None),
            ("httpx://a", None),
        ] {
            assert_eq!(remote(text), expected, "{text}");
        }
    }

    /// Answers once, over plain HTTP.
    fn served(answer: &'static str) -> String {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = [0; 4096];
            let _ = stream.read(&mut asked).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        });
        format!("http://{address}/dir/file")
    }

    #[test]
    fn what_the_server_says_comes_with_the_file() {
        let path =
            std::env::temp_dir().join(format!("umiak-fetch-{:x}", crate::sys::atomic::random().unwrap()));
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let url = served(
            "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
             Content-Disposition: attachment; filename=x\r\nConnection: close\r\n\r\ntext",
        );
        let answer = get(&file, &url).unwrap();
        assert_eq!((answer.digest, answer.size), (Digest::of(b"text"), 4));
        assert_eq!(answer.modified.as_deref().and_then(seconds), Some(784_111_777));
        assert_eq!(answer.disposition.as_deref().and_then(name_in).as_deref(), Some("x"));
        let url = served("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        assert!(get(&file, &url).is_err());
        let url = served("HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\ntext");
        assert!(get(&file, &url).is_err(), "it is cut off");
        assert_eq!(seconds("yesterday"), None);
    }

    #[test]
    fn names_are_no_paths() {
        for (text, expected) in [
            ("attachment; filename=a.txt", Some("a.txt")),
            ("attachment; filename=\"a b\\\"c.txt\"; x=y", Some("a b\"c.txt")),
            ("attachment; filename=\"../../etc/passwd\"", Some("passwd")),
            ("attachment; filename=\"..\"", None),
            ("attachment; filename=a; filename*=UTF-8''%e2%82%ac%2Fb", Some("b")),
            ("attachment; filename*=UTF-8'en'%e2%82%ac; filename=a", Some("€")),
            ("attachment", None),
            ("attachment; filename=\"open", None),
        ] {
            assert_eq!(name_in(text).as_deref(), expected, "{text}");
        }
        for (url, expected) in [
            ("http://x/a/b.tar.gz?c=/d#e", Some("b.tar.gz")),
            ("http://x/a%20b", Some("a b")),
            ("http://x/%2e%2e", None),
            ("http://x/a%2fb", Some("b")),
            ("http://x/", None),
            ("http://x", None),
        ] {
            assert_eq!(name_of(url).as_deref(), expected, "{url}");
        }
    }
}
