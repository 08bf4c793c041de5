//! The last step before a container's program: a tiny position-independent ELF program (the
//! *stub*) in a sealed memfd, which is executed instead of the program itself and then executes it.
//!
//! A program that resolves to `/proc/self/exe` (as itself, by a link, or as the interpreter of a
//! script) thereby gets the stub, read-only and of no use to anybody, and never our binary on disk
//! (CVE-2019-5736). It is a few hundred bytes, so it costs no copy of the binary. The stub also
//! loads the seccomp filter when that must come last, and is the reaping init of `--init`.

use std::ffi::{CStr, CString, OsStr};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{MemfdFlags, SealFlags};

use super::seccomp::Filter;

/// First byte of the stub's message when the program could not be executed.
pub const FAILED_EXEC: u8 = b'X';
/// The word by which a stub begins that waits for it.
pub const BEGIN: u8 = b'S';
/// First byte of the stub's message when the filter could not be loaded.
pub const FAILED_SECCOMP: u8 = b'S';

/// What the stub shall do.
#[derive(Debug)]
pub struct Last<'a> {
    /// The program's path, as execve(2) takes it.
    pub program: &'a OsStr,
    /// Where failures are told: eight bytes, [`FAILED_EXEC`] or [`FAILED_SECCOMP`] and the error
    /// number as little-endian 32-bit integers. Closed by the exec of the program.
    pub report: BorrowedFd<'a>,
    /// Wait on `report` for the word [`BEGIN`] first, unseen by others; whoever says anything else, or nothing any
    /// more, ends it.
    pub waits: bool,
    /// A filter to load before the program.
    pub filter: Option<&'a Filter>,
    /// Stay as process 1 that reaps and forwards signals; the program is its child.
    pub init: bool,
}

/// A stub in its file.
#[derive(Debug)]
pub struct Stub {
    file: std::fs::File,
}

impl Last<'_> {
    /// Writes the stub.
    pub fn written(&self) -> io::Result<Stub> {
        Ok(Stub { file: prepare(self)? })
    }
}

impl Stub {
    /// Executes the stub in place of this process, with the program's arguments, its name first, and environment;
    /// `report` is what it was written with. Returns only if that failed.
    pub fn execute(&self, report: BorrowedFd<'_>, args: &[CString], env: &[CString]) -> io::Error {
        if let Err(error) = rustix::io::fcntl_setfd(report, rustix::io::FdFlags::empty()) {
            return error.into();
        }
        exec_fd(self.file.as_fd(), args, env)
    }
}

fn exec_fd(fd: BorrowedFd<'_>, args: &[CString], env: &[CString]) -> io::Error {
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (args, env) = (pointers(args), pointers(env));
    let empty: &CStr = c"";
    // SAFETY: both arrays are null-terminated and point to strings that live until the call is over.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            fd.as_raw_fd(),
            empty.as_ptr(),
            args.as_ptr(),
            env.as_ptr(),
            libc::AT_EMPTY_PATH,
        );
    }
    io::Error::last_os_error()
}

fn prepare(last: &Last<'_>) -> io::Result<std::fs::File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // MFD_EXEC says what is wanted where vm.memfd_noexec would else forbid it; unknown before Linux 6.3.
    let executable = MemfdFlags::from_bits_retain(0x10);
    let memfd = match rustix::fs::memfd_create("umiak-stub", flags | executable) {
        Err(rustix::io::Errno::INVAL) => rustix::fs::memfd_create("umiak-stub", flags)?,
        other => other?,
    };
    let mut file = std::fs::File::from(memfd);
    file.write_all(&image(last))?;
    rustix::fs::fcntl_add_seals(
        &file,
        SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
    )?;
    Ok(file)
}

const HEADERS: usize = 64 + 2 * 56;
const PARAMETERS: usize = 32;

/// The whole ELF file: headers, code, and behind the code the parameters that it reads.
fn image(last: &Last<'_>) -> Vec<u8> {
    let code = code();
    let program = last.program.as_bytes();
    let filter = last.filter.map(Filter::bytes).unwrap_or_default();
    let filter_at = PARAMETERS;
    let program_at = filter_at + filter.len();
    let size = HEADERS + code.len() + program_at + program.len() + 1;

    let mut file = Vec::with_capacity(size);
    elf_headers(&mut file, size as u64);
    file.extend_from_slice(code);
    let flags = u32::from(last.filter.is_some()) | u32::from(last.init) << 1 | u32::from(last.waits) << 2;
    file.extend_from_slice(&last.report.as_raw_fd().to_ne_bytes());
    file.extend_from_slice(&flags.to_ne_bytes());
    file.extend_from_slice(&last.filter.map_or(0, |f| u64::from(f.flags)).to_ne_bytes());
    file.extend_from_slice(&((filter.len() / 8) as u32).to_ne_bytes());
    file.extend_from_slice(&(program_at as u32).to_ne_bytes());
    file.extend_from_slice(&(filter_at as u32).to_ne_bytes());
    file.extend_from_slice(&0_u32.to_ne_bytes());
    file.extend_from_slice(&filter);
    file.extend_from_slice(program);
    file.push(0);
    file
}

/// elf(5): an ET_DYN file of one read-and-execute segment, which is the whole file.
fn elf_headers(file: &mut Vec<u8>, size: u64) {
    #[cfg(target_arch = "x86_64")]
    const MACHINE: u16 = 62;
    #[cfg(target_arch = "aarch64")]
    const MACHINE: u16 = 183;
    let half = |file: &mut Vec<u8>, n: u16| file.extend_from_slice(&n.to_le_bytes());
    let word = |file: &mut Vec<u8>, n: u32| file.extend_from_slice(&n.to_le_bytes());
    let long = |file: &mut Vec<u8>, n: u64| file.extend_from_slice(&n.to_le_bytes());
    file.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    half(file, 3);
    half(file, MACHINE);
    word(file, 1);
    long(file, HEADERS as u64);
    long(file, 64);
    long(file, 0);
    word(file, 0);
    for n in [64, 56, 2, 64, 0, 0] {
        half(file, n);
    }
    // PT_LOAD, read and execute.
    word(file, 1);
    word(file, 5);
    for n in [0, 0, 0, size, size, 0x1000] {
        long(file, n);
    }
    // PT_GNU_STACK, read and write: no executable stack.
    word(file, 0x6474_e551);
    word(file, 6);
    for n in [0, 0, 0, 0, 0, 16] {
        long(file, n);
    }
}

fn code() -> &'static [u8] {
    unsafe extern "C" {
        static umiak_stub_start: u8;
        static umiak_stub_end: u8;
    }
    // SAFETY: both labels stand around the same run of bytes in read-only memory, see below.
    unsafe {
        let start = &raw const umiak_stub_start;
        std::slice::from_raw_parts(start, (&raw const umiak_stub_end).offset_from(start) as usize)
    }
}

// Parameters behind the end label: 0 report fd, 4 flags (1 filter, 2 init, 4 waits), 8 seccomp flags,
// 16 filter length, 20 offset of the program's path, 24 offset of the filter.
//
// If marking the report descriptor fails, this is the second time that the stub runs: its program
// is /proc/self/exe. It ends then, rather than execute itself for ever.
#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(
    ".pushsection .rodata.umiak_stub,\"a\",@progbits",
    ".balign 16",
    ".globl umiak_stub_start",
    "umiak_stub_start:",
    "lea rbx, [rip + umiak_stub_end]",
    "mov r12, rsp",
    "sub rsp, 256",
    // fcntl(report, F_SETFD, FD_CLOEXEC)
    "mov edi, [rbx]",
    "mov esi, 2",
    "mov edx, 1",
    "mov eax, 72",
    "syscall",
    "test eax, eax",
    "js 8f",
    "test dword ptr [rbx + 4], 4",
    "jz 20f",
    // prctl(PR_SET_DUMPABLE, 0): nobody is to take the socket from it
    "mov edi, 4",
    "xor esi, esi",
    "xor edx, edx",
    "xor r10d, r10d",
    "xor r8d, r8d",
    "mov eax, 157",
    "syscall",
    // recvfrom(report, word, 1, 0, 0, 0), once more at EINTR
    "19:",
    "mov edi, [rbx]",
    "mov rsi, rsp",
    "mov edx, 1",
    "xor r10d, r10d",
    "xor r8d, r8d",
    "xor r9d, r9d",
    "mov eax, 45",
    "syscall",
    "cmp rax, -4",
    "je 19b",
    "mov edi, 125",
    "cmp rax, 1",
    "jne 9f",
    "cmp byte ptr [rsp], 0x53",
    "jne 9f",
    "20:",
    // seccomp(SECCOMP_SET_MODE_FILTER, flags, &{length, filter})
    "test dword ptr [rbx + 4], 1",
    "jz 2f",
    "mov eax, [rbx + 16]",
    "mov [rsp], rax",
    "mov eax, [rbx + 24]",
    "add rax, rbx",
    "mov [rsp + 8], rax",
    "mov edi, 1",
    "mov rsi, [rbx + 8]",
    "mov rdx, rsp",
    "mov eax, 317",
    "syscall",
    "mov ecx, 0x53",
    "test eax, eax",
    "jnz 7f",
    "2:",
    "test dword ptr [rbx + 4], 2",
    "jz 5f",
    // rt_sigprocmask(SIG_SETMASK, all, 0, 8)
    "mov qword ptr [rsp], -1",
    "mov edi, 2",
    "mov rsi, rsp",
    "xor edx, edx",
    "mov r10d, 8",
    "mov eax, 14",
    "syscall",
    // fork()
    "mov eax, 57",
    "syscall",
    "mov ecx, 0x58",
    "test eax, eax",
    "js 7f",
    "jz 4f",
    "mov r13d, eax",
    // close(report): its end tells the exec
    "mov edi, [rbx]",
    "mov eax, 3",
    "syscall",
    "3:",
    // rt_sigtimedwait(all, 0, 0, 8)
    "mov qword ptr [rsp], -1",
    "mov rdi, rsp",
    "xor esi, esi",
    "xor edx, edx",
    "mov r10d, 8",
    "mov eax, 128",
    "syscall",
    "test eax, eax",
    "jle 3b",
    "cmp eax, 17",
    "je 6f",
    // kill(child, signal)
    "mov edi, r13d",
    "mov esi, eax",
    "mov eax, 62",
    "syscall",
    "jmp 3b",
    "6:",
    // wait4(-1, &status, WNOHANG, 0)
    "mov rdi, -1",
    "lea rsi, [rsp + 16]",
    "mov edx, 1",
    "xor r10d, r10d",
    "mov eax, 61",
    "syscall",
    "test eax, eax",
    "jle 3b",
    "cmp eax, r13d",
    "jne 6b",
    "mov eax, [rsp + 16]",
    "mov edi, eax",
    "shr edi, 8",
    "and edi, 255",
    "and eax, 127",
    "jz 9f",
    "lea edi, [rax + 128]",
    "jmp 9f",
    "4:",
    // The child: setpgid(0, 0); ioctl(0, TIOCSPGRP, &getpid()): the terminal's signals go to it
    // alone and not to the init, too, which would forward them a second time.
    "xor edi, edi",
    "xor esi, esi",
    "mov eax, 109",
    "syscall",
    "mov eax, 39",
    "syscall",
    "mov [rsp + 16], rax",
    "xor edi, edi",
    "mov esi, 0x5410",
    "lea rdx, [rsp + 16]",
    "mov eax, 16",
    "syscall",
    // rt_sigprocmask(SIG_SETMASK, none, 0, 8)
    "mov qword ptr [rsp], 0",
    "mov edi, 2",
    "mov rsi, rsp",
    "xor edx, edx",
    "mov r10d, 8",
    "mov eax, 14",
    "syscall",
    "5:",
    // execve(program, argv, envp)
    "mov edi, [rbx + 20]",
    "add rdi, rbx",
    "lea rsi, [r12 + 8]",
    "mov rax, [r12]",
    "lea rdx, [r12 + rax * 8 + 16]",
    "mov eax, 59",
    "syscall",
    "mov ecx, 0x58",
    "7:",
    // write(report, {what, errno}, 8)
    "neg eax",
    "mov [rsp], ecx",
    "mov [rsp + 4], eax",
    "mov edi, [rbx]",
    "mov rsi, rsp",
    "mov edx, 8",
    "mov eax, 1",
    "syscall",
    "8:",
    "mov edi, 127",
    "9:",
    "mov eax, 231",
    "syscall",
    "hlt",
    ".balign 16",
    ".globl umiak_stub_end",
    "umiak_stub_end:",
    ".popsection",
);

// The same for aarch64: x19 parameters, x20 the stack at entry, w21 the child.
#[cfg(target_arch = "aarch64")]
std::arch::global_asm!(
    ".pushsection .rodata.umiak_stub,\"a\",@progbits",
    ".balign 16",
    ".globl umiak_stub_start",
    "umiak_stub_start:",
    "adr x19, umiak_stub_end",
    "mov x20, sp",
    "sub sp, sp, #256",
    "ldr w0, [x19]",
    "mov x1, #2",
    "mov x2, #1",
    "mov x8, #25",
    "svc #0",
    "tbnz x0, #63, 8f",
    "ldr w9, [x19, #4]",
    "tbz w9, #2, 20f",
    "mov x0, #4",
    "mov x1, #0",
    "mov x2, #0",
    "mov x3, #0",
    "mov x4, #0",
    "mov x8, #167",
    "svc #0",
    "19:",
    "ldr w0, [x19]",
    "mov x1, sp",
    "mov x2, #1",
    "mov x3, #0",
    "mov x4, #0",
    "mov x5, #0",
    "mov x8, #207",
    "svc #0",
    "cmn x0, #4",
    "b.eq 19b",
    "cmp x0, #1",
    "mov w0, #125",
    "b.ne 9f",
    "ldrb w9, [sp]",
    "cmp w9, #0x53",
    "b.ne 9f",
    "20:",
    "ldr w9, [x19, #4]",
    "tbz w9, #0, 2f",
    "ldr w9, [x19, #16]",
    "str x9, [sp]",
    "ldr w9, [x19, #24]",
    "add x9, x9, x19",
    "str x9, [sp, #8]",
    "mov x0, #1",
    "ldr x1, [x19, #8]",
    "mov x2, sp",
    "mov x8, #277",
    "svc #0",
    "mov w10, #0x53",
    "cbnz x0, 7f",
    "2:",
    "ldr w9, [x19, #4]",
    "tbz w9, #1, 5f",
    "mov x9, #-1",
    "str x9, [sp]",
    "mov x0, #2",
    "mov x1, sp",
    "mov x2, #0",
    "mov x3, #8",
    "mov x8, #135",
    "svc #0",
    // clone(SIGCHLD, 0, 0, 0, 0)
    "mov x0, #17",
    "mov x1, #0",
    "mov x2, #0",
    "mov x3, #0",
    "mov x4, #0",
    "mov x8, #220",
    "svc #0",
    "mov w10, #0x58",
    "tbnz x0, #63, 7f",
    "cbz x0, 4f",
    "mov w21, w0",
    "ldr w0, [x19]",
    "mov x8, #57",
    "svc #0",
    "3:",
    "mov x9, #-1",
    "str x9, [sp]",
    "mov x0, sp",
    "mov x1, #0",
    "mov x2, #0",
    "mov x3, #8",
    "mov x8, #137",
    "svc #0",
    "cmp w0, #0",
    "b.le 3b",
    "cmp w0, #17",
    "b.eq 6f",
    "mov w1, w0",
    "mov w0, w21",
    "mov x8, #129",
    "svc #0",
    "b 3b",
    "6:",
    "mov x0, #-1",
    "add x1, sp, #16",
    "mov x2, #1",
    "mov x3, #0",
    "mov x8, #260",
    "svc #0",
    "cmp w0, #0",
    "b.le 3b",
    "cmp w0, w21",
    "b.ne 6b",
    "ldr w9, [sp, #16]",
    "ubfx w0, w9, #8, #8",
    "ands w9, w9, #127",
    "b.eq 9f",
    "add w0, w9, #128",
    "b 9f",
    "4:",
    "mov x0, #0",
    "mov x1, #0",
    "mov x8, #154",
    "svc #0",
    "mov x8, #172",
    "svc #0",
    "str x0, [sp, #16]",
    "mov x0, #0",
    "mov x1, #0x5410",
    "add x2, sp, #16",
    "mov x8, #29",
    "svc #0",
    "str xzr, [sp]",
    "mov x0, #2",
    "mov x1, sp",
    "mov x2, #0",
    "mov x3, #8",
    "mov x8, #135",
    "svc #0",
    "5:",
    "ldr w0, [x19, #20]",
    "add x0, x0, x19",
    "add x1, x20, #8",
    "ldr x9, [x20]",
    "add x2, x20, x9, lsl #3",
    "add x2, x2, #16",
    "mov x8, #221",
    "svc #0",
    "mov w10, #0x58",
    "7:",
    "neg w0, w0",
    "str w10, [sp]",
    "str w0, [sp, #4]",
    "ldr w0, [x19]",
    "mov x1, sp",
    "mov x2, #8",
    "mov x8, #64",
    "svc #0",
    "8:",
    "mov w0, #127",
    "9:",
    "mov x8, #94",
    "svc #0",
    "brk #0",
    ".balign 16",
    ".globl umiak_stub_end",
    "umiak_stub_end:",
    ".popsection",
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stub_is_tiny_and_aligned() {
        let code = code();
        assert!(code.len() < 1024 && code.len().is_multiple_of(16), "{}", code.len());
        assert_eq!(HEADERS % 8, 0);
    }
}
