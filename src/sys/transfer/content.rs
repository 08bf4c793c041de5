//! Bytes from one open file to another.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{self, SeekFrom};
use rustix::io::Errno;

/// Bytes that are read at a time where the kernel does not copy by itself.
const PIECE: usize = 1 << 20;
/// Bytes that the kernel copies at a time, so that somebody can be told how far it is.
const STEP: usize = 64 << 20;

/// Gives the empty file `to` the content of the regular file `from`: shared where the file system can, with the
/// same holes where it has some. What is written meanwhile beyond the size it has now is left out. Returns the
/// bytes, holes included; `each` is told the bytes of each piece.
pub fn copy_content(from: BorrowedFd<'_>, to: BorrowedFd<'_>, each: &mut dyn FnMut(u64)) -> io::Result<u64> {
    let stat = fs::fstat(from)?;
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    if size == 0 {
        // Files of the kernel's own (proc, sysfs) say so whatever is in them.
        return if stat.st_blocks == 0 { by_hand(from, to, u64::MAX, each) } else { Ok(0) };
    }
    if fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(size);
    }
    let holes = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512) < size;
    if holes && copy_data(from, to, size, each)? {
        return Ok(size);
    }
    fs::seek(from, SeekFrom::Start(0))?;
    stretch(from, to, size, each)
}

/// Only what is no hole; says whether the file system knows holes.
fn copy_data(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    size: u64,
    each: &mut dyn FnMut(u64),
) -> io::Result<bool> {
    let mut at = 0;
    loop {
        let start = match fs::seek(from, SeekFrom::Data(at)) {
            Ok(start) if start < size => start,
            // Nothing but a hole is left.
            Ok(_) | Err(Errno::NXIO) => break,
            Err(Errno::INVAL | Errno::OPNOTSUPP) if at == 0 => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let end = fs::seek(from, SeekFrom::Hole(start))?.min(size);
        fs::seek(from, SeekFrom::Start(start))?;
        fs::seek(to, SeekFrom::Start(start))?;
        stretch(from, to, end - start, each)?;
        at = end;
    }
    fs::ftruncate(to, size)?;
    Ok(true)
}

/// From where both files stand.
fn stretch(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    length: u64,
    each: &mut dyn FnMut(u64),
) -> io::Result<u64> {
    let mut done = 0;
    while done < length {
        let step = usize::try_from(length - done).unwrap_or(usize::MAX).min(STEP);
        match fs::copy_file_range(from, None, to, None, step) {
            // It has become shorter; some file systems say so of what they cannot copy.
            Ok(0) => break,
            Ok(count) => {
                done += count as u64;
                each(count as u64);
            }
            Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS | Errno::PERM | Errno::IO) => {
                break;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(done + if done < length { by_hand(from, to, length - done, each)? } else { 0 })
}

fn by_hand(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    length: u64,
    each: &mut dyn FnMut(u64),
) -> io::Result<u64> {
    let (mut from, mut to) = (File::from(from.try_clone_to_owned()?), File::from(to.try_clone_to_owned()?));
    let mut buffer = vec![0; PIECE.min(usize::try_from(length).unwrap_or(PIECE))];
    let mut done = 0;
    while done < length {
        let step = usize::try_from(length - done).unwrap_or(usize::MAX).min(buffer.len());
        match from.read(&mut buffer[..step]) {
            Ok(0) => break,
            Ok(count) => {
                to.write_all(&buffer[..count])?;
                done += count as u64;
                each(count as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// The same into a file that is there already and stays what it is: what it had is gone.
pub(super) fn overwrite(from: impl AsFd, to: impl AsFd) -> io::Result<()> {
    fs::ftruncate(&to, 0)?;
    fs::seek(&from, SeekFrom::Start(0))?;
    by_hand(from.as_fd(), to.as_fd(), u64::MAX, &mut |_| {}).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileExt, MetadataExt};

    #[test]
    fn holes_stay_holes() {
        let dir = std::env::temp_dir();
        let open = || {
            let flags = fs::OFlags::TMPFILE | fs::OFlags::RDWR | fs::OFlags::CLOEXEC;
            File::from(fs::open(&dir, flags, fs::Mode::RUSR | fs::Mode::WUSR).unwrap())
        };
        let (from, to) = (open(), open());
        from.set_len(64 << 20).unwrap();
        from.write_all_at(b"middle", 32 << 20).unwrap();
        assert_eq!(copy_content(from.as_fd(), to.as_fd(), &mut |_| {}).unwrap(), 64 << 20);
        let mut bytes = [0; 6];
        to.read_exact_at(&mut bytes, 32 << 20).unwrap();
        assert_eq!(&bytes, b"middle");
        assert_eq!(to.metadata().unwrap().len(), 64 << 20);
        assert!(to.metadata().unwrap().blocks() * 512 < 2 << 20);
    }

    #[test]
    fn files_of_the_kernel_have_content() {
        let mut kernel = File::open("/proc/version").unwrap();
        let flags = fs::OFlags::TMPFILE | fs::OFlags::RDWR | fs::OFlags::CLOEXEC;
        let to = fs::open(std::env::temp_dir(), flags, fs::Mode::RUSR | fs::Mode::WUSR).unwrap();
        let count = copy_content(kernel.as_fd(), to.as_fd(), &mut |_| {}).unwrap();
        let mut text = String::new();
        std::io::Seek::rewind(&mut kernel).unwrap();
        kernel.read_to_string(&mut text).unwrap();
        assert_eq!(count, text.len() as u64);
    }
}
