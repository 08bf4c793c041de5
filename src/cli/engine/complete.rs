//! What a shell offers when the user asks for the rest of a word: commands, flags, and the names of what is
//! there. Scripts of `completion` ask for it with `umiak __complete WORD…`; the last word is the one to be
//! completed, and each line of the answer a word, a tab and what it means.

use std::ffi::OsString;

use clap::{Arg, Command};

use super::{Face, GROUPS, base, command_of, faces, find_paths, first_word, takes_value, ungroup};
use crate::cli::output;
use crate::engine::Engine;
use crate::engine::list::ListOptions;

/// The word in front of those that are to be completed.
pub const WORD: &str = "__complete";

/// Commands that end in a program's own words.
const PROGRAMS: [&str; 4] = ["create", "exec", "run", "unshare"];

/// A word and what it means.
type Offer = (String, String);

/// What the words of a command are names of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Named {
    Containers,
    /// Containers whose processes can be talked to.
    Running,
    /// Containers, with a colon: a path follows.
    Places,
    Images,
    Volumes,
    Networks,
    Anything,
}

/// Of the words that are no flags, which are names, and of what: of the first alone, or of all.
fn named(command: &str) -> Option<(Named, bool)> {
    Some(match command {
        "attach" | "exec" | "top" => (Named::Running, false),
        "kill" | "pause" | "stop" | "stats" => (Named::Running, true),
        "cp" => (Named::Places, true),
        "commit"
        | "container clone"
        | "container diff"
        | "container exists"
        | "container init"
        | "container checkpoint"
        | "container restore"
        | "export"
        | "healthcheck run"
        | "port"
        | "rename"
        | "update" => (Named::Containers, false),
        "container cleanup" | "init" | "logs" | "mount" | "restart" | "rm" | "start" | "unmount"
        | "unpause" | "wait" => (Named::Containers, true),
        "create" | "history" | "image exists" | "image tree" | "push" | "run" | "tag" => {
            (Named::Images, false)
        }
        "image diff" | "image mount" | "image unmount" | "rmi" | "save" | "untag" => (Named::Images, true),
        "volume exists" | "volume export" | "volume import" => (Named::Volumes, false),
        "volume inspect" | "volume mount" | "volume rm" | "volume unmount" => (Named::Volumes, true),
        "network connect" | "network disconnect" | "network exists" | "network update" => {
            (Named::Networks, false)
        }
        "network inspect" | "network rm" => (Named::Networks, true),
        "network reload" => (Named::Containers, true),
        "diff" | "inspect" => (Named::Anything, true),
        _ => return None,
    })
}

/// Answers a shell. Nothing is made, and nothing told but what was found.
pub fn main(words: Vec<OsString>) -> u8 {
    let text = |word: OsString| word.to_string_lossy().into_owned();
    let mut words: Vec<String> = std::iter::once("umiak".into()).chain(words).map(text).collect();
    let last = if words.len() > 1 { words.pop().unwrap_or_default() } else { String::new() };
    let mut answer = String::new();
    for (word, meaning) in offers(&words, &last) {
        // Names come from images: nothing may pass for a second line, or a second column.
        let clean = |text: &str| text.chars().filter(|c| !c.is_control()).collect::<String>();
        answer.push_str(&format!("{}\t{}\n", clean(&word), clean(&meaning)));
    }
    let _ = output::print(&answer);
    0
}

/// All that the last word, after those before it, can become.
fn offers(before: &[String], last: &str) -> Vec<Offer> {
    let words: Vec<OsString> = before.iter().map(OsString::from).collect();
    let kind = before.get(1..).and_then(|w| w.iter().position(|w| w == "inspect").map(|at| w[..at].last()));
    let words = ungroup(words);
    let found = match command_of(&words) {
        Some((face, command, from)) => {
            let mut own = &command;
            for part in face.name.split(' ') {
                own = own.find_subcommand(part).unwrap_or(own);
            }
            in_command(face, own, &words[from..], last, kind.flatten().map(String::as_str), before)
        }
        None => commands(&words, last, before),
    };
    let mut found: Vec<Offer> = found.into_iter().filter(|(word, _)| word.starts_with(last)).collect();
    // The short name is enough, unless the whole one is being written.
    found.retain(|(word, _)| last.contains('/') || !word.starts_with("localhost/"));
    found.sort();
    found.dedup_by(|a, b| a.0 == b.0);
    found
}

/// Names of commands, and what may stand before them.
fn commands(words: &[OsString], last: &str, before: &[String]) -> Vec<Offer> {
    let base = base();
    if let Some(value) = value_of(&base, words) {
        return values(value, before);
    }
    let at = first_word(&base, words, 1);
    if last.starts_with('-') && at.is_none() {
        return flags(&base);
    }
    let group = at.and_then(|at| words[at].to_str()).unwrap_or_default();
    if at.is_some_and(|at| at + 1 != words.len()) {
        return Vec::new();
    }
    let own = faces().iter().filter(|face| face.words().0 == group);
    let mut found: Vec<Offer> = own.map(|face| (face.words().1.to_owned(), face.about.to_owned())).collect();
    if group.is_empty() {
        found.extend(GROUPS.iter().map(|(name, about)| ((*name).to_owned(), (*about).to_owned())));
    }
    found.extend(super::plain_names(group).iter().map(|(word, name)| {
        let about = faces().iter().find(|face| face.name == *name).map_or("", |face| face.about);
        ((*word).to_owned(), about.to_owned())
    }));
    found
}

fn in_command(
    face: &Face,
    own: &Command,
    words: &[OsString],
    last: &str,
    kind: Option<&str>,
    before: &[String],
) -> Vec<Offer> {
    if let Some(value) = value_of(own, words) {
        return values(value, before);
    }
    let first = first_word(own, words, 0);
    let trailing = PROGRAMS.contains(&face.name);
    if trailing && first.is_some() {
        // A program's own words.
        return Vec::new();
    }
    if let Some((flag, _)) = last.split_once('=').filter(|_| last.starts_with("--")) {
        let arg = own.get_arguments().find(|arg| arg.get_long() == flag.strip_prefix("--"));
        let found = arg.map(|arg| values(arg, before)).unwrap_or_default();
        return found.into_iter().map(|(word, about)| (format!("{flag}={word}"), about)).collect();
    }
    if last.starts_with('-') && !words.iter().any(|word| word == "--") {
        return flags(own);
    }
    match named(face.name) {
        Some((named, several)) if several || first.is_none() => {
            let named = match (named, kind) {
                (Named::Anything, Some("container")) => Named::Containers,
                (Named::Anything, Some("image")) => Named::Images,
                (named, _) => named,
            };
            names(named, before)
        }
        _ => Vec::new(),
    }
}

/// The flag whose value comes next.
fn value_of<'a>(own: &'a Command, words: &[OsString]) -> Option<&'a Arg> {
    let word = words.last()?.to_str()?;
    if word.contains('=') || !word.starts_with('-') {
        return None;
    }
    let arg = match word.strip_prefix("--") {
        Some(long) => own.get_arguments().find(|arg| {
            arg.get_long() == Some(long) || arg.get_all_aliases().is_some_and(|all| all.contains(&long))
        }),
        None => own.get_arguments().find(|arg| arg.get_short() == word.chars().last()),
    };
    arg.filter(|arg| takes_value(arg))
}

fn flags(own: &Command) -> Vec<Offer> {
    let mut found = vec![("--help".to_owned(), "Print help".to_owned())];
    for arg in own.get_arguments().filter(|arg| !arg.is_hide_set()) {
        let about = arg.get_help().map(ToString::to_string).unwrap_or_default();
        found.extend(arg.get_long().map(|long| (format!("--{long}"), about.clone())));
        if arg.get_long().is_none() {
            found.extend(arg.get_short().map(|short| (format!("-{short}"), about)));
        }
    }
    found
}

/// What a flag's value can be; nothing is known of most.
fn values(arg: &Arg, before: &[String]) -> Vec<Offer> {
    let words = |words: &[&str]| words.iter().map(|word| ((*word).to_owned(), String::new())).collect();
    match arg.get_id().as_str() {
        "network" => [words(&["default", "host", "none"]), names(Named::Networks, before)].concat(),
        "format" => words(&["json", "table"]),
        "form" => words(&["docker", "oci"]),
        "progress" => words(&["auto", "plain", "quiet"]),
        "allow" => words(&["network.host", "security.insecure"]),
        "pull" => words(&["always", "missing", "never", "newer"]),
        "restart" => words(&["always", "no", "on-failure", "unless-stopped"]),
        "signal" | "stop_signal" => words(&["HUP", "INT", "KILL", "QUIT", "TERM", "USR1", "USR2"]),
        "volumes_from" | "requires" => names(Named::Containers, before),
        "volume" | "volumes" => {
            let volumes = names(Named::Volumes, before);
            volumes.into_iter().map(|(name, about)| (format!("{name}:"), about)).collect()
        }
        _ => {
            let possible = arg.get_possible_values();
            possible.iter().map(|value| (value.get_name().to_owned(), String::new())).collect()
        }
    }
}

/// The names of what is there. A store that cannot be read, or is not there, has none.
fn names(named: Named, before: &[String]) -> Vec<Offer> {
    let Some(engine) = engine(before) else { return Vec::new() };
    let containers = || {
        let all = engine.containers.all_names().unwrap_or_default();
        all.into_iter().map(|name| (name, "container".to_owned())).collect::<Vec<_>>()
    };
    let images = || {
        let all = engine.store.images().unwrap_or_default();
        let names = all.into_iter().flat_map(|image| image.names);
        // As people write them.
        let short = |name: &str| name.strip_prefix("localhost/").map(str::to_owned);
        let both = names.flat_map(|name| short(&name).into_iter().chain([name]));
        both.map(|name| (name, "image".to_owned())).collect::<Vec<_>>()
    };
    let volumes = || {
        let all = engine.volumes().unwrap_or_default();
        all.into_iter().map(|volume| (volume.name, "volume".to_owned())).collect::<Vec<_>>()
    };
    match named {
        Named::Containers => containers(),
        Named::Places => containers().into_iter().map(|(name, about)| (format!("{name}:"), about)).collect(),
        Named::Running => {
            let listed = engine.list(&ListOptions::default()).map(|(listed, _)| listed).unwrap_or_default();
            listed.iter().map(|one| (one.record.name.clone(), one.record.image_name().into_owned())).collect()
        }
        Named::Images => images(),
        Named::Volumes => volumes(),
        Named::Networks => {
            let all = engine.networks().list().unwrap_or_default();
            all.into_iter().map(|network| (network.name, "network".to_owned())).collect()
        }
        Named::Anything => [containers(), images(), volumes()].concat(),
    }
}

/// The engine that the words before ask for, if its store is there already.
fn engine(before: &[String]) -> Option<Engine> {
    let value = |flag: &str| {
        let at = before.iter().position(|word| word == flag);
        let joined = before.iter().find_map(|word| word.strip_prefix(flag)?.strip_prefix('='));
        at.and_then(|at| before.get(at + 1)).map(String::as_str).or(joined).map(Into::into)
    };
    let paths = find_paths(value("--root"), value("--runroot"), &[]).ok()?;
    if !paths.root.is_dir() {
        return None;
    }
    Engine::open(paths).ok()
}

/// The script that asks, for a shell that we know; `described`: with what each word means.
pub fn script(shell: &str, described: bool) -> Option<String> {
    let text = match shell {
        "bash" => BASH,
        "zsh" => ZSH,
        "fish" => FISH,
        _ => return None,
    };
    let cut = if described { "" } else { " | cut -f 1" };
    Some(text.replace("@CUT@", cut))
}

const BASH: &str = r#"# bash completion for umiak
_umiak() {
    local line word
    # The word as umiak sees it; bash parts words at colons and equal signs, too.
    word="${COMP_LINE:0:COMP_POINT}"
    local -a words
    read -ra words <<<"$word"
    [[ $word == *[[:space:]] ]] && words+=("")
    word="${words[-1]}"
    local parted="${word%"${word##*[:=]}"}"
    COMPREPLY=()
    while IFS=$'\t' read -r line _; do
        COMPREPLY+=("${line#"$parted"}")
    done < <("${words[0]}" __complete "${words[@]:1}" 2>/dev/null)
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[:=] ]]; then
        compopt -o nospace
    fi
}
complete -o default -o bashdefault -F _umiak umiak
"#;

const ZSH: &str = r#"#compdef umiak
_umiak() {
    local -a offered shown
    local line
    while IFS= read -r line; do
        offered+=("${line%%$'\t'*}")
        shown+=("${line/$'\t'/  -- }")
    done < <("${words[1]}" __complete "${(@Q)words[2,CURRENT]}" 2>/dev/null@CUT@)
    if (( ${#offered} )); then
        compadd -l -d shown -a offered
    else
        _files
    fi
}
if [[ "${funcstack[1]}" == "_umiak" ]]; then
    _umiak "$@"
else
    compdef _umiak umiak
fi
"#;

const FISH: &str = r#"# fish completion for umiak
function __umiak_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l offered ($words[1] __complete $words[2..-1] 2>/dev/null@CUT@)
    if test (count $offered) -gt 0
        printf '%s\n' $offered
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c umiak -f -a '(__umiak_complete)'
"#;

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(line: &str) -> Vec<String> {
        let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let last = words.pop().unwrap_or_default();
        offers(&words, &last).into_iter().map(|(word, _)| word).collect()
    }

    #[test]
    fn commands_and_flags() {
        assert_eq!(offered("umiak unp"), ["unpause"]);
        assert_eq!(offered("umiak volume ex"), ["exists", "export"]);
        assert_eq!(offered("umiak container st"), ["start", "stats", "stop"]);
        assert_eq!(offered("umiak --roo"), ["--root"]);
        assert_eq!(offered("umiak --root /nowhere ps --noh"), ["--noheading"]);
        assert_eq!(offered("umiak --root /nowhere run --network "), ["default", "host", "none"]);
        assert_eq!(offered("umiak run --network=h"), ["--network=host"]);
        assert_eq!(offered("umiak build --format "), ["docker", "oci"]);
        assert_eq!(offered("umiak builder "), ["build", "prune"]);
        assert_eq!(offered("umiak buildx build --iidfile-r"), ["--iidfile-raw"]);
        // Directories are the shell's affair.
        assert_eq!(offered("umiak --root /nowhere build "), [""; 0]);
        assert_eq!(offered("umiak --root "), [""; 0]);
        assert_eq!(offered("umiak --root /nowhere run image --r"), [""; 0]);
        assert_eq!(offered("umiak --root /nowhere rm "), [""; 0]);
        assert_eq!(offered("umiak nothing x"), [""; 0]);
        assert_eq!(offered("umiak ps x y -"), offered("umiak ps -"));
    }

    #[test]
    fn every_command_of_the_table_is_one() {
        for face in faces() {
            // The table names only commands that are there, or will be.
            let _ = named(face.name);
        }
        assert!(script("bash", true).is_some() && script("tcsh", true).is_none());
        assert!(script("fish", false).is_some_and(|text| text.contains("cut -f 1")));
    }
}
