//! `system check`: whether everything in the store is what it should be, and mending what is not.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use super::{Engine, Error};
use crate::base::digest::{ChainId, Digest};
use crate::base::report;
use crate::image::verify;
use crate::storage::containers::{self, ContainerRecord, RootfsSource, Status};
use crate::storage::survey::{Survey, SurveyedLayer};
use crate::storage::{ArtifactRecord, ImageRecord, Ownership, Store};
use crate::sys::child;

/// What to check, and what to do about it.
#[derive(Clone, Copy, Debug)]
pub struct CheckOptions {
    /// Only the records: files are not read.
    pub quick: bool,
    /// Mend, and remove what cannot be mended.
    pub repair: bool,
    /// With `repair`: also containers.
    pub force: bool,
    /// Layers and blobs that nothing refers to are damage if they are older.
    pub max: Duration,
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What has it, as `layer 31c9bd15075a`.
    pub object: String,
    /// What it is.
    pub what: String,
    /// What was done about it.
    pub state: State,
}

/// What was done about a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing was to be done.
    Found,
    /// It is gone.
    Mended,
    /// What had it is gone.
    Removed,
    /// It is still there; why.
    Left(String),
}

impl Fault {
    /// Whether the damage is still there.
    pub fn is_left(&self) -> bool {
        matches!(self.state, State::Found | State::Left(_))
    }

    fn new(object: String, what: impl Into<String>) -> Self {
        Self { object, what: what.into(), state: State::Found }
    }
}

/// The check while it goes on.
struct Check<'a> {
    engine: &'a Engine,
    options: CheckOptions,
    survey: Survey,
    containers: Vec<ContainerRecord>,
    faults: Vec<Fault>,
    /// Layers that are not to be trusted, each with the number of its fault.
    bad_layers: Vec<(SurveyedLayer, usize)>,
    /// Images that are not whole, by id, with the numbers of their faults.
    bad_images: BTreeMap<Digest, Vec<usize>>,
}

impl Engine {
    /// Looks at everything, and mends it if it is told to. The caller must be single-threaded.
    pub fn check(&self, options: CheckOptions) -> Result<Vec<Fault>, Error> {
        let store = self.store.clone().with_mapping(self.default_mapping());
        // What killed processes left is no damage.
        store.sweep()?;
        let survey = {
            let _lock = self.store.lock_shared()?;
            self.store.survey()?
        };
        let mut check = Check {
            engine: self,
            options,
            survey,
            containers: Vec::new(),
            faults: Vec::new(),
            bad_layers: Vec::new(),
            bad_images: BTreeMap::new(),
        };
        check.records()?;
        check.images();
        check.artifacts();
        check.unused()?;
        if !options.quick {
            check.contents()?;
        }
        if options.repair {
            check.repair()?;
        }
        Ok(check.faults)
    }
}

fn layer_name(chain_id: &ChainId) -> String {
    format!("layer {}", chain_id.0.short())
}

fn artifact_name(name: &str) -> String {
    format!("artifact \"{name}\"")
}

/// A blob that an artifact lacks.
fn missing(store: &Store, artifact: &ArtifactRecord) -> Option<Digest> {
    let mut parts = artifact.blobs.iter().chain([&artifact.manifest]);
    parts.find(|digest| !store.blob_path(digest).exists()).copied()
}

impl Check<'_> {
    fn fault(&mut self, object: String, what: impl Into<String>) -> usize {
        self.faults.push(Fault::new(object, what));
        self.faults.len() - 1
    }

    fn records(&mut self) -> Result<(), Error> {
        for path in self.survey.unreadable.clone() {
            self.fault(format!("record \"{}\"", path.display()), "cannot be read");
        }
        for (_, name) in self.survey.stray_names.clone() {
            self.fault(format!("name \"{name}\""), "leads to no image");
        }
        for id in self.engine.containers.ids()? {
            match self.engine.containers.record(&id) {
                Ok(record) => self.containers.push(record),
                Err(containers::Error::NotFound(_)) => {}
                Err(error) => {
                    self.fault(format!("container {}", id.short()), report::chain(&error));
                }
            }
        }
        let known: HashSet<ChainId> = self.survey.layers.iter().map(|layer| layer.chain_id).collect();
        for container in self.containers.clone() {
            let RootfsSource::Image { layers, .. } = &container.rootfs else { continue };
            let foreign = |layer| matches!(self.engine.store.layer(layer), Ok(Some(_)));
            if let Some(missing) = layers.iter().find(|layer| !known.contains(layer) && !foreign(layer)) {
                let what = format!("stands on {}, which is missing", layer_name(missing));
                self.fault(format!("container {}", container.id.short()), what);
            }
        }
        Ok(())
    }

    fn images(&mut self) {
        let store = &self.engine.store;
        let mut found: Vec<(Digest, String)> = Vec::new();
        let trusted: HashSet<ChainId> = self
            .survey
            .layers
            .iter()
            .filter(|layer| layer.record.is_some())
            .map(|layer| layer.chain_id)
            .collect();
        // A list has nothing of its own but its record, and its artifacts.
        for image in &self.survey.images {
            let entries = image.list.iter().flat_map(|list| &list.entries);
            for blob in entries.flat_map(|entry| &entry.blobs).filter(|blob| !store.blob_path(blob).exists())
            {
                found.push((image.id, format!("its blob {} is missing", blob.short())));
            }
        }
        for image in self.survey.images.iter().filter(|image| image.list.is_none()) {
            for (digest, what) in [(image.manifest, "manifest"), (image.id, "configuration")] {
                match store.read_blob(&digest) {
                    Ok(Some(_)) => {}
                    Ok(None) => found.push((image.id, format!("its {what} is missing"))),
                    Err(error) => {
                        found.push((image.id, format!("its {what} is damaged: {}", report::chain(&error))));
                    }
                }
            }
            let there = |id| trusted.contains(id) || matches!(store.layer(id), Ok(Some(_)));
            for layer in image.layers.iter().filter(|layer| !there(&layer.chain_id)) {
                found.push((image.id, format!("its {} is missing", layer_name(&layer.chain_id))));
            }
        }
        // What was removed meanwhile is no damage.
        for (id, what) in
            found.into_iter().filter(|(id, _)| self.engine.store.has_image(id)).collect::<Vec<_>>()
        {
            let number = self.fault(format!("image {}", id.short()), what);
            self.bad_images.entry(id).or_default().push(number);
        }
    }

    /// What lacks a part is of no use.
    fn artifacts(&mut self) {
        for artifact in self.survey.artifacts.clone() {
            if let Some(digest) = missing(&self.engine.store, &artifact)
                && matches!(self.engine.store.artifact(&artifact.name), Ok(Some(_)))
            {
                let what = format!("its blob {} is missing", digest.short());
                self.fault(artifact_name(&artifact.name), what);
            }
        }
    }

    /// Layers that nothing refers to. A pull that goes on has some too, so only old ones are damage.
    fn unused(&mut self) -> Result<(), Error> {
        let of_images = self.survey.images.iter().flat_map(|image| &image.layers);
        let mut used: HashSet<ChainId> = of_images.map(|layer| layer.chain_id).collect();
        for container in &self.containers {
            if let RootfsSource::Image { layers, .. } = &container.rootfs {
                used.extend(layers);
            }
        }
        let built = self.engine.store.kept_steps()?;
        used.extend(built.iter().filter_map(|kept| Some(kept.built.layer.as_ref()?.chain_id)));
        let max = self.options.max;
        let unused: Vec<ChainId> = self
            .survey
            .layers
            .iter()
            .filter(|layer| !used.contains(&layer.chain_id) && layer.age > max)
            .map(|layer| layer.chain_id)
            .collect();
        for chain_id in unused {
            self.fault(layer_name(&chain_id), "belongs to no image");
        }
        Ok(())
    }

    /// Reads every file of every layer, and every blob.
    fn contents(&mut self) -> Result<(), Error> {
        let layers: Vec<&SurveyedLayer> =
            self.survey.layers.iter().filter(|layer| layer.record.is_some()).collect();
        let store = &self.engine.store;
        let config: HashSet<Digest> =
            self.survey.images.iter().flat_map(|image| [image.id, image.manifest]).collect();
        let blobs: Vec<Digest> =
            self.survey.blobs.iter().filter(|digest| !config.contains(digest)).copied().collect();
        let work = || {
            let of_layers: Vec<Vec<String>> = layers
                .iter()
                .map(|layer| layer.record.as_ref().map(|record| verify::layer(&layer.files, record)))
                .map(Option::unwrap_or_default)
                .collect();
            let of_blobs: Vec<Option<String>> = blobs
                .iter()
                .map(|digest| store.verify_blob(digest).err().map(|error| report::chain(&error)))
                .collect();
            (of_layers, of_blobs)
        };
        let mapping = self.engine.default_mapping();
        let (of_layers, of_blobs) = child::call(mapping.as_ref(), work).map_err(|source| {
            Error::FilesOfOthers { action: "checking", name: "the files of layers".to_owned(), source }
        })?;
        let layers: Vec<SurveyedLayer> = layers.into_iter().cloned().collect();
        for (layer, faults) in layers.into_iter().zip(of_layers) {
            // Removed while it was read.
            if !layer.files.dir().join("layer.json").exists() {
                continue;
            }
            for what in faults {
                let number = self.fault(layer_name(&layer.chain_id), what);
                self.bad_layers.push((layer.clone(), number));
            }
        }
        for (digest, fault) in blobs.iter().zip(of_blobs) {
            if let Some(what) = fault.filter(|_| self.engine.store.blob_path(digest).exists()) {
                self.fault(format!("blob {}", digest.short()), what);
            }
        }
        Ok(())
    }

    fn repair(&mut self) -> Result<(), Error> {
        let store = self.engine.store.clone().with_mapping(self.engine.default_mapping());
        for path in self.survey.unreadable.clone() {
            store.discard(&path)?;
            self.settle(&format!("record \"{}\"", path.display()), &State::Removed);
        }
        for (path, name) in self.survey.stray_names.clone() {
            store.discard(&path)?;
            self.settle(&format!("name \"{name}\""), &State::Removed);
        }
        let blobs = self.faults.iter().filter(|fault| fault.object.starts_with("blob "));
        let blobs: BTreeSet<String> = blobs.map(|fault| fault.object.clone()).collect();
        for digest in self.survey.blobs.clone() {
            let object = format!("blob {}", digest.short());
            if blobs.contains(&object) {
                store.discard(&store.blob_path(&digest))?;
                self.settle(&object, &State::Removed);
            }
        }
        for artifact in self.survey.artifacts.clone() {
            let object = artifact_name(&artifact.name);
            // Those too that have lost a blob just now.
            if missing(&store, &artifact).is_some() {
                store.remove_artifact(&artifact.name)?;
                if !self.faults.iter().any(|fault| fault.object == object) {
                    self.fault(object.clone(), "one of its blobs is damaged");
                }
                self.settle(&object, &State::Removed);
            }
        }
        self.repair_layers()?;
        self.repair_images()?;
        self.repair_containers()?;
        self.engine.collect_images()?;
        let names: Vec<String> = self.faults.iter().map(|fault| fault.object.clone()).collect();
        for object in names.iter().filter(|object| object.starts_with("layer ")) {
            let gone = self.survey.layers.iter().filter(|layer| layer_name(&layer.chain_id) == *object);
            if gone.clone().all(|layer| !layer.files.dir().exists()) {
                self.settle(object, &State::Removed);
            }
        }
        Ok(())
    }

    /// Says what became of all faults of an object that nothing was said of yet.
    fn settle(&mut self, object: &str, state: &State) {
        for fault in self.faults.iter_mut().filter(|fault| fault.object == object) {
            if fault.state == State::Found {
                fault.state = state.clone();
            }
        }
    }

    /// Containers that stand on a layer and run.
    fn runners(&self, layer: &SurveyedLayer) -> Vec<&ContainerRecord> {
        let stands_on = |container: &&ContainerRecord| matches!(&container.rootfs, RootfsSource::Image { layers, .. } if layers.contains(&layer.chain_id));
        let runs = |container: &&ContainerRecord| {
            !matches!(
                self.engine.containers.status(&container.id),
                Ok(Status::Created | Status::Exited(_)) | Err(_)
            )
        };
        self.containers.iter().filter(stands_on).filter(runs).collect()
    }

    /// What is damaged counts as absent from here on, and its images as not whole.
    fn repair_layers(&mut self) -> Result<(), Error> {
        let single = self.engine.ownership() == Ownership::Single;
        for (layer, number) in std::mem::take(&mut self.bad_layers) {
            let runners: Vec<(crate::base::id::ContainerId, String)> =
                self.runners(&layer).iter().map(|c| (c.id.clone(), c.name.clone())).collect();
            if !runners.is_empty() && !self.options.force {
                let names: Vec<String> = runners.into_iter().map(|(_, name)| name).collect();
                self.faults[number].state = State::Left(format!("{} runs on it", names.join(", ")));
                continue;
            }
            for (id, _) in runners {
                self.engine.remove(&id, true, Some(0))?;
                self.containers.retain(|container| container.id != id);
            }
            layer.distrust()?;
            if layer.single != single {
                // Nobody of this mapping of ids wants it; who does makes it anew.
                self.faults[number].state = State::Mended;
                continue;
            }
            for image in &self.survey.images {
                if image.layers.iter().any(|own| own.chain_id == layer.chain_id) {
                    self.bad_images.entry(image.id).or_default().push(number);
                }
            }
        }
        Ok(())
    }

    fn repair_images(&mut self) -> Result<(), Error> {
        for (id, numbers) in std::mem::take(&mut self.bad_images) {
            let found = self.engine.store.image_by_id(&id)?;
            let Some(image) = found else { continue };
            let state = match super::images::mend(self.engine, &image) {
                Ok(()) => State::Mended,
                Err(why) => self.give_up(&image, &why)?,
            };
            for number in numbers {
                if self.faults[number].state == State::Found {
                    self.faults[number].state = state.clone();
                }
            }
        }
        Ok(())
    }

    fn give_up(&mut self, image: &ImageRecord, why: &str) -> Result<State, Error> {
        let users: Vec<ContainerRecord> =
            self.containers.iter().filter(|c| c.image_id == Some(image.id)).cloned().collect();
        if !users.is_empty() && !self.options.force {
            let names: Vec<&str> = users.iter().map(|user| user.name.as_str()).collect();
            return Ok(State::Left(format!("{why}; container {} uses the image", names.join(", "))));
        }
        for user in users {
            self.engine.remove(&user.id, true, Some(0))?;
            self.containers.retain(|container| container.id != user.id);
        }
        let _lock = self.engine.store.lock_exclusive()?;
        self.engine.store.remove_image(image)?;
        Ok(State::Removed)
    }

    /// Containers that cannot be read or have lost what they stand on: only by force, for what they
    /// have written goes with them.
    fn repair_containers(&mut self) -> Result<(), Error> {
        for id in self.engine.containers.ids()? {
            let object = format!("container {}", id.short());
            if !self.faults.iter().any(|fault| fault.object == object) {
                continue;
            }
            let whole = match self.engine.containers.record(&id) {
                Ok(ContainerRecord { rootfs: RootfsSource::Image { layers, .. }, .. }) => {
                    layers.iter().all(|layer| matches!(self.engine.store.layer(layer), Ok(Some(_))))
                }
                Ok(_) => true,
                Err(_) => false,
            };
            if whole {
                self.settle(&object, &State::Mended);
            } else if !self.options.force {
                self.settle(&object, &State::Left("only --force removes containers".to_owned()));
            } else if self.engine.containers.record(&id).is_ok() {
                self.engine.remove(&id, true, Some(0))?;
                self.settle(&object, &State::Removed);
            } else {
                self.engine.remove_unreadable(id.as_str())?;
                self.settle(&object, &State::Removed);
            }
        }
        Ok(())
    }
}
