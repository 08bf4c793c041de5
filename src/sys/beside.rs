//! Processes that borrow the caller's memory while the caller goes on (clone(2), `CLONE_VM` without `CLONE_VFORK`).
//!
//! A fork copies what the caller has mapped, and each side then copies the pages that it writes to; vfork(2) copies
//! nothing, but has the caller wait until the program is loaded. What runs here is a dozen system calls that need
//! no memory but what they read: they are written down as such, so that no function of ours, with its stack and
//! what is the thread's own, runs twice in the same memory.
//!
//! Every signal is blocked there, also in the program that it becomes: no handler of ours runs, and what a terminal
//! sends to all who are in the foreground ends nobody whom somebody in the background waits for.

use std::ffi::{CString, c_char};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::process::{self, Child, CloneOptions, made};
use super::signal;

/// A program and its arguments, as execve(2) reads them.
#[derive(Debug)]
pub struct Program {
    path: CString,
    /// What `pointers` leads to.
    #[expect(dead_code, reason = "read by the kernel")]
    words: Vec<CString>,
    pointers: Vec<*const c_char>,
}

impl Program {
    /// The program at `path`, with argument 0 in `words`.
    pub fn new(path: &Path, words: impl IntoIterator<Item = String>) -> io::Result<Self> {
        let words: Vec<CString> = words.into_iter().map(CString::new).collect::<Result<_, _>>()?;
        let pointers = words.iter().map(|word| word.as_ptr()).chain([std::ptr::null()]).collect();
        Ok(Self { path: CString::new(path.as_os_str().as_bytes())?, words, pointers })
    }

    /// Starts it with the caller's environment and `null` as its three standard descriptors; every other must be
    /// close-on-exec. Where it cannot be executed it ends with 127.
    ///
    /// It reads this until it is executed, which nobody is told of: it must be kept until it has ended.
    pub fn start(&self, null: BorrowedFd<'_>) -> io::Result<Child> {
        let mut pidfd: RawFd = -1;
        let args = clone_args(0, &mut pidfd);
        let result = signal::blocked(|| self.clone(&args, null));
        made(result, pidfd)
    }

    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    fn clone(&self, args: &libc::clone_args, null: BorrowedFd<'_>) -> isize {
        unsafe extern "C" {
            static environ: *const *const c_char;
        }
        // SAFETY: the C library's own; who changes the environment does so before there is anything to start.
        let variables = unsafe { environ };
        let result: isize;
        // SAFETY: `args` is valid for its size. The child reads only what the registers lead to, which stays as it
        // is by contract (strings that nobody changes), writes to no memory, uses no stack, and ends or becomes
        // another program.
        unsafe {
            #[cfg(target_arch = "x86_64")]
            std::arch::asm!(
                "syscall",
                "test rax, rax",
                "jnz 2f",
                // dup3(null, 0..3, 0)
                "xor r8d, r8d",
                "3:",
                "mov rdi, r12",
                "mov rsi, r8",
                "xor edx, edx",
                "mov eax, 292",
                "syscall",
                "inc r8d",
                "cmp r8d, 3",
                "jne 3b",
                // execve(path, words, environ)
                "mov rdi, r13",
                "mov rsi, r14",
                "mov rdx, r15",
                "mov eax, 59",
                "syscall",
                // exit_group(127)
                "mov edi, 127",
                "mov eax, 231",
                "syscall",
                "ud2",
                "2:",
                inlateout("rax") libc::SYS_clone3 as isize => result,
                in("rdi") std::ptr::from_ref(args),
                in("rsi") size_of::<libc::clone_args>(),
                in("r12") i64::from(null.as_raw_fd()),
                in("r13") self.path.as_ptr(),
                in("r14") self.pointers.as_ptr(),
                in("r15") variables,
                lateout("rcx") _,
                lateout("r11") _,
            );
            #[cfg(target_arch = "aarch64")]
            std::arch::asm!(
                "svc 0",
                "cbnz x0, 2f",
                "mov w24, wzr",
                "3:",
                "mov x0, x20",
                "mov w1, w24",
                "mov x2, xzr",
                "mov x8, 24",
                "svc 0",
                "add w24, w24, 1",
                "cmp w24, 3",
                "b.ne 3b",
                "mov x0, x21",
                "mov x1, x22",
                "mov x2, x23",
                "mov x8, 221",
                "svc 0",
                "mov x0, 127",
                "mov x8, 94",
                "svc 0",
                "brk 1",
                "2:",
                inlateout("x0") std::ptr::from_ref(args) => result,
                in("x1") size_of::<libc::clone_args>(),
                in("x8") libc::SYS_clone3,
                in("x20") i64::from(null.as_raw_fd()),
                in("x21") self.path.as_ptr(),
                in("x22") self.pointers.as_ptr(),
                in("x23") variables,
                lateout("x24") _,
            );
        }
        result
    }

    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    fn clone(&self, _args: &libc::clone_args, _null: BorrowedFd<'_>) -> isize {
        -(libc::ENOSYS as isize)
    }
}

/// What a [`keeper`] says when its namespaces are there.
pub const KEPT: &[u8] = b"k";

/// A process in new namespaces, of which the kinds in `first` are made by the caller and those in `then` by itself,
/// beside the caller, as soon as it hears something over its socket `theirs`. It says [`KEPT`] when they are there, and
/// ends when it hears something else or nothing can be said over the other end, `ours`, any more (or when they could not
/// be made).
pub fn keeper(first: u64, then: u64, ours: BorrowedFd<'_>, theirs: BorrowedFd<'_>) -> io::Result<Child> {
    let mut pidfd: RawFd = -1;
    let args = clone_args(first, &mut pidfd);
    let result = signal::blocked(|| clone_keeper(&args, then, ours, theirs));
    made(result, pidfd)
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn clone_keeper(args: &libc::clone_args, then: u64, ours: BorrowedFd<'_>, theirs: BorrowedFd<'_>) -> isize {
    let result: isize;
    // SAFETY: as in `Program::start`; what it says is a constant. With no buffer a receive waits and writes nothing;
    // MSG_TRUNC has it return the length of what was said, and 0 if nothing can be any more.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            // close(ours)
            "mov rdi, r12",
            "mov eax, 3",
            "syscall",
            // recvfrom(theirs, 0, 0, MSG_TRUNC, 0, 0)
            "mov rdi, r13",
            "xor esi, esi",
            "xor edx, edx",
            "mov r10d, 0x20",
            "xor r8d, r8d",
            "xor r9d, r9d",
            "mov eax, 45",
            "syscall",
            "test eax, eax",
            "jle 3f",
            // unshare(then)
            "mov rdi, r14",
            "mov eax, 272",
            "syscall",
            "test eax, eax",
            "jnz 3f",
            // sendto(theirs, KEPT, 1, MSG_NOSIGNAL, 0, 0)
            "mov rdi, r13",
            "mov rsi, r15",
            "mov edx, 1",
            "mov r10d, 0x4000",
            "xor r8d, r8d",
            "xor r9d, r9d",
            "mov eax, 44",
            "syscall",
            // recvfrom(theirs, 0, 0, 0, 0, 0)
            "mov rdi, r13",
            "xor esi, esi",
            "xor edx, edx",
            "xor r10d, r10d",
            "xor r8d, r8d",
            "xor r9d, r9d",
            "mov eax, 45",
            "syscall",
            "3:",
            // exit_group(0)
            "xor edi, edi",
            "mov eax, 231",
            "syscall",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 as isize => result,
            in("rdi") std::ptr::from_ref(args),
            in("rsi") size_of::<libc::clone_args>(),
            in("r12") i64::from(ours.as_raw_fd()),
            in("r13") i64::from(theirs.as_raw_fd()),
            in("r14") then,
            in("r15") KEPT.as_ptr(),
            lateout("rcx") _,
            lateout("r11") _,
        );
        #[cfg(target_arch = "aarch64")]
        std::arch::asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x0, x20",
            "mov x8, 57",
            "svc 0",
            "mov x0, x21",
            "mov x1, xzr",
            "mov x2, xzr",
            "mov x3, 0x20",
            "mov x4, xzr",
            "mov x5, xzr",
            "mov x8, 207",
            "svc 0",
            "cmp x0, 0",
            "b.le 3f",
            "mov x0, x22",
            "mov x8, 97",
            "svc 0",
            "cbnz x0, 3f",
            "mov x0, x21",
            "mov x1, x23",
            "mov x2, 1",
            "mov x3, 0x4000",
            "mov x4, xzr",
            "mov x5, xzr",
            "mov x8, 206",
            "svc 0",
            "mov x0, x21",
            "mov x1, xzr",
            "mov x2, xzr",
            "mov x3, xzr",
            "mov x4, xzr",
            "mov x5, xzr",
            "mov x8, 207",
            "svc 0",
            "3:",
            "mov x0, xzr",
            "mov x8, 94",
            "svc 0",
            "brk 1",
            "2:",
            inlateout("x0") std::ptr::from_ref(args) => result,
            in("x1") size_of::<libc::clone_args>(),
            in("x8") libc::SYS_clone3,
            in("x20") i64::from(ours.as_raw_fd()),
            in("x21") i64::from(theirs.as_raw_fd()),
            in("x22") then,
            in("x23") KEPT.as_ptr(),
        );
    }
    result
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn clone_keeper(_: &libc::clone_args, _: u64, _: BorrowedFd<'_>, _: BorrowedFd<'_>) -> isize {
    -(libc::ENOSYS as isize)
}

fn clone_args(namespaces: u64, pidfd: &mut RawFd) -> libc::clone_args {
    let mut args = process::clone_args(CloneOptions { namespaces, ..CloneOptions::default() }, pidfd);
    args.flags |= libc::CLONE_VM as u64;
    args
}
