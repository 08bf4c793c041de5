//! Named volumes in their first form: a directory each, made when first named.
//!
//! ```text
//! volumes/<name>/_data         what is mounted
//!               volume.json    when and for whom it was made
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Error;
use crate::base::id::ContainerId;
use crate::storage::containers::MountRecord;
use crate::sys::atomic::{self, Durability};
use crate::sys::host;
use crate::sys::lock::Lock;

/// `volume.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRecord {
    /// Format version.
    pub version: u32,
    /// The volume's name.
    pub name: String,
    /// Nanoseconds since 1970.
    pub created: i64,
    /// The container with which it goes, if it was never given a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anonymous_of: Option<ContainerId>,
}

/// Gives every volume among `mounts` its directory, and those without a name a name.
pub fn provide(root: &Path, id: &ContainerId, mounts: &mut [MountRecord]) -> Result<(), Error> {
    for mount in mounts.iter_mut().filter(|mount| mount.kind == "volume") {
        if mount.anonymous {
            let mut random = [0; 32];
            atomic::fill_random(&mut random).map_err(Error::Random)?;
            mount.name = Some(ContainerId::from_random(random).to_string());
        }
        let name = mount.name.clone().unwrap_or_default();
        let owner = mount.anonymous.then(|| id.clone());
        mount.source = ensure(root, &name, owner)?.to_string_lossy().into_owned();
    }
    Ok(())
}

fn ensure(root: &Path, name: &str, anonymous_of: Option<ContainerId>) -> Result<PathBuf, Error> {
    let dir = root.join("volumes").join(name);
    let data = dir.join("_data");
    if data.is_dir() {
        return Ok(data);
    }
    let error = |action, path: &Path| {
        let path = path.to_owned();
        move |source: io::Error| Error::File { action, path, source }
    };
    let staging =
        root.join("staging").join(format!("volume-{:016x}", atomic::random().map_err(Error::Random)?));
    // Says to whoever sweeps the staging area that somebody is at work here.
    let _lock = Lock::new_directory(&staging, 0o700).map_err(error("making", &staging))?;
    fs::create_dir(staging.join("_data")).map_err(error("making", &staging))?;
    // The container's root is mapped to its owner, and other ids inside must get in.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(staging.join("_data"), mode).map_err(error("making", &staging))?;
    let record = VolumeRecord { version: 1, name: name.to_owned(), created: host::now(), anonymous_of };
    let bytes = serde_json::to_vec(&record).map_err(Error::Json)?;
    let path = staging.join("volume.json");
    atomic::write(&path, &bytes, 0o600, Durability::Volatile).map_err(error("writing", &path))?;
    fs::create_dir_all(root.join("volumes")).map_err(error("making", &dir))?;
    match fs::rename(&staging, &dir) {
        Ok(()) => Ok(data),
        // Somebody else made it at the same moment.
        Err(_) if data.is_dir() => {
            let _ = fs::remove_dir_all(&staging);
            Ok(data)
        }
        Err(source) => {
            let _ = fs::remove_dir_all(&staging);
            Err(Error::File { action: "making", path: dir, source })
        }
    }
}

/// The directories of a container's volumes that go with it.
pub fn anonymous(root: &Path, mounts: &[MountRecord]) -> Vec<PathBuf> {
    let own = mounts.iter().filter(|mount| mount.anonymous);
    own.filter_map(|mount| mount.name.as_ref()).map(|name| root.join("volumes").join(name)).collect()
}
