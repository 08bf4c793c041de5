//! What images a registry has: Docker Hub's way of searching, or the list of all repositories.

use serde::Deserialize;
use ureq::http::Method;

use super::client::{Ask, Registry, header};
use super::push::{encoded, next_page};
use super::{Error, Options};
use crate::image::reference::Reference;

/// An image that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Found {
    /// The repository.
    pub name: String,
    /// What its owner says of it.
    #[serde(deserialize_with = "nullable")]
    pub description: String,
    /// How many people like it.
    #[serde(rename = "star_count")]
    pub stars: u64,
    /// Docker's own.
    #[serde(rename = "is_official")]
    pub official: bool,
    /// Made by a machine.
    #[serde(rename = "is_automated")]
    pub automated: bool,
}

fn nullable<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Pages of a list of repositories that are read at most.
const PAGES: usize = 1000;

/// Searches the registry `host` for repositories with `term` in their names, at most `limit`: first as
/// Docker Hub is searched, then in the list of all repositories, as Podman does.
pub fn search(host: &str, term: &str, limit: usize, options: &Options) -> Result<Vec<Found>, Error> {
    // Docker Hub's list cannot be read; what searches it has another name and knows no `library/`.
    let (asked, term) = match host {
        "docker.io" => ("index.docker.io", term.strip_prefix("library/").unwrap_or(term)),
        other => (other, term),
    };
    // The name of a repository is needed for nothing but to have one.
    let reference: Reference =
        format!("{host}/search").parse().map_err(|_| Error::NoRegistry(host.to_owned()))?;
    let registry = Registry::new(&reference, options)?;
    if !term.is_empty()
        && let Some(found) = index(&registry, asked, host, term, limit)?
    {
        return Ok(found);
    }
    catalog(&registry, host, term, limit)
}

/// Docker Hub's search; `None` if there is no such thing, or it finds nothing.
fn index(
    registry: &Registry,
    asked: &str,
    host: &str,
    term: &str,
    limit: usize,
) -> Result<Option<Vec<Found>>, Error> {
    #[derive(Deserialize)]
    struct Results {
        results: Vec<Found>,
    }
    let path = format!("/v1/search?q={}&n={limit}", encoded(term));
    let target = if asked == host { path } else { format!("https://{asked}{path}") };
    let mut response = registry.ask(Ask::new(Method::GET, &target, host))?;
    if !response.status().is_success() {
        return Ok(None);
    }
    let found: Option<Results> = serde_json::from_slice(&registry.read(&mut response)?).ok();
    let mut results = found.map(|found| found.results).unwrap_or_default();
    results.truncate(limit);
    Ok((!results.is_empty()).then_some(results))
}

/// All repositories whose names fit, page by page (distribution's `GET /v2/_catalog`).
fn catalog(registry: &Registry, host: &str, term: &str, limit: usize) -> Result<Vec<Found>, Error> {
    #[derive(Deserialize)]
    struct List {
        #[serde(default)]
        repositories: Option<Vec<String>>,
    }
    let mut path = "/v2/_catalog".to_owned();
    let mut found = Vec::new();
    for _ in 0..PAGES {
        let mut response = registry.succeed(Ask::new(Method::GET, &path, host))?;
        let next = header(&response, "link").and_then(next_page).map(str::to_owned);
        let bytes = registry.read(&mut response)?;
        let list: List =
            serde_json::from_slice(&bytes).map_err(|_| Error::Nonsense { host: host.to_owned() })?;
        let fitting = list.repositories.unwrap_or_default().into_iter().filter(|name| name.contains(term));
        found.extend(fitting.map(|name| Found { name, ..Found::default() }));
        if found.len() >= limit {
            break;
        }
        // Never another host: the request goes with our credentials.
        match next.and_then(|next| next.split_once('?').map(|(_, query)| query.to_owned())) {
            Some(query) => path = format!("/v2/_catalog?{query}"),
            None => break,
        }
    }
    found.truncate(limit);
    Ok(found)
}
