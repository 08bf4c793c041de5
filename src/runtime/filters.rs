//! Compiled filters, kept from one command to the next.
//!
//! A cluster's containers have a handful of profiles, and every `exec` needs the one of its container.
//! Reading a profile and compiling it takes longer than everything else that is done with a
//! configuration, so its filter is kept under the hash of the profile's text: `DIR/HASH`, of which the
//! contents begin with their own hash. Whoever can write there can also change the configuration.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use oci_spec::runtime::Spec;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::config::{self, Config};
use crate::base::digest::Digest;
use crate::seccomp::COMPILER;
use crate::sys::atomic::{self, Durability};
use crate::sys::seccomp::Filter;

/// What is wrong with a configuration or its profile.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// With the configuration.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// The profile cannot be compiled.
    #[error(transparent)]
    Seccomp(#[from] crate::seccomp::Error),
}

/// So many are kept; then it begins anew.
const MOST: usize = 64;
/// Digits of a hash.
const HASH: usize = 64;

/// A configuration whose filter is ready.
#[derive(Debug)]
pub struct Prepared {
    /// The configuration; without a profile if `filter` is its.
    pub spec: Spec,
    /// The filter of its profile. With a listener there is none: its path is read from the profile.
    pub filter: Option<Filter>,
    /// Sentences for the user.
    pub warnings: Vec<String>,
}

/// What of a configuration is looked at before it is read as a whole.
#[derive(Deserialize)]
struct Outline<'a> {
    #[serde(borrow)]
    linux: Option<LinuxOutline<'a>>,
}

#[derive(Deserialize)]
struct LinuxOutline<'a> {
    #[serde(borrow)]
    seccomp: Option<&'a RawValue>,
}

/// Reads a container's configuration as [`config::parse`] does, with the filter from the files in `dir`
/// where it is there, and put there where it is not. Nobody but the caller may be able to write there.
pub fn prepare(bytes: &[u8], dir: Option<&Path>) -> Result<Prepared, Error> {
    let outline = serde_json::from_slice::<Outline<'_>>(bytes).ok();
    let profile = outline.and_then(|outline| outline.linux?.seccomp).map(RawValue::get);
    let path = profile.and_then(|text| Some(dir?.join(name(text.as_bytes()))));
    if let (Some(text), Some(path)) = (profile, &path)
        && let Some(filter) = read(path)
    {
        let Config { value, warnings } = config::parse(&without(bytes, text))?;
        return Ok(Prepared { spec: value, filter: Some(filter), warnings });
    }
    let Config { value: mut spec, warnings } = config::parse(bytes)?;
    let linux = spec.linux().as_ref();
    let filter = linux.and_then(|linux| linux.seccomp().as_ref()).map(crate::seccomp::compile).transpose()?;
    let filter = filter.filter(|filter| !filter.has_listener());
    if let (Some(filter), Some(path)) = (&filter, &path) {
        // Without it the next one is as slow as this one.
        let _ = keep(path, filter);
    }
    if filter.is_some()
        && let Some(linux) = spec.linux_mut()
    {
        linux.set_seccomp(None);
    }
    Ok(Prepared { spec, filter, warnings })
}

/// The filter that `source`, a text that says all that it is made of, stands for: from the files in `dir`, or made and
/// put there. One with a listener is made each time, unless that is `ours`, and not somebody's whom the profile names.
pub fn kept<E>(
    dir: &Path,
    source: &[u8],
    ours: bool,
    make: impl FnOnce() -> Result<Filter, E>,
) -> Result<Filter, E> {
    let path = dir.join(name(source));
    if let Some(filter) = read(&path) {
        return Ok(filter);
    }
    let filter = make()?;
    if ours || !filter.has_listener() {
        // Without it the next one is as slow as this one.
        let _ = keep(&path, &filter);
    }
    Ok(filter)
}

/// Another compiler makes other filters.
fn name(source: &[u8]) -> String {
    Digest::of(&[&COMPILER.to_ne_bytes(), env!("CARGO_PKG_VERSION").as_bytes(), b"\0", source].concat()).hex()
}

/// The configuration without its profile, `text`, which is a part of it.
fn without(bytes: &[u8], text: &str) -> Vec<u8> {
    let at = text.as_ptr().addr() - bytes.as_ptr().addr();
    [&bytes[..at], b"null", &bytes[at + text.len()..]].concat()
}

fn read(path: &Path) -> Option<Filter> {
    let bytes = std::fs::read(path).ok()?;
    let (hash, rest) = bytes.split_at_checked(HASH)?;
    // What a full disk or a power cut left of one is none.
    if Digest::of(rest).hex().as_bytes() != hash {
        return None;
    }
    let (flags, program) = rest.split_first_chunk()?;
    Some(Filter { program: Filter::program_of(program)?, flags: u32::from_ne_bytes(*flags) })
}

fn keep(path: &Path, filter: &Filter) -> io::Result<()> {
    let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let kept: Vec<_> = std::fs::read_dir(dir)?.flatten().collect();
    if kept.len() >= MOST {
        kept.iter().try_for_each(|old| std::fs::remove_file(old.path()))?;
    }
    let content = [&filter.flags.to_ne_bytes()[..], &filter.bytes()].concat();
    let whole = [Digest::of(&content).hex().as_bytes(), &content].concat();
    atomic::write(path, &whole, 0o600, Durability::Volatile)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"{"ociVersion": "1.0.2", "process": {"cwd": "/", "args": ["x"], "user": {"uid": 0, "gid": 0}},
        "root": {"path": "r"}, "linux": {"seccomp": PROFILE, "namespaces": []}}"#;

    fn scratch() -> std::path::PathBuf {
        std::env::temp_dir().join(format!("umiak-filters-{:x}", atomic::random().unwrap()))
    }

    fn config(profile: &str) -> Vec<u8> {
        CONFIG.replace("PROFILE", profile).into_bytes()
    }

    #[test]
    fn a_kept_filter_is_the_compiled_one_until_its_file_is_damaged() {
        let dir = scratch();
        let bytes = config(
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mount"], "action": "SCMP_ACT_ERRNO"}]}"#,
        );
        let first = prepare(&bytes, Some(&dir)).unwrap();
        let compiled = config::parse(&bytes).unwrap().value;
        let profile = compiled.linux().clone().unwrap().seccomp().clone().unwrap();
        assert_eq!(first.filter, Some(crate::seccomp::compile(&profile).unwrap()));
        let file = std::fs::read_dir(&dir).unwrap().next().unwrap().unwrap().path();
        let second = prepare(&bytes, Some(&dir)).unwrap();
        assert!(second.filter == first.filter && second.spec == first.spec);
        // It is the file's: another filter in there, well sealed, would be taken.
        let other = Filter { flags: 2, ..first.filter.clone().unwrap() };
        keep(&file, &other).unwrap();
        assert_eq!(prepare(&bytes, Some(&dir)).unwrap().filter, Some(other));
        for damage in [&b""[..], b"short", &[0; 100]] {
            std::fs::write(&file, damage).unwrap();
            assert_eq!(prepare(&bytes, Some(&dir)).unwrap().filter, first.filter);
        }
        assert_eq!(std::fs::read(&file).unwrap().len(), HASH + 4 + 8 * first.filter.unwrap().program.len());
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn profiles_with_a_listener_and_bad_ones_are_not_kept() {
        let dir = scratch();
        let told = prepare(
            &config(
                r#"{"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/l",
                    "syscalls": [{"names": ["mount"], "action": "SCMP_ACT_NOTIFY"}]}"#,
            ),
            Some(&dir),
        )
        .unwrap();
        assert!(told.filter.is_none() && told.spec.linux().as_ref().unwrap().seccomp().is_some());
        assert!(prepare(&config(r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#), Some(&dir)).is_err());
        assert!(prepare(&config(r#"{"defaultAction": 5}"#), Some(&dir)).is_err());
        assert!(!dir.exists());
    }

    #[test]
    fn what_is_kept_is_not_made_again() {
        let dir = scratch();
        let filter = |flags| Filter { flags, ..crate::seccomp::compile(&Default::default()).unwrap() };
        let again = || -> Result<Filter, ()> { panic!("made again") };
        assert_eq!(kept(&dir, b"one", false, || Ok::<_, ()>(filter(2))), Ok(filter(2)));
        assert_eq!(kept(&dir, b"one", false, again), Ok(filter(2)));
        assert_eq!(kept(&dir, b"another", false, || Ok::<_, ()>(filter(4))), Ok(filter(4)));
        assert_eq!(kept(&dir, b"bad", false, || Err(())), Err(()));
        // One with a listener belongs to one container.
        let listener = filter(crate::sys::seccomp::NEW_LISTENER);
        assert!(kept(&dir, b"told", false, || Ok::<_, ()>(listener.clone())).unwrap().has_listener());
        assert!(!kept(&dir, b"told", false, || Ok::<_, ()>(filter(0))).unwrap().has_listener());
        assert!(kept(&dir, b"ours", true, || Ok::<_, ()>(listener)).unwrap().has_listener());
        assert!(kept(&dir, b"ours", true, again).unwrap().has_listener());
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn no_more_than_some_are_kept() {
        let dir = scratch();
        for errno in 0..MOST + 3 {
            let profile = format!(r#"{{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": {errno}}}"#);
            prepare(&config(&profile), Some(&dir)).unwrap();
        }
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 3);
        std::fs::remove_dir_all(dir).unwrap();
    }
}
