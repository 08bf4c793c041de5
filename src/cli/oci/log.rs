//! Errors of the runtime's face: on standard error, and in the log that the caller asked for, in
//! runc's formats.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

use crate::base::report;
use crate::cli::output::one_line;

/// What is worth a line in the log.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// Every command.
    Debug,
    /// What was left out or is odd.
    #[default]
    Warning,
    /// Why a command failed.
    Error,
}

impl Level {
    /// Of `--log-level`: runc's and crun's words.
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word.to_ascii_lowercase().as_str() {
            "trace" | "debug" => Self::Debug,
            "info" | "warn" | "warning" => Self::Warning,
            "error" | "fatal" | "panic" => Self::Error,
            _ => return None,
        })
    }

    fn word(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// Where and how to log.
#[derive(Debug, Default)]
pub(super) struct Log {
    file: Option<PathBuf>,
    json: bool,
    level: Level,
}

impl Log {
    pub fn new(file: Option<PathBuf>, json: bool, level: Level) -> Self {
        Self { file, json, level }
    }

    /// Tells an error; returns the exit code.
    pub fn report(&self, error: &super::Error, code: u8) -> u8 {
        let message = report::chain(error);
        self.write(Level::Error, &message);
        let mut stderr = std::io::stderr().lock();
        // Nobody is left to tell if this fails.
        let _ = writeln!(stderr, "error: {}", one_line(&message));
        if let Some(hint) = error.hint().or_else(|| hint(&message).map(str::to_owned)) {
            let _ = writeln!(stderr, "hint: {hint}");
        }
        code
    }

    /// Tells what is only of interest when something is searched for.
    pub fn debug(&self, message: &str) {
        self.write(Level::Debug, message);
        if self.file.is_none() && self.level == Level::Debug {
            let _ = writeln!(std::io::stderr(), "debug: {message}");
        }
    }

    /// Tells what does not stop the command.
    pub fn warn(&self, message: &str) {
        self.write(Level::Warning, message);
        if self.level <= Level::Warning {
            let _ = writeln!(std::io::stderr(), "warning: {}", one_line(message));
        }
    }

    fn write(&self, level: Level, message: &str) {
        let Some(path) = self.file.as_ref().filter(|_| level >= self.level) else { return };
        let level = level.word();
        let time = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let quoted = serde_json::Value::from(message).to_string();
        let line = if self.json {
            format!("{{\"level\":\"{level}\",\"msg\":{quoted},\"time\":\"{time}\"}}\n")
        } else {
            format!("time=\"{time}\" level={level} msg={quoted}\n")
        };
        // A log that cannot be written must not hide the error itself.
        if let Ok(mut file) = OpenOptions::new().append(true).create(true).open(path) {
            let _ = file.write_all(line.as_bytes());
        }
    }
}

/// The cure, where we know it.
fn hint(message: &str) -> Option<&'static str> {
    (crate::sys::ids::euid() != 0 && message.contains("creating namespaces: operation not permitted"))
        .then_some(
            "an ordinary user's container needs a user namespace: see linux.namespaces and linux.uidMappings",
        )
}
