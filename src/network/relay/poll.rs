//! Waiting for many descriptors (epoll(7)), and tables whose places are named by what epoll gives back.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

/// What a descriptor is to its loop: a kind, a side (0 or 1) and a place in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// What it is; each loop has its own numbers.
    pub kind: u8,
    /// Which of the two descriptors in a place.
    pub side: u8,
    /// The place.
    pub place: Place,
}

/// A place in a [`Table`], with a number that says whose it was: events of one that is gone find nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Place {
    index: u32,
    turn: u16,
}

impl Place {
    /// The number of one in a list ([`Token::numbered`]).
    pub fn number(self) -> usize {
        self.index as usize
    }
}

impl Token {
    /// A descriptor that there is one of.
    pub fn single(kind: u8) -> Self {
        Self { kind, side: 0, place: Place::default() }
    }

    /// A descriptor in a list that only grows, by its number.
    pub fn numbered(kind: u8, number: usize) -> Self {
        Self { kind, side: 0, place: Place { index: number as u32, turn: 0 } }
    }

    fn pack(self) -> u64 {
        u64::from(self.kind)
            | u64::from(self.side) << 8
            | u64::from(self.place.turn) << 16
            | u64::from(self.place.index) << 32
    }

    fn unpack(packed: u64) -> Self {
        let place = Place { index: (packed >> 32) as u32, turn: (packed >> 16) as u16 };
        Self { kind: packed as u8, side: (packed >> 8) as u8, place }
    }
}

/// To fall asleep and to be woken takes a processor longer than a message takes to be answered nearby: so long
/// a loop looks again before it sleeps, if that has been worth it lately.
const EAGER: Duration = Duration::from_micros(50);
/// Successes that are remembered; a failure costs two.
const CREDIT: u32 = 8;
/// Without success only each so many-th wait tries it again.
const PROBE: u32 = 32;

/// A set of descriptors that are waited for.
pub struct Poll {
    epoll: OwnedFd,
    events: Vec<Event>,
    credit: u32,
    waits: u32,
}

impl Poll {
    /// An empty set.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(128),
            credit: 0,
            waits: 0,
        })
    }

    /// Waits for `flags` of a descriptor until it is closed.
    pub fn add(&self, fd: impl AsFd, token: Token, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, EventData::new_u64(token.pack()), flags)?)
    }

    /// Waits for something else.
    pub fn change(&self, fd: impl AsFd, token: Token, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, fd, EventData::new_u64(token.pack()), flags)?)
    }

    /// As [`Self::wait`], for messages that may be answered at once: looks for a short while before it sleeps.
    /// Other programs go first all the time. What has no haste is done `before_sleep`.
    pub fn wait_eagerly(
        &mut self,
        timeout: Option<Duration>,
        into: &mut Vec<(Token, EventFlags)>,
        before_sleep: impl FnOnce(),
    ) -> io::Result<()> {
        self.waits = self.waits.wrapping_add(1);
        if self.credit == 0 && !self.waits.is_multiple_of(PROBE) {
            before_sleep();
            return self.wait(timeout, into);
        }
        let begin = Instant::now();
        loop {
            self.wait(Some(Duration::ZERO), into)?;
            // Later than that since others were busy is no success: being woken would not have been slower.
            let late = begin.elapsed() >= EAGER;
            if !into.is_empty() && !late {
                self.credit = (self.credit + 1).min(CREDIT);
                return Ok(());
            }
            if late {
                break;
            }
            std::thread::yield_now();
        }
        self.credit = self.credit.saturating_sub(2);
        if into.is_empty() {
            before_sleep();
            return self.wait(timeout, into);
        }
        Ok(())
    }

    /// Waits until something happens or the time is over (never, if none is given); puts what happened into
    /// `into`.
    pub fn wait(&mut self, timeout: Option<Duration>, into: &mut Vec<(Token, EventFlags)>) -> io::Result<()> {
        into.clear();
        let timeout = timeout
            .map(|time| Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) });
        self.events.clear();
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.events), timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        into.extend(self.events.iter().map(|event| {
            let (data, flags) = (event.data, event.flags);
            (Token::unpack(data.u64()), flags)
        }));
        Ok(())
    }
}

/// Things in numbered places.
pub struct Table<T> {
    slots: Vec<(u16, Option<T>)>,
    free: Vec<u32>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }
}

impl<T> Table<T> {
    /// Puts something into a free place.
    pub fn insert(&mut self, value: T) -> Place {
        if let Some(index) = self.free.pop() {
            let slot = &mut self.slots[index as usize];
            slot.1 = Some(value);
            return Place { index, turn: slot.0 };
        }
        self.slots.push((0, Some(value)));
        Place { index: self.slots.len() as u32 - 1, turn: 0 }
    }

    /// What is in a place, if it is still the same.
    pub fn get(&mut self, place: Place) -> Option<&mut T> {
        let slot = self.slots.get_mut(place.index as usize)?;
        if slot.0 == place.turn { slot.1.as_mut() } else { None }
    }

    /// Takes what is in a place out of it.
    pub fn remove(&mut self, place: Place) -> Option<T> {
        let slot = self.slots.get_mut(place.index as usize).filter(|slot| slot.0 == place.turn)?;
        let value = slot.1.take()?;
        slot.0 = slot.0.wrapping_add(1);
        self.free.push(place.index);
        Some(value)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().filter_map(|(_, value)| value.as_ref())
    }

    /// The places of those that `chosen` says.
    pub fn places(&self, mut chosen: impl FnMut(&T) -> bool) -> Vec<Place> {
        let of = |(index, (turn, value)): (usize, &(u16, Option<T>))| {
            value.as_ref().filter(|value| chosen(value)).map(|_| Place { index: index as u32, turn: *turn })
        };
        self.slots.iter().enumerate().filter_map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_is_not_found_in_its_place() {
        let mut table = Table::default();
        let a = table.insert("a");
        assert_eq!(table.remove(a), Some("a"));
        let b = table.insert("b");
        assert_eq!(a.index, b.index);
        assert!(table.get(a).is_none() && table.remove(a).is_none());
        assert_eq!(table.get(b), Some(&mut "b"));
        assert_eq!((table.len(), table.places(|_| true)), (1, vec![b]));
    }

    #[test]
    fn tokens_survive_epoll() {
        let token = Token { kind: 3, side: 1, place: Place { index: 0xfeed_beef, turn: 0xabcd } };
        assert_eq!(Token::unpack(token.pack()), token);
    }

    #[test]
    fn events_name_their_descriptor() {
        let mut poll = Poll::new().unwrap();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let token = Token { kind: 9, side: 1, place: Place::default() };
        poll.add(&reader, token, EventFlags::IN).unwrap();
        let mut events = Vec::new();
        poll.wait(Some(Duration::ZERO), &mut events).unwrap();
        assert!(events.is_empty());
        rustix::io::write(&writer, b"x").unwrap();
        poll.wait(None, &mut events).unwrap();
        assert_eq!(events, [(token, EventFlags::IN)]);
    }
}
