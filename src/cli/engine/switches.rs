//! Switches with a value (`--rm=1`, `-it=false`), which Podman takes of every one, written as Go writes
//! truth. They become what clap knows: the bare switch, or nothing.

use std::ffi::OsString;

use clap::{Arg, ArgAction, Command};

/// The words with the switches of the command `own`, whose words begin at `from`, put plainly.
pub fn plain(own: &Command, words: Vec<OsString>, from: usize) -> Vec<OsString> {
    if !words.iter().any(|word| word.as_encoded_bytes().contains(&b'=')) {
        return words;
    }
    // What stands behind an image's name belongs to the container's program.
    let trailing = own.get_arguments().any(Arg::is_trailing_var_arg_set);
    let end = if trailing { super::first_word(own, &words, from) } else { None };
    let end = end.or_else(|| words.iter().position(|word| word == "--")).unwrap_or(words.len());
    let change = |(at, word): (usize, OsString)| {
        let ours = from <= at && at < end;
        match word.to_str().filter(|_| ours).and_then(|text| changed(own, text)) {
            Some(text) => Some(text).filter(|text| text != "-").map(OsString::from),
            None => Some(word),
        }
    };
    words.into_iter().enumerate().filter_map(change).collect()
}

/// What a word becomes, `-` for nothing; `None` if it is no switch with a value.
fn changed(own: &Command, text: &str) -> Option<String> {
    let (name, value) = text.split_once('=')?;
    let on = match value {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => true,
        "0" | "f" | "F" | "FALSE" | "false" | "False" => false,
        _ => return None,
    };
    let bare = name.strip_prefix('-')?;
    let find = |fits: &dyn Fn(&Arg) -> bool| own.get_arguments().find(|arg| fits(arg));
    let arg = match bare.strip_prefix('-') {
        Some(long) => find(&|arg| {
            arg.get_long() == Some(long) || arg.get_all_aliases().is_some_and(|all| all.contains(&long))
        }),
        None => find(&|arg| arg.get_short() == bare.chars().last()),
    }?;
    if !matches!(arg.get_action(), ArgAction::SetTrue) {
        let truth = arg.get_possible_values().iter().any(|possible| possible.matches("true", false));
        return truth.then(|| format!("{name}={on}"));
    }
    Some(match (on, bare.starts_with('-')) {
        (true, _) => name.to_owned(),
        (false, true) => "-".to_owned(),
        (false, false) => name[..name.len() - 1].to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(line: &str) -> String {
        let truth = Arg::new("tty")
            .short('t')
            .long("tty")
            .num_args(0..=1)
            .require_equals(true)
            .value_parser(clap::value_parser!(bool));
        let run = Command::new("run")
            .arg(Arg::new("rm").long("rm").action(ArgAction::SetTrue))
            .arg(Arg::new("detach").long("detach").short('d').action(ArgAction::SetTrue))
            .arg(Arg::new("env").long("env").short('e'))
            .arg(truth)
            .arg(Arg::new("image").num_args(1..).trailing_var_arg(true));
        let words = line.split(' ').map(OsString::from).collect();
        let words: Vec<String> =
            plain(&run, words, 1).iter().map(|word| word.to_string_lossy().into_owned()).collect();
        words.join(" ")
    }

    #[test]
    fn switches_take_gos_truth() {
        for (line, plain) in [
            ("run --rm=1 --rm=TRUE --rm=false x", "run --rm --rm x"),
            ("run -d=true -d=f -td=0 x", "run -d -t x"),
            ("run --tty=T -t=0 x", "run --tty=true -t=false x"),
            ("run --rm=yes -e=1 --env=true --none=1 x", "run --rm=yes -e=1 --env=true --none=1 x"),
            ("run -e A=1 x --rm=false -d=0", "run -e A=1 x --rm=false -d=0"),
        ] {
            assert_eq!(said(line), plain, "{line}");
        }
    }
}
