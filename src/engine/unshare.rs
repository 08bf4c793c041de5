//! `unshare`: a program as root of the user namespace that the store's files belong to.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use super::{Engine, Error};
use crate::security::idmap::RungKind;
use crate::storage::Ownership;
use crate::sys::mount::{self, Propagation, PropagationKind};
use crate::sys::{namespace, process, userns};

/// Tells an engine inside whose store it has, and how its layers are unpacked: `mapped` or `single`.
pub const MARK: &str = "UMIAK_UNSHARED";

/// The ownership of layers in a store that an engine outside made, if this is inside.
pub(super) fn ownership() -> Option<Ownership> {
    match std::env::var(MARK).ok()?.as_str() {
        "single" => Some(Ownership::Single),
        _ => Some(Ownership::Mapped),
    }
}

/// The store of who called [`Engine::unshare`], for who is inside.
pub fn paths() -> Option<(PathBuf, PathBuf)> {
    let inside = std::env::var_os(MARK).is_some() && rustix::process::geteuid().is_root();
    let path = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    path(GRAPHROOT).zip(path(RUNROOT)).filter(|_| inside)
}

/// The names that other engines give these.
const GRAPHROOT: &str = "CONTAINERS_GRAPHROOT";
const RUNROOT: &str = "CONTAINERS_RUNROOT";

impl Engine {
    /// Becomes the program, which sees its user as root and all ids that containers have; what it mounts goes
    /// with it. Returns only if that failed.
    pub fn unshare(&self, command: &[OsString]) -> Error {
        let rung = self.rung();
        if rung.kind == RungKind::Root {
            return Error::UnshareAsRoot;
        }
        let slave = Propagation { kind: PropagationKind::Slave, recursive: true };
        let failed = |source: io::Error| Error::Unshare(source);
        if let Err(error) = userns::enter(&rung.mapping) {
            return failed(io::Error::other(crate::base::report::chain(&error)));
        }
        let mounts = namespace::unshare(libc::CLONE_NEWNS as u64)
            .and_then(|()| mount::change_propagation(Path::new("/"), slave));
        if let Err(error) = mounts {
            return failed(error);
        }
        let kind = if rung.kind == RungKind::Single { "single" } else { "mapped" };
        let environment = [
            (MARK, kind.into()),
            (GRAPHROOT, self.paths.root.clone().into_os_string()),
            (RUNROOT, self.paths.runroot.clone().into_os_string()),
        ];
        let mut source = process::become_command(command, &environment);
        if command.first().is_some_and(|program| is_nowhere(Path::new(program))) {
            source = io::Error::from_raw_os_error(libc::ENOENT);
        }
        let program = command.first().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
        Error::Program { program, source }
    }
}

/// Whether a program without a path is in no directory of `PATH`: if one of them is closed to us, the kernel's error
/// is about that.
fn is_nowhere(program: &Path) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    program.components().count() == 1
        && program.is_relative()
        && !std::env::split_paths(&path).any(|dir| dir.join(program).exists())
}
