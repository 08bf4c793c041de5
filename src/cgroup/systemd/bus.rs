//! A connection with a D-Bus daemon, or with systemd itself.

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Error;
use super::message::{self, Call, Kind, Received, Value};

/// A manager that is starting up may take its time.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where a bus may be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    /// A socket.
    Path(PathBuf),
    /// A socket without a file.
    Abstract(Vec<u8>),
    /// systemd's own socket, without a daemon between.
    Private(PathBuf),
}

/// The places to try, in this order.
pub(super) fn addresses(user: bool) -> Vec<Address> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if !user {
        let given = variable("DBUS_SYSTEM_BUS_ADDRESS").map(|value| parse_addresses(value.as_bytes()));
        let mut list = given.unwrap_or_default();
        list.push(Address::Path("/run/dbus/system_bus_socket".into()));
        list.push(Address::Private("/run/systemd/private".into()));
        return list;
    }
    let given = variable("DBUS_SESSION_BUS_ADDRESS").map(|value| parse_addresses(value.as_bytes()));
    let mut list = given.unwrap_or_default();
    if let Some(dir) = variable("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute()) {
        let bus = Address::Path(dir.join("bus"));
        if !list.contains(&bus) {
            list.push(bus);
        }
        list.push(Address::Private(dir.join("systemd/private")));
    }
    list
}

/// `unix:path=/x,guid=…;unix:abstract=…` with `%xx` for bytes.
fn parse_addresses(text: &[u8]) -> Vec<Address> {
    let one = |address: &[u8]| {
        let keys = address.strip_prefix(b"unix:")?;
        keys.split(|b| *b == b',').find_map(|pair| {
            if let Some(path) = pair.strip_prefix(b"path=") {
                return Some(Address::Path(OsStr::from_bytes(&unescape(path)?).into()));
            }
            Some(Address::Abstract(unescape(pair.strip_prefix(b"abstract=")?)?))
        })
    };
    text.split(|b| *b == b';').filter_map(one).collect()
}

fn unescape(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((first, others)) = rest.split_first() {
        if *first == b'%' {
            let digits = std::str::from_utf8(others.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &others[2..];
        } else {
            bytes.push(*first);
            rest = others;
        }
    }
    Some(bytes)
}

/// A connection.
pub(super) struct Bus {
    stream: BufReader<UnixStream>,
    serial: u32,
    /// Signals that came while an answer was awaited.
    signals: Vec<Received>,
}

impl Bus {
    /// Connects with the first of the addresses that answers.
    pub fn connect(user: bool) -> Result<Self, Error> {
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for address in addresses(user) {
            match open(&address) {
                Ok(stream) => return Self::begin(stream, matches!(address, Address::Private(_))),
                Err(error) => last = error,
            }
        }
        Err(Error::Connect { which: if user { "user" } else { "system" }, source: last })
    }

    fn begin(stream: UnixStream, private: bool) -> Result<Self, Error> {
        let talk = |source| Error::Talk { member: "authentication".into(), source };
        stream.set_read_timeout(Some(PATIENCE)).map_err(talk)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(talk)?;
        let mut bus = Self { stream: BufReader::new(stream), serial: 0, signals: Vec::new() };
        bus.authenticate().map_err(talk)?;
        if !private {
            bus.call(&Call {
                destination: "org.freedesktop.DBus",
                path: "/org/freedesktop/DBus",
                interface: "org.freedesktop.DBus",
                member: "Hello",
                arguments: Vec::new(),
            })?;
        }
        bus.listen(private)?;
        Ok(bus)
    }

    /// SASL's EXTERNAL, without saying who we are: the other side knows from the socket. (In a user
    /// namespace we would not know our user's number as they see it.)
    fn authenticate(&mut self) -> io::Result<()> {
        self.send(b"\0AUTH EXTERNAL\r\n")?;
        let mut answer = self.line()?;
        if answer.starts_with("DATA") {
            self.send(b"DATA\r\n")?;
            answer = self.line()?;
        }
        if !answer.starts_with("OK") {
            return Err(io::Error::other(format!("we are not known there ({})", answer.trim_end())));
        }
        self.send(b"BEGIN\r\n")
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    fn line(&mut self) -> io::Result<String> {
        let mut bytes = Vec::new();
        (&mut self.stream).take(4096).read_until(b'\n', &mut bytes)?;
        if bytes.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Asks for signals of the manager's jobs.
    fn listen(&mut self, private: bool) -> Result<(), Error> {
        if !private {
            let rule = "type='signal',interface='org.freedesktop.systemd1.Manager',member='JobRemoved'";
            self.call(&Call {
                destination: "org.freedesktop.DBus",
                path: "/org/freedesktop/DBus",
                interface: "org.freedesktop.DBus",
                member: "AddMatch",
                arguments: vec![Value::text(rule)],
            })?;
        }
        self.manager("Subscribe", Vec::new()).map(|_| ())
    }

    /// Calls a method of systemd's manager.
    pub fn manager(&mut self, member: &str, arguments: Vec<Value>) -> Result<Received, Error> {
        self.call(&Call {
            destination: "org.freedesktop.systemd1",
            path: "/org/freedesktop/systemd1",
            interface: "org.freedesktop.systemd1.Manager",
            member,
            arguments,
        })
    }

    fn call(&mut self, call: &Call<'_>) -> Result<Received, Error> {
        let talk = |source| Error::Talk { member: call.member.to_owned(), source };
        self.serial += 1;
        let serial = self.serial;
        self.send(&call.encode(serial)).map_err(talk)?;
        loop {
            let message = self.receive().map_err(talk)?;
            match message.kind {
                Kind::Return if message.reply_to == Some(serial) => return Ok(message),
                Kind::Error if message.reply_to == Some(serial) => {
                    let text = message.text(0).unwrap_or_default().to_owned();
                    return Err(Error::Refused { member: call.member.to_owned(), name: message.name, text });
                }
                Kind::Signal => self.signals.push(message),
                _ => {}
            }
        }
    }

    fn receive(&mut self) -> io::Result<Received> {
        let mut bytes = vec![0; message::HEAD];
        self.stream.read_exact(&mut bytes)?;
        let length = message::length(&bytes).ok_or(io::ErrorKind::InvalidData)?;
        bytes.resize(length, 0);
        self.stream.read_exact(&mut bytes[message::HEAD..])?;
        message::decode(&bytes).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Waits until a job is done; returns its result.
    pub fn job_result(&mut self, job: &str) -> Result<String, Error> {
        let talk = |source| Error::Talk { member: "waiting for the job".into(), source };
        let end = Instant::now() + PATIENCE;
        loop {
            for signal in std::mem::take(&mut self.signals) {
                if signal.name == "JobRemoved" && signal.text(1) == Some(job) {
                    return Ok(signal.text(3).unwrap_or_default().to_owned());
                }
            }
            if Instant::now() > end {
                return Err(talk(io::ErrorKind::TimedOut.into()));
            }
            let message = self.receive().map_err(talk)?;
            if message.kind == Kind::Signal {
                self.signals.push(message);
            }
        }
    }
}

fn open(address: &Address) -> io::Result<UnixStream> {
    match address {
        Address::Path(path) | Address::Private(path) => connect_path(path),
        Address::Abstract(name) => UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?),
    }
}

fn connect_path(path: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let list = parse_addresses(
            b"tcp:host=x;unix:path=/run/a%20b,guid=1;unix:guid=2,abstract=/tmp/y;unix:path=%zz",
        );
        assert_eq!(list, [Address::Path("/run/a b".into()), Address::Abstract(b"/tmp/y".to_vec())]);
    }

    #[test]
    fn a_stranger_who_talks_rubbish_is_an_error() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"REJECTED EXTERNAL\r\n").unwrap();
        assert!(Bus::begin(ours, true).is_err());
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"OK 1\r\nxxxxxxxxxxxxxxxxxxxxxxxxx").unwrap();
        assert!(Bus::begin(ours, true).is_err());
    }
}
