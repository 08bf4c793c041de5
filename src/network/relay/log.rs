//! What was refused, written down for the container's owner.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::base::time;
use crate::network::policy::Refusal;

/// The same thing is noted so often at most.
const AGAIN: Duration = Duration::from_secs(60);
/// So many things are known to have been noted; all are forgotten when there are more.
const KNOWN: usize = 4096;
/// The file grows no longer than this (bytes): the container decides what is refused, and how often.
const LONGEST: u64 = 1 << 20;

/// A file of lines: the time (RFC 3339, UTC), what it was (`tcp`, `udp` or `icmp`), where to, why not
/// (`prohibited`, `unreachable` or `closed`); or that there were too many connections. It is there from the first
/// line on.
#[derive(Default)]
pub struct Log {
    path: Option<PathBuf>,
    /// Whether what the rules refuse is noted.
    rules: bool,
    file: Option<File>,
    length: u64,
    noted: HashMap<(&'static str, SocketAddr), Instant>,
    full: Option<Instant>,
}

impl Log {
    /// Notes into this file, at its end. Without one, or if it cannot be opened, nothing is noted.
    pub fn new(path: Option<&Path>, rules: bool) -> Self {
        Self { path: path.map(Path::to_owned), rules, ..Self::default() }
    }

    /// Notes that something was refused by a rule.
    pub fn refused(&mut self, what: &'static str, to: SocketAddr, refusal: Refusal, now: Instant) {
        if !self.rules || self.path.is_none() {
            return;
        }
        let key = (what, to);
        if self.noted.get(&key).is_some_and(|then| now.duration_since(*then) < AGAIN) {
            return;
        }
        if self.noted.len() >= KNOWN {
            self.noted.clear();
        }
        self.noted.insert(key, now);
        let why = match refusal {
            Refusal::Prohibited => "prohibited",
            Refusal::Unreachable => "unreachable",
            Refusal::Closed => "closed",
        };
        let target = if what == "icmp" { to.ip().to_string() } else { to.to_string() };
        self.write(&format!("{what} {target} {why}"));
    }

    /// Notes that connections are reset, since there are as many as there may be.
    pub fn full(&mut self, limit: usize, now: Instant) {
        if self.path.is_none() || self.full.is_some_and(|then| now.duration_since(then) < AGAIN) {
            return;
        }
        self.full = Some(now);
        self.write(&format!("tcp more than {limit} connections: new ones are reset"));
    }

    fn write(&mut self, text: &str) {
        if self.file.is_none() {
            let open = |path| OpenOptions::new().append(true).create(true).mode(0o600).open(path);
            self.file = self.path.as_deref().and_then(|path| open(path).ok());
            self.length =
                self.file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |metadata| metadata.len());
        }
        let line = format!("{} {text}\n", time::utc(Timestamp::now()));
        let Some(file) = self.file.as_mut().filter(|_| self.length + line.len() as u64 <= LONGEST) else {
            (self.file, self.path) = (None, None);
            return;
        };
        self.length += line.len() as u64;
        // A full disk is nothing that the container should feel.
        let _ = file.write_all(line.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thing_is_noted_once_a_minute_and_the_file_stays_short() {
        let path = std::env::temp_dir().join(format!("umiak-{:x}", crate::sys::atomic::random().unwrap()));
        let to: SocketAddr = "192.0.2.1:443".parse().unwrap();
        let mut log = Log::new(Some(&path), true);
        let start = Instant::now();
        for seconds in [0, 1, 59, 61] {
            log.refused("tcp", to, Refusal::Prohibited, start + Duration::from_secs(seconds));
        }
        log.refused("icmp", to, Refusal::Unreachable, start);
        for seconds in [0, 1, 60] {
            log.full(16, start + Duration::from_secs(seconds));
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().filter_map(|line| line.split_once(' ')).map(|(_, l)| l).collect();
        let expected = ["tcp 192.0.2.1:443 prohibited"; 2];
        let full = ["tcp more than 16 connections: new ones are reset"; 2];
        assert_eq!(lines, [&expected[..], &["icmp 192.0.2.1 unreachable"], &full].concat());
        for port in 1..40_000 {
            log.refused("udp", SocketAddr::new(to.ip(), port), Refusal::Closed, start);
        }
        assert!(log.noted.len() <= KNOWN);
        let length = std::fs::metadata(&path).unwrap().len();
        assert!(length <= LONGEST && length > LONGEST - 100, "{length}");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn without_rules_only_the_limit_is_noted() {
        let path = std::env::temp_dir().join(format!("umiak-{:x}", crate::sys::atomic::random().unwrap()));
        let mut log = Log::new(Some(&path), false);
        log.refused("tcp", "127.0.0.1:1".parse().unwrap(), Refusal::Prohibited, Instant::now());
        assert!(!path.exists());
        log.full(16, Instant::now());
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 1);
        std::fs::remove_file(path).unwrap();
    }
}
