//! `NOTIFY_SOCKET` (sd_notify(3)): a container says to the service manager that it is ready.
//!
//! The container must not reach the manager's socket itself: it could claim more than that. It gets
//! one of ours, in a directory that is mounted at the manager's path, and only its `READY=` is passed
//! on, with the number of its init.

use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Mount, Spec};
use rustix::event::{PollFd, PollFlags};

use super::Error;
use crate::runtime::state::Dir;

/// The way from a container to the service manager.
pub(super) struct Notify {
    /// Holds our socket.
    directory: PathBuf,
    /// The manager's socket, as `NOTIFY_SOCKET` names it.
    manager: String,
}

/// Our end, while the container starts.
pub(super) struct Listening {
    socket: UnixDatagram,
    manager: String,
    pid: i32,
}

fn error(action: String) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::Io { action, source }
}

impl Notify {
    /// If a service manager wants to be notified.
    pub fn wanted(dir: &Dir) -> Option<Self> {
        let manager = std::env::var("NOTIFY_SOCKET").ok().filter(|socket| socket.starts_with(['/', '@']))?;
        Some(Self { directory: dir.notify(), manager })
    }

    /// Where the container has the directory.
    fn inside(&self) -> &str {
        // An abstract name is no path.
        if self.manager.starts_with('/') { &self.manager } else { "/run/notify" }
    }

    /// Makes the directory, and makes it a part of the container.
    pub fn prepare(&self, spec: &mut Spec) -> Result<(), Error> {
        let action = || format!("making \"{}\"", self.directory.display());
        std::fs::create_dir_all(&self.directory).map_err(error(action()))?;
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&self.directory, open).map_err(error(action()))?;
        let mut mount = Mount::default();
        let options = ["bind", "nosuid", "noexec", "nodev", "ro"].map(str::to_owned).to_vec();
        mount
            .set_destination(self.inside().into())
            .set_typ(Some("bind".to_owned()))
            .set_source(Some(self.directory.clone()))
            .set_options(Some(options));
        let mut mounts = spec.mounts().clone().unwrap_or_default();
        mounts.push(mount);
        spec.set_mounts(Some(mounts));
        if let Some(process) = spec.process_mut() {
            let mut env = process.env().clone().unwrap_or_default();
            env.retain(|entry| !entry.starts_with("NOTIFY_SOCKET="));
            env.push(format!("NOTIFY_SOCKET={}/notify", self.inside()));
            process.set_env(Some(env));
        }
        Ok(())
    }

    /// Listens for the container with this init; nothing if it was created without a manager.
    pub fn listen(&self, pid: i32) -> Result<Option<Listening>, Error> {
        if !self.directory.is_dir() {
            return Ok(None);
        }
        let path = self.directory.join("notify");
        let action = || format!("listening at \"{}\"", path.display());
        // Of an earlier try.
        let _ = std::fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).map_err(error(action()))?;
        let all = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(&path, all).map_err(error(action()))?;
        socket.set_nonblocking(true).map_err(error(action()))?;
        Ok(Some(Listening { socket, manager: self.manager.clone(), pid }))
    }
}

impl Listening {
    /// Our socket, to be polled.
    pub fn socket(&self) -> &UnixDatagram {
        &self.socket
    }

    /// Reads one message and passes it on if it is what is waited for; whether it was.
    pub fn pass_on(&self) -> Result<bool, Error> {
        let mut buffer = [0; 4096];
        let Ok(length) = self.socket.recv(&mut buffer) else { return Ok(false) };
        let message = &buffer[..length];
        let Some(ready) = message.split(|b| *b == b'\n').find(|line| line.starts_with(b"READY=")) else {
            return Ok(false);
        };
        let failed = || error(format!("notifying \"{}\"", self.manager));
        let sender = UnixDatagram::unbound().map_err(failed())?;
        match self.manager.strip_prefix('@') {
            Some(name) => {
                let address = SocketAddr::from_abstract_name(name).map_err(failed())?;
                sender.connect_addr(&address).map_err(failed())?;
            }
            None => sender.connect(Path::new(&self.manager)).map_err(failed())?,
        }
        sender.send(ready).map_err(failed())?;
        sender.send(format!("MAINPID={}", self.pid).as_bytes()).map_err(failed())?;
        Ok(true)
    }

    /// Waits until the container is ready and the manager knows, or the container has ended.
    pub fn wait(&self, pidfd: &OwnedFd) -> Result<(), Error> {
        loop {
            let mut fds = [PollFd::new(&self.socket, PollFlags::IN), PollFd::new(pidfd, PollFlags::IN)];
            match rustix::event::poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => continue,
                other => {
                    other.map_err(|e| error("waiting for the container to be ready".to_owned())(e.into()))?
                }
            };
            let (told, ended) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
            if told && self.pass_on()? || ended && !told {
                return Ok(());
            }
        }
    }
}
