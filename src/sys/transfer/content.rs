//! Bytes from one open file to another.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{self, SeekFrom};
use rustix::io::Errno;

/// Bytes that are read at a time where the kernel does not copy by itself.
const PIECE: usize = 1 << 20;
/// Bytes that the kernel copies at a time, so that somebody can be told how far it is.
const STEP: usize = 64 << 20;
/// Bytes of a large file that a thread takes at a time: little enough that both write near each other.
const SHARE: u64 = 4 << 20;
/// Bytes of such a share that are read at a time: what a processor's cache holds.
const SIP: usize = 256 << 10;

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
    stretch(from, to, 0, size, each)
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
        stretch(from, to, start, end - start, each)?;
        at = end;
    }
    fs::ftruncate(to, size)?;
    Ok(true)
}

/// The same bytes at the same place of both files; how many there were.
fn stretch(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    start: u64,
    length: u64,
    each: &mut dyn FnMut(u64),
) -> io::Result<u64> {
    if length >= 4 * SHARE && !far_away(to) && std::thread::available_parallelism().is_ok_and(|n| n.get() > 1)
    {
        return by_two(from, to, start, length, each);
    }
    fs::seek(from, SeekFrom::Start(start))?;
    fs::seek(to, SeekFrom::Start(start))?;
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

/// Whether the file is on another machine or in another process, who may copy without sending us the bytes.
fn far_away(file: BorrowedFd<'_>) -> bool {
    // statfs(2): NFS, SMB, SMB2, CIFS, Ceph, FUSE, AFS, 9P.
    const FAR: [u32; 8] =
        [0x6969, 0x517b, 0xfe53_4d42, 0xff53_4d42, 0x00c3_6400, 0x6573_5546, 0x5346_414f, 0x0102_1997];
    fs::fstatfs(file).is_ok_and(|stat| FAR.contains(&(stat.f_type as u32)))
}

/// As [`stretch`], by two threads: one reads while the other holds the written file's lock, which takes 0.6 of the
/// time. copy_file_range(2) within one machine moves a few pages at a time and is no faster than one thread.
fn by_two(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    start: u64,
    length: u64,
    each: &mut dyn FnMut(u64),
) -> io::Result<u64> {
    let (from, to) = (File::from(from.try_clone_to_owned()?), File::from(to.try_clone_to_owned()?));
    // Where the next share begins, and where the file turned out to end.
    let (next, end) = (AtomicU64::new(0), AtomicU64::new(length));
    let share = |buffer: &mut [u8], first: u64, last: u64| -> io::Result<()> {
        let mut at = first;
        while at < last {
            let step = usize::try_from(last - at).unwrap_or(SIP).min(SIP);
            match from.read_at(&mut buffer[..step], start + at) {
                Ok(0) => {
                    end.fetch_min(at, Ordering::Relaxed);
                    break;
                }
                Ok(count) => {
                    to.write_all_at(&buffer[..count], start + at)?;
                    at += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    };
    let shares = |told: &mut dyn FnMut(u64)| -> io::Result<()> {
        let mut buffer = vec![0; SIP];
        loop {
            let first = next.fetch_add(SHARE, Ordering::Relaxed);
            if first >= end.load(Ordering::Relaxed) {
                return Ok(());
            }
            let last = length.min(first + SHARE);
            // The other thread need not go on either.
            share(&mut buffer, first, last).inspect_err(|_| end.store(0, Ordering::Relaxed))?;
            told(last - first);
        }
    };
    let others = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let second = std::thread::Builder::new().spawn_scoped(scope, || {
            shares(&mut |count| {
                others.fetch_add(count, Ordering::Relaxed);
            })
        });
        let mine = shares(&mut |count| each(count + others.swap(0, Ordering::Relaxed)));
        // Where no thread can be made, all of it was ours.
        mine.and(second.map_or(Ok(()), |second| second.join().unwrap_or_else(|_| Err(Errno::IO.into()))))
    })?;
    each(others.into_inner());
    let end = end.into_inner();
    if end < length {
        fs::ftruncate(&to, start + end)?;
    }
    Ok(end)
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
    fn large_files_are_copied_by_two() {
        let open = || {
            let flags = fs::OFlags::TMPFILE | fs::OFlags::RDWR | fs::OFlags::CLOEXEC;
            File::from(fs::open(std::env::temp_dir(), flags, fs::Mode::RUSR | fs::Mode::WUSR).unwrap())
        };
        let (from, to) = (open(), open());
        let content: Vec<u8> = (0..5 * SHARE + 12_345).map(|at| (at / 7 % 251) as u8).collect();
        from.write_all_at(&content, 0).unwrap();
        let mut told = 0;
        let count = by_two(from.as_fd(), to.as_fd(), 0, content.len() as u64, &mut |more| told += more);
        assert_eq!((count.unwrap(), told), (content.len() as u64, content.len() as u64));
        let mut copied = vec![0; content.len() + 1];
        assert_eq!(to.read_at(&mut copied, 0).unwrap(), content.len());
        assert!(copied[..content.len()] == content, "other bytes");

        // One that has become shorter since its size was asked for.
        let to = open();
        assert_eq!(
            by_two(from.as_fd(), to.as_fd(), 0, 100 * SHARE, &mut |_| {}).unwrap(),
            content.len() as u64
        );
        assert_eq!(to.metadata().unwrap().len(), content.len() as u64);

        // One that cannot be written ends both.
        let read_only = File::open("/dev/null").unwrap();
        assert!(by_two(from.as_fd(), read_only.as_fd(), 0, 5 * SHARE, &mut |_| {}).is_err());
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
