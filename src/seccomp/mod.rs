//! Seccomp (L2): profiles, and the compiler from profiles to classic BPF.
//!
//! A profile names system calls; the kernel wants a program over numbers ([`compile`]). The program
//! finds the number by a binary search, so that a call costs some eight comparisons rather than
//! hundreds, and so does the kernel's own dry run over all numbers when the filter is loaded.

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

pub use compile::{
    ACTIONS, Error, FLAGS, OPERATORS, architectures_here as architectures, compile, compile_with,
};
pub use default::default_profile;
pub use emulate::Emulation;
