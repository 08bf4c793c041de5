//! Manual pages, written from the same definitions as `--help`: `umiak __man DIR`, for who packages it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Command;
use clap_mangen::Man;

use super::{Failure, Outcome, command};

/// The word that asks for them.
pub const WORD: &str = "__man";

/// Writes a page for each command into a directory, which is made.
pub fn main(words: &[OsString]) -> Outcome {
    let [dir] = words else { return Err(Failure::new("write: umiak __man DIR")) };
    let dir = PathBuf::from(dir);
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |error: std::io::Error| Failure::new(format!("writing \"{path}\": {error}"))
    };
    std::fs::create_dir_all(&dir).map_err(failed(&dir))?;
    let mut whole = command();
    whole.build();
    page(&whole, "umiak", &dir, &failed)
}

fn page<E: Fn(std::io::Error) -> Failure>(
    command: &Command,
    name: &str,
    dir: &Path,
    failed: &dyn Fn(&Path) -> E,
) -> Outcome {
    let path = dir.join(format!("{name}.1"));
    let own: &'static str = name.to_owned().leak();
    let mut bytes = Vec::new();
    let man = Man::new(command.clone().name(own)).manual("User Commands");
    man.render(&mut bytes).map_err(failed(&path))?;
    std::fs::write(&path, bytes).map_err(failed(&path))?;
    for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
        page(inner, &format!("{name}-{}", inner.get_name()), dir, failed)?;
    }
    Ok(0)
}
