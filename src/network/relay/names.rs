//! The sending and receiving of the name server: questions of the container come by UDP or TCP, and what the
//! server does not know is asked of the host's name servers in the same way, one after the other.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketType};

use super::inner::Reply;
use super::poll::{Place, Poll, Table, Token};
use super::udp::Ends;
use crate::network::dns::{Server, Step};
use crate::network::plan::NetworkPlan;
use crate::network::policy::Policy;
use crate::sys::inet;

/// So long one name server is waited for. A resolver asks again after five seconds: two are tried in that time.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many are asked for one question, if there are so many; one alone is asked twice.
const ATTEMPTS: usize = 3;
/// A connection of the container without a question is closed after this time.
const IDLE: Duration = Duration::from_secs(30);
/// Questions that wait for an answer, and connections of the container: what comes beyond is lost.
const QUESTIONS: usize = 512;
const STREAMS: usize = 64;
/// The longest message (bytes): its length has two bytes.
const LONGEST: usize = 65535;

/// Whom an answer goes to.
#[derive(Clone, Copy)]
enum Asker {
    Datagram(Ends),
    Stream(Place),
}

/// A question that is asked of a name server of the host.
struct Question {
    asker: Asker,
    message: Vec<u8>,
    attempt: usize,
    until: Instant,
    socket: OwnedFd,
    /// What is still to be sent, and what has come: over TCP alone.
    output: Vec<u8>,
    input: Vec<u8>,
}

/// A connection of the container.
struct Stream {
    socket: OwnedFd,
    input: Vec<u8>,
    output: Vec<u8>,
    last: Instant,
}

/// The name server's sockets.
pub struct Names {
    kinds: [u8; 2],
    server: Server,
    upstream: Vec<SocketAddr>,
    /// Sockets of the router bound to the server's addresses.
    replies: Vec<Reply>,
    questions: Table<Question>,
    streams: Table<Stream>,
    buffer: Vec<u8>,
}

impl Names {
    /// No questions yet; the tokens of those and of the container's connections will be of these kinds.
    pub fn new(plan: &NetworkPlan, replies: Vec<Reply>, kinds: [u8; 2]) -> Self {
        Self {
            kinds,
            server: Server::new(plan),
            upstream: plan.dns.as_ref().map(|dns| dns.upstream.clone()).unwrap_or_default(),
            replies,
            questions: Table::default(),
            streams: Table::default(),
            buffer: Vec::new(),
        }
    }

    /// Answers for another plan; without `replies` from the addresses that it has.
    pub fn rewire(&mut self, plan: &NetworkPlan, replies: Option<Vec<Reply>>) {
        self.server = Server::new(plan);
        self.upstream = plan.dns.as_ref().map(|dns| dns.upstream.clone()).unwrap_or_default();
        if let Some(replies) = replies {
            self.replies = replies;
        }
    }

    /// When something has waited for too long.
    pub fn deadline(&self) -> Option<Instant> {
        if self.questions.len() + self.streams.len() == 0 {
            return None;
        }
        let questions = self.questions.iter().map(|question| question.until);
        let streams = self.streams.iter().map(|stream| stream.last + IDLE);
        questions.chain(streams).min()
    }

    /// A datagram came to the server.
    pub fn datagram(&mut self, ends: Ends, message: &[u8], poll: &Poll, now: Instant) {
        self.ask(Asker::Datagram(ends), message, poll, now);
    }

    /// A connection came to the server.
    pub fn connection(&mut self, socket: OwnedFd, poll: &Poll, now: Instant) {
        if self.streams.len() >= STREAMS {
            return;
        }
        let stream = Stream { socket, input: Vec::new(), output: Vec::new(), last: now };
        let place = self.streams.insert(stream);
        let token = Token { kind: self.kinds[1], side: 0, place };
        let stream = self.streams.get(place).expect("just put there");
        if poll.add(&stream.socket, token, EventFlags::IN | EventFlags::OUT | EventFlags::ET).is_err() {
            self.streams.remove(place);
        }
    }

    /// What happened to a socket of ours.
    pub fn event(&mut self, token: Token, poll: &Poll, policy: &mut Policy, now: Instant) {
        if token.kind == self.kinds[0] {
            self.answer(token.place, poll, policy, now);
        } else {
            self.stream(token.place, poll, now);
        }
    }

    /// Goes on where the time is over.
    pub fn expire(&mut self, poll: &Poll, now: Instant) {
        for place in self.questions.places(|question| question.until <= now) {
            self.again(place, poll, now);
        }
        for place in self.streams.places(|stream| stream.last + IDLE <= now) {
            self.streams.remove(place);
        }
    }

    fn ask(&mut self, asker: Asker, message: &[u8], poll: &Poll, now: Instant) {
        match self.server.question(message, matches!(asker, Asker::Stream(_))) {
            Step::Reply(reply) => self.reply(asker, &reply),
            Step::Drop => {}
            Step::Forward if self.questions.len() < QUESTIONS => {
                self.forward(asker, message.to_vec(), 0, poll, now);
            }
            Step::Forward => self.fail(asker, message),
        }
    }

    fn fail(&mut self, asker: Asker, message: &[u8]) {
        if let Some(reply) = self.server.failed(message) {
            self.reply(asker, &reply);
        }
    }

    fn reply(&mut self, asker: Asker, reply: &[u8]) {
        match asker {
            Asker::Datagram((from, to)) => {
                if let Some((_, socket)) = self.replies.iter().find(|(address, _)| *address == to) {
                    // What is lost is asked for again.
                    let _ = inet::send(socket, reply, Some(from), None, None);
                }
            }
            Asker::Stream(place) => {
                if let Some(stream) = self.streams.get(place)
                    && let Ok(length) = u16::try_from(reply.len())
                {
                    stream.output.extend(length.to_be_bytes());
                    stream.output.extend(reply);
                    if flush(&stream.socket, &mut stream.output).is_err() {
                        self.streams.remove(place);
                    }
                }
            }
        }
    }

    /// Asks the name server whose turn it is, or the next one that can be asked.
    fn forward(&mut self, asker: Asker, message: Vec<u8>, first: usize, poll: &Poll, now: Instant) {
        let attempts = self.upstream.len().clamp(2, ATTEMPTS);
        for attempt in first..attempts {
            let Some(to) = self.upstream.get(attempt % self.upstream.len().max(1)) else { break };
            let by_stream = matches!(asker, Asker::Stream(_));
            let Ok(socket) = connect(*to, by_stream) else { continue };
            let mut output = Vec::new();
            if by_stream {
                output.extend((message.len() as u16).to_be_bytes());
                output.extend(&message);
            } else if inet::send(&socket, &message, None, None, None).is_err() {
                continue;
            }
            let question = Question {
                asker,
                message,
                attempt,
                until: now + PATIENCE,
                socket,
                output,
                input: Vec::new(),
            };
            let place = self.questions.insert(question);
            let token = Token { kind: self.kinds[0], side: 0, place };
            let question = self.questions.get(place).expect("just put there");
            let flags =
                if by_stream { EventFlags::IN | EventFlags::OUT | EventFlags::ET } else { EventFlags::IN };
            // If it cannot be waited for, its time will be over soon.
            let _ = poll.add(&question.socket, token, flags);
            return;
        }
        self.fail(asker, &message);
    }

    fn again(&mut self, place: Place, poll: &Poll, now: Instant) {
        if let Some(question) = self.questions.remove(place) {
            self.forward(question.asker, question.message, question.attempt + 1, poll, now);
        }
    }

    fn answer(&mut self, place: Place, poll: &Poll, policy: &mut Policy, now: Instant) {
        let Some(question) = self.questions.get(place) else { return };
        let received = match question.asker {
            Asker::Datagram(_) => {
                self.buffer.resize(LONGEST, 0);
                match rustix::net::recv(&question.socket, &mut self.buffer[..], RecvFlags::DONTWAIT) {
                    Ok((length, _)) => Ok(Some(self.buffer[..length].to_vec())),
                    Err(Errno::AGAIN | Errno::INTR) => Ok(None),
                    Err(error) => Err(error.into()),
                }
            }
            Asker::Stream(_) => flush(&question.socket, &mut question.output)
                .and_then(|()| fill(&question.socket, &mut question.input))
                .and_then(|open| match take_message(&mut question.input) {
                    None if !open => Err(io::ErrorKind::UnexpectedEof.into()),
                    message => Ok(message),
                }),
        };
        match received {
            // Somebody's guess, or an answer that came too late for an earlier question.
            Ok(Some(reply)) if reply.get(..2) != question.message.get(..2) => {}
            Ok(Some(reply)) => {
                let asker = question.asker;
                self.questions.remove(place);
                self.server.answered(&reply, policy);
                self.reply(asker, &reply);
            }
            Ok(None) => {}
            Err(_) => self.again(place, poll, now),
        }
    }

    fn stream(&mut self, place: Place, poll: &Poll, now: Instant) {
        let Some(stream) = self.streams.get(place) else { return };
        let open = flush(&stream.socket, &mut stream.output)
            .and_then(|()| fill(&stream.socket, &mut stream.input))
            .unwrap_or(false);
        stream.last = now;
        while let Some(message) = self.streams.get(place).and_then(|stream| take_message(&mut stream.input)) {
            self.ask(Asker::Stream(place), &message, poll, now);
        }
        if !open {
            self.streams.remove(place);
        }
    }
}

fn connect(to: SocketAddr, by_stream: bool) -> io::Result<OwnedFd> {
    let kind = if by_stream { SocketType::STREAM } else { SocketType::DGRAM };
    let socket = inet::socket(to.is_ipv6(), kind, None)?;
    match rustix::net::connect(&socket, &to) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error.into()),
    }
}

/// Sends what the socket takes.
fn flush(socket: &OwnedFd, output: &mut Vec<u8>) -> io::Result<()> {
    while !output.is_empty() {
        match rustix::net::send(socket, output, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(count) => {
                output.drain(..count);
            }
            Err(Errno::AGAIN) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Receives what there is, as far as two messages have room; false if there will be no more.
fn fill(socket: &OwnedFd, input: &mut Vec<u8>) -> io::Result<bool> {
    let mut buffer = [0; 4096];
    while input.len() < 2 * LONGEST {
        match rustix::net::recv(socket, &mut buffer[..], RecvFlags::DONTWAIT) {
            Ok((0, _)) => return Ok(false),
            Ok((count, _)) => input.extend(&buffer[..count]),
            Err(Errno::AGAIN) => return Ok(true),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(true)
}

/// Takes the first message (RFC 1035, section 4.2.2: its length in two bytes before it), if it is whole.
fn take_message(input: &mut Vec<u8>) -> Option<Vec<u8>> {
    let length = usize::from(u16::from_be_bytes(*input.first_chunk()?));
    let message = input.get(2..2 + length)?.to_vec();
    input.drain(..2 + length);
    Some(message)
}

#[cfg(test)]
mod tests {
    use super::take_message;

    #[test]
    fn messages_of_a_stream_are_taken_when_they_are_whole() {
        let mut input = vec![0, 2, b'a'];
        assert_eq!(take_message(&mut input), None);
        input.extend([b'b', 0, 0, 0]);
        assert_eq!(take_message(&mut input).as_deref(), Some(&b"ab"[..]));
        assert_eq!(take_message(&mut input).as_deref(), Some(&b""[..]));
        assert_eq!((take_message(&mut input), input), (None, vec![0]));
    }
}
