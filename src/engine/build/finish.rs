//! The image that a build ends with: its configuration, its history, and its layers made fewer.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::Told;
use super::builder::Builder;
use super::error::{Error, Failed};
use super::request::Squash;
use super::state::{Entry, State};
use crate::engine::images::{self, Failure};
use crate::engine::list::timestamp;
use crate::image::create::{self, Spool, Spooled, Whole};
use crate::image::dockerfile::Instruction;
use crate::image::pack::Packer;
use crate::image::rewrite::Form;
use crate::storage::ImageRecord;
use crate::storage::builds::BuiltStep;
use crate::storage::events::Event;
use crate::sys::visit;

impl Builder<'_> {
    /// Makes the image.
    pub(super) fn finish(&mut self, state: State, names: Vec<String>) -> Result<ImageRecord, Error> {
        (self.face.tell)(Told::Commit(names.clone()));
        self.put_together(state, names).map_err(|error| Error::Whole(Box::new(error)))
    }

    fn put_together(&mut self, mut state: State, names: Vec<String>) -> Result<ImageRecord, Failed> {
        let request = self.request;
        if !request.labels.is_empty() {
            state.configure(&Instruction::Label(request.labels.clone()))?;
        }
        if request.identity_label {
            let version = env!("CARGO_PKG_VERSION").to_owned();
            state.configure(&Instruction::Label(vec![("io.umiak.version".to_owned(), version)]))?;
        }
        unset(state.container_mut(), "Env", |item| {
            request.unset_env.iter().any(|name| item.split('=').next() == Some(name))
        });
        for name in &request.unset_labels {
            if let Some(Value::Object(labels)) = state.container_mut().get_mut("Labels") {
                labels.remove(name);
            }
        }
        if request.squash != Squash::None {
            self.squash(&mut state)?;
        }
        let created = self.created(&state)?;
        let told = timestamp(created).to_string();
        let mut config = std::mem::take(&mut state.config);
        config.insert("created".to_owned(), json!(told));
        if !request.omit_history {
            let fixed = request.times.created.map(|_| created);
            let entries =
                state.history.iter().map(|entry| history(entry, fixed.or(entry.created).unwrap_or(created)));
            let entries: Vec<Value> = state.before.iter().cloned().chain(entries).collect();
            config.insert("history".to_owned(), json!(entries));
        }
        let annotations = self.annotations(&state, &told);
        let State { layers, descriptors, .. } = state;
        let whole = Whole { layers, descriptors, config, annotations, names, format: request.format };
        let image = create::publish(&self.store, whole)?;
        let store = &self.store;
        self.apart(|| {
            images::sync_later(store, &image);
            Ok(())
        })?;
        let name = image.names.first().cloned().unwrap_or_else(|| image.id.short());
        self.engine.note(Event::image("build", image.id.hex(), &name));
        Ok(image)
    }

    /// When the image was made, in nanoseconds since 1970. The same image built again from what is remembered was made
    /// when it was made first, so that it is the same image.
    fn created(&self, state: &State) -> Result<i64, Failed> {
        if let Some(seconds) = self.request.times.created {
            return Ok(i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000_000_000));
        }
        let by: Vec<(&str, Option<i64>)> =
            state.history.iter().map(|entry| (&*entry.by, entry.created)).collect();
        let mut config = state.config.clone();
        config.remove("created");
        let key = self.key(state, &json!({
            "image": config, "history": by, "annotations": state.annotations, "omitted": self.request.omit_history,
            "format": self.request.format.media_type(),
        }));
        if self.request.cache.read
            && let Some(built) = self.store.built(&key)?
        {
            return Ok(built.created);
        }
        self.store.put_built(&key, &BuiltStep::new(None, "FROM … to the image".to_owned(), self.now))?;
        Ok(self.now)
    }

    fn annotations(&self, state: &State, created: &str) -> BTreeMap<String, String> {
        // Docker's manifests have no room for any.
        if self.request.format == Form::Docker {
            return BTreeMap::new();
        }
        let mut annotations = state.annotations.clone();
        let mut set =
            |key: &str, value: String| annotations.insert(format!("org.opencontainers.image.{key}"), value);
        if let (Some(digest), false) = (&state.base_digest, state.base.is_empty()) {
            set("base.digest", digest.to_string());
            set("base.name", state.base.clone());
        }
        if self.request.created_annotation {
            set("created", created.to_owned());
        }
        annotations.extend(self.request.annotations.iter().cloned());
        annotations.retain(|key, _| !self.request.unset_annotations.contains(key));
        annotations
    }

    /// Makes layers one: those that the build has added, or all.
    fn squash(&mut self, state: &mut State) -> Result<(), Failed> {
        let kept = if self.request.squash == Squash::All { 0 } else { state.inherited };
        let below = state.layers[..kept].to_vec();
        let added = state.layers.len() - kept;
        let by = match self.request.squash {
            Squash::All => format!("squashed {added} layers"),
            _ => "squashed the steps of the build".to_owned(),
        };
        if added > 1 {
            let trees = self.trees(state);
            let lower = &trees[added..];
            let one_id = self.engine.ownership() == crate::storage::Ownership::Single;
            let target = create::spool_file(&self.store)?;
            let (diff_id, size) = self.apart(|| {
                let owner = |uid, gid| (uid, gid);
                let spool = std::io::BufWriter::with_capacity(1 << 17, Spool::new(&target));
                let mut packer = Packer::new(spool, &owner).remembering(one_id);
                let filled = visit::visit_stack(&trees, lower, &mut |found| packer.append(found));
                filled.map_err(|visit::Failed { path, source }| Failure {
                    message: format!("\"{}\": {}", path.display(), crate::base::report::chain(&source)),
                    hint: None,
                    misnamed: false,
                })?;
                let out = packer
                    .finish()
                    .and_then(|out| out.into_inner().map_err(std::io::IntoInnerError::into_error));
                Ok(out.map_err(|error| Failure::new(&error, None))?.finish())
            })?;
            let spooled = Spooled { file: target, diff_id, size };
            let layer = self.layer(&below, spooled)?;
            state.layers.truncate(kept);
            state.descriptors.truncate(kept);
            state.descriptors.push(create::new_descriptor(&layer, self.request.format));
            state.layers.push(layer);
        }
        let comments: Vec<String> = state.history.iter().map(|entry| entry.by.clone()).collect();
        if self.request.squash == Squash::All {
            state.before.clear();
        }
        let last = state.history.iter().filter_map(|entry| entry.created).max();
        let comment = Some(comments.join("; ")).filter(|comment| !comment.is_empty());
        state.history = vec![Entry { by, created: last, empty: state.layers.len() == kept, comment }];
        Ok(())
    }
}

/// Takes items out of a list of the configuration.
fn unset(config: &mut Map<String, Value>, key: &str, goes: impl Fn(&str) -> bool) {
    if let Some(Value::Array(list)) = config.get_mut(key) {
        list.retain(|item| !item.as_str().is_some_and(&goes));
    }
}

/// An entry as configurations have it.
fn history(entry: &Entry, created: i64) -> Value {
    let mut value = json!({ "created": timestamp(created).to_string(), "created_by": entry.by });
    if entry.empty {
        value["empty_layer"] = json!(true);
    }
    if let Some(comment) = &entry.comment {
        value["comment"] = json!(comment);
    }
    value
}
