//! A container's files where they lie: the trees that make its root, whether it runs or not.

use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Engine, Error};
use crate::base::idmap::IdMapping;
use crate::storage::Store;
use crate::storage::containers::{ContainerRecord, RootfsSource};
use crate::storage::images::LayerRef;
use crate::sys::child;
use crate::sys::merged::Tree;

/// The trees that make a container's root.
pub(super) struct Files {
    /// What the container has written, or all it has.
    pub upper: Tree,
    /// What it stands on, the topmost first.
    pub lower: Vec<Tree>,
    /// Whether `upper` has all that there is, as a copy of `lower` that was changed since.
    pub copied: bool,
}

impl Engine {
    /// Where a container's files are.
    pub(super) fn files(&self, record: &ContainerRecord) -> Files {
        let dir = self.containers.dir(&record.id);
        let own = |path| Tree { path, plain: false };
        match &record.rootfs {
            RootfsSource::Directory(path) if record.config.rootfs_overlay => {
                Files { upper: own(dir.join("diff")), lower: vec![own(path.clone())], copied: false }
            }
            RootfsSource::Directory(path) => {
                Files { upper: own(path.clone()), lower: Vec::new(), copied: false }
            }
            RootfsSource::Image { layers, .. } => {
                let copy = dir.join("rootfs");
                let copied = copy.exists();
                let store = self.layer_store(record);
                let lower = layers.iter().rev().map(|chain_id| {
                    let path = store.layer_tree(chain_id);
                    Tree { plain: path != store.layer_dir(chain_id), path }
                });
                let upper = own(if copied { copy } else { dir.join("diff") });
                Files { upper, lower: lower.collect(), copied }
            }
        }
    }
}

/// The trees of an image, the topmost first.
pub(super) fn of_image(store: &Store, layers: &[LayerRef]) -> Vec<Tree> {
    let tree = |layer: &LayerRef| {
        let path = store.layer_tree(&layer.chain_id);
        Tree { plain: path != store.layer_dir(&layer.chain_id), path }
    };
    layers.iter().rev().map(tree).collect()
}

/// Does something with files: as root of the user namespace that they belong to, where they are not all
/// ours to read. Nothing must have come of it when it is refused.
pub(super) fn with_ids<T: Serialize + DeserializeOwned>(
    mapping: Option<&IdMapping>,
    (action, name): (&'static str, &str),
    work: impl Fn() -> io::Result<T>,
) -> Result<T, Error> {
    let failed = |source| Error::Files { action, name: name.to_owned(), source };
    match (work(), mapping) {
        (Err(error), Some(_)) if error.kind() == io::ErrorKind::PermissionDenied => {}
        (result, _) => return result.map_err(failed),
    }
    let result = child::call(mapping, || work().map_err(|error| error.raw_os_error().unwrap_or(libc::EIO)));
    let result = result.map_err(|source| Error::FilesOfOthers { action, name: name.to_owned(), source })?;
    result.map_err(|errno| failed(io::Error::from_raw_os_error(errno)))
}
