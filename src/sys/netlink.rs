//! Netlink sockets (netlink(7)): requests in one piece, and the kernel's word on each.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::sockopt;

/// Which part of the kernel is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Devices, addresses, routes: rtnetlink(7).
    Route = 0,
    /// nftables and queues: nfnetlink.
    Netfilter = 12,
}

/// `NLM_F_ACK`.
pub const ACK: u16 = 4;
/// `NLM_F_REPLACE`: in the place of such a thing, if there is one.
pub const REPLACE: u16 = 0x100;
/// `NLM_F_EXCL`: fail if there is such a thing.
pub const EXCLUSIVE: u16 = 0x200;
/// `NLM_F_CREATE`.
pub const CREATE: u16 = 0x400;
/// `NLM_F_APPEND`.
pub const APPEND: u16 = 0x800;
/// `NLM_F_DUMP`.
pub const DUMP: u16 = 0x300;

const REQUEST: u16 = 1;
/// The error message has attributes (`NLM_F_ACK_TLVS`).
const ERROR_ATTRIBUTES: u16 = 0x200;
const TYPE_ERROR: u16 = 2;
const TYPE_DONE: u16 = 3;
/// A text that explains an error (`NLMSGERR_ATTR_MSG`).
const ERROR_TEXT: u16 = 1;
const HEADER: usize = 16;

/// A message to the kernel, without its header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// `RTM_NEWLINK` and the like.
    pub kind: u16,
    /// [`ACK`] and the others; that it is a request is understood.
    pub flags: u16,
    /// What follows the header.
    pub body: Vec<u8>,
}

/// Messages from the kernel: their types and bodies.
pub type Answers = Vec<(u16, Vec<u8>)>;

/// A request that the kernel refused.
#[derive(Debug)]
pub struct Refused {
    /// Which one of those that were sent.
    pub index: usize,
    /// Why; with the kernel's own words where it has any.
    pub source: io::Error,
}

/// The kernel's error number with what it says about it.
#[derive(Debug, thiserror::Error)]
#[error("{source} ({text})")]
struct Explained {
    text: String,
    source: io::Error,
}

/// The error number of an error of this module.
pub fn errno(error: &io::Error) -> Option<i32> {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Explained>());
    error.raw_os_error().or_else(|| inner?.source.raw_os_error())
}

/// A socket, which belongs to the network namespace that its maker was in.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Socket {
    /// A socket in the caller's network namespace.
    pub fn open(family: Family) -> io::Result<Self> {
        let protocol = rustix::net::Protocol::from_raw(
            std::num::NonZeroU32::new(family as u32).unwrap_or(std::num::NonZeroU32::MIN),
        );
        let protocol = (family as u32 != 0).then_some(protocol);
        let fd = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol,
        )?;
        // Explanations of errors instead of copies of the requests. An old kernel does without.
        for option in [libc::NETLINK_CAP_ACK, libc::NETLINK_EXT_ACK] {
            let _ = sockopt::set(&fd, libc::SOL_NETLINK, option, 1_i32);
        }
        Ok(Self { fd, sequence: 0 })
    }

    /// Sends all requests at once, and checks the kernel's word on those that ask for it ([`ACK`]) and on any
    /// that failed. Of rtnetlink, what comes after a failed one is still tried; a batch of nftables is one
    /// transaction.
    pub fn send(&mut self, requests: &[Request]) -> Result<(), Refused> {
        self.exchange(requests).map(drop)
    }

    /// Sends a request that is not answered.
    pub fn tell(&self, request: &Request) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(HEADER + request.body.len() + 4);
        encode(request, 0, &mut bytes);
        rustix::net::send(&self.fd, &bytes, SendFlags::DONTWAIT)?;
        Ok(())
    }

    /// As [`Self::send`]; the bodies of other messages that came as answers, with their types.
    pub fn exchange(&mut self, requests: &[Request]) -> Result<Answers, Refused> {
        let (answers, refused) = self.try_all(requests)?;
        refused.into_iter().next().map_or(Ok(answers), Err)
    }

    /// As [`Self::exchange`], with all that were refused.
    pub fn try_all(&mut self, requests: &[Request]) -> Result<(Answers, Vec<Refused>), Refused> {
        if requests.is_empty() {
            return Ok(Default::default());
        }
        let last = requests.len() - 1;
        let broken = |source: io::Error| Refused { index: last, source };
        let first = self.sequence + 1;
        let mut bytes = Vec::with_capacity(requests.iter().map(|r| HEADER + r.body.len() + 4).sum());
        let mut waiting = 0_usize;
        for request in requests {
            self.sequence += 1;
            encode(request, self.sequence, &mut bytes);
            waiting += usize::from(request.flags & (ACK | DUMP) != 0);
        }
        rustix::net::send(&self.fd, &bytes, SendFlags::empty()).map_err(|e| broken(e.into()))?;
        let mut answers = Vec::new();
        let mut refused: Vec<Refused> = Vec::new();
        let mut buffer = vec![0_u8; 32768];
        while waiting > 0 {
            // The kernel works on requests while they are sent: what it has to say about them is here. Only
            // dumps go on as they are read.
            let length = match rustix::net::recv(&self.fd, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((length, _)) => length,
                Err(_) if !refused.is_empty() => break,
                Err(error) => return Err(broken(error.into())),
            };
            let mut rest = &buffer[..length];
            while let Some((message, after)) = Message::split(rest) {
                rest = after;
                let index = message.sequence.wrapping_sub(first) as usize;
                match message.kind {
                    TYPE_DONE => waiting = waiting.saturating_sub(1),
                    TYPE_ERROR => {
                        let asked = requests.get(index).is_some_and(|r| r.flags & (ACK | DUMP) != 0);
                        waiting = waiting.saturating_sub(usize::from(asked));
                        if let Some(source) = message.error() {
                            refused.push(Refused { index: index.min(last), source });
                        }
                    }
                    kind => answers.push((kind, message.body.to_vec())),
                }
            }
        }
        Ok((answers, refused))
    }
}

fn encode(request: &Request, sequence: u32, into: &mut Vec<u8>) {
    into.extend(((HEADER + request.body.len()) as u32).to_ne_bytes());
    into.extend(request.kind.to_ne_bytes());
    into.extend((REQUEST | request.flags).to_ne_bytes());
    into.extend(sequence.to_ne_bytes());
    into.extend(0_u32.to_ne_bytes());
    into.extend(&request.body);
    into.resize(into.len().next_multiple_of(4), 0);
}

/// A message from the kernel.
struct Message<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    body: &'a [u8],
}

impl<'a> Message<'a> {
    fn split(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let number = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
        let length = number(0)? as usize;
        let kind_and_flags = number(4)?.to_ne_bytes();
        let message = Self {
            kind: u16::from_ne_bytes([kind_and_flags[0], kind_and_flags[1]]),
            flags: u16::from_ne_bytes([kind_and_flags[2], kind_and_flags[3]]),
            sequence: number(8)?,
            body: bytes.get(HEADER..length)?,
        };
        Some((message, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
    }

    /// What a message of type error says; nothing if it is an acknowledgement.
    fn error(&self) -> Option<io::Error> {
        let number = self.body.get(..4).and_then(|b| b.try_into().ok()).map_or(0, i32::from_ne_bytes);
        if number == 0 {
            return None;
        }
        let source = io::Error::from_raw_os_error(-number);
        // The number, and the header of the request.
        let text = (self.flags & ERROR_ATTRIBUTES != 0)
            .then(|| attributes(self.body.get(4 + HEADER..).unwrap_or_default()))
            .and_then(|mut list| list.find(|(kind, _)| *kind == ERROR_TEXT))
            .map(|(_, text)| String::from_utf8_lossy(text).trim_end_matches('\0').to_owned());
        Some(match text {
            Some(text) => io::Error::new(source.kind(), Explained { text, source }),
            None => source,
        })
    }
}

/// The messages that came in one piece: their types and bodies.
pub fn messages(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (message, after) = Message::split(rest)?;
        rest = after;
        Some((message.kind, message.body))
    })
}

/// Appends an attribute.
pub fn attribute(kind: u16, value: &[u8], into: &mut Vec<u8>) {
    into.extend((4 + value.len() as u16).to_ne_bytes());
    into.extend(kind.to_ne_bytes());
    into.extend(value);
    into.resize(into.len().next_multiple_of(4), 0);
}

/// The attributes in a message: their types without flags, and values.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let head = rest.get(..4)?;
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let kind = u16::from_ne_bytes([head[2], head[3]]) & 0x3fff;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_answered_in_one_go() {
        let mut socket = Socket::open(Family::Route).unwrap();
        // RTM_GETLINK of the loopback device, and of one that is not there.
        let get = |index: u32, flags| {
            let mut body = vec![0; 16];
            body[4..8].copy_from_slice(&index.to_ne_bytes());
            Request { kind: 18, flags, body }
        };
        let answers = socket.exchange(&[get(1, ACK), get(1, ACK)]).unwrap();
        assert_eq!(answers.len(), 2);
        let refused = socket.exchange(&[get(1, ACK), get(0x7fff_ffff, ACK), get(1, ACK)]).unwrap_err();
        assert_eq!((refused.index, errno(&refused.source)), (1, Some(libc::ENODEV)));
        // Nothing of the exchange before is left over.
        assert_eq!(socket.exchange(&[get(0, DUMP)]).unwrap()[0].0, 16);
    }

    #[test]
    fn the_kernels_words_are_told() {
        let text = b"Invalid prefix\0";
        let mut body = (-libc::EINVAL).to_ne_bytes().to_vec();
        body.extend([0; HEADER]);
        body.extend((4 + text.len() as u16).to_ne_bytes());
        body.extend(ERROR_TEXT.to_ne_bytes());
        body.extend(text);
        let message = Message { kind: TYPE_ERROR, flags: ERROR_ATTRIBUTES, sequence: 1, body: &body };
        let error = message.error().unwrap();
        assert!(error.to_string().ends_with("(Invalid prefix)"), "{error}");
        assert_eq!(errno(&error), Some(libc::EINVAL));
        // Cut short anywhere, it is still an error and no panic.
        for length in 4..body.len() {
            let cut = Message { body: &body[..length], ..message };
            assert!(cut.error().is_some());
        }
    }
}
