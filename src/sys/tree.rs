//! Trees of files that somebody else may have filled: made and removed through directory
//! descriptors, so that no symbolic link leads out.

use std::io;
use std::path::Path;

/// Removes a file or a whole tree. Absence is no error. Symbolic links are not followed
/// (the standard library walks by descriptors since CVE-2022-21658).
pub fn remove_all(path: &Path) -> io::Result<()> {
    let result = match std::fs::symlink_metadata(path) {
        Ok(stat) if stat.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
