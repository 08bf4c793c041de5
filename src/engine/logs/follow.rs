//! What containers go on to write, until they end.

use std::fs::File;
use std::io::BufReader;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use rustix::net::RecvFlags;

use super::{BLOCK, Log, LogOptions, Sink, open};
use crate::engine::{Engine, Error, lifecycle};
use crate::monitor::protocol::{Event, MAX_BODY, Request};
use crate::storage::containers::{ContainerRecord, Status};

/// What tells of a container's end.
pub enum End {
    /// Its monitor, who does so when all that the program wrote is in the log.
    Monitor(OwnedFd),
    /// Its first process, where there is no monitor.
    Process(OwnedFd),
}

impl Engine {
    /// Listens for the end of a container; none if it has ended.
    pub(super) fn listen_for_end(&self, record: &ContainerRecord) -> Result<Option<End>, Error> {
        loop {
            if let Ok(socket) = crate::monitor::connect(&self.containers.attach_socket(&record.id)) {
                let mut packet = Vec::new();
                Request::Mute.encode(&mut packet);
                if rustix::net::send(&socket, &packet, rustix::net::SendFlags::NOSIGNAL).is_ok() {
                    return Ok(Some(End::Monitor(socket)));
                }
            }
            let (_, status) = self.load(&record.id)?;
            match &status {
                Status::Created | Status::Exited(_) => return Ok(None),
                Status::Initialized(state) | Status::Running(state) | Status::Paused(state) => {
                    return Ok(lifecycle::open(state).map(End::Process));
                }
                // Its monitor is at its last, or about to listen.
                Status::Stopping(_) | Status::Restarting(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }
}

impl End {
    fn fd(&self) -> &OwnedFd {
        match self {
            Self::Monitor(fd) | Self::Process(fd) => fd,
        }
    }

    /// Whether what was heard is the end.
    fn has_come(&self) -> bool {
        let Self::Monitor(socket) = self else { return true };
        let mut buffer = vec![0; MAX_BODY + 1];
        loop {
            match rustix::net::recv(socket, &mut *buffer, RecvFlags::DONTWAIT) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return false,
                Ok((0, _)) | Err(_) => return true,
                Ok((length, _)) => {
                    let event = Event::decode(&buffer[..length]);
                    if let Some(Event::Exited(_) | Event::Failed { .. }) = event {
                        return true;
                    }
                }
            }
        }
    }
}

/// Hands on what comes, of all logs as it comes, until all have ended or the time is over.
pub fn follow(mut logs: Vec<(Log, End)>, options: &LogOptions, sink: &mut dyn Sink) -> Result<(), Error> {
    if logs.is_empty() {
        return Ok(());
    }
    let relay = |error: Errno| Error::Relay(error.into());
    let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(relay)?;
    for (log, _) in logs.iter().filter(|(log, _)| log.journal.is_none()) {
        // The directory: a log that is full is replaced by a new file of the same name.
        if let Some(dir) = log.path.parent() {
            let events = WatchFlags::MODIFY | WatchFlags::MOVED_TO | WatchFlags::CREATE;
            inotify::add_watch(&watch, dir, events).map_err(relay)?;
        }
    }
    loop {
        for (log, _) in &mut logs {
            read_on(log, options, sink)?;
        }
        sink.pause().map_err(Error::Relay)?;
        let left = options.until.map(|until| until.duration_since(Timestamp::now()));
        let left = match left.map(Duration::try_from) {
            Some(Ok(left)) if !left.is_zero() => Some(left),
            Some(_) => return Ok(()),
            None => None,
        };
        let silence = logs.iter().filter_map(|(log, _)| log.journal.as_ref()?.left());
        let left = left.into_iter().chain(silence).min().map(|left| Timespec {
            tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        });
        let mut fds = vec![PollFd::new(&watch, PollFlags::IN)];
        // One that has ended is heard of no more; its journal may still speak.
        fds.extend(logs.iter().map(|(log, end)| match &log.journal {
            Some(journal) if journal.left().is_some() => PollFd::new(journal.fd(), PollFlags::IN),
            _ => PollFd::new(end.fd(), PollFlags::IN),
        }));
        fds.extend(
            logs.iter().filter_map(|(log, _)| Some(PollFd::new(log.journal.as_ref()?.fd(), PollFlags::IN))),
        );
        match poll(&mut fds, left.as_ref()) {
            Err(Errno::INTR) => continue,
            other => other.map_err(relay)?,
        };
        let heard: Vec<bool> = fds.iter().skip(1).map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        let mut buffer = [0; 4096];
        while matches!(rustix::io::read(&watch, &mut buffer), Ok(1..)) {}
        let mut heard = heard.into_iter();
        let mut staying = Vec::with_capacity(logs.len());
        for (mut log, end) in logs {
            let heard = heard.next().unwrap_or(false);
            let ended = match &mut log.journal {
                None => heard && end.has_come(),
                Some(journal) => {
                    if journal.left().is_none() && heard && end.has_come() {
                        journal.ended();
                    }
                    journal.left().is_some_and(|left| left.is_zero())
                }
            };
            if ended {
                // The end comes after all that was said.
                read_on(&mut log, options, sink)?;
            } else {
                staying.push((log, end));
            }
        }
        logs = staying;
        if logs.is_empty() {
            return sink.pause().map_err(Error::Relay);
        }
    }
}

/// Hands on what there is more, also in a file that took the place of the one before.
fn read_on(log: &mut Log, options: &LogOptions, sink: &mut dyn Sink) -> Result<(), Error> {
    let name = log.record.name.clone();
    let failed = |source| Error::Log { name: name.clone(), source };
    if let Some(journal) = &mut log.journal {
        return match journal.read_on(log.number, options, sink) {
            Ok(true) => Ok(()),
            // It follows until it is told to end.
            Ok(false) => Err(Error::Journal { name, source: std::io::ErrorKind::UnexpectedEof.into() }),
            Err(source) => Err(Error::Journal { name, source }),
        };
    }
    loop {
        // Looked for first: what is appended before the change is read still.
        let next = match open(&log.path).map_err(failed)? {
            Some(file) if is_another(&file, log.reader.as_ref()).map_err(failed)? => Some(file),
            _ => None,
        };
        if let Some(mut reader) = log.reader.take() {
            log.rest(&mut reader, options, sink).map_err(failed)?;
            log.reader = Some(reader);
        }
        match next {
            Some(file) => log.reader = Some(BufReader::with_capacity(BLOCK, file)),
            None => return Ok(()),
        }
    }
}

fn is_another(file: &File, reader: Option<&BufReader<File>>) -> std::io::Result<bool> {
    let Some(reader) = reader else { return Ok(true) };
    Ok(file.metadata()?.ino() != reader.get_ref().metadata()?.ino())
}
