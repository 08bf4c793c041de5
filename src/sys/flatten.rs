//! Layers as the store keeps them, copied into one tree: for file systems that overlayfs cannot
//! write to, and for owners other than the layers have.

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::tree::{Metadata, Node, OPAQUE, WHITEOUT, Writer, attributes, set_xattr};

/// Deeper trees are refused.
const DEPTH: u32 = 256;

/// Copies `layers`, lowest first, into the empty directory `into`: whiteouts and opaque directories
/// are carried out, everything else keeps its owner, mode, time, attributes and hard links within its
/// layer. File content is shared where the file system can. The owners, as this process sees them,
/// go through `owner` first; what it has no answer for is an error (`EOVERFLOW`).
pub fn merge(layers: &[PathBuf], into: &Path, owner: &Owner<'_>) -> io::Result<()> {
    let mut writer = Writer::new(into)?;
    for layer in layers {
        let dir = fs::open(layer, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let mut merge = Merge { writer: &mut writer, owner, links: HashMap::new() };
        let root = merge.metadata(&fs::fstat(&dir)?)?;
        merge.writer.directory_entry(Path::new(""), &root)?;
        merge.level(&dir, Path::new(""), DEPTH)?;
    }
    writer.finish().map(drop)
}

/// The owner and group of a copy, from those of the original.
pub type Owner<'a> = dyn Fn(u32, u32) -> Option<(u32, u32)> + 'a;

struct Merge<'a> {
    writer: &'a mut Writer,
    owner: &'a Owner<'a>,
    /// Where an inode of this layer with several names was put first.
    links: HashMap<(u64, u64), PathBuf>,
}

impl Merge<'_> {
    fn level(&mut self, from: &OwnedFd, path: &Path, depth: u32) -> io::Result<()> {
        if depth == 0 {
            return Err(Errno::LOOP.into());
        }
        let mut names: Vec<CString> = Vec::new();
        for entry in Dir::read_from(from)? {
            let entry = entry?;
            let name = entry.file_name();
            let hidden = name.to_bytes().strip_prefix(WHITEOUT.as_bytes());
            match hidden {
                _ if name == c"." || name == c".." || name.to_bytes() == OPAQUE.as_bytes() => {}
                // Before anything of this layer comes to have that name.
                Some(hidden) => self.writer.remove(&path.join(OsStr::from_bytes(hidden)))?,
                None => names.push(name.to_owned()),
            }
        }
        for name in names {
            self.one(from, &name, &path.join(OsStr::from_bytes(name.to_bytes())), depth)?;
        }
        Ok(())
    }

    fn one(&mut self, from: &OwnedFd, name: &CStr, path: &Path, depth: u32) -> io::Result<()> {
        let stat = fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let metadata = self.metadata(&stat)?;
        let key = (stat.st_dev, stat.st_ino);
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind != FileType::Directory && stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&key) {
                return self.writer.hard_link(path, first);
            }
            self.links.insert(key, path.to_owned());
        }
        match kind {
            FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let dir = fs::openat(from, name, flags, Mode::empty())?;
                if is_opaque(&dir) {
                    self.writer.remove(path)?;
                }
                self.writer.directory_entry(path, &metadata)?;
                for (name, value) in attributes(&dir)? {
                    self.writer.set_attribute(path, &name, &value)?;
                }
                self.level(&dir, path, depth - 1)
            }
            FileType::RegularFile => self.file(from, name, path, &metadata),
            FileType::Symlink => {
                let target = fs::readlinkat(from, name, Vec::new())?;
                self.writer.symlink(path, OsStr::from_bytes(target.to_bytes()), &metadata)
            }
            FileType::Fifo => self.writer.node(path, Node::Fifo, &metadata),
            FileType::CharacterDevice if stat.st_rdev == 0 => self.writer.remove(path),
            FileType::CharacterDevice | FileType::BlockDevice => {
                let (major, minor) = (fs::major(stat.st_rdev), fs::minor(stat.st_rdev));
                let node = match kind {
                    FileType::BlockDevice => Node::Block(major, minor),
                    _ => Node::Char(major, minor),
                };
                match self.writer.node(path, node, &metadata) {
                    // Not for user namespaces; a rootfs is mounted nodev anyway.
                    Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
                    other => other,
                }
            }
            _ => Ok(()),
        }
    }

    fn file(&mut self, from: &OwnedFd, name: &CStr, path: &Path, metadata: &Metadata) -> io::Result<()> {
        let source =
            fs::openat(from, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let copy = self.writer.create_file(path, metadata.mode)?;
        if fs::ioctl_ficlone(&copy, &source).is_err() {
            let mut from = std::fs::File::from(source.try_clone()?);
            let mut to = std::fs::File::from(copy.try_clone()?);
            io::copy(&mut from, &mut to)?;
        }
        self.writer.finish_file(copy.as_fd(), metadata)?;
        // After the owner: chown(2) takes security.capability off again.
        for (name, value) in attributes(&source)? {
            set_xattr(copy.as_fd(), &name, &value)?;
        }
        Ok(())
    }

    fn metadata(&self, stat: &Stat) -> io::Result<Metadata> {
        Ok(Metadata {
            mode: stat.st_mode & 0o7777,
            owner: Some((self.owner)(stat.st_uid, stat.st_gid).ok_or(Errno::OVERFLOW)?),
            mtime: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
        })
    }
}

fn is_opaque(dir: &OwnedFd) -> bool {
    fs::statat(dir, OPAQUE, AtFlags::SYMLINK_NOFOLLOW).is_ok()
        || ["trusted.overlay.opaque", "user.overlay.opaque"].iter().any(|name| {
            let mut value = [0; 4];
            fs::fgetxattr(dir, *name, &mut value[..]).is_ok_and(|length| value[..length] == *b"y")
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs as std_fs;
    use std::os::unix::fs::MetadataExt;

    fn same(uid: u32, gid: u32) -> Option<(u32, u32)> {
        Some((uid, gid))
    }

    fn scratch() -> PathBuf {
        std::env::temp_dir().join(format!("umiak-flatten-{:x}", crate::sys::atomic::random().unwrap()))
    }

    #[test]
    fn layers_become_one_tree() {
        let base = scratch();
        let (low, high, into) = (base.join("low"), base.join("high"), base.join("into"));
        for dir in [&low.join("d/inner"), &low.join("opaque"), &high.join("opaque"), &high.join("d"), &into] {
            std_fs::create_dir_all(dir).unwrap();
        }
        std_fs::write(low.join("d/gone"), "1").unwrap();
        std_fs::write(low.join("d/kept"), "2").unwrap();
        std_fs::hard_link(low.join("d/kept"), low.join("d/inner/link")).unwrap();
        std_fs::write(low.join("opaque/hidden"), "3").unwrap();
        std::os::unix::fs::symlink("d/kept", high.join("link")).unwrap();
        std_fs::write(high.join("opaque/shown"), "4").unwrap();
        let whiteout = fs::mknodat(fs::CWD, high.join("d/gone"), FileType::CharacterDevice, Mode::empty(), 0);
        fs::setxattr(high.join("opaque"), "user.overlay.opaque", b"y", fs::XattrFlags::empty()).unwrap();
        merge(&[low, high], &into, &same).unwrap();
        assert!(!into.join("opaque/hidden").exists() && into.join("opaque/shown").exists());
        assert_eq!(std_fs::read_to_string(into.join("link")).unwrap(), "2");
        assert_eq!(std_fs::metadata(into.join("d/inner/link")).unwrap().nlink(), 2);
        // Making a whiteout takes privileges that a test may lack.
        assert!(whiteout.is_err() || !into.join("d/gone").exists());
        std_fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn whiteouts_may_be_files() {
        let base = scratch();
        let (low, high, into) = (base.join("low"), base.join("high"), base.join("into"));
        for dir in
            [&low.join("d/tree"), &low.join("opaque/sub"), &high.join("opaque/sub"), &high.join("d"), &into]
        {
            std_fs::create_dir_all(dir).unwrap();
        }
        for file in ["d/gone", "d/again", "d/tree/inner", "opaque/hidden", "opaque/sub/hidden"] {
            std_fs::write(low.join(file), "old").unwrap();
        }
        for file in ["d/.wh.gone", "d/.wh.tree", "d/.wh.again", "opaque/.wh..wh..opq"] {
            std_fs::write(high.join(file), "").unwrap();
        }
        for file in ["d/again", "opaque/sub/shown"] {
            std_fs::write(high.join(file), "new").unwrap();
        }
        merge(&[low, high], &into, &same).unwrap();
        let mut found: Vec<String> = Vec::new();
        let mut dirs = vec![into.clone()];
        while let Some(dir) = dirs.pop() {
            for entry in std_fs::read_dir(dir).unwrap() {
                let entry = entry.unwrap();
                match entry.file_type().unwrap().is_dir() {
                    true => dirs.push(entry.path()),
                    false => found.push(entry.path().strip_prefix(&into).unwrap().display().to_string()),
                }
            }
        }
        found.sort();
        assert_eq!(found, ["d/again", "opaque/sub/shown"]);
        assert_eq!(std_fs::read_to_string(into.join("d/again")).unwrap(), "new");
        // An owner that has no place in the copy is no other's.
        let refused = merge(&[base.join("low")], &into, &|_, _| None).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EOVERFLOW));
        std_fs::remove_dir_all(base).unwrap();
    }
}
