//! Buffers handed from one thread to the next: the joints of the pipeline that unpacks a layer.
//!
//! A reader sees the end of the stream only if the writer said that it is the end; a writer that
//! failed or went away is a cut stream.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

/// Size of a buffer: large enough that handing over costs nothing, small enough for the cache.
pub const BUFFER: usize = 128 << 10;
/// Buffers under way between two threads.
const DEPTH: usize = 16;

enum Message {
    Data(Vec<u8>),
    End,
}

/// The writing end.
pub struct Writer {
    data: SyncSender<Message>,
    spare: Receiver<Vec<u8>>,
}

/// The reading end.
pub struct PipeReader {
    data: Receiver<Message>,
    spare: Sender<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
    ended: bool,
}

/// The reader is gone: whatever went wrong, went wrong there.
#[derive(Debug)]
pub struct Gone;

/// Makes a joint.
pub fn pipe() -> (Writer, PipeReader) {
    let (data, data_end) = sync_channel(DEPTH);
    let (spare_end, spare) = channel();
    let reader = PipeReader { data: data_end, spare: spare_end, current: Vec::new(), at: 0, ended: false };
    (Writer { data, spare }, reader)
}

impl Writer {
    /// An empty buffer with room for [`BUFFER`] bytes.
    pub fn buffer(&self) -> Vec<u8> {
        let mut buffer = self.spare.try_recv().unwrap_or_default();
        buffer.clear();
        buffer.reserve_exact(BUFFER);
        buffer
    }

    /// Hands a filled buffer over.
    pub fn send(&self, buffer: Vec<u8>) -> Result<(), Gone> {
        self.data.send(Message::Data(buffer)).map_err(|_| Gone)
    }

    /// Ends the stream as complete.
    pub fn end(self) -> Result<(), Gone> {
        self.data.send(Message::End).map_err(|_| Gone)
    }
}

/// The error of a reader whose writer went away: the cause is the writer's own error.
pub fn is_cut(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionAborted
}

impl BufRead for PipeReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.at == self.current.len() && !self.ended {
            match self.data.recv() {
                Ok(Message::Data(next)) => {
                    let used = std::mem::replace(&mut self.current, next);
                    self.at = 0;
                    // The writer may be done and gone.
                    let _ = self.spare.send(used);
                }
                Ok(Message::End) => self.ended = true,
                Err(_) => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
        }
        Ok(&self.current[self.at..])
    }

    fn consume(&mut self, count: usize) {
        self.at = (self.at + count).min(self.current.len());
    }
}

impl Read for PipeReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(into.len());
        into[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_an_end_and_a_cut_is_none() {
        let (writer, mut reader) = pipe();
        writer.send(b"abc".to_vec()).unwrap();
        writer.end().unwrap();
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, b"abc");
        let (writer, mut reader) = pipe();
        writer.send(b"abc".to_vec()).unwrap();
        drop(writer);
        assert!(is_cut(&reader.read_to_end(&mut bytes).unwrap_err()));
    }
}
