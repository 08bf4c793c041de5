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

impl Address {
    /// Whether somebody seems to listen there.
    pub fn is_there(&self) -> bool {
        match self {
            Self::Path(path) | Self::Private(path) => path.exists(),
            Self::Abstract(_) => true,
        }
    }
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
    // In jobs of cron, after su and sudo: nobody told us of it, and it is there.
    let usual = PathBuf::from(format!("/run/user/{}", crate::sys::ids::euid()));
    let told = variable("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute());
    for dir in told.into_iter().chain([usual]) {
        for address in [Address::Path(dir.join("bus")), Address::Private(dir.join("systemd/private"))] {
            if !list.contains(&address) {
                list.push(address);
            }
        }
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

/// A connection. Greeting, subscription and the first call go out together, so that an answer is waited for
/// once: the order in which they are read is the order in which they were sent.
pub(super) struct Bus {
    stream: BufReader<UnixStream>,
    serial: u32,
    /// What is to be sent before the first call, if that was not done yet.
    greeting: Vec<u8>,
    /// Signals that came while an answer was awaited.
    signals: Vec<Received>,
}

impl Bus {
    /// Connects with the first of the addresses that answers; to hear of jobs' ends.
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
        // SASL's EXTERNAL, without saying who we are: the other side knows from the socket. (In a user
        // namespace we would not know our user's number as they see it.)
        let greeting = b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n".to_vec();
        let mut bus = Self { stream: BufReader::new(stream), serial: 0, greeting, signals: Vec::new() };
        let daemon = |member, arguments| Call {
            destination: "org.freedesktop.DBus",
            path: "/org/freedesktop/DBus",
            interface: "org.freedesktop.DBus",
            member,
            arguments,
        };
        if !private {
            let rule = "type='signal',interface='org.freedesktop.systemd1.Manager',member='JobRemoved'";
            bus.greet(&daemon("Hello", Vec::new()));
            bus.greet(&daemon("AddMatch", vec![Value::text(rule)]));
        }
        bus.greet(&manager("Subscribe", Vec::new()));
        Ok(bus)
    }

    fn greet(&mut self, call: &Call<'_>) {
        self.serial += 1;
        let bytes = call.encode(self.serial);
        self.greeting.extend(bytes);
    }

    /// Reads what the other side has to say to our authentication.
    fn authenticated(&mut self) -> io::Result<()> {
        let mut answer = self.line()?;
        if answer.starts_with("DATA") {
            answer = self.line()?;
        }
        if answer.starts_with("OK") {
            return Ok(());
        }
        Err(io::Error::other(format!("we are not known there ({})", answer.trim_end())))
    }

    fn line(&mut self) -> io::Result<String> {
        let mut bytes = Vec::new();
        (&mut self.stream).take(4096).read_until(b'\n', &mut bytes)?;
        if bytes.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Calls a method of systemd's manager.
    pub fn manager(&mut self, member: &str, arguments: Vec<Value>) -> Result<Received, Error> {
        self.call(&manager(member, arguments))
    }

    fn call(&mut self, call: &Call<'_>) -> Result<Received, Error> {
        let talk = |source| Error::Talk { member: call.member.to_owned(), source };
        self.serial += 1;
        let serial = self.serial;
        let mut bytes = std::mem::take(&mut self.greeting);
        let first = !bytes.is_empty();
        bytes.extend(call.encode(serial));
        self.stream.get_mut().write_all(&bytes).map_err(talk)?;
        if first {
            let failed = |source| Error::Talk { member: "authentication".to_owned(), source };
            self.authenticated().map_err(failed)?;
        }
        loop {
            let message = self.receive().map_err(talk)?;
            match message.kind {
                Kind::Return if message.reply_to == Some(serial) => return Ok(message),
                // Also of what was sent before it: without that this one would be in vain.
                Kind::Error if message.reply_to.is_some_and(|to| to <= serial) => {
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

fn manager(member: &str, arguments: Vec<Value>) -> Call<'_> {
    Call {
        destination: "org.freedesktop.systemd1",
        path: "/org/freedesktop/systemd1",
        interface: "org.freedesktop.systemd1.Manager",
        member,
        arguments,
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
        let call = |ours| Bus::begin(ours, true).unwrap().manager("StopUnit", Vec::new());
        assert!(call(ours).is_err());
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"OK 1\r\nxxxxxxxxxxxxxxxxxxxxxxxxx").unwrap();
        assert!(call(ours).is_err());
    }

    #[test]
    fn one_answer_is_waited_for() {
        for (private, serial) in [(true, 2), (false, 4)] {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let other = std::thread::spawn(move || {
                // Nothing is answered before all is there.
                let mut bytes = vec![0; 1 << 16];
                let length = theirs.read(&mut bytes).unwrap();
                let all = String::from_utf8_lossy(&bytes[..length]).into_owned();
                theirs.write_all(b"DATA\r\nOK 1234\r\n").unwrap();
                for reply in 1..=serial {
                    theirs.write_all(&message::answer(reply, &[Value::text("x")])).unwrap();
                }
                let mut more = Vec::new();
                theirs.read_to_end(&mut more).unwrap();
                (all, more)
            });
            let mut bus = Bus::begin(ours, private).unwrap();
            let answer = bus.manager("StartTransientUnit", Vec::new()).unwrap();
            assert_eq!((answer.reply_to, answer.text(0)), (Some(serial), Some("x")));
            drop(bus);
            let (said, more) = other.join().unwrap();
            assert!(more.is_empty(), "it took more than one round trip: {more:?}");
            assert!(
                said.contains("AUTH EXTERNAL")
                    && said.contains("Subscribe")
                    && said.contains("StartTransientUnit")
            );
            assert_eq!(said.contains("AddMatch"), !private);
        }
    }
}
