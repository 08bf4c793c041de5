//! The commands of the runtime's face.

use super::args::{self, Known, UsageError};
use super::{
    Done, Global, create, delete, events, exec, features, kill, list, pause, ps, spec, start, state, update,
};

pub(super) fn run(global: &Global, command: &str, rest: &[String]) -> Done {
    let parse = |known: &[Known], tail| args::parse(rest, known, false, tail).map(|(parsed, _)| parsed);
    match command {
        "create" => create::create(global, &parse(create::OPTIONS, None)?, false),
        "run" => create::create(global, &parse(create::OPTIONS, None)?, true),
        "start" => start::start(global, &parse(&[], None)?),
        "state" => state::show_state(global, &parse(&[], None)?),
        "kill" => kill::kill(global, &parse(kill::OPTIONS, None)?),
        "delete" => delete::delete(global, &parse(delete::OPTIONS, None)?),
        "list" => list::list(global, &parse(list::OPTIONS, None)?),
        "exec" => exec::exec(global, &parse(exec::OPTIONS, Some(1))?),
        "pause" => pause::pause(global, &parse(&[], None)?),
        "resume" => pause::resume(global, &parse(&[], None)?),
        "update" => update::update(global, &parse(update::OPTIONS, None)?),
        "events" => events::events(global, &parse(events::OPTIONS, None)?),
        "ps" => ps::ps(global, &parse(ps::OPTIONS, Some(1))?),
        "features" => features::features(),
        "spec" => spec::write(&parse(spec::OPTIONS, None)?),
        other => Err(UsageError::Command(other.to_owned()).into()),
    }
}
