//! Words of a line, parted as a shell parts them; quotes stay until variables have been replaced.

use super::expand::{Lexer, WordError};

/// Parts a line at blanks that are neither quoted nor behind the escape character. The words are as they are written.
/// Second, whether all quotes are closed. With `arithmetic`, `$((1 << 2))` is a part of one word.
pub(super) fn split(text: &str, escape: char, arithmetic: bool) -> (Vec<&str>, bool) {
    let mut list = Vec::new();
    let mut start: Option<usize> = None;
    let mut quote: Option<char> = None;
    let mut depth = 0usize;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        if quote.is_none() && depth == 0 && c.is_whitespace() {
            list.extend(start.take().map(|start| &text[start..at]));
            continue;
        }
        start.get_or_insert(at);
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            (c, None | Some('"')) if c == escape => drop(chars.next()),
            (_, Some(_)) => {}
            ('"' | '\'', None) => quote = Some(c),
            ('$', None) if arithmetic && depth == 0 && text[at..].starts_with("$((") => {
                depth = 2;
                chars.nth(1);
            }
            ('(', None) if depth > 0 => depth += 1,
            (')', None) if depth > 0 => depth -= 1,
            _ => {}
        }
    }
    list.extend(start.map(|start| &text[start..]));
    (list, quote.is_none())
}

/// `KEY=value KEY2="another value"`, or `KEY value` for a single one; keys and values are as they are written. Fails
/// with the word that is neither.
pub(in crate::image) fn pairs(text: &str, escape: char) -> Result<Vec<(&str, &str)>, &str> {
    let words = split(text, escape, false).0;
    if words.first().is_some_and(|first| !first.contains('=')) {
        let (key, value) = text.trim_start().split_once(char::is_whitespace).ok_or(text)?;
        return Ok(vec![(key, value.trim())]);
    }
    let pair =
        words.into_iter().map(|word| word.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or(word));
    pair.collect()
}

/// The words of a line without their quotes; variables are left as they are.
pub(in crate::image) fn unquoted_words(text: &str) -> Result<Vec<String>, WordError> {
    let (words, _) = split(text, '\\', false);
    words.into_iter().map(unquoted).collect()
}

/// A text without its quotes; variables are left as they are.
pub(in crate::image) fn unquoted(text: &str) -> Result<String, WordError> {
    Lexer::literal(text, '\\').word()
}
