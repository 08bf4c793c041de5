//! The command line of an OCI runtime, as runc and its callers write it: global options before the
//! command, options of the command before or after the container's id.

use std::collections::HashMap;

/// A command line that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    /// An option that there is not.
    #[error("unknown option \"{0}\"")]
    Unknown(String),
    /// An option without its value.
    #[error("option \"{0}\" needs a value")]
    Value(String),
    /// An argument is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// One too many.
    #[error("unexpected argument \"{0}\"")]
    Extra(String),
    /// A command that there is not.
    #[error("unknown command \"{name}\"{}", meant.as_ref().map(|m| format!(" (did you mean \"{m}\"?)")).unwrap_or_default())]
    Command {
        /// What was given.
        name: String,
        /// What may have been meant.
        meant: Option<String>,
    },
    /// A value that makes no sense.
    #[error("invalid value \"{value}\" of {option}")]
    Invalid {
        /// The option.
        option: &'static str,
        /// Its value.
        value: String,
    },
}

/// An option: its name, its short name, whether it takes a value.
pub type Known = (&'static str, Option<char>, bool);

/// Options that stand before the command.
pub const GLOBAL: &[Known] = &[
    ("root", None, true),
    ("log", None, true),
    ("log-format", None, true),
    ("log-level", None, true),
    ("debug", None, false),
    ("systemd-cgroup", None, false),
    ("cgroup-manager", None, true),
    ("rootless", None, true),
    ("criu", None, true),
    ("version", Some('v'), false),
    ("help", Some('h'), false),
];

const HELP: &[Known] = &[("help", Some('h'), false)];

/// Parsed options and arguments.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Parsed {
    options: HashMap<&'static str, String>,
    repeated: Vec<(&'static str, String)>,
    /// Arguments that are no options.
    pub arguments: Vec<String>,
}

impl Parsed {
    /// The (last) value of an option.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.options.get(name).map(String::as_str)
    }

    /// All values of an option.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        self.repeated.iter().filter(move |(n, _)| *n == name).map(|(_, v)| v.as_str())
    }

    /// Whether a switch is on.
    pub fn has(&self, name: &str) -> bool {
        self.options.get(name).is_some_and(|v| v != "false")
    }
}

/// Parses until the first argument that is no option (`stop`), or all; returns what remains. With
/// `tail`, everything from the argument of that index on is taken as it is (a program's arguments).
pub fn parse(
    arguments: &[String],
    known: &[Known],
    stop: bool,
    tail: Option<usize>,
) -> Result<(Parsed, Vec<String>), UsageError> {
    let mut parsed = Parsed::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let take_all = tail.is_some_and(|index| parsed.arguments.len() >= index);
        if take_all || argument == "-" || !argument.starts_with('-') {
            if stop {
                let remaining = std::iter::once(argument).chain(rest).cloned().collect();
                return Ok((parsed, remaining));
            }
            parsed.arguments.push(argument.clone());
            if take_all {
                parsed.arguments.extend(rest.cloned());
                break;
            }
            continue;
        }
        if argument == "--" {
            parsed.arguments.extend(rest.cloned());
            break;
        }
        let body = argument.trim_start_matches('-');
        let (name, inline) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (body, None),
        };
        let short = name.chars().next().filter(|_| name.chars().count() == 1);
        let found = known.iter().find(|(long, s, _)| *long == name || (short.is_some() && *s == short));
        // Every command can explain itself.
        let found = found.or(HELP.iter().find(|_| matches!(name, "help" | "h")));
        let Some((long, _, takes_value)) = found else { return Err(UsageError::Unknown(argument.clone())) };
        let value = match (takes_value, inline) {
            (_, Some(value)) => value,
            (false, None) => "true".to_owned(),
            (true, None) => rest.next().cloned().ok_or_else(|| UsageError::Value(argument.clone()))?,
        };
        parsed.repeated.push((long, value.clone()));
        parsed.options.insert(long, value);
    }
    Ok((parsed, Vec::new()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn options_stand_anywhere() {
        let known = &[("bundle", Some('b'), true), ("force", Some('f'), false)];
        let (parsed, _) = parse(&strings("id -b /x --force"), known, false, None).unwrap();
        assert_eq!((parsed.value("bundle"), parsed.has("force")), (Some("/x"), true));
        assert_eq!(parsed.arguments, ["id"]);
        let (parsed, _) = parse(&strings("--bundle=/y -- -id"), known, false, None).unwrap();
        assert_eq!(parsed.arguments, ["-id"]);
        assert!(parse(&strings("--nope"), known, false, None).is_err());
        assert!(parse(&strings("--bundle"), known, false, None).is_err());
    }

    #[test]
    fn programs_keep_their_options() {
        let known = &[("tty", Some('t'), false)];
        let (parsed, _) = parse(&strings("-t id ls -l --tty"), known, false, Some(1)).unwrap();
        assert_eq!(parsed.arguments, ["id", "ls", "-l", "--tty"]);
        let (parsed, rest) = parse(&strings("--root /r create -b x"), GLOBAL, true, None).unwrap();
        assert_eq!((parsed.value("root"), rest), (Some("/r"), strings("create -b x")));
    }
}
