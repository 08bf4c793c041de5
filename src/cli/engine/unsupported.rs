//! Tells apart what Podman knows and we do not have yet from what nobody knows. A flag is never
//! ignored: a container that lacks an asked-for limit would look protected and not be.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::surface::{COMMANDS, FLAGS};
use crate::base::suggest;

/// Why a command line is refused. The exit code is 125.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The line behind `error: `.
    pub message: String,
    /// The line behind `hint: `.
    pub hint: Option<String>,
}

/// Whether a flag of Podman's takes a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// `--rm`
    Nothing,
    /// `--name web`
    Value,
}

/// Looks for a flag (`--memory`, `-m`, `--memory=1g`) among Podman's flags of `command`, or
/// with `""` among its global ones.
pub fn podman_flag(command: &str, flag: &str) -> Option<Takes> {
    let name = flag.split('=').next().unwrap_or(flag);
    let bare =
        name.strip_prefix("--").or_else(|| name.strip_prefix('-').filter(|letter| letter.len() == 1))?;
    // `-memory` is no flag, nor is `--m`.
    if (bare.chars().count() == 1) == name.starts_with("--") {
        return None;
    }
    flags(command).find(|(names, _)| names.split(',').any(|known| known == bare)).map(|(_, takes)| takes)
}

/// Whether Podman has a command of this name (words joined by a space).
pub fn podman_command(name: &str) -> bool {
    let name = name.replace(' ', "/");
    COMMANDS.split_whitespace().any(|known| known == name)
}

/// Explains clap's error about a command line (`args` without the program's name) whose commands
/// and aliases are `ours`; `None` for errors of other kinds, which clap tells well itself.
pub fn explain(error: &clap::Error, args: &[String], ours: &[&str]) -> Option<Refusal> {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        Some(ContextValue::Strings(texts)) => texts.first().map(String::as_str),
        _ => None,
    };
    match error.kind() {
        ErrorKind::UnknownArgument => {
            let flag = context(ContextKind::InvalidArg)?;
            if !flag.starts_with('-') {
                return None;
            }
            let command = command_of(args, ours).unwrap_or("");
            // A flag in front of the command is a global one.
            let at = |wanted: &str| {
                args.iter().position(|arg| arg == wanted || arg.starts_with(&format!("{wanted}=")))
            };
            let last = command.rsplit(' ').next().unwrap_or_default();
            let command = if at(flag) < at(last) && at(flag).is_some() { "" } else { command };
            Some(refuse_flag(command, flag, context(ContextKind::SuggestedArg)))
        }
        ErrorKind::InvalidSubcommand => {
            let words = words(args);
            let invalid = context(ContextKind::InvalidSubcommand)?;
            let from = words.iter().position(|word| *word == invalid).unwrap_or(0).min(words.len());
            match from.checked_sub(1).map(|before| words[before]) {
                // The second word of a group of commands.
                Some(group) if podman_command(group) => Some(refuse_second(group, invalid, ours)),
                _ => Some(refuse_command(invalid, &words[from..], ours)),
            }
        }
        _ => None,
    }
}

fn refuse_flag(command: &str, flag: &str, similar: Option<&str>) -> Refusal {
    let name = flag.split('=').next().unwrap_or(flag);
    let of = if command.is_empty() { String::new() } else { format!(" of `{command}`") };
    if podman_flag(command, name).is_some() {
        return Refusal { message: format!("`{name}`{of} is not supported yet"), hint: None };
    }
    let hint = match (similar, name.strip_prefix("--")) {
        (Some(similar), _) => Some(format!("did you mean `{similar}`?")),
        (None, Some(long)) => {
            let known = flags(command).flat_map(|(names, _)| names.split(',')).filter(|name| name.len() > 1);
            suggest::closest(long, known).map(|similar| format!("did you mean `--{similar}`?"))
        }
        (None, None) => None,
    };
    let hint = hint.unwrap_or_else(|| match command {
        "" => "see `umiak --help`".to_owned(),
        command => format!("see `umiak {command} --help`"),
    });
    Refusal { message: format!("unknown flag `{name}`{of}"), hint: Some(hint) }
}

/// The command of ours that a line names, of two words if there is one.
pub fn command_of<'a>(args: &[String], ours: &[&'a str]) -> Option<&'a str> {
    let words = words(args);
    let named = |name: &&&str| {
        let parts: Vec<&str> = name.split(' ').collect();
        words.windows(parts.len()).next().is_some_and(|first| first == parts)
    };
    ours.iter().filter(named).max_by_key(|name| name.len()).copied()
}

fn refuse_second(group: &str, second: &str, ours: &[&str]) -> Refusal {
    let name = format!("{group} {second}");
    if podman_command(&name) {
        return Refusal { message: format!("`umiak {name}` is not supported yet"), hint: None };
    }
    let known = COMMANDS.split_whitespace().filter_map(|known| known.strip_prefix(group)?.strip_prefix('/'));
    let own = ours.iter().filter_map(|name| name.strip_prefix(group)?.strip_prefix(' '));
    let hint = match suggest::closest(second, own.chain(known)) {
        Some(similar) => format!("did you mean `{group} {similar}`?"),
        None => format!("see `umiak {group} --help`"),
    };
    Refusal { message: format!("unknown command `{name}`"), hint: Some(hint) }
}

/// `words` start with the command that is not ours; its subcommand may follow.
fn refuse_command(command: &str, words: &[&str], ours: &[&str]) -> Refusal {
    let pair = words.get(1).map(|second| format!("{command} {second}")).filter(|pair| podman_command(pair));
    if pair.is_some() || podman_command(command) {
        let name = pair.unwrap_or_else(|| command.to_owned());
        // `container run` is `run`, `image ls` is `images`, `image rm` is `rmi`.
        let plain = match name.as_str() {
            "image ls" | "image list" => Some("images"),
            "image rm" => Some("rmi"),
            "container ls" | "container list" => Some("ps"),
            name => name
                .split_once(' ')
                .filter(|(group, _)| matches!(*group, "container" | "image" | "system"))
                .map(|(_, plain)| plain),
        };
        let hint = plain.filter(|plain| ours.contains(plain)).map(|plain| format!("use `umiak {plain}`"));
        return Refusal { message: format!("`umiak {name}` is not supported yet"), hint };
    }
    let known = COMMANDS.split_whitespace().filter(|known| !known.contains('/'));
    let similar =
        suggest::closest(command, ours.iter().copied()).or_else(|| suggest::closest(command, known));
    let hint = similar
        .map_or_else(|| "see `umiak --help`".to_owned(), |similar| format!("did you mean `{similar}`?"));
    Refusal { message: format!("unknown command `{command}`"), hint: Some(hint) }
}

fn flags(command: &str) -> impl Iterator<Item = (&'static str, Takes)> {
    // All that can be said of a container can be said before it is started, too.
    let command = if command == "create" { "run" } else { command };
    let list = FLAGS.iter().find(|(known, _)| *known == command).map_or("", |(_, list)| list);
    list.split_whitespace().map(|flag| match flag.strip_suffix('=') {
        Some(names) => (names, Takes::Value),
        None => (flag, Takes::Nothing),
    })
}

/// The arguments that are neither global flags nor their values.
fn words(args: &[String]) -> Vec<&str> {
    let mut words = Vec::new();
    let mut args = args.iter().map(String::as_str);
    while let Some(arg) = args.next() {
        if !arg.starts_with('-') {
            words.push(arg);
        } else if words.is_empty() && !arg.contains('=') && podman_flag("", arg) == Some(Takes::Value) {
            args.next();
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Arg, ArgAction, Command};

    const OURS: &[&str] = &["run", "create", "ps", "images", "rmi", "rm", "pull"];

    fn explained(line: &str) -> Option<Refusal> {
        let run = Command::new("run")
            .arg(Arg::new("rm").long("rm").action(ArgAction::SetTrue))
            .arg(Arg::new("interactive").long("interactive").short('i').action(ArgAction::SetTrue))
            .arg(Arg::new("image").required(true));
        let umiak = Command::new("umiak")
            .no_binary_name(true)
            .subcommand_required(true)
            .arg(Arg::new("root").long("root"))
            .subcommand(run)
            .subcommands(OURS[1..].iter().map(|name| Command::new(*name)));
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        explain(&umiak.try_get_matches_from(&args).unwrap_err(), &args, OURS)
    }

    fn said(line: &str) -> (String, String) {
        let refusal = explained(line).unwrap();
        (refusal.message, refusal.hint.unwrap_or_default())
    }

    #[test]
    fn what_podman_knows_is_not_supported_yet() {
        for (line, message, hint) in [
            ("run --memory 1g x", "`--memory` of `run` is not supported yet", ""),
            ("run --memory=1g x", "`--memory` of `run` is not supported yet", ""),
            ("run -m 1g x", "`-m` of `run` is not supported yet", ""),
            ("--root /x run --privileged x", "`--privileged` of `run` is not supported yet", ""),
            ("create --pod x y", "`--pod` of `create` is not supported yet", ""),
            ("run --isolation=x y", "`--isolation` of `run` is not supported yet", ""),
            ("ps --sync", "`--sync` of `ps` is not supported yet", ""),
            ("--cgroup-manager systemd ps", "`--cgroup-manager` is not supported yet", ""),
            ("build .", "`umiak build` is not supported yet", ""),
            ("--root run build .", "`umiak build` is not supported yet", ""),
            ("container run x", "`umiak container run` is not supported yet", "use `umiak run`"),
            ("image ls", "`umiak image ls` is not supported yet", "use `umiak images`"),
            ("pod create", "`umiak pod create` is not supported yet", ""),
            ("pod", "`umiak pod` is not supported yet", ""),
        ] {
            assert_eq!(said(line), (message.to_owned(), hint.to_owned()), "{line}");
        }
    }

    #[test]
    fn slips_get_a_suggestion() {
        for (line, message, hint) in [
            ("rnu x", "unknown command `rnu`", "did you mean `run`?"),
            ("biuld", "unknown command `biuld`", "did you mean `build`?"),
            ("xyzzyxyzzy", "unknown command `xyzzyxyzzy`", "see `umiak --help`"),
            ("run --interactiv x", "unknown flag `--interactiv` of `run`", "did you mean `--interactive`?"),
            ("run --memroy 3 x", "unknown flag `--memroy` of `run`", "did you mean `--memory`?"),
            ("run --qqqqqqqqqqqqq x", "unknown flag `--qqqqqqqqqqqqq` of `run`", "see `umiak run --help`"),
            ("run -Z x", "unknown flag `-Z` of `run`", "see `umiak run --help`"),
        ] {
            assert_eq!(said(line), (message.to_owned(), hint.to_owned()), "{line}");
        }
    }

    #[test]
    fn other_errors_are_claps() {
        assert_eq!(explained("run"), None);
        assert_eq!(explained("ps extra"), None);
    }

    #[test]
    fn the_tables_are_sound() {
        assert_eq!(podman_flag("run", "--name"), Some(Takes::Value));
        assert_eq!(podman_flag("run", "--rm"), Some(Takes::Nothing));
        assert_eq!(podman_flag("run", "--net"), Some(Takes::Value));
        assert_eq!(podman_flag("run", "-h"), Some(Takes::Value));
        assert_eq!(podman_flag("run", "--h"), None);
        assert_eq!(podman_flag("run", "-name"), None);
        assert_eq!(podman_flag("run", "name"), None);
        assert!(podman_command("system connection add") && podman_command("ps"));
        for (command, list) in FLAGS {
            assert!(command.is_empty() || podman_command(command), "{command}");
            for flag in list.split_whitespace() {
                let names = flag.strip_suffix('=').unwrap_or(flag);
                let sound = |c: char| c.is_ascii_alphanumeric() || c == '-';
                assert!(names.split(',').all(|name| !name.is_empty() && name.chars().all(sound)), "{flag}");
            }
        }
    }
}
