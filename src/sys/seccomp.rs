//! Loading seccomp filters (seccomp(2)).

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use super::landlock;

/// Hand out a descriptor on which calls answered with `SECCOMP_RET_USER_NOTIF` are told.
pub const NEW_LISTENER: u32 = 1 << 3;
/// With [`NEW_LISTENER`]: a thread that cannot take the filter is an error number, not its id.
const TSYNC_ESRCH: u32 = 1 << 4;
/// With [`NEW_LISTENER`]: only a fatal signal interrupts a call that waits for its answer.
pub const WAIT_KILLABLE_RECV: u32 = 1 << 5;

/// Ours, and not the kernel's: who loads the filter connects no TCP socket any more
/// ([`landlock::connect_no_tcp`]). A filter cannot see to that: between its look at a call and the call itself another
/// thread may make something else of the descriptor.
pub const CONNECT_NO_TCP: u32 = 1 << 31;

/// One classic BPF instruction, `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// What it does.
    pub code: u16,
    /// Instructions to skip if a test is true.
    pub jt: u8,
    /// Instructions to skip if it is not.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

/// A compiled filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// At most 4096 (`BPF_MAXINSNS`).
    pub program: Vec<Instruction>,
    /// `SECCOMP_FILTER_FLAG_*`.
    pub flags: u32,
}

impl Filter {
    /// The program as the kernel reads it from memory.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.program.len() * 8);
        for i in &self.program {
            bytes.extend_from_slice(&i.code.to_ne_bytes());
            bytes.extend_from_slice(&[i.jt, i.jf]);
            bytes.extend_from_slice(&i.k.to_ne_bytes());
        }
        bytes
    }

    /// Reads what [`Self::bytes`] wrote; nothing if it is no whole number of instructions.
    pub fn program_of(bytes: &[u8]) -> Option<Vec<Instruction>> {
        let (chunks, []) = bytes.as_chunks::<8>() else { return None };
        let instruction = |&[a, b, jt, jf, k @ ..]: &[u8; 8]| Instruction {
            code: u16::from_ne_bytes([a, b]),
            jt,
            jf,
            k: u32::from_ne_bytes(k),
        };
        Some(chunks.iter().map(instruction).collect())
    }

    /// Whether the filter comes with a listener, and so must be loaded by [`Filter::load`].
    pub fn has_listener(&self) -> bool {
        self.flags & NEW_LISTENER != 0
    }

    /// Loads the filter for this process, for good; returns the listener if it has one. Needs
    /// `CAP_SYS_ADMIN` in the user namespace, or no_new_privs.
    pub fn load(&self) -> io::Result<Option<OwnedFd>> {
        let program = libc::sock_fprog {
            len: self.program.len().try_into().map_err(|_| io::ErrorKind::InvalidInput)?,
            // The kernel only reads it; `Instruction` has the layout of sock_filter.
            filter: self.program.as_ptr().cast_mut().cast(),
        };
        let mut flags = self.flags & !CONNECT_NO_TCP;
        if flags != self.flags {
            landlock::connect_no_tcp()?;
        }
        if self.has_listener() && flags & libc::SECCOMP_FILTER_FLAG_TSYNC as u32 != 0 {
            flags |= TSYNC_ESRCH;
        }
        // SAFETY: `program` points to as many instructions as it says, for the length of the call.
        let result = unsafe {
            libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
        };
        match result {
            -1 => Err(io::Error::last_os_error()),
            // SAFETY: with that flag the kernel returns a new descriptor, which nobody else knows of.
            fd if self.has_listener() => Ok(Some(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })),
            _ => Ok(None),
        }
    }
}
