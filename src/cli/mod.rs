//! The command line (L6): the only layer that prints or ends the process.

pub mod engine;
pub mod output;

use std::process::ExitCode;

/// Chooses the face by the name of the binary and runs it.
pub fn main() -> ExitCode {
    ExitCode::from(125)
}
