//! What the init tells the process that made it: one packet a message on a seqpacket socket.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::sys::seal;

/// The first thing that a container's init does with mounts: where it is refused, so is everything.
pub const CUTTING_OFF: &str = "cutting off the host's mounts";
/// What limits of namespaces stop.
pub const CREATING: &str = "creating namespaces";
/// What is executed lies in a file in memory.
pub const WRITING_STUB: &str = "writing the stub";

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
    /// Overlayfs is not there, or cannot use these directories.
    NoOverlay,
    /// The program's user or group is not among the user namespace's ids.
    Unmapped,
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
            FailureKind::NotExecutable | FailureKind::UnknownUser => 126,
            _ => 125,
        }
    }
}

/// The rest of the chain after its first link, which [`super::Error::Inside`] prints itself.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest: Vec<String> = self.chain[1..].to_vec();
        if self.errno != 0 {
            rest.push(errno_text(self.errno));
        }
        f.write_str(&rest.join(": "))
    }
}

impl std::error::Error for Failure {}

/// The error number's text in lower case, which callers of OCI runtimes match.
fn errno_text(errno: i32) -> String {
    let text = std::io::Error::from_raw_os_error(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

/// The parent's word to go on: the ids are mapped, or the hooks have run.
pub const GO: &[u8] = b"G";
/// The parent's word that the container is recorded and will be started by another process.
pub const DETACH: &[u8] = b"D";
/// The word that opens the start gate.
pub const START: &[u8] = &[seal::BEGIN];

/// What the init says.
#[derive(Debug)]
pub enum Message {
    /// The namespaces are there, and nothing is done in them yet.
    Born,
    /// The namespaces are there and mounts are made: run prestart and createRuntime hooks.
    Hooks,
    /// The network namespace is there: move devices in.
    NetDevices,
    /// The listener of the seccomp filter, which comes along.
    Listener,
    /// The terminal's master, which comes along.
    Terminal,
    /// All is done but the program; waiting at the gate.
    Ready,
    /// It failed, and has ended.
    Failed(Failure),
    /// It has ended, or closed the socket.
    End,
}

impl Message {
    /// The packet.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Born => b"B".to_vec(),
            Self::Hooks => b"H".to_vec(),
            Self::NetDevices => b"N".to_vec(),
            Self::Listener => b"L".to_vec(),
            Self::Terminal => b"T".to_vec(),
            Self::Ready => b"R".to_vec(),
            Self::Failed(failure) => {
                let mut bytes = b"F".to_vec();
                bytes.extend(serde_json::to_vec(failure).unwrap_or_default());
                bytes
            }
            Self::End => Vec::new(),
        }
    }

    /// Reads a packet, of the init or of the stub; `None` if it is neither's.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        Some(match bytes {
            [] => Self::End,
            b"B" => Self::Born,
            b"H" => Self::Hooks,
            b"N" => Self::NetDevices,
            b"L" => Self::Listener,
            b"T" => Self::Terminal,
            b"R" => Self::Ready,
            [b'F', json @ ..] => {
                let failure: Failure = serde_json::from_slice(json).ok()?;
                Self::Failed(failure).checked()?
            }
            [what @ (seal::FAILED_EXEC | seal::FAILED_SECCOMP), _, _, _, errno @ ..] => {
                let errno = i32::from_ne_bytes(errno.try_into().ok()?);
                let (kind, action) = match (*what, errno) {
                    (seal::FAILED_SECCOMP, _) => (FailureKind::Setup, "loading the seccomp filter"),
                    (_, libc::ENOENT | libc::ENOTDIR) => (FailureKind::NotFound, "executing the program"),
                    _ => (FailureKind::NotExecutable, "executing the program"),
                };
                Self::Failed(Failure { kind, errno, chain: vec![action.to_owned()] })
            }
            _ => return None,
        })
    }

    fn checked(self) -> Option<Self> {
        match &self {
            Self::Failed(failure) if failure.chain.is_empty() => None,
            _ => Some(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_arrive_whole() {
        let failure = Failure {
            kind: FailureKind::NotFound,
            errno: 2,
            chain: vec!["exec: \"x\"".into(), "why".into()],
        };
        let packet = Message::Failed(failure.clone()).encode();
        match Message::decode(&packet) {
            Some(Message::Failed(got)) => {
                assert_eq!(got, failure);
                assert_eq!(got.to_string(), "why: no such file or directory");
                assert_eq!(got.exit_code(), 127);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_stubs_words_are_understood() {
        let mut packet = vec![seal::FAILED_EXEC, 0, 0, 0];
        packet.extend(libc::EACCES.to_ne_bytes());
        assert!(matches!(Message::decode(&packet), Some(Message::Failed(f)) if f.exit_code() == 126));
        for bad in [&b"F{}"[..], b"Fx", b"Q", b"X1", &[b'X'; 9]] {
            assert!(Message::decode(bad).is_none(), "{bad:?}");
        }
    }
}
