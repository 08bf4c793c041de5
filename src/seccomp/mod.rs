//! Seccomp (L2): profiles, and the compiler from profiles to classic BPF.
//!
//! A profile names system calls; the kernel wants a program over numbers ([`compile`]). The program
//! finds the number by a binary search, so that a call costs some eight comparisons rather than
//! hundreds, and so does the kernel's own dry run over all numbers when the filter is loaded.

pub mod answer;
mod assemble;
mod compile;
mod default;
mod emulate;
pub mod file;
#[cfg(test)]
mod interpret;
mod numbers;
#[cfg(all(test, target_arch = "x86_64"))]
mod oracle;
mod told;

pub use compile::{
    ACTIONS, Error, FLAGS, OPERATORS, architectures_here as architectures, compile, compile_with,
};
pub use default::default_profile;
pub use emulate::{Emulation, Kernel};
pub use told::{Changes, Told, native, numbers_of};

/// What makes filters out of profiles, and our own profile: a number that changes with their source, so that a filter
/// that is kept is not taken for one that would be made now.
pub const COMPILER: u64 = {
    let parts: [&[u8]; 6] = [
        include_bytes!("assemble.rs"),
        include_bytes!("compile.rs"),
        include_bytes!("default.rs"),
        include_bytes!("emulate.rs"),
        include_bytes!("file.rs"),
        include_bytes!("told.rs"),
    ];
    let mut hash = 0xcbf2_9ce4_8422_2325;
    let mut part = 0;
    while part < parts.len() {
        let mut at = 0;
        while at < parts[part].len() {
            // Fowler, Noll and Vo's; a constant is made without iterators.
            hash = (hash ^ parts[part][at] as u64).wrapping_mul(0x0100_0000_01b3);
            at += 1;
        }
        part += 1;
    }
    hash
};
