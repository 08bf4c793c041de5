//! Holds the rule of docs/architecture.md: imports run downward only, and modules of one level do
//! not import each other.

use std::path::{Path, PathBuf};

const LEVELS: &[(&str, u8)] = &[
    ("base", 0),
    ("sys", 1),
    ("storage", 2),
    ("cgroup", 2),
    ("seccomp", 2),
    ("security", 2),
    ("runtime", 3),
    ("image", 3),
    ("network", 3),
    ("monitor", 4),
    ("engine", 5),
    ("cli", 6),
];

fn level(module: &str) -> Option<u8> {
    LEVELS.iter().find(|(name, _)| *name == module).map(|(_, level)| *level)
}

fn sources(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

/// The top-level modules that a source text names after `crate::`, also in `crate::{a, b}`.
fn imports(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let word = |s: &str| s.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
        for (at, _) in line.match_indices("crate::") {
            let rest = &line[at + "crate::".len()..];
            match rest.strip_prefix('{') {
                Some(list) => found.extend(list.split(',').map(|item| word(item.trim()))),
                None => found.push(word(rest)),
            }
        }
    }
    found
}

#[test]
fn imports_run_downward() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut checked = 0;
    for file in files {
        let relative = file.strip_prefix(&root).unwrap();
        let own = relative.components().next().unwrap().as_os_str().to_str().unwrap();
        let Some(own_level) = level(own) else { continue };
        for import in imports(&std::fs::read_to_string(&file).unwrap()) {
            if import == own {
                continue;
            }
            let Some(other) = level(&import) else { continue };
            checked += 1;
            assert!(
                other < own_level,
                "{}: `{own}` (L{own_level}) imports `{import}` (L{other})",
                relative.display()
            );
        }
    }
    assert!(checked > 0, "no import was found: the test itself is broken");
}

#[test]
fn every_module_has_a_level() {
    let lib = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    for line in lib.lines() {
        if let Some(module) = line.strip_prefix("pub mod ") {
            let module = module.trim_end_matches(';');
            assert!(level(module).is_some(), "module `{module}` has no level in tests/layering.rs");
        }
    }
}

#[test]
fn imports_are_found_in_every_form() {
    assert_eq!(imports("use crate::sys::path;"), ["sys"]);
    assert_eq!(imports("use crate::{base, sys::path};"), ["base", "sys"]);
    assert!(imports("// crate::cli").is_empty());
}
