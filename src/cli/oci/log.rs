//! Errors of the runtime's face: on standard error, and in the log that the caller asked for, in
//! runc's formats.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::base::report;

/// Where and how to log.
#[derive(Debug, Default)]
pub(super) struct Log {
    file: Option<PathBuf>,
    json: bool,
    debug: bool,
}

impl Log {
    pub fn new(file: Option<&str>, format: Option<&str>, debug: bool) -> Self {
        Self { file: file.filter(|f| !f.is_empty()).map(PathBuf::from), json: format == Some("json"), debug }
    }

    /// Tells an error; returns the exit code.
    pub fn report(&self, error: &super::Error, code: u8) -> ExitCode {
        let message = report::chain(error);
        self.write("error", &message);
        let mut stderr = std::io::stderr().lock();
        // Nobody is left to tell if this fails.
        let _ = writeln!(stderr, "error: {message}");
        if let Some(hint) = error.hint().or_else(|| hint(&message).map(str::to_owned)) {
            let _ = writeln!(stderr, "hint: {hint}");
        }
        ExitCode::from(code)
    }

    pub fn debug(&self, message: &str) {
        if self.debug {
            self.write("debug", message);
        }
    }

    fn write(&self, level: &str, message: &str) {
        let Some(path) = &self.file else { return };
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
