//! What a step that ran has changed, as the archive of a layer.

use std::ffi::{CString, OsString};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Stat};

use super::copy::view::View;
use super::request::Times;
use crate::image::pack::Packer;
use crate::sys::merged::{Level, Tree};
use crate::sys::visit::{self, Content, Found};

/// Writes what changed, but for directories of which only the time is another: files that came and went again leave
/// that, and so does everything that we mount.
pub(in crate::engine) struct Changes<'a, 'p, W: Write> {
    packer: &'a mut Packer<'p, W>,
    lower: &'a [Tree],
    times: Times,
    /// Directories that are as they were, each within the one before, until something in them is not.
    pending: Vec<Directory>,
    /// How many files were written.
    pub count: u64,
}

/// A directory that may not be told: its path, what it is, its attributes.
type Directory = (PathBuf, Stat, Attributes);

impl<'a, 'p, W: Write> Changes<'a, 'p, W> {
    pub(in crate::engine) fn new(packer: &'a mut Packer<'p, W>, lower: &'a [Tree], times: Times) -> Self {
        Self { packer, lower, times, pending: Vec::new(), count: 0 }
    }

    /// Takes the next file; they come in the order of [`crate::sys::visit::visit_layer`].
    pub(in crate::engine) fn take(&mut self, found: Found<'_>) -> io::Result<()> {
        while self.pending.last().is_some_and(|(path, ..)| !found.path.starts_with(path)) {
            self.pending.pop();
        }
        if matches!(found.content, Content::Directory) && self.is_as_before(&found)? {
            if found.path.as_os_str().is_empty() {
                return Ok(());
            }
            self.pending.push((found.path.to_owned(), found.stat, found.attributes));
            return Ok(());
        }
        for (path, stat, attributes) in std::mem::take(&mut self.pending) {
            self.write(Found { path: &path, stat, attributes, content: Content::Directory })?;
        }
        self.write(found)
    }

    fn write(&mut self, mut found: Found<'_>) -> io::Result<()> {
        self.count += 1;
        clamp(&mut found.stat, self.times);
        self.packer.append(found)
    }

    fn is_as_before(&self, found: &Found<'_>) -> io::Result<bool> {
        let before = stat_of(self.lower, found.path)?;
        let same = |before: Stat| {
            before.st_mode == found.stat.st_mode
                && (before.st_uid, before.st_gid) == (found.stat.st_uid, found.stat.st_gid)
        };
        if !before.is_some_and(same) {
            return Ok(false);
        }
        // What has attributes is rare, but where owners are kept in them.
        Ok(found.attributes.is_empty() || attributes_of(self.lower, found.path)? == sorted(&found.attributes))
    }
}

/// Makes the time of a file what `--timestamp` or `--source-date-epoch` with `--rewrite-timestamp` want.
pub(super) fn clamp(stat: &mut Stat, times: Times) {
    let Some(latest) = times.clamp else { return };
    let latest = i64::try_from(latest).unwrap_or(i64::MAX);
    if times.exact || stat.st_mtime >= latest {
        (stat.st_mtime, stat.st_mtime_nsec) = (latest, 0);
    }
}

/// What merged trees (the topmost first) have at a path without links on the way.
fn stat_of(trees: &[Tree], path: &Path) -> io::Result<Option<Stat>> {
    if trees.is_empty() {
        return Ok(None);
    }
    let mut level = Level::open(trees)?;
    let names = names(path);
    let Some((last, above)) = names.split_last() else {
        return Ok(level.top().map(rustix::fs::fstat).transpose()?);
    };
    for name in above {
        match level.find(name)? {
            Some(entry) if entry.kind() == FileType::Directory => level = level.enter(name, &entry)?,
            _ => return Ok(None),
        }
    }
    Ok(level.find(last)?.map(|entry| entry.stat))
}

type Attributes = Vec<(OsString, Vec<u8>)>;

fn sorted(attributes: &Attributes) -> Attributes {
    let mut attributes = attributes.clone();
    attributes.sort();
    attributes
}

/// The attributes, sorted, of a directory of merged trees (the topmost first) that is there.
fn attributes_of(trees: &[Tree], path: &Path) -> io::Result<Attributes> {
    let mut level = Level::open(trees)?;
    for name in names(path) {
        let entry = level.find(&name)?.ok_or(io::ErrorKind::NotFound)?;
        level = level.enter(&name, &entry)?;
    }
    Ok(sorted(&visit::look_at_directory(&level)?.attributes))
}

/// The parts of a path that are names.
fn names(path: &Path) -> Vec<CString> {
    let normal = |part: Component<'_>| match part {
        Component::Normal(name) => CString::new(name.as_bytes()).ok(),
        _ => None,
    };
    path.components().filter_map(normal).collect()
}

/// Those of `destinations`, and of the directories above them, that the image does not have: what is made to mount
/// something there is not of the step's doing. Links of the image on the way lead where they led when it was mounted.
/// The deepest come first; paths are relative.
pub(in crate::engine) fn stubs(lower: &[Tree], destinations: &[String]) -> io::Result<Vec<PathBuf>> {
    let view = View::of_trees(lower)?;
    let mut stubs: Vec<PathBuf> = Vec::new();
    for destination in destinations {
        // What leads nowhere cannot have been mounted on.
        let Ok(place) = view.resolve(Path::new(destination), true) else { continue };
        stubs.extend(place.path.ancestors().take(place.missing).map(Path::to_owned));
    }
    stubs.sort_by_cached_key(|path| (std::cmp::Reverse(path.components().count()), path.clone()));
    stubs.dedup();
    Ok(stubs)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::sys::visit::visit_layer;

    #[test]
    fn only_what_changed_is_in_the_layer() {
        let dir = std::env::temp_dir().join(format!("umiak-changes-{}", std::process::id()));
        let (upper, lower) = (dir.join("upper"), dir.join("lower"));
        for path in [
            "lower/kept",
            "upper/kept",
            "lower/etc/ssl",
            "lower/var/log",
            "lower/opt",
            "upper/etc/ssl",
            "upper/var/log",
            "upper/opt",
            "upper/new/empty",
        ] {
            fs::create_dir_all(dir.join(path)).unwrap();
        }
        fs::write(upper.join("var/log/a"), "a").unwrap();
        fs::set_permissions(upper.join("opt"), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        for (path, value) in
            [("lower/kept", "1"), ("upper/kept", "1"), ("lower/etc", "1"), ("upper/etc", "2")]
        {
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::setxattr(dir.join(path), "user.umiak-test", value.as_bytes(), flags).unwrap();
        }
        let tree = |path: &Path| Tree { path: path.to_owned(), plain: false };
        std::os::unix::fs::symlink("etc/ssl", lower.join("link")).unwrap();
        std::os::unix::fs::symlink("/not/there", lower.join("dangling")).unwrap();
        let lower = [tree(&lower)];
        assert_eq!(
            stubs(&lower, &["/run/secrets/x".into(), "/etc/y/z".into(), "etc/ssl".into()]).unwrap(),
            ["etc/y/z", "run/secrets/x", "etc/y", "run/secrets", "run"].map(PathBuf::from),
        );
        assert_eq!(
            stubs(&lower, &["/link/a".into(), "/link".into(), "/dangling/b".into()]).unwrap(),
            ["etc/ssl/a", "not/there/b", "not/there", "not"].map(PathBuf::from),
        );
        let owner = |uid, gid| (uid, gid);
        let mut packer = Packer::new(Vec::new(), &owner);
        let times = Times { clamp: Some(7), exact: true, ..Times::default() };
        let mut changes = Changes::new(&mut packer, &lower, times);
        visit_layer(&tree(&upper), &lower, false, &mut |found| changes.take(found)).unwrap();
        assert_eq!(changes.count, 7);
        let bytes = packer.finish().unwrap();
        let mut archive = tar::Archive::new(&*bytes);
        let entries: Vec<_> = archive.entries().unwrap().map(|entry| entry.unwrap()).collect();
        assert!(entries.iter().all(|entry| entry.header().mtime().unwrap() == 7));
        let names: Vec<PathBuf> = entries.iter().map(|entry| entry.path().unwrap().into_owned()).collect();
        assert_eq!(
            names,
            ["etc/", "new/", "new/empty/", "opt/", "var/", "var/log/", "var/log/a"].map(PathBuf::from)
        );
        fs::remove_dir_all(&dir).unwrap();
    }
}
