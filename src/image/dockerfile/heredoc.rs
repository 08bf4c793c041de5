//! Texts within the file: `<<EOF`, `<<-EOF`, `<<"EOF"`, and `3<<EOF` for the shell.

use super::expand::Lexer;
use super::lines::Lines;
use super::words;
use super::{Heredoc, Problem};

/// What begins a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Begin {
    pub name: String,
    /// Tabs at the begin of its lines are dropped.
    pub strip: bool,
    pub expand: bool,
}

/// A word of a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Token<'t> {
    Word(&'t str),
    Begin(Begin),
}

/// The words of `RUN`, `COPY` or `ADD`. In a line whose quotes are not closed nothing begins.
pub(super) fn tokens(text: &str, escape: char, arithmetic: bool) -> Vec<Token<'_>> {
    let (words, closed) = words::split(text, escape, arithmetic);
    let mut words = words.into_iter().peekable();
    let mut tokens = Vec::new();
    while let Some(word) = words.next() {
        let rest = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<");
        let Some(rest) = rest.filter(|_| closed) else {
            tokens.push(Token::Word(word));
            continue;
        };
        let (rest, strip) = rest.strip_prefix('-').map_or((rest, false), |rest| (rest, true));
        // There may be blanks before the name.
        let name = if rest.is_empty() { words.peek().copied().unwrap_or_default() } else { rest };
        match begin(name, strip, escape) {
            Some(begin) => {
                if rest.is_empty() {
                    words.next();
                }
                tokens.push(Token::Begin(begin));
            }
            None => tokens.push(Token::Word(word)),
        }
    }
    tokens
}

fn begin(name: &str, strip: bool, escape: char) -> Option<Begin> {
    if name.contains('<') {
        return None;
    }
    let plain = Lexer::literal(name, escape).word().ok()?;
    let expand = !name.contains(['"', '\'', escape]);
    (!plain.is_empty()).then_some(Begin { name: plain, strip, expand })
}

/// The texts of an instruction.
pub(super) struct Texts {
    pub heredocs: Vec<Heredoc>,
    /// All of them as they are written, with the words that end them.
    pub raw: String,
}

/// Reads the texts that a line has begun, one after the other.
pub(super) fn read(
    begins: &[&Begin],
    lines: &mut Lines,
    instruction: &'static str,
) -> Result<Texts, Problem> {
    let mut texts = Texts { heredocs: Vec::new(), raw: String::new() };
    for begin in begins {
        let mut text = String::new();
        loop {
            let Some(line) = lines.next_raw() else {
                return Err(Problem::HeredocEnd { instruction, name: begin.name.clone() });
            };
            let kept = if begin.strip { line.trim_start_matches('\t') } else { line };
            if kept.trim_end_matches(['\n', '\r']) == begin.name {
                break;
            }
            text.push_str(kept);
            texts.raw.push_str(line);
        }
        texts.raw.push_str(&begin.name);
        texts.raw.push('\n');
        texts.heredocs.push(Heredoc { name: begin.name.clone(), text, expand: begin.expand });
    }
    texts.raw.pop();
    Ok(texts)
}
