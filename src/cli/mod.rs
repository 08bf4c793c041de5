//! The command line (L6): the only layer that prints or ends the process.

pub mod oci;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// Chooses the face by the name of the binary and runs it.
pub fn main() -> ExitCode {
    let mut args: Vec<OsString> = std::env::args_os().collect();
    let name = args.first().and_then(|arg| Path::new(arg).file_name()).unwrap_or_default().to_owned();
    if matches!(name.to_str(), Some("umiak-runtime" | "runc" | "crun")) {
        return oci::main(args.split_off(1));
    }
    if args.get(1).is_some_and(|arg| arg == "runtime") {
        return oci::main(args.split_off(2));
    }
    ExitCode::from(125)
}
