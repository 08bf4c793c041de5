//! A test that does nothing says why: on standard error, and as a line of the file that
//! `UMIAK_TEST_SKIPS` names, for `scripts/test`.
#![allow(clippy::disallowed_macros, reason = "a test prints")]

/// Notes that the running test, or a part of it, is skipped: by the nature of who runs it (`natural`), or
/// because the machine lacks something, which CI (`CI=true`) does not allow.
pub fn skip(why: &str, natural: bool) {
    let name = std::thread::current().name().unwrap_or("?").to_owned();
    assert!(
        natural || std::env::var_os("CI").is_none_or(|ci| ci != "true"),
        "{name} would be skipped, which CI does not allow: {why}"
    );
    eprintln!("SKIP {name}: {why}");
    if let Some(file) = std::env::var_os("UMIAK_TEST_SKIPS") {
        use std::io::Write;
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(file).unwrap();
        let kind = if natural { "tier" } else { "missing" };
        file.write_all(format!("{kind}\t{name}\t{why}\n").as_bytes()).unwrap();
    }
}
