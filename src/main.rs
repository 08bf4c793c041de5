//! The binary: everything it does is in the library.
//!
//! Its entry is the C library's `main` rather than Rust's own, whose preparations (reading
//! `/proc/self/maps`, a stack and handlers for reporting an overflow) take as long as the whole of
//! `state`; those of them that matter are made by [`umiak::cli::main`] (docs/adr/0009-entry.md).
#![no_main]

use std::ffi::{c_char, c_int};

/// Called once by the C library, in the only thread. The arguments reach [`std::env::args_os`] without us.
#[allow(unsafe_code, reason = "the name is the C library's; no other function of a program has it")]
#[unsafe(no_mangle)]
extern "C" fn main(_count: c_int, _arguments: *const *const c_char) -> c_int {
    umiak::cli::main().into()
}
