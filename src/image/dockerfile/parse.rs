//! Instructions and stages.

use std::collections::HashMap;

use serde_json::Value;

use super::error::similar;
use super::flags::Flags;
use super::heredoc::{self, Begin, Texts, Token};
use super::lines::{Lines, Logical};
use super::words::{self, split};
use super::{
    Argument, Command, Copy, Dockerfile, Error, Healthcheck, Instruction, Mount, Problem, Run, Stage, Step,
};
use crate::base::{signal, time};
use crate::image::instruction::ports;

const KEYWORDS: &[&str] = &[
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// Reads a Dockerfile.
pub fn parse(text: &[u8]) -> Result<Dockerfile, Error> {
    let text = decoded(text)?;
    let mut lines = Lines::new(text)?;
    let mut file = Dockerfile { escape: lines.escape, ..Dockerfile::default() };
    let mut names = HashMap::new();
    while let Some(logical) = lines.next() {
        let line = logical.line;
        let mut warnings = Vec::new();
        statement(&logical, &mut lines, &mut warnings)
            .and_then(|statement| file.add(statement, &logical, &mut names, &mut warnings))
            .map_err(|problem| Error { line, problem })?;
        file.warnings.extend(warnings.into_iter().map(|warning| format!("line {line}: {warning}")));
    }
    if file.stages.is_empty() {
        let none = file.arguments.is_empty();
        let problem = if none { Problem::NoInstruction } else { Problem::NoFrom };
        return Err(Error { line: lines.line(), problem });
    }
    Ok(file)
}

/// Reads one instruction, as `ONBUILD` keeps it: neither `FROM`, `ONBUILD` nor `MAINTAINER`.
pub fn parse_step(text: &str, escape: char) -> Result<Step, Error> {
    let mut lines = Lines::plain(decoded(text.as_bytes())?, escape);
    let Some(logical) = lines.next() else {
        return Err(Error { line: 1, problem: Problem::NoInstruction });
    };
    let problem = match statement(&logical, &mut lines, &mut Vec::new()) {
        Ok(_) if lines.next().is_some() => Problem::NotSingle,
        Ok(Statement::From { .. }) => Problem::OnBuild("FROM"),
        Ok(Statement::Instruction(instruction @ (Instruction::OnBuild(_) | Instruction::Maintainer(_)))) => {
            Problem::OnBuild(instruction.keyword())
        }
        Ok(Statement::Instruction(instruction)) => return Ok(logical.step(instruction)),
        Err(problem) => problem,
    };
    Err(Error { line: logical.line, problem })
}

/// The bytes as text, without characters that no instruction may have.
fn decoded(bytes: &[u8]) -> Result<&str, Error> {
    let error =
        |at: usize, problem| Error { line: 1 + memchr::memchr_iter(b'\n', &bytes[..at]).count(), problem };
    if let Some(at) = memchr::memchr(0, bytes) {
        return Err(error(at, Problem::Nul));
    }
    std::str::from_utf8(bytes).map_err(|source| error(source.valid_up_to(), Problem::NotText))
}

/// What one instruction means for the file.
enum Statement {
    From { base: String, platform: Option<String>, name: Option<String> },
    Instruction(Instruction),
}

impl Logical {
    fn step(&self, instruction: Instruction) -> Step {
        Step { line: self.line, text: self.text.trim().to_owned(), instruction }
    }
}

impl Dockerfile {
    fn add(
        &mut self,
        statement: Statement,
        logical: &Logical,
        names: &mut HashMap<String, usize>,
        warnings: &mut Vec<String>,
    ) -> Result<(), Problem> {
        match (statement, self.stages.last_mut()) {
            (Statement::From { base, platform, name }, _) => {
                // As everywhere: who refers to the name gets the last one before him.
                if let Some(name) = &name
                    && let Some(line) = names.insert(name.clone(), logical.line)
                {
                    warnings.push(format!(
                        "the stage of line {line} is named \"{name}\", too; from here on the name means this one"
                    ));
                }
                let (line, text) = (logical.line, logical.text.trim().to_owned());
                self.stages.push(Stage { line, text, base, platform, name, steps: Vec::new() });
            }
            (Statement::Instruction(instruction), Some(stage)) => stage.steps.push(logical.step(instruction)),
            (Statement::Instruction(Instruction::Arg(arguments)), None) => self.arguments.extend(arguments),
            (Statement::Instruction(instruction), None) => {
                return Err(Problem::BeforeFrom(instruction.keyword()));
            }
        }
        Ok(())
    }
}

/// What an instruction is read from.
struct Source<'t> {
    /// In capital letters.
    keyword: &'static str,
    flags: Flags,
    /// What follows the flags, without blanks around it.
    rest: &'t str,
    escape: char,
}

fn statement(logical: &Logical, lines: &mut Lines, warnings: &mut Vec<String>) -> Result<Statement, Problem> {
    let source = source(logical.text.trim(), lines.escape)?;
    if logical.gap {
        warnings.push(format!("{} has an empty line within it, which is skipped", source.keyword));
    }
    if source.keyword == "FROM" {
        return from(&source);
    }
    if source.keyword == "ONBUILD" {
        return onbuild(&source, lines, warnings).map(Statement::Instruction);
    }
    instruction(&source, lines, warnings).map(|(instruction, _)| Statement::Instruction(instruction))
}

fn source(text: &str, escape: char) -> Result<Source<'_>, Problem> {
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let Some(keyword) = KEYWORDS.iter().find(|keyword| keyword.eq_ignore_ascii_case(word)) else {
        return Err(Problem::Unknown { word: word.to_owned(), similar: similar(word, KEYWORDS) });
    };
    let (flags, rest) = Flags::take(keyword, rest, escape)?;
    Ok(Source { keyword, flags, rest: rest.trim(), escape })
}

fn from(source: &Source) -> Result<Statement, Problem> {
    let words: Vec<&str> = source.rest.split_whitespace().collect();
    let (base, name) = match words[..] {
        [] => return Err(source.lacks("the image to build upon")),
        [base] => (base, None),
        [base, word, name] if word.eq_ignore_ascii_case("as") => (base, Some(stage_name(name)?)),
        _ => return Err(source.form("IMAGE [AS NAME]")),
    };
    Ok(Statement::From { base: base.to_owned(), platform: source.flags.text("platform"), name })
}

fn stage_name(name: &str) -> Result<String, Problem> {
    let lower = name.to_ascii_lowercase();
    let rest = lower.strip_prefix(|c: char| c.is_ascii_lowercase());
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
    if rest.is_some_and(|rest| rest.chars().all(good)) {
        Ok(lower)
    } else {
        Err(Problem::StageName(name.to_owned()))
    }
}

/// Keeps an instruction as it is written, with its texts; it is read once to see that it can be.
fn onbuild(source: &Source, lines: &mut Lines, warnings: &mut Vec<String>) -> Result<Instruction, Problem> {
    if source.rest.is_empty() {
        return Err(source.lacks("an instruction"));
    }
    let inner = self::source(source.rest, lines.escape)?;
    if matches!(inner.keyword, "FROM" | "ONBUILD" | "MAINTAINER") {
        return Err(Problem::OnBuild(inner.keyword));
    }
    let (_, texts) = instruction(&inner, lines, warnings)?;
    let mut text = source.rest.to_owned();
    if !texts.raw.is_empty() {
        text.push('\n');
        text.push_str(&texts.raw);
    }
    Ok(Instruction::OnBuild(text))
}

/// An instruction and the texts that belong to it, which are read from the following lines.
fn instruction(
    source: &Source,
    lines: &mut Lines,
    warnings: &mut Vec<String>,
) -> Result<(Instruction, Texts), Problem> {
    let mut texts = Texts { heredocs: Vec::new(), raw: String::new() };
    let instruction = match source.keyword {
        "RUN" => {
            let run = run(source, lines, &mut texts, warnings)?;
            Instruction::Run(run)
        }
        "COPY" | "ADD" => Instruction::Copy(copy(source, lines, &mut texts)?),
        "ARG" => Instruction::Arg(arguments(source)?),
        "ENV" => Instruction::Env(pairs(source)?),
        "LABEL" => Instruction::Label(pairs(source)?),
        "CMD" => Instruction::Cmd(source.command(warnings)?),
        "ENTRYPOINT" => Instruction::Entrypoint(source.command(warnings)?),
        "HEALTHCHECK" => Instruction::Healthcheck(healthcheck(source, warnings)?),
        "SHELL" => match source.list()? {
            Some(words) if !words.is_empty() => Instruction::Shell(words),
            _ if source.rest.is_empty() => return Err(source.lacks("a JSON list of words")),
            _ => return Err(source.form("a JSON list of words, as in [\"/bin/bash\", \"-c\"]")),
        },
        "EXPOSE" => Instruction::Expose(exposed(source)?),
        "VOLUME" => Instruction::Volume(volumes(source)?),
        "STOPSIGNAL" => {
            let text = source.text("a signal")?;
            if !text.contains(['$', '"', '\'', source.escape]) && signal::parse(&text).is_none() {
                return Err(source.form("a signal's name or number"));
            }
            Instruction::StopSignal(text)
        }
        "USER" => Instruction::User(source.text("a user")?),
        "WORKDIR" => Instruction::Workdir(source.text("a directory")?),
        _ => Instruction::Maintainer(source.text("a name")?),
    };
    Ok((instruction, texts))
}

impl Source<'_> {
    fn lacks(&self, what: &'static str) -> Problem {
        Problem::Lacks { instruction: self.keyword, what }
    }

    fn form(&self, takes: &'static str) -> Problem {
        self.form_of(takes, self.rest)
    }

    fn form_of(&self, takes: &'static str, given: &str) -> Problem {
        // A line may be as long as a file.
        let given = given.chars().take(1000).collect();
        Problem::Form { instruction: self.keyword, takes, given }
    }

    /// All that follows.
    fn text(&self, what: &'static str) -> Result<String, Problem> {
        if self.rest.is_empty() { Err(self.lacks(what)) } else { Ok(self.rest.to_owned()) }
    }

    /// The words of a JSON list, if it is one.
    fn list(&self) -> Result<Option<Vec<String>>, Problem> {
        json_list(self.keyword, self.rest)
    }

    fn words(&self) -> Vec<&str> {
        split(self.rest, self.escape, false).0
    }

    /// A JSON list or a line for the shell. Nothing is a list without words: it takes away what the base has.
    fn command(&self, warnings: &mut Vec<String>) -> Result<Command, Problem> {
        command(self.keyword, self.rest, warnings)
    }
}

fn json_list(keyword: &'static str, text: &str) -> Result<Option<Vec<String>>, Problem> {
    let text = text.trim_start();
    if !text.starts_with('[') {
        return Ok(None);
    }
    let Ok(values) = serde_json::from_str::<Vec<Value>>(text) else { return Ok(None) };
    let text = |value| match value {
        // No program's arguments can have one.
        Value::String(text) if text.contains('\0') => Err(Problem::Nul),
        Value::String(text) => Ok(text),
        _ => Err(Problem::NotTexts(keyword)),
    };
    values.into_iter().map(text).collect::<Result<_, _>>().map(Some)
}

fn command(keyword: &'static str, text: &str, warnings: &mut Vec<String>) -> Result<Command, Problem> {
    if text.is_empty() {
        return Ok(Command::Exec(Vec::new()));
    }
    if let Some(words) = json_list(keyword, text)? {
        return Ok(Command::Exec(words));
    }
    // `[ -f x ] && y` is a good line; a list of words is not.
    if text.starts_with('[') && text.ends_with(']') && text.contains(['"', '\'']) && text.contains(',') {
        warnings.push(format!(
            "what {keyword} has looks like a list but is no JSON (texts in double quotes, parted by commas): it is \
             a line for the shell"
        ));
    }
    Ok(Command::Shell(text.to_owned()))
}

fn run(
    source: &Source,
    lines: &mut Lines,
    texts: &mut Texts,
    warnings: &mut Vec<String>,
) -> Result<Run, Problem> {
    let mount = |mount: String| match Mount::parse(&mount) {
        Ok(parsed) => Ok(parsed),
        Err(error) => Err(Problem::Mount { mount, source: error }),
    };
    let mounts = source.flags.texts("mount").map(mount).collect::<Result<_, _>>()?;
    let network = source.flags.one_of("network", &["default", "none", "host"], "default, none or host")?;
    let security = source.flags.one_of("security", &["sandbox", "insecure"], "sandbox or insecure")?;
    if source.rest.is_empty() {
        return Err(source.lacks("a command"));
    }
    let mut command = source.command(warnings)?;
    match &mut command {
        Command::Exec(words) if words.is_empty() => return Err(source.lacks("a command")),
        Command::Shell(line) if line.contains("<<") => {
            // The shell will read the line once more, for which this is always a backslash.
            let tokens = heredoc::tokens(source.rest, '\\', true);
            *texts = heredoc::read(&begins(&tokens), lines, source.keyword)?;
            match (&texts.heredocs[..], tokens.len()) {
                ([], _) => {}
                ([only], 1) => *line = only.text.clone(),
                _ => *line = format!("{line}\n{}", texts.raw),
            }
        }
        _ => {}
    }
    Ok(Run { command, heredocs: texts.heredocs.clone(), mounts, network, security })
}

fn begins<'b>(tokens: &'b [Token]) -> Vec<&'b Begin> {
    let begin = |token: &'b Token| match token {
        Token::Begin(begin) => Some(begin),
        Token::Word(_) => None,
    };
    tokens.iter().filter_map(begin).collect()
}

fn copy(source: &Source, lines: &mut Lines, texts: &mut Texts) -> Result<Copy, Problem> {
    let mut words: Vec<String> = match source.list()? {
        Some(words) => words,
        None => {
            let tokens = heredoc::tokens(source.rest, source.escape, false);
            *texts = heredoc::read(&begins(&tokens), lines, source.keyword)?;
            if matches!(tokens.last(), Some(Token::Begin(_))) {
                return Err(Problem::HeredocDestination(source.keyword));
            }
            let word = |token| match token {
                Token::Word(word) => Some(String::from(word)),
                Token::Begin(_) => None,
            };
            tokens.into_iter().filter_map(word).collect()
        }
    };
    let destination = words.pop().ok_or_else(|| source.lacks("what to copy, and where to"))?;
    if words.is_empty() && texts.heredocs.is_empty() {
        return Err(source.lacks("where to copy to"));
    }
    let flags = &source.flags;
    let yes = |name| flags.yes_no(name).unwrap_or(false);
    Ok(Copy {
        add: source.keyword == "ADD",
        sources: words,
        inline: texts.heredocs.clone(),
        destination,
        from: flags.text("from"),
        chown: flags.text("chown"),
        chmod: flags.text("chmod"),
        link: yes("link"),
        parents: yes("parents"),
        exclude: flags.texts("exclude").collect(),
        checksum: flags.text("checksum"),
        keep_git_dir: yes("keep-git-dir"),
        unpack: flags.yes_no("unpack"),
    })
}

fn arguments(source: &Source) -> Result<Vec<Argument>, Problem> {
    let words = source.words();
    if words.is_empty() {
        return Err(source.lacks("a name"));
    }
    let argument = |word: &str| match word.split_once('=') {
        Some(("", _)) => Err(source.form_of("NAME[=DEFAULT]", word)),
        Some((name, value)) => Ok(Argument { name: name.to_owned(), default: Some(value.to_owned()) }),
        None => Ok(Argument { name: word.to_owned(), default: None }),
    };
    words.into_iter().map(argument).collect()
}

fn pairs(source: &Source) -> Result<Vec<(String, String)>, Problem> {
    if source.rest.is_empty() {
        return Err(source.lacks("a name and a value"));
    }
    let pairs = words::pairs(source.rest, source.escape);
    let pairs = pairs.map_err(|word| source.form_of("KEY=VALUE", word))?;
    Ok(pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
}

fn exposed(source: &Source) -> Result<Vec<String>, Problem> {
    let words = source.words();
    if words.is_empty() {
        return Err(source.lacks("a port"));
    }
    for word in &words {
        if !word.contains(['$', '"', '\'', source.escape]) && ports(word).is_none() {
            return Err(source.form_of("PORT[-PORT][/tcp|udp|sctp]", word));
        }
    }
    Ok(words.into_iter().map(str::to_owned).collect())
}

fn volumes(source: &Source) -> Result<Vec<String>, Problem> {
    let words = match source.list()? {
        Some(words) => words.into_iter().map(|word| word.trim().to_owned()).collect(),
        None => source.words().into_iter().map(str::to_owned).collect::<Vec<_>>(),
    };
    if words.is_empty() {
        return Err(source.lacks("a directory"));
    }
    if words.iter().any(String::is_empty) {
        return Err(source.form("directories"));
    }
    Ok(words)
}

fn healthcheck(source: &Source, warnings: &mut Vec<String>) -> Result<Healthcheck, Problem> {
    let (kind, rest) = source.rest.split_once(char::is_whitespace).unwrap_or((source.rest, ""));
    let rest = rest.trim();
    let flags = &source.flags;
    if kind.is_empty() {
        return Err(source.lacks("NONE, or CMD and a command"));
    }
    if kind.eq_ignore_ascii_case("none") {
        return match (rest, flags.first()) {
            ("", None) => Ok(Healthcheck::None),
            ("", Some(_)) => Err(source.form_of("no flags with NONE", "them")),
            _ => Err(source.form_of("nothing after NONE", rest)),
        };
    }
    if !kind.eq_ignore_ascii_case("cmd") {
        return Err(source.form_of("NONE, or CMD and a command", kind));
    }
    let command = command(source.keyword, rest, warnings)?;
    if command == Command::Exec(Vec::new()) {
        return Err(source.lacks("a command after CMD"));
    }
    let span = |flag: &'static str| {
        let Some(text) = flags.text(flag) else { return Ok(None) };
        // What takes less cannot be told from nothing; nothing is the default.
        let nanos = time::parse_duration(&text).ok().and_then(|span| u64::try_from(span.as_nanos()).ok());
        match nanos {
            Some(0) => Ok(None),
            Some(nanos) if nanos >= 1_000_000 => Ok(Some(nanos)),
            _ => Err(flags.wrong(flag, &text, "a time of at least 1ms, such as 30s")),
        }
    };
    let retries = |text: String| {
        let good = text.parse::<u32>().ok().filter(|number| i32::try_from(*number).is_ok());
        good.ok_or_else(|| flags.wrong("retries", &text, "a number"))
    };
    Ok(Healthcheck::Command {
        command,
        interval: span("interval")?,
        timeout: span("timeout")?,
        start_period: span("start-period")?,
        start_interval: span("start-interval")?,
        retries: flags.text("retries").map(retries).transpose()?.filter(|number| *number > 0),
    })
}
