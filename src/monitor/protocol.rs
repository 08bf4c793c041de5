//! What a monitor and those attached to it say to each other: packets of one `SOCK_SEQPACKET`
//! socket, a tag byte and a body. Pure.

use crate::storage::containers::HealthStatus;

/// The longest body of a packet, in bytes.
pub const MAX_BODY: usize = 64 * 1024;

/// Which stream output belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output, and all output of a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// The stream's name in a k8s-file log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// From the monitor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// The program runs, with this pid on the host.
    Started(i32),
    /// The program could not be started.
    Failed {
        /// What the command should exit with.
        code: u8,
        /// The whole chain of what went wrong.
        message: &'a str,
        /// The cure, empty if it is not known.
        hint: &'a str,
    },
    /// Output.
    Output(Stream, &'a [u8]),
    /// A health check ended with this exit code.
    Checked(HealthStatus, i32),
    /// What became of a request to change networks.
    Networks {
        /// What went wrong; empty if nothing did.
        message: &'a str,
        /// The cure, empty if it is not known.
        hint: &'a str,
    },
    /// The program ended (128+n for a signal) and its end is recorded.
    Exited(i32),
}

/// To the monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// Input.
    Input(&'a [u8]),
    /// No more input will come.
    InputEnd,
    /// The terminal has this size now.
    Resize {
        /// Lines.
        rows: u16,
        /// Columns.
        columns: u16,
    },
    /// Send this signal to the program.
    Signal(i32),
    /// Send me no output.
    Mute,
    /// The container's user wants it to end: it is not to be started again.
    Stop,
    /// Check the program's health now.
    Check,
    /// The container's record was changed.
    Reload,
    /// Change the networks: a [`NetworkChange`](crate::storage::containers::NetworkChange) in JSON. It is answered
    /// by [`Event::Networks`].
    Networks(&'a [u8]),
    /// The program that was held may begin.
    Go,
}

impl<'a> Event<'a> {
    /// The packet of this event.
    pub fn encode(&self, packet: &mut Vec<u8>) {
        packet.clear();
        match self {
            Self::Started(pid) => {
                packet.push(b's');
                packet.extend(pid.to_le_bytes());
            }
            Self::Failed { code, message, hint } => {
                packet.extend([b'!', *code]);
                texts([message, hint], packet);
            }
            Self::Networks { message, hint } => {
                packet.push(b'n');
                texts([message, hint], packet);
            }
            Self::Output(stream, bytes) => {
                packet.push(match stream {
                    Stream::Stdout => b'o',
                    Stream::Stderr => b'e',
                });
                packet.extend(*bytes);
            }
            Self::Checked(status, code) => {
                packet.extend([b'h', *status as u8]);
                packet.extend(code.to_le_bytes());
            }
            Self::Exited(code) => {
                packet.push(b'x');
                packet.extend(code.to_le_bytes());
            }
        }
    }

    /// The event of a packet; `None` for one that no monitor of this version sends.
    pub fn decode(packet: &'a [u8]) -> Option<Self> {
        let (tag, body) = packet.split_first()?;
        match tag {
            b's' => Some(Self::Started(i32::from_le_bytes(body.try_into().ok()?))),
            b'!' => {
                let (code, texts) = body.split_first()?;
                let (message, hint) = two_texts(texts)?;
                Some(Self::Failed { code: *code, message, hint })
            }
            b'n' => two_texts(body).map(|(message, hint)| Self::Networks { message, hint }),
            b'o' => Some(Self::Output(Stream::Stdout, body)),
            b'e' => Some(Self::Output(Stream::Stderr, body)),
            b'h' => {
                let (status, code) = body.split_first()?;
                let all = [HealthStatus::Starting, HealthStatus::Healthy, HealthStatus::Unhealthy];
                let status = all.into_iter().find(|known| *known as u8 == *status)?;
                Some(Self::Checked(status, i32::from_le_bytes(code.try_into().ok()?)))
            }
            b'x' => Some(Self::Exited(i32::from_le_bytes(body.try_into().ok()?))),
            _ => None,
        }
    }
}

fn texts(list: [&str; 2], packet: &mut Vec<u8>) {
    for text in list {
        // A zero ends a text; one that came from an image must not make a hint of the rest.
        let text = text.replace('\0', "\u{fffd}");
        let end = text.floor_char_boundary(MAX_BODY / 2 - 2);
        packet.extend(&text.as_bytes()[..end]);
        packet.push(0);
    }
}

fn two_texts(body: &[u8]) -> Option<(&str, &str)> {
    std::str::from_utf8(body).ok()?.strip_suffix('\0')?.split_once('\0')
}

impl<'a> Request<'a> {
    /// The packet of this request.
    pub fn encode(&self, packet: &mut Vec<u8>) {
        packet.clear();
        match self {
            Self::Input(bytes) => {
                packet.push(b'i');
                packet.extend(*bytes);
            }
            Self::InputEnd => packet.push(b'z'),
            Self::Resize { rows, columns } => {
                packet.push(b'r');
                packet.extend(rows.to_le_bytes());
                packet.extend(columns.to_le_bytes());
            }
            Self::Signal(signal) => {
                packet.push(b'k');
                packet.extend(signal.to_le_bytes());
            }
            Self::Mute => packet.push(b'm'),
            Self::Stop => packet.push(b'x'),
            Self::Check => packet.push(b'c'),
            Self::Reload => packet.push(b'l'),
            Self::Networks(change) => {
                packet.push(b'n');
                packet.extend(*change);
            }
            Self::Go => packet.push(b'g'),
        }
    }

    /// The request of a packet; `None` for nonsense.
    pub fn decode(packet: &'a [u8]) -> Option<Self> {
        let (tag, body) = packet.split_first()?;
        match tag {
            b'i' => Some(Self::Input(body)),
            b'z' => Some(Self::InputEnd),
            b'r' => {
                let body: [u8; 4] = body.try_into().ok()?;
                Some(Self::Resize {
                    rows: u16::from_le_bytes([body[0], body[1]]),
                    columns: u16::from_le_bytes([body[2], body[3]]),
                })
            }
            b'k' => Some(Self::Signal(i32::from_le_bytes(body.try_into().ok()?))),
            b'm' => Some(Self::Mute),
            b'x' => Some(Self::Stop),
            b'c' => Some(Self::Check),
            b'l' => Some(Self::Reload),
            b'n' => Some(Self::Networks(body)),
            b'g' => Some(Self::Go),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_round_trip() {
        let mut packet = Vec::new();
        for event in [
            Event::Started(42),
            Event::Failed { code: 127, message: "no such file", hint: "" },
            Event::Output(Stream::Stdout, b"\xff\0"),
            Event::Output(Stream::Stderr, b""),
            Event::Checked(HealthStatus::Unhealthy, -1),
            Event::Networks { message: "", hint: "" },
            Event::Networks { message: "in use", hint: "take another" },
            Event::Exited(-1),
        ] {
            event.encode(&mut packet);
            assert_eq!(Event::decode(&packet), Some(event));
        }
        assert_eq!(Event::decode(b""), None);
        assert_eq!(Event::decode(b"x123"), None);
    }

    #[test]
    fn requests_round_trip() {
        let mut packet = Vec::new();
        for request in [
            Request::Input(b"ls\n"),
            Request::InputEnd,
            Request::Resize { rows: 24, columns: 300 },
            Request::Signal(15),
            Request::Mute,
            Request::Stop,
            Request::Check,
            Request::Reload,
            Request::Networks(b"\"reload\""),
        ] {
            request.encode(&mut packet);
            assert_eq!(Request::decode(&packet), Some(request));
        }
        assert_eq!(Request::decode(b"r12"), None);
    }
}
