//! Copies as their archives have them, of trees that are made by hand.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use super::*;

/// A directory of a test's own.
pub struct Scratch(pub PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = crate::sys::tree::remove_all(&self.0);
    }
}

impl Scratch {
    /// With these files: a name that ends in a slash is a directory, one with `->` a link.
    pub fn new(files: &[&str]) -> Self {
        let dir =
            std::env::temp_dir().join(format!("umiak-copy-{:x}", crate::sys::atomic::random().unwrap()));
        let scratch = Self(dir);
        for file in files {
            if let Some((from, to)) = file.split_once("->") {
                fs::create_dir_all(scratch.0.join(from).parent().unwrap()).unwrap();
                symlink(to, scratch.0.join(from)).unwrap();
            } else if let Some(name) = file.strip_suffix('/') {
                fs::create_dir_all(scratch.0.join(name)).unwrap();
            } else {
                scratch.write(file, file);
            }
        }
        scratch
    }

    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub fn trees(&self, names: &[&str]) -> Vec<Tree> {
        names.iter().map(|name| Tree { path: self.0.join(name), plain: true }).collect()
    }
}
