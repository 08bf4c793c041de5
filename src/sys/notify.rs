//! Answering system calls for the kernel (seccomp_unotify(2)): what a filter answers with
//! `SECCOMP_RET_USER_NOTIF` waits until somebody with the listener says what becomes of it.
//!
//! A caller's memory may change between a look at it and what the kernel would do with it, by another of its
//! threads: who decides by it must act on his own copy and answer with the outcome. [`Answer::Continue`] is only
//! for what the caller may do anyway.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// `_IOC` of linux/ioctl.h, with the number of bytes of the argument.
const fn ioctl(direction: u64, number: u64, size: usize) -> libc::Ioctl {
    ((direction << 30) | ((size as u64) << 16) | ((b'!' as u64) << 8) | number) as libc::Ioctl
}

const WRITE: u64 = 1;
const READ: u64 = 2;
/// What the kernel's requests are called by is the size of the structures of its first form.
const RECV: libc::Ioctl = ioctl(READ | WRITE, 0, 80);
const SEND: libc::Ioctl = ioctl(READ | WRITE, 1, 24);
const ID_VALID: libc::Ioctl = ioctl(WRITE, 2, 8);
const ADDFD: libc::Ioctl = ioctl(WRITE, 3, 24);
const SET_FLAGS: libc::Ioctl = ioctl(WRITE, 4, 8);
/// Linux 6.6: who is woken runs on the waker's processor.
const SYNC_WAKE_UP: u64 = 1;
const CONTINUE: u32 = 1;
const ADDFD_SETFD: u32 = 1;
const ADDFD_SEND: u32 = 2;

/// `struct seccomp_notif`, with room for what later kernels add to it.
#[repr(C)]
struct Raw {
    id: u64,
    pid: u32,
    flags: u32,
    number: i32,
    architecture: u32,
    instruction: u64,
    arguments: [u64; 6],
    room: [u64; 22],
}

/// `struct seccomp_notif_resp`, as above.
#[repr(C)]
struct RawAnswer {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
    room: [u64; 29],
}

/// `struct seccomp_notif_addfd`.
#[repr(C)]
struct RawFdAddition {
    id: u64,
    flags: u32,
    source: u32,
    number: u32,
    number_flags: u32,
}

/// A call that waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Call {
    /// Names it for as long as it waits.
    pub id: u64,
    /// The calling thread, as seen by who received the call; 0 if it is in no pid namespace of his.
    pub pid: i32,
    /// The system call's number.
    pub number: i32,
    /// Whose numbers these are: `AUDIT_ARCH_*` of linux/audit.h.
    pub architecture: u32,
    /// The call's arguments, as they stand in registers.
    pub arguments: [u64; 6],
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is not made, and returns this.
    Value(i64),
    /// It is not made, and fails with this error number.
    Error(i32),
    /// It is made, by the kernel, with what stands in the caller's memory by then.
    Continue,
}

impl From<&io::Error> for Answer {
    fn from(error: &io::Error) -> Self {
        Self::Error(error.raw_os_error().unwrap_or(libc::EIO))
    }
}

/// The descriptor at which calls are told. Readable when one waits; hung up when no process has the filter any
/// more. Any number of threads and processes may receive from one.
#[derive(Debug)]
pub struct Listener(OwnedFd);

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Listener {
    /// What [`Filter::load`](super::seccomp::Filter::load) returned.
    pub fn new(fd: OwnedFd) -> Self {
        // Before Linux 6.6 each call takes two wake-ups more.
        // SAFETY: the argument is a plain number; another kind of descriptor refuses the request.
        unsafe { libc::ioctl(fd.as_raw_fd(), SET_FLAGS, SYNC_WAKE_UP) };
        Self(fd)
    }

    /// A descriptor of a listener that is somebody's already.
    pub fn copy(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Waits for a call. `None`: a signal came, or the caller has been killed meanwhile; poll(2) again.
    pub fn receive(&self) -> io::Result<Option<Call>> {
        let mut raw = MaybeUninit::<Raw>::zeroed();
        // SAFETY: the kernel wants zeroes, and writes as many bytes as its own structure has
        // (SECCOMP_GET_NOTIF_SIZES), which has had 80 since Linux 5.0; ours has 256.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), RECV, raw.as_mut_ptr()) };
        if result != 0 {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                Some(libc::ENOENT | libc::EINTR) => Ok(None),
                _ => Err(error),
            };
        }
        // SAFETY: all zeroes are a value of it, and the kernel has filled it.
        let raw = unsafe { raw.assume_init() };
        let Raw { id, pid, number, architecture, arguments, .. } = raw;
        Ok(Some(Call { id, pid: pid as i32, number, architecture, arguments }))
    }

    /// Answers a call. That it waits no more, because its caller was killed or interrupted, is no error.
    pub fn answer(&self, id: u64, answer: Answer) -> io::Result<()> {
        self.answer_waiting(id, answer).map(drop)
    }

    /// The same, and whether it did wait: one that was interrupted may be made again.
    pub fn answer_waiting(&self, id: u64, answer: Answer) -> io::Result<bool> {
        let (value, error, flags) = match answer {
            Answer::Value(value) => (value, 0, 0),
            Answer::Error(errno) => (0, -errno.clamp(1, 4095), 0),
            Answer::Continue => (0, 0, CONTINUE),
        };
        let mut raw = RawAnswer { id, value, error, flags, room: [0; 29] };
        // SAFETY: the kernel reads as many bytes as its structure has, 24 by now, of our 256.
        gone_is_fine(unsafe { libc::ioctl(self.0.as_raw_fd(), SEND, &raw mut raw) })
    }

    /// Whether a call still waits: what was found by its pid before that is the caller's own. To be asked after
    /// each look at `/proc/PID` or at its memory.
    pub fn is_waiting(&self, id: u64) -> bool {
        // SAFETY: the kernel reads the eight bytes of the number.
        unsafe { libc::ioctl(self.0.as_raw_fd(), ID_VALID, &raw const id) == 0 }
    }

    /// Gives the caller a descriptor, close-on-exec if `cloexec`: in place of one of its numbers if `number` is
    /// given, whatever was open there. Returns its number.
    pub fn add_fd(
        &self,
        id: u64,
        fd: BorrowedFd<'_>,
        number: Option<RawFd>,
        cloexec: bool,
    ) -> io::Result<i32> {
        self.add(id, fd, (number, cloexec), 0)
    }

    /// The same, with its number as the answer of the call, in one step (Linux 5.14). Without `number`.
    pub fn answer_with_fd(&self, id: u64, fd: BorrowedFd<'_>, cloexec: bool) -> io::Result<i32> {
        self.add(id, fd, (None, cloexec), ADDFD_SEND)
    }

    fn add(
        &self,
        id: u64,
        fd: BorrowedFd<'_>,
        (number, cloexec): (Option<RawFd>, bool),
        flags: u32,
    ) -> io::Result<i32> {
        let flags = flags | if number.is_some() { ADDFD_SETFD } else { 0 };
        let raw = RawFdAddition {
            id,
            flags,
            source: fd.as_raw_fd() as u32,
            number: number.unwrap_or(0) as u32,
            number_flags: if cloexec { libc::O_CLOEXEC as u32 } else { 0 },
        };
        // SAFETY: the request's number tells the kernel the size of the structure, which it only reads.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), ADDFD, &raw const raw) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
    }
}

/// ENOENT: the caller waits no more.
fn gone_is_fine(result: i32) -> io::Result<bool> {
    if result == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::ENOENT) { Ok(false) } else { Err(error) }
}

/// Reads the memory of a process, all of `buffer` (process_vm_readv(2)). EFAULT as the call itself would.
pub fn read_memory(pid: i32, address: u64, buffer: &mut [u8]) -> io::Result<()> {
    let local = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let remote = libc::iovec { iov_base: address as *mut _, iov_len: buffer.len() };
    // SAFETY: `local` is ours to write for that length; the other address is not used in this process.
    let length = unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) };
    whole(length, buffer.len())
}

/// Writes into the memory of a process, all of `bytes`. A part may have been written on an error.
pub fn write_memory(pid: i32, address: u64, bytes: &[u8]) -> io::Result<()> {
    let local = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let remote = libc::iovec { iov_base: address as *mut _, iov_len: bytes.len() };
    // SAFETY: `local` is only read; the other address is not used in this process.
    let length = unsafe { libc::process_vm_writev(pid, &raw const local, 1, &raw const remote, 1, 0) };
    whole(length, bytes.len())
}

fn whole(length: isize, wanted: usize) -> io::Result<()> {
    match usize::try_from(length) {
        Ok(length) if length == wanted => Ok(()),
        Ok(_) => Err(io::Error::from_raw_os_error(libc::EFAULT)),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// Reads a string of at most 4095 bytes that ends with a zero, as the kernel takes paths: ENAMETOOLONG if it is
/// longer.
pub fn read_path(pid: i32, address: u64) -> io::Result<Vec<u8>> {
    const LONGEST: usize = 4096;
    let mut text = Vec::with_capacity(64);
    while text.len() < LONGEST {
        let at = address.wrapping_add(text.len() as u64);
        // What lies behind the end may not be there: page by page, and little at first.
        let page = 4096 - (at % 4096) as usize;
        let piece = page.min(LONGEST - text.len()).min(if text.is_empty() { 256 } else { LONGEST });
        let mut bytes = vec![0; piece];
        read_memory(pid, at, &mut bytes)?;
        if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
            text.extend_from_slice(&bytes[..end]);
            return Ok(text);
        }
        text.extend_from_slice(&bytes);
    }
    Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG))
}

#[cfg(test)]
mod tests {
    use super::super::process::{CloneOptions, spawn, wait};
    use super::super::seccomp::{Filter, Instruction, NEW_LISTENER};
    use super::super::{capability, socket};
    use super::*;

    /// Tells one system call and lets all others through.
    fn told(number: i64) -> Filter {
        let one = |code, jt, jf, k| Instruction { code, jt, jf, k };
        let program = vec![
            one(0x20, 0, 0, 0),
            one(0x15, 0, 1, number as u32),
            one(0x06, 0, 0, 0x7fc0_0000),
            one(0x06, 0, 0, 0x7fff_0000),
        ];
        Filter { program, flags: NEW_LISTENER }
    }

    #[test]
    fn calls_are_told_and_answered() {
        let (ours, theirs) = socket::packet_pair().unwrap();
        let path = c"/no/such/place";
        // The test harness has threads; what the child does here takes no lock.
        let child = spawn(CloneOptions::default(), || {
            capability::no_new_privileges().unwrap();
            let listener = told(libc::SYS_chdir).load().unwrap().unwrap();
            socket::send(&theirs, b"L", Some(listener.as_fd())).unwrap();
            drop(listener);
            let chdir = || {
                // SAFETY: a string that ends with a zero.
                let result = unsafe { libc::chdir(path.as_ptr()) };
                if result < 0 { -io::Error::last_os_error().raw_os_error().unwrap() } else { result }
            };
            let results = [chdir(), chdir(), chdir(), chdir()];
            // SAFETY: F_GETFD takes no argument.
            let open = unsafe { libc::fcntl(results[3], libc::F_GETFD) } == libc::FD_CLOEXEC;
            u8::from(results[..3] != [7, -libc::EXDEV, -libc::ENOENT] || !open)
        })
        .unwrap();
        drop(theirs);
        let listener = Listener::new(socket::receive(&ours).unwrap().1.unwrap());
        for answer in [Answer::Value(7), Answer::Error(libc::EXDEV), Answer::Continue] {
            let call = listener.receive().unwrap().unwrap();
            assert_eq!((call.pid, i64::from(call.number)), (child.pid, libc::SYS_chdir));
            assert_eq!(read_path(call.pid, call.arguments[0]).unwrap(), path.to_bytes());
            assert!(listener.is_waiting(call.id) && !listener.is_waiting(call.id + 1));
            listener.answer(call.id, answer).unwrap();
            assert!(!listener.is_waiting(call.id));
        }
        let call = listener.receive().unwrap().unwrap();
        assert_eq!(read_path(call.pid, 8).unwrap_err().raw_os_error(), Some(libc::EFAULT));
        listener.answer_with_fd(call.id, ours.as_fd(), true).unwrap();
        assert_eq!(wait(&child.pidfd).unwrap().code(), 0);
    }
}
