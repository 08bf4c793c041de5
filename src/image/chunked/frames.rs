//! Zstandard streams of several frames (RFC 8878), read without threads.

use std::io::{self, BufRead, BufReader, Read};

use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// What the frames of a stream hold, one after the other; skippable ones are skipped.
pub struct Frames<R> {
    source: BufReader<R>,
    decoder: FrameDecoder,
    open: bool,
}

impl<R: Read> Frames<R> {
    /// Reads `source`, a little ahead of what is taken.
    pub fn new(source: R) -> Self {
        Self { source: BufReader::with_capacity(32 << 10, source), decoder: FrameDecoder::new(), open: false }
    }

    /// The stream behind it.
    pub fn into_inner(self) -> R {
        self.source.into_inner()
    }
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the zstd stream is damaged")
}

impl<R: Read> Read for Frames<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.open {
                if self.decoder.can_collect() > 0 {
                    return self.decoder.read(into);
                }
                if self.decoder.is_finished() {
                    self.open = false;
                } else {
                    let piece = BlockDecodingStrategy::UptoBytes(64 << 10);
                    self.decoder.decode_blocks(&mut self.source, piece).map_err(|_| damaged())?;
                }
                continue;
            }
            if self.source.fill_buf()?.is_empty() {
                return Ok(0);
            }
            match self.decoder.reset(&mut self.source) {
                Ok(()) => self.open = true,
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let skipped = io::copy(&mut self.source.by_ref().take(length.into()), &mut io::sink())?;
                    if skipped < u64::from(length) {
                        return Err(damaged());
                    }
                }
                Err(_) => return Err(damaged()),
            }
        }
    }
}
