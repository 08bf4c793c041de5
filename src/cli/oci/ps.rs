//! `ps`: a container's processes, as the host sees them.
//!
//! Without further words the columns are those of `ps -ef`, read from `/proc` by us: no program of the
//! host is needed. With further words they are arguments of the host's ps(1), of whose lines those of
//! the container's processes are shown, as runc does.

use std::io;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::args::{Known, Parsed, UsageError};
use super::{Done, Error, Global, print};
use crate::runtime::processes;
use crate::runtime::state::Dir;
use crate::security::passwd;
use crate::sys::{host, process};

pub(super) const OPTIONS: &[Known] = &[("format", Some('f'), true)];

pub(super) fn ps(global: &Global, parsed: &Parsed) -> Done {
    let id = parsed.arguments.first().ok_or(UsageError::Missing("the container id"))?;
    // Callers write `ps --format json ID` and `ps ID --format json`.
    let (words, format) = format_of(&parsed.arguments[1..], parsed.value("format"))?;
    let dir = Dir::new(&global.root, id)?;
    let record = dir.read()?;
    if dir.status(&record)?.1.is_none() {
        return Err(Error::NotRunning);
    }
    let list = processes::of(record.pid, record.cgroup.as_deref())
        .map_err(|source| Error::Io { action: format!("listing the processes of \"{id}\""), source })?
        .ok_or(Error::Ungrouped { id: id.clone(), what: "ps" })?;
    match format {
        "json" => print(&format!("{}\n", serde_json::Value::from(list))),
        "table" if words.is_empty() => print(&own_table(&list)),
        "table" => print(&of_program(&words, &list)?),
        other => Err(UsageError::Invalid { option: "--format", value: other.to_owned() }.into()),
    }
}

/// Takes our own option from among the words for ps(1), which has a long one of that name but wants
/// columns there.
fn format_of<'a>(words: &'a [String], given: Option<&'a str>) -> Result<(Vec<String>, &'a str), UsageError> {
    let mut format = given.unwrap_or("table");
    let mut rest = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "--format" {
            format = words.next().ok_or_else(|| UsageError::Value(word.clone()))?;
        } else if let Some(value) = word.strip_prefix("--format=") {
            format = value;
        } else if word != "--" {
            rest.push(word.clone());
        }
    }
    Ok((rest, format))
}

/// The lines of the host's ps(1) that are about these processes.
fn of_program(words: &[String], list: &[i32]) -> Result<String, Error> {
    let error = |source| Error::Io { action: format!("running \"ps {}\"", words.join(" ")), source };
    let (output, code) = process::output_of("ps", words).map_err(error)?;
    if code != 0 {
        return Err(error(io::Error::other(format!("it ended with status {code}"))));
    }
    let text = String::from_utf8_lossy(&output);
    let mut lines = text.lines();
    let title = lines.next().unwrap_or_default();
    let column = title.split_whitespace().position(|word| word == "PID");
    let column = column.ok_or_else(|| error(io::Error::other("it shows no column \"PID\"")))?;
    let ours = |line: &&str| {
        let pid = line.split_whitespace().nth(column).and_then(|word| word.parse().ok());
        pid.is_some_and(|pid: i32| list.contains(&pid))
    };
    Ok(std::iter::once(title).chain(lines.filter(ours)).map(|line| format!("{line}\n")).collect())
}

fn own_table(list: &[i32]) -> String {
    let users = std::fs::read("/etc/passwd").unwrap_or_default();
    let boot = processes::boot_time();
    let mut text = "UID          PID    PPID  C STIME TTY          TIME CMD\n".to_owned();
    for pid in list {
        // One that has ended meanwhile is none of the container's any more.
        if let Some(line) = line(*pid, &users, boot) {
            text.push_str(&line);
        }
    }
    text
}

fn line(pid: i32, users: &[u8], boot: Timestamp) -> Option<String> {
    let stat = process::detailed_stat(pid).ok()?;
    let uid = process::owner(pid).ok()?;
    let user = passwd::users(users).find(|user| user.uid == uid);
    let user = user.map_or_else(|| uid.to_string(), |user| String::from_utf8_lossy(&user.name).into_owned());
    let ticks = host::clock_ticks();
    let started = boot + SignedDuration::from_millis((stat.start_time * 1000 / ticks) as i64);
    let seconds = stat.processor_time / ticks;
    let age = Timestamp::now().duration_since(started).as_secs().max(1) as u64;
    let zone = TimeZone::system();
    let (then, now) = (started.to_zoned(zone.clone()), Timestamp::now().to_zoned(zone));
    let when = if then.date() == now.date() { then.strftime("%H:%M") } else { then.strftime("%b%d") };
    let command = processes::command(pid, &stat.name);
    Some(format!(
        "{user:<8} {pid:>7} {:>7} {:>2} {when} {:<8} {:02}:{:02}:{:02} {command}\n",
        stat.parent,
        (seconds * 100 / age).min(99),
        processes::terminal(stat.terminal),
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_callers() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(format_of(&words("-e -x"), None).unwrap(), (words("-e -x"), "table"));
        let list = words("--format json -ef");
        assert_eq!(format_of(&list, None).unwrap(), (words("-ef"), "json"));
        assert!(format_of(&words("--format"), None).is_err());
    }

    #[test]
    fn a_line_of_ourselves() {
        let text = own_table(&[std::process::id() as i32, i32::MAX]);
        assert_eq!(text.lines().count(), 2, "{text}");
        let fields: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(fields[1], std::process::id().to_string());
    }
}
