//! `search`, and the tags of a repository.

use serde::{Deserialize, Serialize};

use super::pull::{At, Attempt, Failure, attempts, candidates, in_child, registries};
use super::{Error, PullOptions};
use crate::engine::Engine;
use crate::image::registry::{self, Registry};
use crate::image::{Reference, Transport};

/// An image that a registry has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hit {
    /// The registry.
    pub index: String,
    /// The full name.
    pub name: String,
    /// What its owner says of it.
    pub description: String,
    /// How many people like it.
    pub stars: u64,
    /// Docker's own.
    pub official: bool,
    /// Made by a machine.
    pub automated: bool,
}

/// The full names, with their tags, of all images of a repository, from the first place that has it.
///
/// The caller must be single-threaded, as for [`super::ensure`].
pub fn all_tags(engine: &Engine, name: &str, options: &PullOptions) -> Result<Vec<String>, Error> {
    let at = At::new(engine);
    let no_repository = || Error::NoRepository(name.to_owned());
    let bare = name.strip_prefix("docker://").unwrap_or(name);
    if Transport::is_explicit(bare) {
        return Err(no_repository());
    }
    let reference: Reference = bare.parse()?;
    if reference.tag().is_some() || reference.digest().is_some() {
        return Err(no_repository());
    }
    let sources = candidates(&at.store, bare, None)?;
    in_child(&at, name, false, |_| {
        let mut failures = Vec::new();
        for Attempt { source, options } in attempts(&at, &sources, options)? {
            let Transport::Registry(reference) = &source else { continue };
            let tags = Registry::new(reference, &options.registry).and_then(|registry| registry.tags());
            match tags {
                // What is no tag cannot be pulled, and may be anything.
                Ok(tags) => {
                    let names = tags.iter().filter_map(|tag| {
                        let name = format!("{}:{tag}", reference.name());
                        name.parse::<Reference>().ok().map(|_| name)
                    });
                    return Ok(names.collect());
                }
                Err(error) => failures.push(Failure::of_registry(&error)),
            }
        }
        Err(Failure::of_all(failures))
    })
}

/// Searches a registry (`REGISTRY/TERM`), or all those of registries.conf, for at most `limit` images
/// each. Fails only if nothing was found and a registry failed.
///
/// The caller must be single-threaded, as for [`super::ensure`].
pub fn search(engine: &Engine, term: &str, limit: usize, options: &PullOptions) -> Result<Vec<Hit>, Error> {
    let at = At::new(engine);
    let (hosts, wanted) = match term.split_once('/') {
        Some((host, wanted)) => (vec![host.to_owned()], wanted),
        None => (registries()?.search_registries(), term),
    };
    in_child(&at, term, false, |_| {
        let (mut hits, mut failures) = (Vec::new(), Vec::new());
        for host in hosts {
            let place = format!("{host}/search").parse::<Reference>();
            let place = place.map_err(|error| Failure::new(&error, None))?;
            // Mirrors are searched for nothing: the names would be theirs.
            let Some(Attempt { options, .. }) = attempts(&at, &[Transport::Registry(place)], options)?.pop()
            else {
                continue;
            };
            let options = registry::Options { location: None, ..options.registry };
            match registry::search(&host, wanted, limit, &options) {
                Ok(found) => hits.extend(found.into_iter().map(|found| hit(&host, found))),
                Err(error) => failures.push(Failure::of_registry(&error)),
            }
        }
        if hits.is_empty() && !failures.is_empty() { Err(Failure::of_all(failures)) } else { Ok(hits) }
    })
}

fn hit(host: &str, found: registry::Found) -> Hit {
    let library = host == "docker.io" && !found.name.contains('/');
    Hit {
        index: host.to_owned(),
        name: format!("{host}/{}{}", if library { "library/" } else { "" }, found.name),
        description: found.description.replace('\n', " "),
        stars: found.stars,
        official: found.official,
        automated: found.automated,
    }
}
