//! Compressing layers, in pieces on all processors. The same archive gives the same bytes at all
//! times: nothing in them depends on the time, the machine or the number of threads.

use std::io::{self, Read, Write};
use std::sync::mpsc::sync_channel;

use flate2::{Compress, Compression as Level, Crc, FlushCompress};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use sha2::{Digest as _, Sha256};

use super::layer::read_some;
use crate::base::digest::Digest;

/// How to compress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// gzip of this level, 1 to 9.
    Gzip(u32),
    /// Zstandard at its fastest: the one level that ruzstd has.
    Zstd,
    /// The same with every file by itself and a table of contents ([`super::chunked`]); plain
    /// Zstandard where a layer cannot have one.
    Chunked,
}

impl Format {
    /// gzip's usual level.
    pub const GZIP: Self = Self::Gzip(6);
}

/// Bytes that are compressed together: more makes a better ratio, less makes shorter queues.
const PIECE: usize = 1 << 20;

/// What a piece became: its bytes, and the sum and length of what it was.
struct Packed {
    bytes: Vec<u8>,
    crc: Crc,
}

/// Compresses `source` into `into`; returns digest and size of what was written.
pub fn compress(source: &mut dyn Read, format: Format, into: &mut dyn Write) -> io::Result<(Digest, u64)> {
    let workers = std::thread::available_parallelism().map_or(2, |n| n.get()).clamp(1, 16);
    let mut out = Hashing { into, hash: Sha256::new(), size: 0 };
    std::thread::scope(|scope| {
        let mut lanes = Vec::new();
        for _ in 0..workers {
            let (to, from) = sync_channel::<Vec<u8>>(2);
            let (done_to, done) = sync_channel::<Packed>(2);
            let work = move || {
                while let Ok(piece) = from.recv() {
                    if done_to.send(pack(&piece, format)).is_err() {
                        return;
                    }
                }
            };
            let thread = std::thread::Builder::new().name("compress".into()).spawn_scoped(scope, work);
            match thread {
                Ok(_) => lanes.push((to, done)),
                // Fewer threads than wished are slower, not wrong.
                Err(_) if !lanes.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        if let Format::Gzip(_) = format {
            // RFC 1952: deflate, no name, no time, an unknown system.
            out.write(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff])?;
        }
        let gone = || io::Error::other("a thread that compresses has died");
        let mut crc = Crc::new();
        let mut length = 0u64;
        let (mut sent, mut got, mut ended) = (0, 0, false);
        loop {
            while !ended && sent - got < 2 * lanes.len() {
                let mut piece = Vec::new();
                let count = read_some(source, &mut piece, PIECE)?;
                if count == 0 {
                    ended = true;
                    break;
                }
                length += count as u64;
                lanes[sent % lanes.len()].0.send(piece).map_err(|_| gone())?;
                sent += 1;
            }
            if got == sent {
                break;
            }
            let packed = lanes[got % lanes.len()].1.recv().map_err(|_| gone())?;
            crc.combine(&packed.crc);
            out.write(&packed.bytes)?;
            got += 1;
        }
        match format {
            Format::Gzip(_) => {
                // An empty last block of fixed codes, then sum and length modulo 2^32.
                out.write(&[0x03, 0x00])?;
                out.write(&crc.sum().to_le_bytes())?;
                out.write(&(length as u32).to_le_bytes())?;
            }
            // Nothing at all is no Zstandard stream.
            Format::Zstd | Format::Chunked if sent == 0 => out.write(&pack(&[], format).bytes)?,
            Format::Zstd | Format::Chunked => {}
        }
        Ok(())
    })?;
    Ok((Digest::from_bytes(out.hash.finalize().into()), out.size))
}

/// A piece of a deflate stream that ends at a byte, or a Zstandard frame.
fn pack(piece: &[u8], format: Format) -> Packed {
    let mut crc = Crc::new();
    let bytes = match format {
        Format::Zstd | Format::Chunked => compress_to_vec(piece, CompressionLevel::Fastest),
        Format::Gzip(level) => {
            crc.update(piece);
            let mut deflate = Compress::new(Level::new(level), false);
            let mut bytes = Vec::with_capacity(piece.len() / 2 + 1024);
            let mut used = 0;
            loop {
                // With room left, the flush is complete.
                bytes.reserve(piece.len() / 4 + 1024);
                let before = deflate.total_in();
                let _ = deflate.compress_vec(&piece[used..], &mut bytes, FlushCompress::Sync);
                used += (deflate.total_in() - before) as usize;
                if used == piece.len() && bytes.len() < bytes.capacity() {
                    break bytes;
                }
            }
        }
    };
    Packed { bytes, crc }
}

struct Hashing<'a> {
    into: &'a mut dyn Write,
    hash: Sha256,
    size: u64,
}

impl Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
        self.into.write_all(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compressed_comes_back() {
        let mut state = 7u32;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Half of it says nothing, so that there is something to compress.
            if state & 0x10_0000 == 0 { 0 } else { (state >> 24) as u8 }
        })
        .take(2 * PIECE + 12_345)
        .collect();
        for (length, format) in [
            (0, Format::GZIP),
            (0, Format::Zstd),
            (1, Format::GZIP),
            (1, Format::Zstd),
            (1000, Format::Gzip(9)),
            (PIECE, Format::Gzip(1)),
            (PIECE + 1, Format::GZIP),
            (noise.len(), Format::Gzip(1)),
            (200_000, Format::Zstd),
        ] {
            let plain = &noise[..length];
            let mut packed = Vec::new();
            let (digest, size) = compress(&mut &plain[..], format, &mut packed).unwrap();
            assert_eq!((digest, size), (Digest::of(&packed), packed.len() as u64));
            let mut back = Vec::new();
            crate::image::layer::decompress(&mut &packed[..], &mut back, 1 << 30).unwrap();
            assert!(back == plain, "{format:?} of {length} bytes");
            let mut again = Vec::new();
            compress(&mut &plain[..], format, &mut again).unwrap();
            assert!(again == packed, "{format:?} of {length} bytes differs the second time");
            if let Format::Gzip(_) = format {
                // One member: not every reader goes on to a second one.
                let mut one = Vec::new();
                flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut one).unwrap();
                assert!(one == plain);
            }
        }
    }
}
