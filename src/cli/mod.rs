//! The command line (L6): the only layer that prints or ends the process.

pub mod engine;
pub mod hello;
pub mod oci;
pub mod output;
pub mod progress;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// Chooses the face by the name of the binary and runs it: `umiak-runtime`, `runc`, `crun` and
/// `umiak runtime` are the OCI runtime, `hello` is what the image `hello` runs, all else is the engine.
pub fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    let name = words.first().and_then(|word| Path::new(word).file_name()).and_then(|name| name.to_str());
    let code = match name {
        Some("umiak-runtime" | "runc" | "crun") => return oci::main(words.into_iter().skip(1).collect()),
        Some("hello") => hello::main(words.into_iter().skip(1).collect()),
        _ if words.get(1).is_some_and(|word| word == "runtime") => {
            return oci::main(words.into_iter().skip(2).collect());
        }
        _ => engine::main(words),
    };
    ExitCode::from(code)
}
