//! The command line (L6): the only layer that prints or ends the process.

pub mod engine;
pub mod hello;
pub mod oci;
pub mod output;
pub mod progress;

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;

use crate::sys::{process, signal};

/// Chooses the face by the name of the binary and runs it: `umiak-runtime`, `runc`, `crun` and
/// `umiak runtime` are the OCI runtime, `hello` is what the image `hello` runs, all else is the engine.
/// Returns the exit code.
pub fn main() -> u8 {
    // What Rust's own entry would do. A reader that is gone is an error of the write, not a signal.
    signal::ignore(libc::SIGPIPE);
    if let Err(error) = process::ensure_standard_fds() {
        output::error(&error, None);
        return 125;
    }
    let code = choose();
    // Else what has no end of line yet would be lost; who cannot be told has been told, or is gone.
    let _ = std::io::stdout().flush();
    code
}

fn choose() -> u8 {
    let words: Vec<OsString> = std::env::args_os().collect();
    let name = words.first().and_then(|word| Path::new(word).file_name()).and_then(|name| name.to_str());
    match name {
        Some("umiak-runtime" | "runc" | "crun") => oci::main(words.into_iter().skip(1).collect()),
        Some("hello") => hello::main(words.into_iter().skip(1).collect()),
        _ if words.get(1).is_some_and(|word| word == "runtime") => {
            oci::main(words.into_iter().skip(2).collect())
        }
        _ => engine::main(words),
    }
}
