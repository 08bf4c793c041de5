//! Loading seccomp filters (seccomp(2)).

use std::io;

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

    /// Loads the filter for this process, for good. Needs `CAP_SYS_ADMIN` in the user namespace, or
    /// no_new_privs.
    pub fn load(&self) -> io::Result<()> {
        let program = libc::sock_fprog {
            len: self.program.len().try_into().map_err(|_| io::ErrorKind::InvalidInput)?,
            // The kernel only reads it; `Instruction` has the layout of sock_filter.
            filter: self.program.as_ptr().cast_mut().cast(),
        };
        // SAFETY: `program` points to as many instructions as it says, for the length of the call.
        let result = unsafe {
            libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, self.flags, &raw const program)
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}
