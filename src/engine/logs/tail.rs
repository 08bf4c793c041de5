//! The last lines of a log, found from its end: what that takes does not grow with the log.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::{LogOptions, fits};
use crate::monitor::log::LogLine;
use crate::monitor::protocol::Stream;

/// How much is read at once on the way back.
const BLOCK: u64 = 64 * 1024;

/// Lines of a file from its end to its beginning.
struct Backwards<'a> {
    file: &'a File,
    /// Where `buffer` begins in the file.
    start: u64,
    /// What has been read and not yet given out, up to a line's end.
    buffer: Vec<u8>,
}

impl<'a> Backwards<'a> {
    fn new(file: &'a File) -> io::Result<Self> {
        let mut this = Self { file, start: file.metadata()?.len(), buffer: Vec::new() };
        // What is no whole line yet at the end is none.
        while !this.buffer.contains(&b'\n') && this.start > 0 {
            this.read_more()?;
        }
        let end = this.buffer.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        this.buffer.truncate(end);
        Ok(this)
    }

    fn read_more(&mut self) -> io::Result<()> {
        let length = BLOCK.max(self.buffer.len() as u64).min(self.start);
        self.start -= length;
        let mut more = vec![0; length as usize];
        self.file.read_exact_at(&mut more, self.start)?;
        more.extend_from_slice(&self.buffer);
        self.buffer = more;
        Ok(())
    }

    /// Where the last line that has not been given out ends.
    fn end(&self) -> u64 {
        self.start + self.buffer.len() as u64
    }

    /// The line before the last one given out, without its end.
    fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.buffer.is_empty() {
            if self.start == 0 {
                return Ok(None);
            }
            self.read_more()?;
        }
        let mut searched = self.buffer.len() - 1;
        loop {
            match self.buffer[..searched].iter().rposition(|b| *b == b'\n') {
                Some(at) => {
                    let mut line = self.buffer.split_off(at + 1);
                    line.pop();
                    return Ok(Some(line));
                }
                None if self.start == 0 => {
                    let mut line = std::mem::take(&mut self.buffer);
                    line.pop();
                    return Ok(Some(line));
                }
                None => {
                    let before = self.buffer.len();
                    self.read_more()?;
                    // The part behind has been looked through.
                    searched = self.buffer.len() - before;
                }
            }
        }
    }
}

/// Where the last whole line of a file ends.
pub fn end_of_lines(file: &mut File) -> io::Result<u64> {
    Ok(Backwards::new(file)?.end())
}

/// The log lines that hold the last `lines` lines of output that fit, in their order, each with where the
/// last file's lines end. A line of output may stand in several log lines, others of the other stream
/// between them.
pub fn tail(files: &mut [File], lines: usize, options: &LogOptions) -> io::Result<Vec<(Vec<u8>, u64)>> {
    let mut found = Vec::new();
    let mut count = 0;
    // Whether, of the line of each stream that is being gathered, the beginning may be still to come.
    let mut open = [false; 2];
    let mut end = 0;
    for (number, file) in files.iter().enumerate().rev() {
        let mut backwards = Backwards::new(file)?;
        if number + 1 == files.len() {
            end = backwards.end();
        }
        while count < lines || open.contains(&true) {
            let Some(raw) = backwards.line()? else { break };
            let Some(line) = LogLine::parse(&raw) else { continue };
            if !fits(&line, options) {
                let early = options
                    .since
                    .is_some_and(|since| line.time.parse::<jiff::Timestamp>().is_ok_and(|time| time < since));
                if early {
                    // All before are earlier still.
                    return Ok(in_order(found, end));
                }
                continue;
            }
            let stream = usize::from(line.stream == Stream::Stderr);
            if line.partial && open[stream] {
                found.push(raw);
                continue;
            }
            // The end of a line before the one that was gathered.
            open[stream] = false;
            if count < lines {
                count += 1;
                open[stream] = true;
                found.push(raw);
            }
        }
    }
    Ok(in_order(found, end))
}

fn in_order(found: Vec<Vec<u8>>, end: u64) -> Vec<(Vec<u8>, u64)> {
    found.into_iter().rev().map(|raw| (raw, end)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file(text: &str) -> File {
        let random = crate::sys::atomic::random().unwrap();
        let path = std::env::temp_dir().join(format!("umiak-tail-{random:x}"));
        std::fs::write(&path, text).unwrap();
        let file = File::open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        file
    }

    fn texts(files: &mut [File], lines: usize) -> Vec<String> {
        let all = tail(files, lines, &LogOptions::default()).unwrap();
        all.iter()
            .map(|(raw, _)| String::from_utf8_lossy(LogLine::parse(raw).unwrap().text).into_owned())
            .collect()
    }

    #[test]
    fn parts_belong_together_and_streams_do_not() {
        let log =
            "T stdout F a\nT stdout P b1\nT stderr F e\nT stdout P b2\nT stdout F b3\nT stdout P c1\nhalf";
        let mut files = [file(log)];
        for (lines, expected) in [
            (0, &[][..]),
            (1, &["c1"]),
            (2, &["b1", "b2", "b3", "c1"]),
            (3, &["b1", "e", "b2", "b3", "c1"]),
            (4, &["a", "b1", "e", "b2", "b3", "c1"]),
            (9, &["a", "b1", "e", "b2", "b3", "c1"]),
        ] {
            assert_eq!(texts(&mut files, lines), expected, "{lines}");
        }
        assert_eq!(end_of_lines(&mut files[0]).unwrap(), log.len() as u64 - 4);
        assert_eq!(texts(&mut [file("")], 3), [""; 0]);
        assert_eq!(texts(&mut [file("half")], 3), [""; 0]);
    }

    #[test]
    fn lines_across_blocks_and_files() {
        let line = |number: usize| format!("T stdout F {number} {}\n", "x".repeat(number % 1000));
        let log: String = (0..2000).map(line).collect();
        assert!(log.len() as u64 > 4 * BLOCK);
        let long = format!("T stdout F {}\n", "y".repeat(3 * BLOCK as usize));
        let mut files = [file(&log), file(&long)];
        for lines in [1, 2, 500, 1500, 2001] {
            let found = texts(&mut files, lines);
            assert_eq!(found.len(), lines);
            assert_eq!(found[lines - 1].len() as u64, 3 * BLOCK);
            let first = 2001 - lines;
            for (offset, text) in found[..lines - 1].iter().enumerate() {
                assert!(text.starts_with(&format!("{} ", first + offset)), "{text}");
            }
        }
    }

    #[test]
    fn times_bound_what_is_looked_through() {
        let time = |number: i64| jiff::Timestamp::from_second(number).unwrap();
        let mut log = Vec::new();
        for number in 0..100 {
            writeln!(log, "{:.9} stdout F {number}", time(number)).unwrap();
        }
        let mut files = [file(&String::from_utf8(log).unwrap())];
        let options = LogOptions { since: Some(time(90)), until: Some(time(95)), ..LogOptions::default() };
        let found = tail(&mut files, 3, &options).unwrap();
        let last: Vec<&[u8]> = found.iter().map(|(raw, _)| LogLine::parse(raw).unwrap().text).collect();
        assert_eq!(last, [b"93", b"94", b"95"]);
        assert_eq!(tail(&mut files, 50, &options).unwrap().len(), 6);
    }
}
