//! The commands of the runtime's face.

use super::args::{self, Known, Parsed, UsageError};
use super::{
    Done, Global, checkpoint, create, delete, events, exec, features, help, kill, list, mounts, pause, ps,
    restore, spec, start, state, update,
};

/// A command.
pub(super) struct Command {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub about: &'static str,
    /// Its arguments, as the help shows them.
    pub arguments: &'static str,
    /// Its options.
    pub options: &'static [Known],
    /// From this argument on everything is taken as it is.
    pub tail: Option<usize>,
    run: fn(&Global, &Parsed) -> Done,
}

/// All commands, in the help's order.
pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "create",
        about: "make a container that waits to be started",
        arguments: "ID",
        options: create::OPTIONS,
        tail: None,
        run: |global, parsed| create::create(global, parsed, false),
    },
    Command {
        name: "start",
        about: "start a created container",
        arguments: "ID",
        options: &[],
        tail: None,
        run: start::start,
    },
    Command {
        name: "run",
        about: "create, start, wait for and delete a container",
        arguments: "ID",
        options: create::OPTIONS,
        tail: None,
        run: |global, parsed| create::create(global, parsed, true),
    },
    Command {
        name: "exec",
        about: "run a further process in a container",
        arguments: "ID [PROGRAM [ARGUMENT...]]",
        options: exec::OPTIONS,
        tail: Some(1),
        run: exec::exec,
    },
    Command {
        name: "state",
        about: "print a container's state as JSON",
        arguments: "ID",
        options: &[],
        tail: None,
        run: state::show_state,
    },
    Command {
        name: "list",
        about: "list containers",
        arguments: "",
        options: list::OPTIONS,
        tail: None,
        run: list::list,
    },
    Command {
        name: "kill",
        about: "send a signal to a container's init",
        arguments: "ID [SIGNAL]",
        options: kill::OPTIONS,
        tail: None,
        run: kill::kill,
    },
    Command {
        name: "delete",
        about: "forget a stopped container",
        arguments: "ID",
        options: delete::OPTIONS,
        tail: None,
        run: delete::delete,
    },
    Command {
        name: "ps",
        about: "list a container's processes",
        arguments: "ID [PS-ARGUMENT...]",
        options: ps::OPTIONS,
        tail: Some(1),
        run: ps::ps,
    },
    Command {
        name: "pause",
        about: "stop a container's processes for a while",
        arguments: "ID",
        options: &[],
        tail: None,
        run: pause::pause,
    },
    Command {
        name: "resume",
        about: "let them go on",
        arguments: "ID",
        options: &[],
        tail: None,
        run: pause::resume,
    },
    Command {
        name: "update",
        about: "change a container's limits",
        arguments: "ID",
        options: update::OPTIONS,
        tail: None,
        run: update::update,
    },
    Command {
        name: "events",
        about: "tell what a container uses, and when it lacks memory",
        arguments: "ID",
        options: events::OPTIONS,
        tail: None,
        run: events::events,
    },
    Command {
        name: "checkpoint",
        about: "write a running container into files, by criu, and end it",
        arguments: "ID",
        options: checkpoint::OPTIONS,
        tail: None,
        run: checkpoint::checkpoint,
    },
    Command {
        name: "restore",
        about: "make a running container of such files",
        arguments: "ID",
        options: restore::OPTIONS,
        tail: None,
        run: restore::restore,
    },
    Command {
        name: "mounts",
        about: "mount something in a container that is there, or unmount it",
        arguments: "add|remove ID FILE",
        options: &[],
        tail: None,
        run: mounts::mounts,
    },
    Command {
        name: "features",
        about: "print what this runtime can do as JSON",
        arguments: "",
        options: &[],
        tail: None,
        run: |_, _| features::features(),
    },
    Command {
        name: "spec",
        about: "write an example config.json",
        arguments: "",
        options: spec::OPTIONS,
        tail: None,
        run: |_, parsed| spec::write(parsed),
    },
];

pub(super) fn run(global: &Global, name: &str, rest: &[String]) -> Done {
    let Some(command) = COMMANDS.iter().find(|command| command.name == name) else {
        let names = COMMANDS.iter().map(|command| command.name);
        let meant = crate::base::suggest::closest(name, names).map(str::to_owned);
        return Err(UsageError::Command { name: name.to_owned(), meant }.into());
    };
    let (parsed, _) = args::parse(rest, command.options, false, command.tail)?;
    if parsed.has("help") {
        return help::print_for(Some(name));
    }
    (command.run)(global, &parsed)
}
