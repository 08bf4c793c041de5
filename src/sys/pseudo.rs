//! Files that the kernel writes while they are read, as those of `/proc` and of control groups: their size is not to
//! be known before.

use std::os::fd::AsFd;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// The kernel goes on to fill a page while a further line has room there (`seq_read_iter`). No line is so long that
/// half a page could stay empty before the end.
const END: usize = 2048;

/// Reads a whole file, whose path may be one below `dir`, into `bytes`. Their room is kept for the next one.
pub fn read(dir: impl AsFd, path: &str, bytes: &mut Vec<u8>) -> Result<(), Errno> {
    bytes.clear();
    let file = rustix::fs::openat(dir, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    loop {
        bytes.reserve(4096);
        if rustix::io::read(&file, rustix::buffer::spare_capacity(bytes))? < END {
            return Ok(());
        }
    }
}

/// The same as text; none if it cannot be read.
pub fn text<'a>(dir: impl AsFd, path: &str, bytes: &'a mut Vec<u8>) -> Option<&'a str> {
    read(dir, path, bytes).ok()?;
    std::str::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_out() {
        let mut bytes = Vec::new();
        // Many lines, of which the kernel gives a page at a time.
        for path in ["/proc/self/smaps", "/proc/self/stat", "/proc/self/net/dev", "/proc/self/mountinfo"] {
            read(rustix::fs::CWD, path, &mut bytes).unwrap();
            let lines = |bytes: &[u8]| bytes.split(|byte| *byte == b'\n').count();
            // Memory that is taken in between is no more than a few lines.
            let expected = lines(&std::fs::read(path).unwrap());
            assert!(lines(&bytes).abs_diff(expected) < 100, "{path}");
            assert_eq!(bytes.last(), Some(&b'\n'), "{path}");
        }
        assert_eq!(text(rustix::fs::CWD, "/proc/self/nothing", &mut bytes), None);
    }
}
