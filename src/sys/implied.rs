//! Directories that a layer has without saying anything of them: an archive may name `a/b/c` and neither
//! `a/b` nor `a`. What is known of them is what the layers below say.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{self, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::merged::{Level, Tree};
use super::path::Root;
use super::tree::attributes;

/// Gives the directories `paths` of the tree `layer` the owner, mode, time and attributes that they have in
/// the merged trees `lower` (topmost first). What is no directory in both stays as it is.
pub fn settle(layer: &Path, paths: &[PathBuf], lower: &[Tree]) -> io::Result<()> {
    let (layer, lower) = (Root::open(layer)?, Level::open(lower)?);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    for path in paths {
        let Some(from) = find(&lower, path)? else { continue };
        match layer.open_strict(path, flags, 0) {
            Ok(to) => copy(&from, &to)?,
            // A later entry took its place.
            Err(error)
                if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The topmost directory of this path.
fn find(lower: &Level, path: &Path) -> io::Result<Option<std::os::fd::OwnedFd>> {
    let mut below: Option<Level> = None;
    for name in path {
        let level = below.as_ref().unwrap_or(lower);
        let name = CString::new(name.as_bytes()).map_err(|_| io::ErrorKind::InvalidInput)?;
        match level.find(&name)? {
            Some(entry) if entry.kind() == FileType::Directory => below = Some(level.enter(&name, &entry)?),
            _ => return Ok(None),
        }
    }
    let top = below.as_ref().unwrap_or(lower).top();
    top.map(|fd| fd.try_clone()).transpose()
}

fn copy(from: &std::os::fd::OwnedFd, to: &std::os::fd::OwnedFd) -> io::Result<()> {
    let (wanted, found) = (fs::fstat(from)?, fs::fstat(to)?);
    if (wanted.st_uid, wanted.st_gid) != (found.st_uid, found.st_gid) {
        fs::fchown(to, Some(Uid::from_raw(wanted.st_uid)), Some(Gid::from_raw(wanted.st_gid)))?;
    }
    for (name, value) in attributes(from)? {
        match fs::fsetxattr(to, name.as_bytes(), &value, XattrFlags::empty()) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // After the attributes: an access list changes the mode's group bits.
    fs::fchmod(to, Mode::from_raw_mode(wanted.st_mode & 0o7777))?;
    let time = |seconds, nanoseconds| Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps {
        last_access: time(wanted.st_atime, wanted.st_atime_nsec as _),
        last_modification: time(wanted.st_mtime, wanted.st_mtime_nsec as _),
    };
    Ok(fs::futimens(to, &times)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn what_lies_below_counts() {
        let dir = std::env::temp_dir()
            .join(format!("umiak-implied-{:x}", crate::sys::atomic::random().unwrap_or_default()));
        let tree = |name: &str, dirs: &[(&str, u32)]| {
            let tree = dir.join(name);
            for (path, mode) in dirs {
                std::fs::create_dir_all(tree.join(path)).unwrap();
                std::fs::set_permissions(tree.join(path), std::fs::Permissions::from_mode(*mode)).unwrap();
            }
            Tree { path: tree, plain: true }
        };
        let lowest = tree("lowest", &[("a", 0o700), ("a/b", 0o1777), ("gone", 0o711), (".", 0o750)]);
        let middle = tree("middle", &[("a", 0o711), (".", 0o755)]);
        std::fs::write(middle.path.join(".wh.gone"), "").unwrap();
        let layer = tree("layer", &[("a", 0o755), ("a/b", 0o755), ("gone", 0o755), ("new", 0o755)]);
        std::fs::File::open(middle.path.join("a"))
            .unwrap()
            .set_modified(UNIX_EPOCH + Duration::new(7, 5))
            .unwrap();
        let paths: Vec<PathBuf> = ["", "a", "a/b", "gone", "new", "never"].map(PathBuf::from).to_vec();
        settle(&layer.path, &paths, &[middle, lowest]).unwrap();
        let mode = |name: &str| std::fs::metadata(layer.path.join(name)).unwrap().mode() & 0o7777;
        assert_eq!(
            ["", "a", "a/b", "gone", "new"].map(mode),
            [0o755, 0o711, 0o1777, 0o755, 0o755],
            "the topmost counts, and what is hidden does not"
        );
        let time = std::fs::metadata(layer.path.join("a")).unwrap();
        assert_eq!((time.mtime(), time.mtime_nsec()), (7, 5));
        std::fs::remove_dir_all(dir).unwrap();
    }
}
