//! A layer's archive, put together again.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read, Seek, Take};

use rustix::fs::OFlags;
use sha2::{Digest as _, Sha256};

use super::list::{self, Here};
use super::{File, Frames, Step, Steps, Table};
use crate::base::digest::Digest;
use crate::image::manifest::Descriptor;
use crate::image::source::Source;
use crate::storage::Store;
use crate::sys::path::Root;

/// Ranges that lie closer than this are fetched as one: a request costs more.
const GAP: u64 = 64 << 10;
/// Most requests for one layer.
const REQUESTS: usize = 64;
/// The share of the blob that must be here already, as 1 in so many.
const WORTHWHILE: u64 = 4;

type Stream<'a> = Box<dyn Read + Send + 'a>;

/// A range of the blob that is being read.
struct Open<'a> {
    stream: Stream<'a>,
    at: u64,
    end: u64,
}

enum State<'a> {
    /// Between two steps.
    Between,
    Bytes(io::Cursor<Vec<u8>>),
    Here(Take<fs::File>),
    /// A file that comes from the blob, with its digest and what is left of its size.
    Coming {
        frames: Box<Frames<Take<Stream<'a>>>>,
        hash: Sha256,
        left: u64,
        file: usize,
        end: u64,
    },
    Done,
}

/// Reads as the layer's archive.
pub struct Rebuilt<'a> {
    table: &'a Table,
    source: &'a dyn Source,
    blob: &'a Descriptor,
    steps: Steps<'a>,
    /// The next file of the table.
    next: usize,
    here: HashMap<Digest, Here>,
    /// What is fetched, in order.
    ranges: Vec<(u64, u64)>,
    open: Option<Open<'a>>,
    state: State<'a>,
}

impl<'a> Rebuilt<'a> {
    pub(super) fn plan(
        table: &'a Table,
        store: &Store,
        source: &'a dyn Source,
        blob: &'a Descriptor,
    ) -> Option<Self> {
        let wanted: HashMap<Digest, u64> =
            table.files.iter().filter_map(|file| Some((file.digest?, file.size))).collect();
        let here = list::find(store, &wanted);
        let is_here = |file: &&File| file.digest.is_some_and(|digest| here.contains_key(&digest));
        let saved: u64 = table.files.iter().filter(is_here).map(|file| file.range.1 - file.range.0).sum();
        if saved.saturating_mul(WORTHWHILE) < blob.size {
            return None;
        }
        let missing = table.files.iter().filter(|file| file.digest.is_some() && !is_here(file));
        let ranges = merged(missing.map(|file| file.range).collect());
        let steps = table.steps();
        Some(Self { table, source, blob, steps, next: 0, here, ranges, open: None, state: State::Between })
    }

    /// With nothing here: all comes from the blob.
    #[cfg(test)]
    pub(super) fn from_blob(table: &'a Table, source: &'a dyn Source, blob: &'a Descriptor) -> Self {
        let ranges = merged(table.files.iter().filter(|f| f.digest.is_some()).map(|f| f.range).collect());
        let steps = table.steps();
        let here = HashMap::new();
        Self { table, source, blob, steps, next: 0, here, ranges, open: None, state: State::Between }
    }

    /// Bytes of the blob that are going to be fetched.
    pub fn to_fetch(&self) -> u64 {
        self.ranges.iter().map(|(from, to)| to - from).sum()
    }

    fn step(&mut self) -> io::Result<State<'a>> {
        match self.steps.next().transpose()? {
            None => Ok(State::Done),
            Some(Step::Bytes(bytes)) => Ok(State::Bytes(io::Cursor::new(bytes))),
            Some(Step::File { size: 0 }) => {
                self.next += 1;
                Ok(State::Between)
            }
            Some(Step::File { .. }) => {
                let place = self.next;
                self.next += 1;
                let file = self.table.files.get(place).ok_or(io::ErrorKind::InvalidData)?;
                let digest = file.digest.ok_or(io::ErrorKind::InvalidData)?;
                if let Some(here) = self.here.get(&digest)
                    && let Ok(content) = open_here(here, &digest, file.size)
                {
                    return Ok(State::Here(content.take(file.size)));
                }
                self.fetch(place)
            }
        }
    }

    /// Starts to read a file from the blob.
    fn fetch(&mut self, place: usize) -> io::Result<State<'a>> {
        let file = &self.table.files[place];
        let (from, to) = file.range;
        let usable = |open: &Open<'_>| open.at <= from && to <= open.end;
        let mut open = match self.open.take().filter(usable) {
            Some(open) => open,
            None => {
                // A file that was to be here and is not has no range of its own.
                let planned = self.ranges.iter().find(|range| range.0 <= from && to <= range.1);
                let end = planned.map_or(to, |range| range.1);
                let stream = self.source.blob_range(self.blob, from, end - from);
                let stream = stream.map_err(|error| io::Error::other(crate::base::report::chain(&error)))?;
                let stream = stream.ok_or_else(|| io::Error::other("the source gives no ranges any more"))?;
                Open { stream, at: from, end }
            }
        };
        let gap = from - open.at;
        if io::copy(&mut open.stream.by_ref().take(gap), &mut io::sink())? < gap {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let frames = Box::new(Frames::new(open.stream.take(to - from)));
        // What is behind this file is read on when it is done.
        self.open = None;
        Ok(State::Coming { frames, hash: Sha256::new(), left: file.size, file: place, end: open.end })
    }

    /// Ends a file from the blob: exactly its content must have come.
    fn finish(
        &mut self,
        mut frames: Frames<Take<Stream<'a>>>,
        hash: Sha256,
        place: usize,
        end: u64,
    ) -> io::Result<()> {
        let file = &self.table.files[place];
        let wrong =
            || io::Error::new(io::ErrorKind::InvalidData, format!("\"{}\" has another content", file.name));
        if frames.read(&mut [0])? != 0 || Some(Digest::from_bytes(hash.finalize().into())) != file.digest {
            return Err(wrong());
        }
        let rest = frames.into_inner();
        if rest.limit() == 0 && file.range.1 < end {
            self.open = Some(Open { stream: rest.into_inner(), at: file.range.1, end });
        }
        Ok(())
    }
}

impl Read for Rebuilt<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        loop {
            match std::mem::replace(&mut self.state, State::Between) {
                State::Between => self.state = self.step()?,
                State::Done => {
                    self.state = State::Done;
                    return Ok(0);
                }
                State::Bytes(mut bytes) => match bytes.read(into)? {
                    0 => {}
                    count => {
                        self.state = State::Bytes(bytes);
                        return Ok(count);
                    }
                },
                State::Here(mut content) => match content.read(into)? {
                    0 if content.limit() > 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    0 => {}
                    count => {
                        self.state = State::Here(content);
                        return Ok(count);
                    }
                },
                State::Coming { frames, hash, left: 0, file, end } => {
                    self.finish(*frames, hash, file, end)?
                }
                State::Coming { mut frames, mut hash, left, file, end } => {
                    let limit = into.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    let count = frames.read(&mut into[..limit])?;
                    if count == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    hash.update(&into[..count]);
                    self.state = State::Coming { frames, hash, left: left - count as u64, file, end };
                    return Ok(count);
                }
            }
        }
    }
}

/// Joins ranges until there are few enough.
fn merged(mut ranges: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    ranges.sort_unstable();
    let mut gap = GAP;
    loop {
        let mut joined: Vec<(u64, u64)> = Vec::new();
        for (from, to) in &ranges {
            match joined.last_mut() {
                Some(last) if *from <= last.1.saturating_add(gap) => last.1 = last.1.max(*to),
                _ => joined.push((*from, *to)),
            }
        }
        if joined.len() <= REQUESTS {
            return joined;
        }
        gap = gap.saturating_mul(2);
    }
}

/// Opens a file of a layer that is here, if it has the content that it should have.
fn open_here(here: &Here, digest: &Digest, size: u64) -> io::Result<fs::File> {
    let plain = here.dir.join("plain");
    let root = Root::open(&if plain.exists() { plain } else { here.dir.join("diff") })?;
    // O_NONBLOCK: something else may lie there by now.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW;
    let mut file = fs::File::from(root.open_in(&here.name, flags, 0)?);
    let stat = file.metadata()?;
    if !stat.is_file() || stat.len() != size {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => hash.update(&buffer[..count]),
        }
    }
    if Digest::from_bytes(hash.finalize().into()) != *digest {
        return Err(io::ErrorKind::InvalidData.into());
    }
    file.rewind()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_joined() {
        assert_eq!(merged(vec![(500_000, 500_010), (0, 10), (20, 30)]), [(0, 30), (500_000, 500_010)]);
        let many: Vec<(u64, u64)> = (0..1000).map(|n| (n * 1_000_000, n * 1_000_000 + 10)).collect();
        let joined = merged(many.clone());
        assert!(joined.len() <= REQUESTS);
        assert!(many.iter().all(|(from, to)| joined.iter().any(|(f, t)| f <= from && to <= t)));
    }
}
