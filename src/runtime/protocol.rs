//! What the init tells the process that made it: one packet a message on a seqpacket socket.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What kind of step failed, as far as callers treat it differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// Preparing the container.
    Setup,
    /// The user or group name is not in the rootfs's files.
    UnknownUser,
    /// The program does not exist (127).
    NotFound,
    /// The program cannot be executed (126).
    NotExecutable,
    /// A startContainer or createContainer hook.
    Hook,
}

/// A failed step inside the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What kind of step it was.
    pub kind: FailureKind,
    /// The kernel's error number, 0 if it was none of the kernel's.
    pub errno: i32,
    /// What was being done, outermost first, without the errno's text; never empty.
    pub chain: Vec<String>,
}

impl Failure {
    /// A failure of the kernel's.
    pub fn new(kind: FailureKind, action: impl Into<String>, error: &std::io::Error) -> Self {
        let mut chain = vec![action.into()];
        let errno = error.raw_os_error().unwrap_or(0);
        if errno == 0 {
            chain.push(error.to_string());
        }
        Self { kind, errno, chain }
    }

    /// 127, 126 or 125: see [`super::Error::exit_code`].
    pub fn exit_code(&self) -> u8 {
        match self.kind {
            FailureKind::NotFound => 127,
            FailureKind::NotExecutable => 126,
            _ => 125,
        }
    }
}

/// The rest of the chain after its first link, which [`super::Error::Inside`] prints itself.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest: Vec<String> = self.chain[1..].to_vec();
        if self.errno != 0 {
            rest.push(std::io::Error::from_raw_os_error(self.errno).to_string());
        }
        f.write_str(&rest.join(": "))
    }
}

impl std::error::Error for Failure {}
