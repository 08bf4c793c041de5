//! OCI hooks.
/// A hook that failed.
#[derive(Debug, thiserror::Error)]
#[error("hook")]
pub struct Error;
