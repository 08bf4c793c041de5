//! How an error is told to a person: one line that names what was being done, to which object
//! and why it failed, then a hint where the cure is known.

use std::error::Error;

/// Joins an error and its sources with `: `. By the project's rule no `Display` repeats its
/// source, so nothing is said twice.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = lower_errno(&error.to_string());
        // A failure told from inside a container may have said everything in its first link.
        if !cause.is_empty() {
            text.push_str(": ");
            text.push_str(&cause);
        }
        source = error.source();
    }
    text
}

/// A text with what a person gave us in it, as one line of bearable length: control characters are
/// made visible, what is very long is cut.
pub fn plain(text: &str) -> String {
    const MOST: usize = 400;
    let mut line: String = text
        .chars()
        .take(MOST)
        .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
        .collect();
    if text.chars().nth(MOST).is_some() {
        line.push('…');
    }
    line
}

/// Takes the `(os error N)` tail off an [`std::io::Error`]'s text and starts it in lower case:
/// callers of OCI runtimes match the lower-case texts ("no such file or directory").
fn lower_errno(text: &str) -> String {
    let Some((text, _)) = text.split_once(" (os error ") else {
        return text.to_owned();
    };
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn what_was_given_is_one_bearable_line() {
        assert_eq!(plain("a\n\u{1b}b\0ä"), "a\\n\\u{1b}b\\u{0}ä");
        assert_eq!(plain(&"x".repeat(1000)).chars().count(), 401);
    }

    #[derive(Debug, thiserror::Error)]
    #[error("reading \"{0}\"")]
    struct Reading(&'static str, #[source] io::Error);

    #[derive(Debug, thiserror::Error)]
    #[error("")]
    struct Nothing;

    #[derive(Debug, thiserror::Error)]
    #[error("no such user")]
    struct Whole(#[source] Nothing);

    #[test]
    fn an_empty_cause_leaves_no_colon() {
        assert_eq!(chain(&Whole(Nothing)), "no such user");
    }

    #[test]
    fn joins_sources_and_lowers_errno() {
        let error = Reading("/x", io::Error::from_raw_os_error(libc::ENOENT));
        assert_eq!(chain(&error), "reading \"/x\": no such file or directory");
    }
}
