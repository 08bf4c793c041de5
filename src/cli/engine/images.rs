//! `images`.

use std::collections::{BTreeMap, HashSet};

use clap::Args;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::{Failure, Globals, Outcome};
use crate::base::digest::Digest;
use crate::base::{size, time};
use crate::cli::output::{self, Listing};
use crate::engine;
use crate::storage::ImageRecord;

/// List images.
#[derive(Args, Debug, Clone)]
pub struct ImagesArgs {
    /// Show all images; there are no hidden ones
    #[arg(short, long)]
    all: bool,
    /// Show the manifests' digests
    #[arg(long)]
    digests: bool,
    /// Show the images that fit: reference, dangling, label, before, since, id, digest, containers, intermediate
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Show in this form: json, table TEMPLATE or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show the images' names; former ones are not kept
    #[arg(long)]
    history: bool,
    /// Do not shorten IDs
    #[arg(long)]
    no_trunc: bool,
    /// Leave the headings out
    #[arg(short, long)]
    noheading: bool,
    /// Show only IDs
    #[arg(short, long)]
    quiet: bool,
    /// Sort by created, id, repository, size or tag
    #[arg(long, value_name = "KEY", default_value = "created")]
    sort: String,
    /// Show the images of this name
    #[arg(value_name = "IMAGE")]
    image: Option<String>,
}

/// What an image's record does not say.
struct Known {
    /// How many containers use each image.
    users: BTreeMap<Digest, usize>,
    /// Those that are in additional stores.
    foreign: HashSet<Digest>,
}

/// One line: an image and one of its names.
struct Row<'a> {
    image: &'a ImageRecord,
    repository: String,
    tag: String,
    created: Timestamp,
}

/// Lists images.
pub fn run(args: ImagesArgs, globals: &Globals) -> Outcome {
    let engine = globals.engine()?;
    let mut images = engine.store.images().map_err(engine::Error::from)?;
    let foreign = |image: &ImageRecord| engine.store.foreign_image(&image.id).map(|_| image.id);
    let known = Known { users: engine.image_users()?, foreign: images.iter().filter_map(foreign).collect() };
    let filters = filters(&args, &images)?;
    images.retain(|image| filters.iter().all(|filter| filter.fits(image, &known)));
    let mut rows: Vec<Row<'_>> = images.iter().flat_map(rows_of).collect();
    sort(&mut rows, &args.sort)?;
    if args.quiet {
        let mut seen = Vec::new();
        for row in &rows {
            if !seen.contains(&row.image.id) {
                seen.push(row.image.id);
                output::println(&id(row.image, args.no_trunc))?;
            }
        }
        return Ok(0);
    }
    let now = Timestamp::now();
    let wants_json =
        args.format.as_deref().is_some_and(|format| matches!(format.trim(), "json" | "{{json .}}"));
    let values: Vec<Value> = if wants_json {
        images.iter().map(|image| to_json(image, &known)).collect()
    } else {
        rows.iter().map(|row| row_json(row, &known, now, args.no_trunc)).collect()
    };
    let mut default = String::from("{{.Repository}}\t{{.Tag}}\t");
    default.push_str(if args.digests { "{{.Digest}}\t" } else { "" });
    default.push_str("{{.ID}}\t{{.Created}}\t{{.Size}}");
    let any_foreign = images.iter().any(|image| known.foreign.contains(&image.id));
    default.push_str(if any_foreign { "\t{{.ReadOnly}}" } else { "" });
    default.push_str(if args.history { "\t{{.History}}" } else { "" });
    let listing = Listing { default: &default, headers: &[("ID", "IMAGE ID"), ("ReadOnly", "R/O")] };
    output::print(&listing.render(args.format.as_deref(), !args.noheading, &values)?)?;
    Ok(0)
}

fn id(image: &ImageRecord, whole: bool) -> String {
    if whole { image.id.to_string() } else { image.id.short() }
}

fn created(image: &ImageRecord) -> Timestamp {
    image.created.as_deref().and_then(|text| text.parse().ok()).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn rows_of(image: &ImageRecord) -> Vec<Row<'_>> {
    let row = |repository: &str, tag: &str| Row {
        image,
        repository: repository.to_owned(),
        tag: tag.to_owned(),
        created: created(image),
    };
    if image.names.is_empty() {
        return vec![row("<none>", "<none>")];
    }
    let split = |name: &String| match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => row(repository, tag),
        _ => row(name, "<none>"),
    };
    image.names.iter().map(split).collect()
}

fn sort(rows: &mut [Row<'_>], key: &str) -> Result<(), Failure> {
    match key {
        "created" => rows.sort_by_key(|row| std::cmp::Reverse(row.created)),
        "id" => rows.sort_by_key(|row| row.image.id),
        "repository" => rows.sort_by(|a, b| a.repository.cmp(&b.repository)),
        "size" => rows.sort_by_key(|row| row.image.size),
        "tag" => rows.sort_by(|a, b| a.tag.cmp(&b.tag)),
        other => {
            return Err(Failure::new(format!(
                "--sort \"{other}\": choose created, id, repository, size or tag"
            )));
        }
    }
    Ok(())
}

fn row_json(row: &Row<'_>, known: &Known, now: Timestamp, whole: bool) -> Value {
    let image = row.image;
    json!({
        "Repository": row.repository,
        "Tag": row.tag,
        "Digest": image.manifest.to_string(),
        "ID": id(image, whole),
        "Id": id(image, whole),
        "Created": if image.created.is_some() { time::ago(row.created, now) } else { "N/A".to_owned() },
        "CreatedSince": time::ago(row.created, now),
        "CreatedAt": time::go(row.created, &TimeZone::UTC),
        "CreatedTime": time::go(row.created, &TimeZone::UTC),
        "Size": size::human(image.size),
        "VirtualSize": size::human(image.size),
        "Containers": known.users.get(&image.id).copied().unwrap_or(0),
        "Dangling": image.names.is_empty(),
        "History": image.names.join(", "),
        "Names": image.names,
        "RepoTags": image.names,
        "RepoDigests": image.repo_digests,
        "Labels": labels(image),
        "ReadOnly": known.foreign.contains(&image.id),
    })
}

fn labels(image: &ImageRecord) -> Value {
    image.config.pointer("/config/Labels").filter(|labels| labels.is_object()).cloned().unwrap_or(Value::Null)
}

/// The shape of `podman images --format json`.
fn to_json(image: &ImageRecord, known: &Known) -> Value {
    let mut value = json!({
        "Id": image.id.hex(),
        "ParentId": "",
        "RepoTags": image.names,
        "RepoDigests": image.repo_digests,
        "Size": image.size,
        "SharedSize": 0,
        "VirtualSize": image.size,
        "Labels": labels(image),
        "Containers": known.users.get(&image.id).copied().unwrap_or(0),
        "Names": image.names,
        "Digest": image.manifest,
        "Dangling": image.names.is_empty(),
        "Arch": image.architecture,
        "Os": image.os,
        "Created": created(image).as_second(),
        "CreatedAt": created(image).to_string(),
    });
    if known.foreign.contains(&image.id) {
        value["ReadOnly"] = true.into();
    }
    value
}

enum Filter {
    Reference(String),
    Dangling(bool),
    Label(String, Option<String>),
    Before(Timestamp),
    Since(Timestamp),
    Id(String),
    Digest(String),
    Used(bool),
    ReadOnly(bool),
    /// There are no intermediate images.
    Intermediate(bool),
}

fn filters(args: &ImagesArgs, images: &[ImageRecord]) -> Result<Vec<Filter>, Failure> {
    let mut filters: Vec<Filter> = args.image.iter().map(|name| Filter::Reference(name.clone())).collect();
    for text in &args.filter {
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| Failure::new(format!("--filter \"{text}\": write key=value")))?;
        let truth = |value: &str| match value {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(Failure::new(format!("--filter \"{text}\": write true or false"))),
        };
        let time_of = |name: &str| {
            let fits = |i: &&ImageRecord| i.id.hex().starts_with(name) || reference_fits(i, name);
            let image = images.iter().find(fits);
            let error = || Failure::new(format!("--filter \"{text}\": there is no image \"{name}\""));
            image.map(created).ok_or_else(error)
        };
        filters.push(match key {
            "reference" => Filter::Reference(value.to_owned()),
            "dangling" => Filter::Dangling(truth(value)?),
            "label" => match value.split_once('=') {
                Some((label, value)) => Filter::Label(label.to_owned(), Some(value.to_owned())),
                None => Filter::Label(value.to_owned(), None),
            },
            "before" => Filter::Before(time_of(value)?),
            "since" | "after" => Filter::Since(time_of(value)?),
            "id" => Filter::Id(value.trim_start_matches("sha256:").to_owned()),
            "digest" => Filter::Digest(value.to_owned()),
            "containers" => Filter::Used(truth(value)?),
            "readonly" => Filter::ReadOnly(truth(value)?),
            "intermediate" => Filter::Intermediate(truth(value)?),
            _ => return Err(Failure::new(format!("--filter \"{text}\": there is no filter \"{key}\""))),
        });
    }
    Ok(filters)
}

impl Filter {
    fn fits(&self, image: &ImageRecord, known: &Known) -> bool {
        match self {
            Self::Reference(pattern) => reference_fits(image, pattern),
            Self::Dangling(wanted) => image.names.is_empty() == *wanted,
            Self::Label(label, wanted) => {
                let found = image.config.pointer("/config/Labels").and_then(|labels| labels.get(label));
                found.is_some_and(|found| wanted.as_ref().is_none_or(|w| found.as_str() == Some(w)))
            }
            Self::Before(time) => created(image) < *time,
            Self::Since(time) => created(image) > *time,
            Self::Id(prefix) => image.id.hex().starts_with(prefix),
            Self::Digest(prefix) => image.manifest.to_string().starts_with(prefix),
            Self::ReadOnly(wanted) => known.foreign.contains(&image.id) == *wanted,
            Self::Used(wanted) => known.users.contains_key(&image.id) == *wanted,
            Self::Intermediate(wanted) => !wanted,
        }
    }
}

/// Whether one of the image's names fits: whole, or by its last parts, with or without tag, with
/// `*` and `?` as in file names.
fn reference_fits(image: &ImageRecord, pattern: &str) -> bool {
    image.names.iter().any(|name| {
        let repository = name.rsplit_once(':').map_or(name.as_str(), |(repository, _)| repository);
        let last_has_tag = pattern.rsplit('/').next().is_some_and(|last| last.contains(':'));
        let whole = if last_has_tag { name.as_str() } else { repository };
        let tails = whole.match_indices('/').map(|(at, _)| &whole[at + 1..]);
        std::iter::once(whole).chain(tails).any(|text| glob(pattern.as_bytes(), text.as_bytes()))
    })
}

/// Matches `*` (any characters but a slash) and `?`.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(b'?') if text[t] != b'/' => (p, t) = (p + 1, t + 1),
            Some(byte) if *byte == text[t] && *byte != b'*' => (p, t) = (p + 1, t + 1),
            _ => match star {
                Some((at, from)) if text[from] != b'/' => {
                    star = Some((at, from + 1));
                    (p, t) = (at + 1, from + 1);
                }
                _ => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        for (pattern, text, fits) in [
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a*", "a/b", false),
            ("a?c", "abc", true),
            ("a", "ab", false),
            ("*/b", "a/b", true),
            ("**", "", true),
        ] {
            assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), fits, "{pattern} {text}");
        }
    }
}
