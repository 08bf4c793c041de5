//! What builds keep for later ones, counted and removed: the layers that steps gave, and the directories of
//! `RUN --mount=type=cache`.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::base::digest::ChainId;
use crate::base::time;
use crate::engine::{Engine, Error};
use crate::storage::builds::KeptStep;
use crate::storage::containers::RootfsSource;
use crate::sys::lock::Lock;

/// What of it is removed.
#[derive(Clone, Debug, Default)]
pub struct CacheFilter {
    /// Steps without layers of their own, too: there is nothing to gain but that they are carried out anew.
    all: bool,
    /// Only what no build has taken for so long.
    until: Option<Duration>,
}

impl CacheFilter {
    /// Of `--filter` flags: `until=DURATION`, as `24h`.
    pub fn parse(all: bool, filters: &[String]) -> Result<Self, Error> {
        let mut filter = Self { all, until: None };
        for text in filters {
            let wrong = |why: &str| Error::Filter(format!("\"{text}\": {why}"));
            let value = text.strip_prefix("until=").ok_or_else(|| wrong("it takes until=DURATION"))?;
            let span = time::parse_duration(value).ok().and_then(|span| Duration::try_from(span).ok());
            let span = span.ok_or_else(|| wrong("write a duration such as 24h"))?;
            filter.until = Some(filter.until.map_or(span, |known| known.max(span)));
        }
        Ok(filter)
    }

    fn fits(&self, unused: Duration) -> bool {
        self.until.is_none_or(|until| unused >= until)
    }
}

/// Something that builds keep.
#[derive(Clone, Debug)]
pub struct Kept {
    /// What identifies it: hexadecimal digits.
    pub id: String,
    /// The step, as it was written; or what else it is.
    pub text: String,
    /// Bytes.
    pub size: u64,
    /// How long ago a build took it last.
    pub unused: Duration,
    /// Whether removing it gives its bytes back: no image and no container has them too.
    pub own: bool,
}

/// All that builds keep.
#[derive(Clone, Debug, Default)]
pub struct CacheUsage {
    /// Steps, and directories.
    pub kept: Vec<Kept>,
    /// Bytes of them, each layer once.
    pub bytes: u64,
    /// Of these, what would be had back if all were removed.
    pub reclaimable: u64,
}

/// The directory of a `RUN --mount=type=cache`: who uses it has the lock.
struct CacheMount {
    path: PathBuf,
    unused: Duration,
    size: u64,
}

impl CacheMount {
    fn kept(&self) -> Kept {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = "RUN --mount=type=cache".to_owned();
        Kept { id: name, text, size: self.size, unused: self.unused, own: true }
    }
}

/// How long a file has not been changed.
fn age(path: &Path) -> Duration {
    let modified = std::fs::metadata(path).and_then(|found| found.modified()).ok();
    modified.and_then(|at| at.elapsed().ok()).unwrap_or_default()
}

impl Engine {
    /// The layers that images and containers have.
    fn layers_in_use(&self) -> Result<HashSet<ChainId>, Error> {
        let mut used: HashSet<ChainId> = HashSet::new();
        for image in self.store.images()? {
            used.extend(image.layers.iter().map(|layer| layer.chain_id));
        }
        for id in self.containers.ids()? {
            // What is being removed is nobody's; what cannot be read keeps its layers by other means.
            if let Ok((record, _)) = self.load(&id)
                && let RootfsSource::Image { layers, .. } = record.rootfs
            {
                used.extend(layers);
            }
        }
        Ok(used)
    }

    fn cache_mounts(&self) -> Result<Vec<CacheMount>, Error> {
        let paths = self.store.build_mounts()?;
        let data: Vec<PathBuf> = paths.iter().map(|path| path.join("data")).collect();
        let sizes = self.tree_sizes(&data)?;
        let mount =
            |((path, data), size): ((PathBuf, &PathBuf), u64)| CacheMount { path, unused: age(data), size };
        Ok(paths.into_iter().zip(&data).zip(sizes).map(mount).collect())
    }

    /// What builds keep. The caller must be single-threaded.
    pub fn build_cache(&self) -> Result<CacheUsage, Error> {
        let used = self.layers_in_use()?;
        let mut usage = CacheUsage::default();
        let mut sizes: BTreeMap<ChainId, u64> = BTreeMap::new();
        for step in self.store.kept_steps()? {
            sizes.extend(step.built.layer.iter().map(|layer| (layer.chain_id, layer.size)));
            usage.kept.push(kept(&step, &used));
        }
        usage.bytes = sizes.values().sum();
        usage.reclaimable = sizes.iter().filter(|(id, _)| !used.contains(id)).map(|(_, size)| size).sum();
        for mount in self.cache_mounts()? {
            usage.bytes += mount.size;
            usage.reclaimable += mount.size;
            usage.kept.push(mount.kept());
        }
        Ok(usage)
    }

    /// Removes what builds keep and `filter` fits, and the layers that are nobody's then; returns that, and how many
    /// bytes were had back. What a build uses this moment stays. The caller must be single-threaded.
    pub fn prune_build_cache(&self, filter: &CacheFilter) -> Result<(Vec<Kept>, u64), Error> {
        // Of builds that were killed.
        self.sweep_steps();
        let mut gone = Vec::new();
        let mut freed: BTreeMap<ChainId, u64> = BTreeMap::new();
        let used = self.layers_in_use()?;
        let (leave, stay): (Vec<_>, Vec<_>) = self
            .store
            .kept_steps()?
            .into_iter()
            .partition(|step| (filter.all || kept(step, &used).own) && filter.fits(step.unused));
        let stay: HashSet<ChainId> =
            stay.iter().filter_map(|step| Some(step.built.layer.as_ref()?.chain_id)).collect();
        for step in leave {
            self.store.forget_step(&step.key)?;
            let layers = step.built.layer.iter();
            let own = layers.filter(|l| !used.contains(&l.chain_id) && !stay.contains(&l.chain_id));
            freed.extend(own.map(|layer| (layer.chain_id, layer.size)));
            gone.push(kept(&step, &used));
        }
        let mut bytes = freed.values().sum();
        // What subordinate ids own in there goes only as theirs.
        let store = self.store.clone().with_mapping(self.default_mapping());
        for mount in self.cache_mounts()?.into_iter().filter(|mount| filter.fits(mount.unused)) {
            let lock = mount.path.join("lock");
            // Used by a step that runs; or removed since.
            let Ok(Some(_lock)) = Lock::try_exclusive(&lock) else { continue };
            store.discard(&mount.path)?;
            bytes += mount.size;
            gone.push(mount.kept());
        }
        self.collect_images()?;
        Ok((gone, bytes))
    }
}

fn kept(step: &KeptStep, used: &HashSet<ChainId>) -> Kept {
    let layer = step.built.layer.as_ref();
    Kept {
        id: step.key.hex(),
        text: step.built.step.clone(),
        size: layer.map_or(0, |layer| layer.size),
        unused: step.unused,
        own: layer.is_some_and(|layer| !used.contains(&layer.chain_id)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        let parse = |texts: &[&str]| {
            CacheFilter::parse(false, &texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
        };
        let hour = Duration::from_secs(3600);
        assert!(parse(&[]).unwrap().fits(Duration::ZERO));
        let filter = parse(&["until=1h", "until=30m"]).unwrap();
        assert!(filter.fits(hour) && !filter.fits(hour / 2));
        for wrong in ["until=x", "label=a", "until", "until=-1h"] {
            assert!(parse(&[wrong]).is_err(), "{wrong}");
        }
    }
}
