//! Seccomp: profiles and the compiler from profiles to cBPF.

mod arch;
mod compile;
mod default;
#[cfg(test)]
mod interpreter;

pub use compile::compile;
pub use default::default_profile;

/// A profile that cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not supported yet.
    #[error("{0} is not supported yet")]
    Unsupported(String),
    /// An argument condition that makes no sense.
    #[error("system call \"{syscall}\" has a condition on argument {index}, and there are only 0 to 5")]
    Argument {
        /// The system call.
        syscall: String,
        /// The argument.
        index: usize,
    },
    /// An error number that the kernel does not return.
    #[error("error number {0} is above 4095")]
    Errno(u32),
    /// More than the kernel takes.
    #[error("the filter has {0} instructions and the kernel takes 4096")]
    TooLong(usize),
}
