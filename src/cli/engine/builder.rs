//! `builder prune`.

use clap::Args;
use serde_json::{Value, json};

use super::prune::confirmed;
use super::{Globals, Outcome};
use crate::base::{size, time};
use crate::cli::output::{self, Listing};
use crate::engine::build::prune::{CacheFilter, Kept};

/// Remove what builds keep for later ones.
#[derive(Args, Debug, Clone)]
pub struct PruneArgs {
    /// Remove also what takes no space of its own, as layers that images have: all steps are carried out anew
    #[arg(short, long)]
    all: bool,
    /// Remove only what no build has taken for so long: until=24h
    #[arg(long, value_name = "until=DURATION")]
    filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Show whole IDs and steps
    #[arg(long)]
    verbose: bool,
}

/// Rows of a table of what builds keep.
pub fn rows(kept: &[Kept], whole: bool) -> Vec<Value> {
    let cut = |text: &str, most: usize| match text.char_indices().nth(most) {
        Some((at, _)) if !whole => format!("{}…", &text[..at]),
        _ => text.to_owned(),
    };
    let row = |kept: &Kept| {
        let unused = jiff::SignedDuration::try_from(kept.unused).unwrap_or_default();
        json!({
            "ID": if whole { &kept.id } else { kept.id.get(..12).unwrap_or(&kept.id) },
            "Reclaimable": kept.own,
            "Size": size::human(kept.size),
            "LastUsed": format!("{} ago", time::human(unused)),
            "Step": cut(&output::one_line(&kept.text), 60),
        })
    };
    kept.iter().map(row).collect()
}

/// The columns of such a table.
pub const LISTING: Listing<'_> =
    Listing { default: "{{.ID}}\t{{.Reclaimable}}\t{{.Size}}\t{{.LastUsed}}\t{{.Step}}", headers: &[] };

/// `builder prune`: tells what it removed, and how much that gave.
pub fn prune(args: PruneArgs, globals: &Globals) -> Outcome {
    let filter = CacheFilter::parse(args.all, &args.filter)?;
    let what = if args.all {
        "all that builds keep: every step is carried out anew"
    } else {
        "what builds keep and no image has"
    };
    if !args.force && !confirmed(what)? {
        return Ok(0);
    }
    let (gone, bytes) = globals.engine()?.prune_build_cache(&filter)?;
    let mut text = String::new();
    if !gone.is_empty() {
        text += &LISTING.render(None, true, &rows(&gone, args.verbose))?;
    }
    text += &format!("Total reclaimed space: {}\n", size::human(bytes));
    output::print(&text)?;
    Ok(0)
}
