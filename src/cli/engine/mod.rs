//! The engine's face: Podman's commands and flags, one file a command.

pub mod access;
pub mod artifact;
pub mod attach;
pub mod build;
pub mod builder;
pub mod check;
pub mod clone;
pub mod commit;
mod complete;
pub mod completion;
pub mod cp;
pub mod diff;
pub mod doctor;
pub mod events;
pub mod exec;
pub mod exists;
pub mod export;
mod fields;
pub mod flags;
pub mod healthcheck;
pub mod history;
pub mod image_mount;
pub mod images;
pub mod info;
pub mod init;
pub mod inspect;
pub mod kill;
pub mod login;
pub mod logs;
mod man;
pub mod manifest;
pub mod mount;
pub mod network;
pub mod pause;
pub mod port;
pub mod prune;
pub mod ps;
pub mod pull;
pub mod push;
pub mod rename;
pub mod restart;
pub mod rm;
pub mod rmi;
pub mod run;
pub mod save;
pub mod search;
pub mod selection;
pub mod sign;
pub mod start;
pub mod stats;
pub mod stop;
pub mod supervision;
mod surface;
mod switches;
pub mod system;
pub mod tag;
pub mod top;
pub mod trust;
pub mod unshare;
pub mod unsupported;
pub mod update;
pub mod version;
pub mod volume;
pub mod volume_files;
pub mod wait;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use super::output;
use crate::engine::{self, Engine};
use crate::storage::Paths;
use crate::storage::containers::GroupManager;

/// What every command of the engine may be told before its name.
#[derive(Debug, Clone)]
pub struct Globals {
    /// Where the store is.
    pub paths: Paths,
    /// The whole command line, for `inspect`.
    pub command_line: Vec<String>,
    /// Who makes control groups.
    pub manager: GroupManager,
    /// The place of what is volatile was told by a flag.
    pub told_runroot: bool,
}

impl Globals {
    /// Opens the engine over the store.
    pub fn engine(&self) -> Result<Engine, Failure> {
        Ok(Engine::open(self.paths.clone())?)
    }
}

/// Why a command ends without having done its work.
#[derive(Debug)]
pub struct Failure {
    /// The process's exit code.
    pub code: u8,
    /// The line that tells why, without `error:`; nothing is printed if it is empty.
    pub message: String,
    /// The cure, if it is known.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure of the command as such.
    pub fn new(message: impl Into<String>) -> Self {
        Self { code: 125, message: message.into(), hint: None }
    }

    /// The same with another exit code.
    pub fn with_code(self, code: u8) -> Self {
        Self { code, ..self }
    }

    /// The same with a cure.
    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

impl From<engine::Error> for Failure {
    fn from(error: engine::Error) -> Self {
        let hint = similar(&error).or_else(|| error.hint());
        Self { code: error.exit_code(), message: crate::base::report::chain(&error), hint }
    }
}

/// Where the command's store is: what is not there may be something of another name.
static STORE: std::sync::OnceLock<Paths> = std::sync::OnceLock::new();

/// "did you mean", for a container, an image or a volume that is not there.
fn similar(error: &engine::Error) -> Option<String> {
    use crate::storage::containers;
    let open = || Engine::open(STORE.get()?.clone()).ok();
    let (text, names): (&str, Vec<String>) = match error {
        engine::Error::Containers(containers::Error::NotFound(text)) => {
            (text, open()?.containers.all_names().ok()?)
        }
        engine::Error::NoVolume(text) => {
            (text, open()?.volumes().ok()?.into_iter().map(|volume| volume.name).collect())
        }
        engine::Error::Images(engine::images::Error::NoSuchImage(text)) => {
            let names = open()?.store.images().ok()?.into_iter().flat_map(|image| image.names);
            let short = |name: &str| {
                let bare = name.strip_suffix(":latest").unwrap_or(name);
                bare.rsplit('/').next().unwrap_or(bare).to_owned()
            };
            (text, names.flat_map(|name| [short(&name), name]).collect())
        }
        _ => return None,
    };
    let closest = crate::base::suggest::closest(text, names.iter().map(String::as_str))?;
    (closest != text).then(|| format!("did you mean \"{}\"?", output::one_line(closest)))
}

impl From<output::Error> for Failure {
    fn from(error: output::Error) -> Self {
        match error {
            // Whoever closed the pipe has seen enough.
            output::Error::Closed => Self { code: 0, message: String::new(), hint: None },
            error => Self::new(crate::base::report::chain(&error)),
        }
    }
}

impl From<crate::base::template::Error> for Failure {
    fn from(error: crate::base::template::Error) -> Self {
        Self::new(format!("--format: {}", crate::base::report::chain(&error)))
    }
}

/// What a command gives: its exit code, or why it failed.
pub type Outcome = Result<u8, Failure>;

struct Face {
    name: &'static str,
    about: &'static str,
    aliases: &'static [&'static str],
    augment: fn(Command) -> Command,
    run: fn(&ArgMatches, &Globals) -> Outcome,
}

impl Face {
    /// The words before the last one, and that.
    fn words(&self) -> (&'static str, &'static str) {
        self.name.rsplit_once(' ').unwrap_or(("", self.name))
    }

    /// Whether it is called so, in the group of this name.
    fn is_called(&self, group: &str, word: &str) -> bool {
        let (own, last) = self.words();
        own == group && (last == word || self.aliases.contains(&word))
    }

    /// Without its flags.
    fn bare(&self) -> Command {
        // Of a flag that is given twice the last one counts, as in Podman.
        Command::new(self.words().1).about(self.about).visible_aliases(self.aliases).args_override_self(true)
    }
}

macro_rules! faces {
    ($($name:literal $aliases:expr, $args:path, $run:path, $about:literal;)*) => {
        const {
            &[$(Face {
                name: $name,
                about: $about,
                aliases: &$aliases,
                augment: <$args as Args>::augment_args,
                run: |matches, globals| $run(parse::<$args>(matches)?, globals),
            }),*]
        }
    };
}

fn faces() -> &'static [Face] {
    faces! {
        "artifact add" [], artifact::AddArgs, artifact::add, "Make an artifact of files, or add files to one";
        "artifact extract" [], artifact::ExtractArgs, artifact::extract, "Write an artifact's files";
        "artifact inspect" [], artifact::InspectArgs, artifact::inspect, "Show everything about an artifact";
        "artifact ls" ["list"], artifact::LsArgs, artifact::ls, "List artifacts";
        "artifact pull" [], artifact::PullArgs, artifact::pull, "Fetch an artifact";
        "artifact push" [], artifact::PushArgs, artifact::push, "Upload an artifact";
        "artifact rm" ["remove"], artifact::RmArgs, artifact::rm, "Remove artifacts";
        "attach" [], attach::AttachArgs, attach::run, "Attach to a running container";
        "build" [], build::BuildArgs, build::run, "Build an image out of a Dockerfile";
        "builder prune" [], builder::PruneArgs, builder::prune, "Remove what builds keep for later ones";
        "commit" [], commit::CommitArgs, commit::run, "Make an image of a container's files";
        "completion" [], completion::CompletionArgs, completion::run, "Print a shell's completion script";
        "container cleanup" [], update::CleanupArgs, update::cleanup, "Finish what is left of containers that do not run";
        "container clone" [], clone::CloneArgs, clone::run, "Make a container as another one was made";
        "container diff" [], diff::DiffArgs, diff::container, "Tell which files a container has changed";
        "container exists" [], exists::ContainerArgs, exists::container, "Tell by the exit code whether a container is there";
        "container prune" [], prune::PruneArgs, prune::run, "Remove all containers that do not run";
        "cp" [], cp::CpArgs, cp::run, "Copy files between containers, the host and archives";
        "create" [], run::CreateArgs, run::create, "Create a container without starting it";
        "diff" [], diff::DiffArgs, diff::run, "Tell which files a container or an image's last layer has changed";
        "doctor" [], doctor::DoctorArgs, doctor::run, "Look for what keeps containers from running, and tell how to mend it";
        "events" [], events::EventsArgs, events::run, "Show what happens to containers, images and volumes";
        "exec" [], exec::ExecArgs, exec::run, "Run a program in a running container";
        "export" [], export::ExportArgs, export::run, "Write a container's files as an archive";
        "healthcheck run" [], healthcheck::HealthcheckArgs, healthcheck::run, "Check a container's health now";
        "history" [], history::HistoryArgs, history::run, "Show how an image was made";
        "image diff" [], diff::ImageArgs, diff::image, "Tell which files an image's last layer has changed";
        "image exists" [], exists::ImageArgs, exists::image, "Tell by the exit code whether an image is there";
        "image mount" [], image_mount::MountArgs, image_mount::mount, "Mount images read-only, or list those that are mounted";
        "image prune" [], system::ImagePruneArgs, system::image_prune, "Remove images that nothing uses";
        "image tree" [], history::TreeArgs, history::tree, "Show an image's layers";
        "image sign" [], sign::SignArgs, sign::run, "Sign images of a registry with GnuPG";
        "image trust" [], trust::TrustArgs, trust::run, "Show and change which images are let in";
        "image unmount" ["umount"], image_mount::UnmountArgs, image_mount::unmount, "Unmount images";
        "images" [], images::ImagesArgs, images::run, "List images";
        "import" [], commit::ImportArgs, commit::import, "Make an image of an archive of files";
        "info" [], info::InfoArgs, info::run, "Tell what this machine gives containers";
        "init" [], init::InitArgs, init::run, "Prepare containers for their start";
        "inspect" [], inspect::InspectArgs, inspect::run, "Show everything about a container or an image";
        "kill" [], kill::KillArgs, kill::run, "Send a signal to containers";
        "load" [], save::LoadArgs, save::load, "Read images from an archive";
        "login" [], login::LoginArgs, login::login, "Log in to a registry";
        "logout" [], login::LogoutArgs, login::logout, "Log out of a registry";
        "logs" [], logs::LogsArgs, logs::run, "Show what a container has written";
        "manifest add" [], manifest::AddArgs, manifest::add, "Add an image to a list";
        "manifest annotate" [], manifest::AnnotateArgs, manifest::annotate, "Say something of an image in a list";
        "manifest create" [], manifest::CreateArgs, manifest::create, "Make a list of images for several platforms";
        "manifest exists" [], manifest::ExistsArgs, manifest::exists, "Tell by the exit code whether a list is there";
        "manifest inspect" [], manifest::InspectArgs, manifest::inspect, "Show a list, here or at a registry";
        "manifest push" [], manifest::PushArgs, manifest::push, "Upload a list, and its images";
        "manifest remove" [], manifest::RemoveArgs, manifest::remove, "Take an image out of a list";
        "manifest rm" [], manifest::RmArgs, manifest::rm, "Remove lists";
        "mount" [], mount::MountArgs, mount::mount, "Mount containers' files, or list those that are mounted";
        "network connect" [], network::ConnectArgs, network::connect, "Put a container into a network";
        "network create" [], network::CreateArgs, network::create, "Make a network";
        "network disconnect" [], network::DisconnectArgs, network::disconnect, "Take a container out of a network";
        "network exists" [], exists::NetworkArgs, exists::network, "Tell by the exit code whether a network is there";
        "network inspect" [], network::InspectArgs, network::inspect, "Show everything about networks";
        "network ls" ["list"], network::LsArgs, network::ls, "List networks";
        "network prune" [], network::PruneArgs, network::prune, "Remove the networks that no container uses";
        "network reload" [], network::ReloadArgs, network::reload, "Set up containers' networks again";
        "network rm" ["remove"], network::RmArgs, network::rm, "Remove networks";
        "network update" [], network::UpdateArgs, network::update, "Change a network's name servers";
        "pause" [], pause::PauseArgs, pause::pause, "Let containers stand still";
        "port" [], port::PortArgs, port::run, "Show which ports of a container are published";
        "ps" [], ps::PsArgs, ps::run, "List containers";
        "pull" [], pull::PullArgs, pull::run, "Fetch an image";
        "push" [], push::PushArgs, push::run, "Upload an image";
        "rename" [], rename::RenameArgs, rename::run, "Give a container another name";
        "restart" [], restart::RestartArgs, restart::run, "Stop containers and start them again";
        "rm" [], rm::RmArgs, rm::run, "Remove containers";
        "rmi" [], rmi::RmiArgs, rmi::run, "Remove images";
        "run" [], run::RunArgs, run::run, "Create and start a container";
        "search" [], search::SearchArgs, search::run, "Search registries for images";
        "save" [], save::SaveArgs, save::save, "Write images as an archive";
        "start" [], start::StartArgs, start::run, "Start containers that were created or have stopped";
        "stats" [], stats::StatsArgs, stats::run, "Show what containers use";
        "stop" [], stop::StopArgs, stop::run, "Stop containers";
        "system check" [], check::CheckArgs, check::run, "Look for damage in the store";
        "tag" [], tag::TagArgs, tag::tag, "Give an image further names";
        "system df" [], system::DfArgs, system::df, "Show what images, containers and volumes take";
        "system prune" [], system::PruneArgs, system::prune, "Remove everything that nothing uses";
        "top" [], top::TopArgs, top::run, "List a container's processes";
        "unmount" ["umount"], mount::UnmountArgs, mount::unmount, "Unmount containers' files";
        "unpause" [], pause::PauseArgs, pause::unpause, "Let paused containers go on";
        "unshare" [], unshare::UnshareArgs, unshare::run, "Run a program in the user namespace that the files of containers belong to";
        "untag" [], tag::UntagArgs, tag::untag, "Take names from an image";
        "update" [], update::UpdateArgs, update::update, "Change a container";
        "version" [], version::VersionArgs, version::run, "Show the version";
        "volume create" [], volume::CreateArgs, volume::create, "Make a volume";
        "volume exists" [], exists::VolumeArgs, exists::volume, "Tell by the exit code whether a volume is there";
        "volume export" [], volume_files::ExportArgs, volume_files::export, "Write a volume's files as an archive";
        "volume import" [], volume_files::ImportArgs, volume_files::import, "Unpack an archive into a volume";
        "volume inspect" [], volume::InspectArgs, volume::inspect, "Show everything about volumes";
        "volume ls" ["list"], volume::LsArgs, volume::ls, "List volumes";
        "volume mount" [], volume_files::NamesArgs, volume_files::mount, "Tell where volumes' files are";
        "volume prune" [], volume::PruneArgs, volume::prune, "Remove the volumes that no container uses";
        "volume reload" [], volume_files::ReloadArgs, volume_files::reload, "Take notice of what plugins for volumes have made";
        "volume rm" ["remove"], volume::RmArgs, volume::rm, "Remove volumes";
        "volume unmount" [], volume_files::NamesArgs, volume_files::unmount, "Take back `volume mount`";
        "wait" [], wait::WaitArgs, wait::run, "Wait until containers stop";
    }
}

fn parse<A: FromArgMatches>(matches: &ArgMatches) -> Result<A, Failure> {
    A::from_arg_matches(matches).map_err(|error| Failure::new(error.to_string().trim_end().to_owned()))
}

/// What every command has in front of it.
fn base() -> Command {
    Command::new("umiak")
        .about("Pull and run containers as an ordinary user, without a daemon")
        .version(env!("CARGO_PKG_VERSION"))
        .disable_version_flag(true)
        .disable_help_subcommand(true)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .arg(Arg::new("root").long("root").value_name("DIR").help("Keep images and containers in DIR"))
        .arg(
            Arg::new("runroot")
                .long("runroot")
                .value_name("DIR")
                .help("Keep what is of use until the next boot in DIR"),
        )
        .arg(
            Arg::new("storage-opt")
                .long("storage-opt")
                .value_name("NAME=VALUE")
                .action(ArgAction::Append)
                .help("additionalimagestore=DIR: use the images in the store DIR too, which is only read"),
        )
        .arg(
            Arg::new("cgroup-manager")
                .long("cgroup-manager")
                .value_name("WHO")
                .value_parser(["cgroupfs", "systemd"])
                .help("Who makes control groups: cgroupfs or systemd"),
        )
        .arg(
            Arg::new("version")
                .short('v')
                .long("version")
                .action(ArgAction::Version)
                .help("Show the version"),
        )
}

fn group(name: &'static str, about: &'static str) -> Command {
    Command::new(name).about(about).subcommand_required(true).arg_required_else_help(true)
}

/// The whole command, for help, completions and what is mistyped; each command's flags are built only when it
/// is used.
pub fn command() -> Command {
    let mut command = base();
    let mut groups = GROUPS.map(|(name, about)| group(name, about));
    for face in faces() {
        let own = face.bare().defer(face.augment);
        match groups.iter_mut().find(|known| known.get_name() == face.words().0) {
            Some(known) => *known = std::mem::take(known).subcommand(own),
            None => command = command.subcommand(own),
        }
    }
    command.subcommands(groups)
}

/// The command with the one subcommand that `words` name, and where its own words begin: all that is
/// needed to understand them. `None` if they name none.
fn command_of(words: &[OsString]) -> Option<(&'static Face, Command, usize)> {
    let base = base();
    let at = first_word(&base, words, 1)?;
    let word = words[at].to_str()?;
    if let Some((name, about)) = GROUPS.iter().find(|(name, _)| *name == word) {
        let second = words.get(at + 1)?.to_str()?;
        let face = faces().iter().find(|face| face.is_called(name, second))?;
        let own = (face.augment)(face.bare());
        return Some((face, base.subcommand(group(name, about).subcommand(own)), at + 2));
    }
    let face = faces().iter().find(|face| face.is_called("", word))?;
    Some((face, base.subcommand((face.augment)(face.bare())), at + 1))
}

/// Commands with a second word. Those of `container` and `image` that stand here are the ones that
/// have no name of one word ([`ungroup`]).
const GROUPS: [(&str, &str); 9] = [
    ("artifact", "Commands about artifacts: any files under a name"),
    ("builder", "Commands about builds"),
    ("container", "Commands about containers"),
    ("healthcheck", "Commands about containers' health"),
    ("image", "Commands about images"),
    ("manifest", "Commands about lists of images for several platforms"),
    ("network", "Commands about networks that containers share"),
    ("system", "Commands about the whole store"),
    ("volume", "Commands about volumes"),
];

/// `container run` is `run`, `image ls` is `images`: the words with the group taken off.
fn ungroup(mut words: Vec<OsString>) -> Vec<OsString> {
    let Some(at) = first_word(&base(), &words, 1) else { return words };
    // `help run` is `run --help`, and `volume help` is `volume --help`.
    let groups = || GROUPS.iter().any(|(name, _)| words[at] == *name);
    let second = words.get(at + 1).is_some_and(|word| word == "help") && groups();
    if words[at] == "help" || second {
        words.remove(at + usize::from(second));
        words.push("--help".into());
        return ungroup(words);
    }
    let other = |word: &OsString| word == "inspect" || word == "version";
    if words[at] == "buildx" && !words.get(at + 1).is_some_and(other) {
        words[at] = "builder".into();
    }
    let group = words[at].to_str().unwrap_or_default().to_owned();
    let Some(word) = words.get(at + 1).and_then(|w| w.to_str()).map(str::to_owned) else { return words };
    let replacement = match (group.as_str(), word.as_str()) {
        ("container", "ls" | "list" | "ps") => "ps",
        ("image", "ls" | "list") => "images",
        ("image", "rm") => "rmi",
        (
            "image",
            name @ ("history" | "import" | "load" | "pull" | "push" | "save" | "search" | "tag" | "untag"),
        ) => name,
        ("builder" | "image", "build") => "build",
        ("system", "info") => "info",
        ("system", "events") => "events",
        (
            "container",
            name @ ("attach" | "commit" | "cp" | "create" | "exec" | "export" | "init" | "kill" | "logs"
            | "mount" | "pause" | "port" | "rename" | "restart" | "rm" | "run" | "start" | "stats"
            | "stop" | "top" | "umount" | "unmount" | "unpause" | "update" | "wait"),
        ) => name,
        (kind @ ("container" | "image"), "inspect") => {
            let kind = format!("--type={kind}");
            words.splice(at..=at + 1, ["inspect".into(), kind.into()]);
            return words;
        }
        _ => return words,
    };
    words.splice(at..=at + 1, [replacement.into()]);
    words
}

/// The words that a group has of commands which have a name of their own, and these.
fn plain_names(group: &str) -> Vec<(&'static str, &'static str)> {
    let line = |word: &str| ["umiak", group, word].map(OsString::from).to_vec();
    let plain = faces().iter().map(|face| face.name).filter(|name| !name.contains(' '));
    let named = plain.filter(|name| ungroup(line(name)) == ["umiak", name]).map(|name| (name, name));
    let others = [("ls", "ps"), ("ls", "images"), ("rm", "rmi")];
    let others = others.into_iter().filter(|(word, name)| ungroup(line(word)) == ["umiak", name]);
    let inspect = Some(("inspect", "inspect")).filter(|_| ["container", "image"].contains(&group));
    if group.is_empty() { Vec::new() } else { named.chain(others).chain(inspect).collect() }
}

/// Whether a value must follow a flag.
fn takes_value(arg: &Arg) -> bool {
    arg.get_action().takes_values() && arg.get_num_args().is_none_or(|n| n.min_values() > 0)
}

/// Where the first word that is no flag and no flag's value stands, from `from` on.
fn first_word(command: &Command, words: &[OsString], from: usize) -> Option<usize> {
    let long = |name: &str| {
        command.get_arguments().find(|a| {
            a.get_long_and_visible_aliases().is_some_and(|l| l.contains(&name))
                || a.get_all_aliases().is_some_and(|l| l.contains(&name))
        })
    };
    let short = |c: char| {
        command.get_arguments().find(|a| a.get_short_and_visible_aliases().is_some_and(|s| s.contains(&c)))
    };
    let mut at = from;
    while let Some(word) = words.get(at) {
        let Some(text) = word.to_str() else { return Some(at) };
        if text == "--" {
            return None;
        } else if let Some(name) = text.strip_prefix("--") {
            if !name.contains('=') && long(name).is_some_and(takes_value) {
                at += 1;
            }
        } else if text.len() > 1 && text.starts_with('-') {
            let cluster: Vec<char> = text[1..].chars().collect();
            let value = cluster.iter().position(|c| short(*c).is_some_and(takes_value));
            if value == Some(cluster.len() - 1) {
                at += 1;
            }
        } else {
            return Some(at);
        }
        at += 1;
    }
    None
}

/// Commands that end in a program's own words: everything from the first word on is not for us, whatever it
/// looks like.
const TRAILING: [&str; 1] = ["unshare"];

/// The engine's `main`.
pub fn main(words: Vec<OsString>) -> u8 {
    if words.get(1).is_some_and(|word| word == complete::WORD) {
        return complete::main(words.into_iter().skip(2).collect());
    }
    let command_line = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let done = match words.get(1) {
        Some(word) if word == man::WORD => man::main(&words[2..]),
        _ => dispatch(words, command_line),
    };
    match done {
        Ok(code) => code,
        Err(failure) => {
            if !failure.message.is_empty() {
                output::error_line(&failure.message, failure.hint.as_deref());
            }
            failure.code
        }
    }
}

fn dispatch(words: Vec<OsString>, command_line: Vec<String>) -> Outcome {
    let mut words = ungroup(words);
    let Some((face, command, from)) = command_of(&words) else {
        // Help, the version, or an error: none of our commands is named.
        return match command().try_get_matches_from(&words) {
            Ok(_) => Err(Failure::new("no command was given")),
            Err(error) => usage(&error, &words),
        };
    };
    if TRAILING.contains(&face.name)
        && let Some(own) = command.find_subcommand(face.name)
        && let Some(first) = first_word(own, &words, from)
    {
        words.insert(first, "--".into());
    }
    let own = face.name.split(' ').try_fold(&command, |command, word| command.find_subcommand(word));
    if let Some(own) = own {
        words = switches::plain(own, words, from);
    }
    let matches = match command.try_get_matches_from(&words) {
        Ok(matches) => matches,
        Err(error) => return usage(&error, &words),
    };
    let dir = |name: &str| matches.get_one::<String>(name).map(PathBuf::from);
    let options: Vec<String> =
        matches.get_many("storage-opt").map(|options| options.cloned().collect()).unwrap_or_default();
    let manager = match matches.get_one::<String>("cgroup-manager").map(String::as_str) {
        Some("cgroupfs") => GroupManager::Cgroupfs,
        Some("systemd") => GroupManager::Systemd,
        _ => GroupManager::Auto,
    };
    let paths = find_paths(dir("root"), dir("runroot"), &options)?;
    let globals = Globals { paths, command_line, manager, told_runroot: dir("runroot").is_some() };
    let _ = STORE.set(globals.paths.clone());
    // As deep as the command's name goes: what it has of its own below is its own affair.
    let below = |matches: &ArgMatches| matches.subcommand().map(|(_, below)| below.clone());
    let depth = face.name.split(' ').count();
    let own = (0..depth).try_fold(matches, |matches, _| below(&matches));
    own.map_or_else(|| Err(Failure::new("no command was given")), |own| (face.run)(&own, &globals))
}

/// The store that flags name, the user's own else.
fn find_paths(root: Option<PathBuf>, runroot: Option<PathBuf>, options: &[String]) -> Result<Paths, Failure> {
    let additional = additional_stores(options)?;
    let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
    if let (Some(root), Some(runroot)) = (&root, &runroot) {
        return Ok(Paths { additional, ..Paths::new(absolute(root.clone()), absolute(runroot.clone())) });
    }
    let own = match engine::unshare::paths() {
        Some((root, runroot)) => Paths::new(root, runroot),
        None => Paths::discover().map_err(engine::Error::from)?,
    };
    let (root, runroot) = (root.map_or(own.root, absolute), runroot.map_or(own.runroot, absolute));
    Ok(Paths { additional, ..Paths::new(root, runroot) })
}

/// The stores that are read beside the own one: those of `--storage-opt`, then those of the environment.
fn additional_stores(options: &[String]) -> Result<Vec<PathBuf>, Failure> {
    let mut stores = Vec::new();
    for option in options {
        let name = option.split('=').next().unwrap_or_default();
        match option.split_once('=') {
            Some(("additionalimagestore", path)) if !path.is_empty() => stores.push(PathBuf::from(path)),
            Some(("additionalimagestore", _)) | None => {
                return Err(Failure::new(format!("--storage-opt \"{option}\": write NAME=VALUE")));
            }
            Some(_) => {
                return Err(Failure::new(format!("`--storage-opt {name}=…` is not supported yet"))
                    .with_hint("additionalimagestore=DIR names a store whose images are used too"));
            }
        }
    }
    let variable = std::env::var_os("UMIAK_ADDITIONAL_STORES").unwrap_or_default();
    stores.extend(std::env::split_paths(&variable).filter(|path| !path.as_os_str().is_empty()));
    Ok(stores.into_iter().map(|path| std::path::absolute(&path).unwrap_or(path)).collect())
}

/// Help goes to standard output; what is wrong with the command line is one line.
fn usage(error: &clap::Error, words: &[OsString]) -> Outcome {
    use clap::error::ErrorKind;
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            output::print(&error.to_string())?;
            Ok(0)
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            output::print(&error.to_string())?;
            Ok(125)
        }
        _ => Err(explain(error, words)),
    }
}

/// What a person is told of a command line that clap does not take.
fn explain(error: &clap::Error, words: &[OsString]) -> Failure {
    let words: Vec<String> = words.iter().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let ours: Vec<&str> = faces().iter().map(|face| face.name).collect();
    if let Some(refusal) = unsupported::explain(error, &words, &ours) {
        return Failure { code: 125, message: refusal.message, hint: refusal.hint };
    }
    // clap's first paragraph without its own "error: "; usage and tips come after an empty line.
    let text = error.to_string();
    let first = text.split("\n\n").next().unwrap_or_default();
    let line =
        first.strip_prefix("error: ").unwrap_or(first).split_whitespace().collect::<Vec<_>>().join(" ");
    let command = unsupported::command_of(&words, &ours);
    let hint = command.map_or("umiak --help".into(), |name| format!("umiak {name} --help"));
    Failure::new(line).with_hint(format!("see {hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(line: &str) -> Option<(&'static str, usize)> {
        let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        command_of(&ungroup(words)).map(|(face, _, from)| (face.name, from))
    }

    #[test]
    fn a_line_names_one_command() {
        for (line, name, from) in [
            ("umiak ps", "ps", 2),
            ("umiak --root /x ps -a", "ps", 4),
            ("umiak --root=/x container ls", "ps", 3),
            ("umiak volume list", "volume ls", 3),
            ("umiak container prune", "container prune", 3),
            ("umiak image rm x", "rmi", 2),
            ("umiak buildx build .", "build", 2),
            ("umiak image build", "build", 2),
            ("umiak buildx prune -f", "builder prune", 3),
            ("umiak builder prune", "builder prune", 3),
            ("umiak help container run", "run", 2),
            ("umiak volume help create", "volume create", 3),
        ] {
            assert_eq!(named(line), Some((name, from)), "{line}");
        }
        for line in
            ["umiak", "umiak --version", "umiak --root", "umiak nothing", "umiak volume", "umiak -- ps"]
        {
            assert_eq!(named(line), None, "{line}");
        }
    }

    #[test]
    fn the_whole_command_is_sound() {
        let mut command = command();
        command.build();
        command.debug_assert();
        for face in faces() {
            let (group, word) = face.words();
            assert!(group.is_empty() || GROUPS.iter().any(|(name, _)| *name == group), "{}", face.name);
            let same = faces().iter().filter(|other| other.is_called(group, word)).count();
            assert_eq!(same, 1, "{}", face.name);
        }
    }
}
