//! Dockerfile's instructions that change nothing but an image's configuration, as `--change` takes them:
//! `CMD`, `ENTRYPOINT`, `ENV`, `EXPOSE`, `LABEL`, `ONBUILD`, `STOPSIGNAL`, `USER`, `VOLUME`, `WORKDIR`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::dockerfile;
use crate::base::signal;

/// The instructions that [`Instruction::parse`] knows.
const KNOWN: &str = "CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME and WORKDIR";

/// An instruction that cannot be carried out.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// Not one of those.
    #[error("\"{0}\" is no instruction that can change an image: these are {KNOWN}")]
    Unknown(String),
    /// Nothing follows it.
    #[error("the instruction {0} lacks its value")]
    Empty(&'static str),
    /// What follows is of the wrong form.
    #[error("{instruction} \"{value}\": {why}")]
    Value {
        /// The instruction.
        instruction: &'static str,
        /// What follows it.
        value: String,
        /// What is wrong.
        why: &'static str,
    },
    /// A member of a configuration that is unknown here, or is not of its form.
    #[error("the configuration's \"{0}\" is unknown here, or is not what it should be")]
    Member(String),
}

/// One change of an image's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Instruction {
    /// Default arguments.
    Cmd(Vec<String>),
    /// What runs.
    Entrypoint(Vec<String>),
    /// Names and values.
    Env(Vec<(String, String)>),
    /// `port/protocol`.
    Expose(Vec<String>),
    /// Keys and values.
    Label(Vec<(String, String)>),
    /// An instruction for the next build.
    OnBuild(String),
    /// Name or number.
    StopSignal(String),
    /// `user[:group]`.
    User(String),
    /// Directories.
    Volume(Vec<String>),
    /// Absolute, or relative to the one before.
    Workdir(String),
}

/// From the instruction's name and what follows it.
type Parse = fn(&'static str, &str) -> Result<Instruction, Error>;

impl Instruction {
    /// Parses `WORD value` or `WORD=value`; the word may be of any case.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        let end = text.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        let separated = rest.chars().next().is_none_or(|c| c == '=' || c.is_whitespace());
        let value = rest.strip_prefix('=').unwrap_or(rest).trim();
        let word = word.to_ascii_uppercase();
        let (name, parse): (&'static str, Parse) = match &*word {
            "CMD" => ("CMD", |_, value| Ok(Self::Cmd(command(value)))),
            "ENTRYPOINT" => ("ENTRYPOINT", |_, value| Ok(Self::Entrypoint(command(value)))),
            "ENV" => ("ENV", |name, value| Ok(Self::Env(pairs(name, value)?))),
            "EXPOSE" => ("EXPOSE", expose),
            "LABEL" => ("LABEL", |name, value| Ok(Self::Label(pairs(name, value)?))),
            "ONBUILD" => ("ONBUILD", |_, value| Ok(Self::OnBuild(value.to_owned()))),
            "STOPSIGNAL" => ("STOPSIGNAL", |instruction, value| match signal::parse(value) {
                Some(_) => Ok(Self::StopSignal(value.to_owned())),
                None => Err(wrong(instruction, value, "there is no such signal")),
            }),
            "USER" => ("USER", |_, value| Ok(Self::User(value.to_owned()))),
            "VOLUME" => ("VOLUME", |name, value| {
                let list = json_list(value).map_or_else(|| words(name, value), Ok)?;
                Ok(Self::Volume(list))
            }),
            "WORKDIR" => ("WORKDIR", |_, value| Ok(Self::Workdir(unquoted(value)))),
            _ => return Err(Error::Unknown(text.to_owned())),
        };
        if !separated {
            return Err(Error::Unknown(text.to_owned()));
        }
        // An empty list of words takes away what the image had.
        if value.is_empty() && !matches!(name, "CMD" | "ENTRYPOINT") {
            return Err(Error::Empty(name));
        }
        parse(name, value)
    }

    /// The instructions that stand for a configuration in Docker's form (`Cmd`, `Env`, `Labels`, …): what it does not
    /// have stays as it was.
    pub fn of_config(config: &Map<String, Value>) -> Result<Vec<Self>, Error> {
        let mut instructions = Vec::new();
        for (key, value) in config.iter().filter(|(_, value)| !value.is_null()) {
            let wrong = || Error::Member(key.clone());
            let text = || value.as_str().map(str::to_owned).ok_or_else(wrong);
            let list = || Vec::<String>::deserialize(value).map_err(|_| wrong());
            let keys = || Ok(value.as_object().ok_or_else(wrong)?.keys().cloned().collect());
            let pair = |text: &String| match text.split_once('=') {
                Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
                _ => Err(wrong()),
            };
            instructions.push(match &**key {
                "Cmd" => Self::Cmd(list()?),
                "Entrypoint" => Self::Entrypoint(list()?),
                "Env" => Self::Env(list()?.iter().map(pair).collect::<Result<_, _>>()?),
                "ExposedPorts" => Self::Expose(keys()?),
                "Labels" => {
                    let labels = BTreeMap::<String, String>::deserialize(value).map_err(|_| wrong())?;
                    Self::Label(labels.into_iter().collect())
                }
                "OnBuild" => {
                    instructions.extend(list()?.into_iter().map(Self::OnBuild));
                    continue;
                }
                "StopSignal" => Self::StopSignal(text()?),
                "User" => Self::User(text()?),
                "Volumes" => Self::Volume(keys()?),
                "WorkingDir" => Self::Workdir(text()?),
                _ => return Err(wrong()),
            });
        }
        Ok(instructions)
    }

    /// Carries it out on the `config` member of an image's configuration.
    pub fn apply(&self, config: &mut Map<String, Value>) {
        match self {
            Self::Cmd(words) => set(config, "Cmd", json!(words)),
            Self::Entrypoint(words) => set(config, "Entrypoint", json!(words)),
            Self::Env(pairs) => {
                let env = list(config, "Env");
                for (name, value) in pairs {
                    let start = format!("{name}=");
                    env.retain(|item| item.as_str().is_none_or(|item| !item.starts_with(&start)));
                    env.push(json!(format!("{name}={value}")));
                }
            }
            Self::Expose(ports) => add_keys(config, "ExposedPorts", ports),
            Self::Volume(paths) => add_keys(config, "Volumes", paths),
            Self::Label(pairs) => {
                let labels = map(config, "Labels");
                labels.extend(pairs.iter().map(|(key, value)| (key.clone(), json!(value))));
            }
            Self::OnBuild(text) => list(config, "OnBuild").push(json!(text)),
            Self::StopSignal(text) => set(config, "StopSignal", json!(text)),
            Self::User(text) => set(config, "User", json!(text)),
            Self::Workdir(text) => {
                let before = config.get("WorkingDir").and_then(Value::as_str).unwrap_or("/");
                let whole = if text.starts_with('/') { text.clone() } else { format!("{before}/{text}") };
                set(config, "WorkingDir", json!(clean(&whole)));
            }
        }
    }
}

fn set(config: &mut Map<String, Value>, key: &str, value: Value) {
    config.insert(key.to_owned(), value);
}

/// The list under a key; what is there and no list, as Docker's null, is none.
fn list<'a>(config: &'a mut Map<String, Value>, key: &str) -> &'a mut Vec<Value> {
    let value = config.entry(key).or_insert(Value::Null);
    if !value.is_array() {
        *value = json!([]);
    }
    match value {
        Value::Array(list) => list,
        _ => unreachable!("it was made a list"),
    }
}

fn map<'a>(config: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    let value = config.entry(key).or_insert(Value::Null);
    if !value.is_object() {
        *value = json!({});
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("it was made a map"),
    }
}

fn add_keys(config: &mut Map<String, Value>, key: &str, names: &[String]) {
    let map = map(config, key);
    map.extend(names.iter().map(|name| (name.clone(), json!({}))));
}

fn wrong(instruction: &'static str, value: &str, why: &'static str) -> Error {
    Error::Value { instruction, value: value.to_owned(), why }
}

fn json_list(value: &str) -> Option<Vec<String>> {
    value.starts_with('[').then(|| serde_json::from_str(value).ok()).flatten()
}

/// A JSON list of words, else a line for the shell.
fn command(value: &str) -> Vec<String> {
    match json_list(value) {
        Some(words) => words,
        None if value.is_empty() => Vec::new(),
        None => vec!["/bin/sh".to_owned(), "-c".to_owned(), value.to_owned()],
    }
}

fn expose(instruction: &'static str, value: &str) -> Result<Instruction, Error> {
    let mut list = Vec::new();
    for word in words(instruction, value)? {
        let form = || wrong(instruction, &word, "it takes PORT[-PORT][/tcp|udp|sctp]");
        list.extend(ports(&word).ok_or_else(form)?);
    }
    Ok(Instruction::Expose(list))
}

/// The ports that `PORT[-PORT][/protocol]` stands for, each as `port/protocol`; the protocol is TCP where none is named.
pub fn ports(word: &str) -> Option<impl Iterator<Item = String> + use<>> {
    let (range, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    let (first, last) = (port(first)?, port(last)?);
    let good = first <= last && matches!(&*protocol, "tcp" | "udp" | "sctp");
    good.then(|| (first..=last).map(move |port| format!("{port}/{protocol}")))
}

/// Keys and values without their quotes.
fn pairs(instruction: &'static str, value: &str) -> Result<Vec<(String, String)>, Error> {
    let form = |word: &str| wrong(instruction, word, "it takes KEY=VALUE");
    let plain = |text: &str| {
        dockerfile::unquoted(text).map_err(|_| wrong(instruction, text, "a quote is not closed"))
    };
    let pairs = dockerfile::pairs(value, '\\').map_err(form)?;
    pairs.into_iter().map(|(key, value)| Ok((plain(key)?, plain(value)?))).collect()
}

/// A text without its quotes; what is no well-formed text of a shell's is taken as it is.
fn unquoted(value: &str) -> String {
    dockerfile::unquoted(value).unwrap_or_else(|_| value.to_owned())
}

/// Words as a Dockerfile parts them.
fn words(instruction: &'static str, value: &str) -> Result<Vec<String>, Error> {
    dockerfile::unquoted_words(value).map_err(|_| wrong(instruction, value, "a quote is not closed"))
}

/// A path without `.`, `..` and empty parts.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(start: Value, lines: &[&str]) -> Value {
        let Value::Object(mut config) = start else { unreachable!() };
        lines.iter().for_each(|line| Instruction::parse(line).unwrap().apply(&mut config));
        Value::Object(config)
    }

    #[test]
    fn instructions_change_the_configuration() {
        let start = json!({ "Env": ["A=1", "B=2"], "Cmd": ["old"], "Labels": null, "WorkingDir": "/w" });
        let lines = [
            "CMD [\"a\", \"b c\"]",
            "entrypoint exec /x",
            "ENV A=3 C=\"x y\" D=p\\ q",
            "ENV E one two",
            "EXPOSE 80 53/udp 9000-9001/tcp",
            "LABEL a.b=c \"d\"=e",
            "LABEL=f=g",
            "ONBUILD RUN x",
            "STOPSIGNAL SIGINT",
            "USER=www:33",
            "VOLUME /a /b",
            "VOLUME [\"/c d\"]",
            "WORKDIR x/../y",
        ];
        assert_eq!(
            after(start, &lines),
            json!({
                "Cmd": ["a", "b c"],
                "Entrypoint": ["/bin/sh", "-c", "exec /x"],
                "Env": ["B=2", "A=3", "C=x y", "D=p q", "E=one two"],
                "ExposedPorts": { "80/tcp": {}, "53/udp": {}, "9000/tcp": {}, "9001/tcp": {} },
                "Labels": { "a.b": "c", "d": "e", "f": "g" },
                "OnBuild": ["RUN x"],
                "StopSignal": "SIGINT",
                "User": "www:33",
                "Volumes": { "/a": {}, "/b": {}, "/c d": {} },
                "WorkingDir": "/w/y",
            })
        );
        assert_eq!(
            after(json!({ "Cmd": ["a"] }), &["CMD ", "WORKDIR /.."]),
            json!({ "Cmd": [], "WorkingDir": "/" })
        );
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (line, part) in [
            ("RUN x", "no instruction"),
            ("", "no instruction"),
            ("CMD-x", "no instruction"),
            ("ENV", "lacks"),
            ("ENV =x", "KEY=VALUE"),
            ("ENV A=1 B", "KEY=VALUE"),
            ("LABEL a=\"b", "quote"),
            ("EXPOSE 0", "PORT"),
            ("EXPOSE 80/icmp", "PORT"),
            ("EXPOSE 9-8", "PORT"),
            ("STOPSIGNAL SIGNONE", "signal"),
            ("VOLUME 'a", "quote"),
        ] {
            let error = Instruction::parse(line).unwrap_err().to_string();
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}
