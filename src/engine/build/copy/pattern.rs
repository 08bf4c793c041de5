//! Patterns of names, and what is left out by them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{Error, Verdict};
use crate::image::dockerfile::glob::{self, Glob};
use crate::image::dockerfile::ignore::Ignore;

/// Whether a part of a path is a pattern.
pub fn is_pattern(part: &OsStr) -> bool {
    glob::is_pattern(part.as_bytes())
}

/// Reads a part of the source `text`.
pub fn parse(part: &OsStr, text: &str) -> Result<Glob, Error> {
    Glob::new(part.as_bytes()).map_err(|source| Error::Pattern { pattern: text.to_owned(), source })
}

/// What an ignore file says of a path below the context, and whether that is a directory.
pub fn verdict(ignore: &Ignore, path: &Path, directory: bool) -> Verdict {
    let path = path.as_os_str().as_bytes();
    match ignore.excluded(path) {
        false => Verdict::Kept,
        true if directory && !ignore.excluded_with_all(path) => Verdict::Sifted,
        true => Verdict::Hidden,
    }
}
