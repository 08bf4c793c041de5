//! `diff`: which files a container has changed, or an image's topmost layer.

use super::files::{self, Files};
use super::{Engine, Error, images};
use crate::security::idmap::RungKind;
use crate::storage::containers::RootfsSource;
use crate::sys::merged::{self, Change, Tree};

const ACTION: &str = "comparing the files of";

/// What the runtime and we put into every container: nobody has changed it. Podman's list.
pub(super) const OURS: &[&[u8]] = &[
    b"/dev",
    b"/etc/hostname",
    b"/etc/hosts",
    b"/etc/mtab",
    b"/etc/resolv.conf",
    b"/proc",
    b"/run",
    b"/run/.containerenv",
    super::ids::APT_CONFIG.as_bytes(),
    b"/run/notify",
    b"/run/secrets",
    b"/sys",
];

impl Engine {
    /// What a container has changed of its image.
    pub fn diff_container(&self, text: &str) -> Result<Vec<Change>, Error> {
        let (record, _) = self.lookup(text)?;
        if let RootfsSource::Directory(_) = record.rootfs {
            return Err(Error::NoLayers(record.name));
        }
        let Files { upper, lower, copied } = self.files(&record);
        let mapping = self.files_mapping(&record);
        let work = || merged::changes(&upper, &lower, copied);
        let mut changes = files::with_ids(mapping.as_ref(), (ACTION, &record.name), work)?;
        changes.retain(|change| !OURS.contains(&&*change.path));
        Ok(changes)
    }

    /// What the topmost layer of an image has changed of those below; `None` if there is no such image.
    pub fn diff_image(&self, name: &str) -> Result<Option<Vec<Change>>, Error> {
        let Some(image) = self.store.image(name).map_err(images::Error::from)? else { return Ok(None) };
        let trees = files::of_image(&self.store, &image.layers);
        let Some((upper, lower)): Option<(&Tree, &[Tree])> = trees.split_first() else {
            return Ok(Some(Vec::new()));
        };
        let mapping = (self.rung().kind != RungKind::Root).then(|| self.rung().mapping.clone());
        let work = || merged::changes(upper, lower, false);
        files::with_ids(mapping.as_ref(), (ACTION, name), work).map(Some)
    }
}
