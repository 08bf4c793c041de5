//! `search`.

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use super::access::Access;
use super::{Failure, Globals, Outcome};
use crate::cli::output::{self, Listing};
use crate::engine;
use crate::engine::images::{self, Hit, PullOptions};

/// Search registries for images.
#[derive(Args, Debug, Clone)]
pub struct SearchArgs {
    #[command(flatten)]
    access: Access,
    /// Show stars, and what is official and automated too
    #[arg(long)]
    compatible: bool,
    /// Show the images that fit: stars=NUMBER, is-automated, is-official
    #[arg(short, long, value_name = "FILTER", value_delimiter = ',')]
    filter: Vec<String>,
    /// Show in this form: json, table TEMPLATE or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show at most so many of each registry (25 if not said)
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    limit: usize,
    /// List the tags of a repository
    #[arg(long)]
    list_tags: bool,
    /// Do not shorten descriptions
    #[arg(long)]
    no_trunc: bool,
    /// What to look for, in all registries or in one: [REGISTRY/]TERM
    term: String,
}

/// How many are shown if nothing is said.
const USUAL: usize = 25;
/// How much of a description is shown.
const DESCRIPTION: usize = 44;

/// Searches.
pub fn run(args: SearchArgs, globals: &Globals) -> Outcome {
    if args.list_tags && !args.filter.is_empty() {
        return Err(Failure::new("--filter cannot be used with --list-tags"));
    }
    let filter = Filter::parse(&args.filter)?;
    let engine = globals.engine()?;
    let options = PullOptions { reach: args.access.clone().reach(None)?, ..PullOptions::default() };
    let limit = if args.limit == 0 { USUAL } else { args.limit };
    let failure = |error: images::Error| match error {
        images::Error::Pull { name, message, hint, .. } => {
            let failure = Failure::new(format!("searching for \"{name}\": {message}"));
            Failure { hint, ..failure }
        }
        other => engine::Error::from(other).into(),
    };
    if args.list_tags {
        let mut names = images::all_tags(&engine, &args.term, &options).map_err(failure)?;
        names.truncate(limit);
        return list_tags(&names, args.format.as_deref());
    }
    let mut hits = images::search(&engine, &args.term, limit, &options).map_err(failure)?;
    hits.retain(|hit| filter.fits(hit));
    show(&hits, &args)
}

/// A repository and its tags, as `--format json` shows them.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Tags<'a> {
    name: &'a str,
    tags: Vec<&'a str>,
}

fn list_tags(names: &[String], format: Option<&str>) -> Outcome {
    let rows: Vec<(&str, &str)> = names.iter().filter_map(|name| name.rsplit_once(':')).collect();
    if is_json(format) {
        let tags = rows.iter().map(|(_, tag)| *tag).collect();
        let all: Vec<Tags<'_>> = rows.first().map(|(name, _)| Tags { name, tags }).into_iter().collect();
        output::print(&pretty(&all)?)?;
    } else if !rows.is_empty() {
        let rows: Vec<Value> = rows.iter().map(|(name, tag)| json!({ "Name": name, "Tag": tag })).collect();
        let listing = Listing { default: "{{.Name}}\t{{.Tag}}", headers: &[] };
        output::print(&listing.render(format, true, &rows)?)?;
    }
    Ok(0)
}

/// Podman's JSON of what was found.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Row {
    index: String,
    name: String,
    description: String,
    stars: u64,
    official: &'static str,
    automated: &'static str,
    tag: &'static str,
}

fn show(hits: &[Hit], args: &SearchArgs) -> Outcome {
    let mark = |is: bool| if is { "[OK]" } else { "" };
    let row = |hit: &Hit| Row {
        index: hit.index.clone(),
        name: hit.name.clone(),
        description: shortened(&hit.description, args.no_trunc),
        stars: hit.stars,
        official: mark(hit.official),
        automated: mark(hit.automated),
        tag: "",
    };
    let rows: Vec<Row> = hits.iter().map(row).collect();
    if is_json(args.format.as_deref()) {
        output::print(&pretty(&rows)?)?;
        return Ok(0);
    }
    if rows.is_empty() {
        return Ok(0);
    }
    let rows: Vec<Value> = rows.iter().map(|row| json!(row)).collect();
    let default = match args.compatible {
        true => "{{.Name}}\t{{.Description}}\t{{.Stars}}\t{{.Official}}\t{{.Automated}}",
        false => "{{.Name}}\t{{.Description}}",
    };
    let listing = Listing { default, headers: &[] };
    output::print(&listing.render(args.format.as_deref(), true, &rows)?)?;
    Ok(0)
}

fn shortened(text: &str, whole: bool) -> String {
    if whole || text.chars().count() <= DESCRIPTION {
        return text.to_owned();
    }
    text.chars().take(DESCRIPTION).collect::<String>() + "..."
}

fn is_json(format: Option<&str>) -> bool {
    matches!(format.map(str::trim), Some("json" | "{{json .}}" | "{{ json . }}"))
}

fn pretty(value: &impl Serialize) -> Result<String, Failure> {
    let value = serde_json::to_value(value).map_err(|error| Failure::new(error.to_string()))?;
    Ok(output::json(&value))
}

/// What `--filter` lets through.
#[derive(Debug, Default, PartialEq, Eq)]
struct Filter {
    stars: u64,
    automated: Option<bool>,
    official: Option<bool>,
}

impl Filter {
    fn parse(texts: &[String]) -> Result<Self, Failure> {
        let mut filter = Self::default();
        for text in texts {
            let (key, value) = text.split_once('=').map_or((text.as_str(), None), |(k, v)| (k, Some(v)));
            let wrong = |what: &str| Failure::new(format!("--filter \"{text}\": {what}"));
            let truth = || match value {
                None | Some("true") => Ok(true),
                Some("false") => Ok(false),
                Some(_) => Err(wrong("write true or false")),
            };
            match key {
                "stars" => {
                    let number = value.and_then(|value| value.parse().ok());
                    filter.stars = number.ok_or_else(|| wrong("write stars=NUMBER"))?;
                }
                "is-automated" => filter.automated = Some(truth()?),
                "is-official" => filter.official = Some(truth()?),
                _ => return Err(wrong("choose stars=NUMBER, is-automated or is-official")),
            }
        }
        Ok(filter)
    }

    fn fits(&self, hit: &Hit) -> bool {
        hit.stars >= self.stars
            && self.automated.is_none_or(|wanted| hit.automated == wanted)
            && self.official.is_none_or(|wanted| hit.official == wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        let parse =
            |texts: &[&str]| Filter::parse(&texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>());
        let filter = parse(&["stars=3", "is-official", "is-automated=false"]).unwrap();
        assert_eq!(filter, Filter { stars: 3, automated: Some(false), official: Some(true) });
        for bad in ["stars", "stars=x", "is-official=maybe", "other"] {
            assert!(parse(&[bad]).is_err(), "{bad}");
        }
    }
}
