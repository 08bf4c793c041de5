//! Handing the listener of a seccomp filter to who answers for it (`config-linux.md`, "The Container
//! Process State").

use std::os::fd::{AsFd, OwnedFd};

use oci_spec::runtime::LinuxSeccomp;
use serde::Serialize;

use super::Error;
use super::hooks::HookState;
use crate::seccomp::answer;
use crate::sys::socket;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ContainerProcessState<'a> {
    oci_version: &'a str,
    fds: [&'static str; 1],
    pid: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a str>,
    state: &'a HookState,
}

/// Sends the listener of process `pid` to who answers its calls: `answerer`, and waits until that one is ready; else
/// to the socket that the profile names.
pub(super) fn hand_over(
    answerer: Option<&OwnedFd>,
    profile: Option<&LinuxSeccomp>,
    listener: &OwnedFd,
    pid: i32,
    state: &HookState,
) -> Result<(), Error> {
    if let Some(answerer) = answerer {
        let action = "handing over to the process that answers system calls";
        let failed = |e| Error::host(action, e);
        socket::send(answerer, pid.to_string().as_bytes(), Some(listener.as_fd())).map_err(failed)?;
        return match &socket::receive(answerer).map_err(failed)?.0[..] {
            answer::READY => Ok(()),
            b"" => Err(failed(std::io::ErrorKind::BrokenPipe.into())),
            why => Err(failed(std::io::Error::other(String::from_utf8_lossy(why).into_owned()))),
        };
    }
    let Some(path) = profile.and_then(|profile| profile.listener_path().as_ref()) else {
        return Err(Error::Died);
    };
    let error =
        |e: std::io::Error| Error::host(format!("sending the seccomp listener to \"{}\"", path.display()), e);
    let metadata = profile.and_then(|profile| profile.listener_metadata().as_deref());
    let oci_version = &state.oci_version;
    let message = ContainerProcessState { oci_version, fds: ["seccompFd"], pid, metadata, state };
    let text = serde_json::to_vec(&message).map_err(|e| error(e.into()))?;
    let socket = socket::connect_stream(path).map_err(error)?;
    socket::send(&socket, &text, Some(listener.as_fd())).map_err(error)
}
