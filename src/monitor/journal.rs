//! A container's output in systemd's journal, by its native protocol: one datagram an entry, fields as
//! `NAME\n`, the length of the value as 64 bits, the value, `\n` (systemd.io/JOURNAL_NATIVE_PROTOCOL).

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, sockopt};

use super::protocol::Stream;
use crate::storage::containers::ContainerRecord;

/// Where the journal listens.
pub const SOCKET: &str = "/run/systemd/journal/socket";

/// How long a journal that does not read may hold the program up, before it is done without.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connects to the journal that listens at `path`.
pub fn connect(path: &Path) -> io::Result<OwnedFd> {
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(PATIENCE))?;
    Ok(socket)
}

/// Writes a container's output to the journal.
#[derive(Debug)]
pub struct JournalWriter {
    socket: OwnedFd,
    /// The fields that all entries have.
    fields: Vec<u8>,
    entry: Vec<u8>,
}

impl JournalWriter {
    /// Writes to a journal that [`connect`] has found; `tag` marks the entries.
    pub fn new(socket: OwnedFd, record: &ContainerRecord, tag: &str) -> Self {
        let mut fields = Vec::new();
        let identifier = if tag.is_empty() { record.id.short() } else { tag };
        for (name, value) in [
            ("CONTAINER_ID", record.id.short()),
            ("CONTAINER_ID_FULL", record.id.as_str()),
            ("CONTAINER_NAME", &record.name),
            ("IMAGE_NAME", &record.image_name()),
            ("SYSLOG_IDENTIFIER", identifier),
        ] {
            field(&mut fields, name, value.as_bytes());
        }
        if !tag.is_empty() {
            field(&mut fields, "CONTAINER_TAG", tag.as_bytes());
        }
        for label in &record.config.log.labels {
            if let (Some(value), Some(name)) = (record.config.labels.get(label), field_name(label)) {
                field(&mut fields, &name, value.as_bytes());
            }
        }
        Self { socket, fields, entry: Vec::new() }
    }

    /// Writes what one read of `stream` gave, an entry a line.
    pub fn write(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        for line in bytes.split_inclusive(|b| *b == b'\n') {
            let whole = line.strip_suffix(b"\n");
            self.entry.clear();
            field(&mut self.entry, "MESSAGE", whole.unwrap_or(line));
            // What syslog calls info and err.
            field(&mut self.entry, "PRIORITY", if stream == Stream::Stdout { b"6" } else { b"3" });
            if whole.is_none() {
                field(&mut self.entry, "CONTAINER_PARTIAL_MESSAGE", b"true");
            }
            self.entry.extend_from_slice(&self.fields);
            rustix::net::send(&self.socket, &self.entry, SendFlags::NOSIGNAL)?;
        }
        Ok(())
    }
}

fn field(entry: &mut Vec<u8>, name: &str, value: &[u8]) {
    entry.extend_from_slice(name.as_bytes());
    entry.push(b'\n');
    entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    entry.extend_from_slice(value);
    entry.push(b'\n');
}

/// What the journal takes for a field's name: capitals, digits and underscores, the first no underscore
/// (those are its own) and no digit, 64 at most.
fn field_name(label: &str) -> Option<String> {
    let name: String =
        label.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect();
    let name = name.trim_start_matches(|c: char| c == '_' || c.is_ascii_digit());
    // Our own fields are not for labels to change.
    let ours = ["MESSAGE", "PRIORITY", "SYSLOG_", "CONTAINER_", "IMAGE_NAME"];
    let taken = ours.iter().any(|own| name.starts_with(own));
    (!name.is_empty() && name.len() <= 64 && !taken).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_what_the_protocol_says() {
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
                .unwrap();
        let mut fields = Vec::new();
        field(&mut fields, "CONTAINER_NAME", b"web");
        let mut writer = JournalWriter { socket: ours, fields, entry: Vec::new() };
        writer.write(Stream::Stderr, b"one\n\xff two").unwrap();
        let receive = || {
            let mut buffer = vec![0; 4096];
            let (length, _) =
                rustix::net::recv(&theirs, &mut *buffer, rustix::net::RecvFlags::DONTWAIT).unwrap();
            buffer.truncate(length);
            buffer
        };
        let first = receive();
        assert!(first.starts_with(b"MESSAGE\n\x03\0\0\0\0\0\0\0one\nPRIORITY\n\x01\0\0\0\0\0\0\x003\n"));
        assert!(first.ends_with(b"CONTAINER_NAME\n\x03\0\0\0\0\0\0\0web\n"));
        let second = receive();
        assert!(second.windows(25).any(|part| part == b"CONTAINER_PARTIAL_MESSAGE"));
    }

    #[test]
    fn names_of_fields() {
        assert_eq!(field_name("com.example/a-b").unwrap(), "COM_EXAMPLE_A_B");
        assert_eq!(field_name("_PID").unwrap(), "PID");
        for label in ["", "___", "message", "container_id", &"x".repeat(65)] {
            assert_eq!(field_name(label), None, "{label}");
        }
    }
}
