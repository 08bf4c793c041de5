//! The process that answers system calls of a container.
//!
//! All who answer share it, for a process has one listener, and all processes of a container that were not born of
//! its first one (`exec`) have a filter, and so a listener, of their own: these come in by the door, a socket. It
//! lives as long as any process whose calls it has to answer, whoever else ends: calls that nobody answers fail
//! with ENOSYS.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Told;
use crate::sys::notify::{Answer, Call, Listener};
use crate::sys::socket;

/// Who answers some calls.
pub trait Consumer {
    /// About which it wants to be asked. No two in one process ask for the same.
    fn told(&self) -> Vec<Told>;

    /// Called before the first call comes, with the container's first process, as seen from here.
    fn begin(&mut self, first: i32) -> io::Result<()>;

    /// What becomes of a call; `None` if that is or will be said through the listener, perhaps by a thread: the next
    /// call waits until this returns.
    fn answer(&mut self, name: &'static str, call: &Call, listener: &Arc<Listener>) -> Option<Answer>;
}

/// How long who knocks may take to say what he wants.
const PATIENCE: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// Answers until the last process is gone whose calls are told. `maker`: where the first listener comes from, and
/// whose end means, before it has come, that none will. `door`: a listening socket for further ones. They come with
/// a message: the pid of the process that has just got its filter, as seen from here.
pub fn serve(
    maker: &OwnedFd,
    door: Option<&OwnedFd>,
    mut consumers: Vec<Box<dyn Consumer>>,
) -> io::Result<()> {
    let mut table = Vec::new();
    for (index, consumer) in consumers.iter().enumerate() {
        let names: Vec<&'static str> = consumer.told().iter().map(|told| told.name).collect();
        table.extend(super::numbers_of(&names).into_iter().map(|(number, name)| (number, (index, name))));
    }
    table.sort_unstable_by_key(|(number, _)| *number);
    let (bytes, fd) = socket::receive(maker)?;
    let Some(first) = fd.map(Listener::new).map(Arc::new) else { return Ok(()) };
    let pid = std::str::from_utf8(&bytes).ok().and_then(|text| text.parse().ok());
    let pid: i32 = pid.ok_or(io::ErrorKind::InvalidData)?;
    for consumer in &mut consumers {
        consumer.begin(pid)?;
    }
    // Only now may the first process go on.
    socket::send(maker, READY, None)?;
    let mut listeners = vec![first];
    while !listeners.is_empty() {
        let mut fds: Vec<PollFd<'_>> =
            listeners.iter().map(|listener| PollFd::new(listener, PollFlags::IN)).collect();
        fds.extend(door.map(|door| PollFd::new(door, PollFlags::IN)));
        match poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other?,
        };
        let ready: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
        drop(fds);
        for (listener, flags) in listeners.iter().zip(&ready) {
            if flags.contains(PollFlags::IN)
                && let Some(call) = listener.receive()?
            {
                respond(&mut consumers, &table, &call, listener)?;
            }
        }
        let mut flags = ready.iter();
        listeners.retain(|_| !flags.next().is_some_and(is_over));
        if let (Some(door), Some(true)) = (door, flags.next().map(|flags| !flags.is_empty())) {
            listeners.extend(newcomer(door).map(Arc::new));
        }
    }
    Ok(())
}

/// What [`serve`] says to who sent a listener, when calls of that one will be answered.
pub const READY: &[u8] = b"ready";

type Table = Vec<((u32, i32), (usize, &'static str))>;

fn respond(
    consumers: &mut [Box<dyn Consumer>],
    table: &Table,
    call: &Call,
    listener: &Arc<Listener>,
) -> io::Result<()> {
    let number = (call.architecture, call.number);
    let answer = match table.binary_search_by_key(&number, |(number, _)| *number) {
        Ok(at) => {
            let (consumer, name) = table[at].1;
            consumers[consumer].answer(name, call, listener)
        }
        Err(_) => Some(Answer::Error(libc::ENOSYS)),
    };
    answer.map_or(Ok(()), |answer| listener.answer(call.id, answer))
}

/// That no process has the filter any more. What it said before is read first.
fn is_over(flags: &PollFlags) -> bool {
    flags.contains(PollFlags::HUP) && !flags.contains(PollFlags::IN)
}

/// The listener of somebody at the door. Who goes away, or says nothing, has none.
fn newcomer(door: &OwnedFd) -> Option<Listener> {
    let connection = socket::accept(door).ok()?;
    poll(&mut [PollFd::new(&connection, PollFlags::IN)], Some(&PATIENCE)).ok().filter(|ready| *ready > 0)?;
    let listener = socket::receive(&connection).ok()?.1.map(Listener::new)?;
    socket::send(&connection, READY, None).ok()?;
    Some(listener)
}
