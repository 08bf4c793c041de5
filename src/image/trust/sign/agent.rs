//! gpg-agent, who holds GnuPG's private keys, spoken to by its socket (the Assuan protocol: lines, answered by
//! `D` data, `S` status, `INQUIRE` questions, and `OK` or `ERR` at the end). No program is started.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use crate::image::trust::openpgp::compose::{SigningKey, Unsigned};

/// Why the agent did not sign.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody is there.
    #[error("gpg-agent does not answer at \"{}\"", path.display())]
    Absent {
        /// Its socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The conversation broke off.
    #[error("talking to gpg-agent")]
    Talk(#[from] io::Error),
    /// It said no.
    #[error("gpg-agent refuses: {0}")]
    Refused(String),
    /// It does not have the key.
    #[error("gpg-agent has no private key {0}")]
    NoKey(String),
    /// It said something else.
    #[error("gpg-agent's answer is not understood")]
    Answer,
}

/// A line is no longer than this (bytes), by the protocol.
const MAX_LINE: u64 = 1002;
/// No answer of use is longer (bytes).
const MAX_DATA: usize = 1 << 20;
const ALPHABET: &[u8; 32] = b"ybndrfg8ejkmcpqxot1uwisza345h769";

/// Where the agent of GnuPG's directory `home` may listen: in the runtime directory of user `uid`, under a name made
/// of the directory's unless it is the usual one; or in the directory itself.
pub fn sockets(home: &Path, usual: bool, uid: u32) -> [PathBuf; 2] {
    let mut run = PathBuf::from(format!("/run/user/{uid}/gnupg"));
    if !usual {
        let path = home.as_os_str().as_encoded_bytes();
        let hash = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, path);
        run.push(format!("d.{}", base32(&hash.as_ref()[..15])));
    }
    [run.join("S.gpg-agent"), home.join("S.gpg-agent")]
}

/// z-base-32, of whole groups of five bytes.
fn base32(bytes: &[u8]) -> String {
    let letters = bytes.chunks(5).flat_map(|five| {
        let number = five.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        (0..8).rev().map(move |place| char::from(ALPHABET[(number >> (place * 5) & 31) as usize]))
    });
    letters.collect()
}

/// A conversation.
pub struct Agent {
    stream: BufReader<UnixStream>,
    /// Answers the question for the key's passphrase, which otherwise the agent asks its user for.
    passphrase: Option<Vec<u8>>,
}

impl Agent {
    /// Begins one at the first of the sockets where somebody is.
    pub fn connect(sockets: &[PathBuf], passphrase: Option<Vec<u8>>) -> Result<Self, Error> {
        let mut failure = None;
        for path in sockets {
            match UnixStream::connect(path) {
                Ok(stream) => {
                    let mut agent = Self { stream: BufReader::new(stream), passphrase };
                    agent.answer()?;
                    agent.introduce()?;
                    return Ok(agent);
                }
                Err(source) => failure = Some(Error::Absent { path: path.clone(), source }),
            }
        }
        Err(failure.unwrap_or(Error::Answer))
    }

    /// Says where its user can be asked for a passphrase.
    fn introduce(&mut self) -> Result<(), Error> {
        if self.passphrase.is_some() {
            return self.ask("OPTION pinentry-mode=loopback").map(drop);
        }
        for (option, variable) in
            [("display", "DISPLAY"), ("ttytype", "TERM"), ("lc-ctype", "LANG"), ("xauthority", "XAUTHORITY")]
        {
            if let Ok(value) = std::env::var(variable)
                && !value.contains('\n')
            {
                // What it does not take does not matter.
                let _ = self.ask(&format!("OPTION {option}={value}"));
            }
        }
        let terminal = std::env::var("GPG_TTY").ok().or_else(|| {
            let name = rustix::termios::ttyname(std::io::stdin(), Vec::new()).ok()?;
            name.into_string().ok()
        });
        if let Some(terminal) = terminal.filter(|name| !name.contains('\n')) {
            let _ = self.ask(&format!("OPTION ttyname={terminal}"));
        }
        Ok(())
    }

    /// Has a text signed; the numbers of the signature.
    pub fn sign(
        &mut self,
        key: &SigningKey,
        unsigned: &Unsigned<'_>,
        what: &str,
    ) -> Result<Vec<Vec<u8>>, Error> {
        let grip = self.find(key)?;
        self.ask(&format!("SIGKEY {grip}"))?;
        let description = format!("Signing \"{what}\" with the key {}", key.fingerprint());
        self.ask(&format!("SETKEYDESC {}", escape(&description)))?;
        let hash: String = unsigned.hash.iter().map(|byte| format!("{byte:02X}")).collect();
        self.ask(&format!("SETHASH {} {hash}", unsigned.algorithm))?;
        numbers(&self.ask("PKSIGN")?).ok_or(Error::Answer)
    }

    /// What the agent calls a key: that one whose public half has the same number in it.
    fn find(&mut self, key: &SigningKey) -> Result<String, Error> {
        let list = self.converse("KEYINFO --list")?;
        let grips = list.status.iter().filter_map(|line| line.strip_prefix("KEYINFO ")?.split(' ').next());
        for grip in grips {
            // One that it cannot read is not the one.
            let Ok(public) = self.ask(&format!("READKEY {grip}")) else { continue };
            if memchr::memmem::find(&public, key.number()).is_some() {
                return Ok(grip.to_owned());
            }
        }
        Err(Error::NoKey(key.fingerprint().to_string()))
    }

    fn ask(&mut self, line: &str) -> Result<Vec<u8>, Error> {
        self.converse(line).map(|answer| answer.data)
    }

    fn converse(&mut self, line: &str) -> Result<Answer, Error> {
        self.stream.get_mut().write_all(format!("{line}\n").as_bytes())?;
        self.answer()
    }

    fn answer(&mut self) -> Result<Answer, Error> {
        let mut answer = Answer::default();
        loop {
            let mut line = Vec::new();
            (&mut self.stream).take(MAX_LINE).read_until(b'\n', &mut line)?;
            if line.pop() != Some(b'\n')
                || answer.data.len() > MAX_DATA
                || answer.status.len() > MAX_DATA / 64
            {
                return Err(Error::Answer);
            }
            let (word, rest) = match line.iter().position(|byte| *byte == b' ') {
                Some(at) => (&line[..at], &line[at + 1..]),
                None => (&line[..], &[][..]),
            };
            let text = || String::from_utf8_lossy(rest).into_owned();
            match word {
                b"OK" => return Ok(answer),
                b"ERR" => {
                    let text = text();
                    let said = text.split_once(' ').map_or(&*text, |(_, said)| said);
                    return Err(Error::Refused(said.to_owned()));
                }
                b"D" => answer.data.extend(unescape(rest).ok_or(Error::Answer)?),
                b"S" => answer.status.push(text()),
                b"INQUIRE" => self.inquired(&text())?,
                // Comments.
                _ if word.first() == Some(&b'#') => {}
                _ => return Err(Error::Answer),
            }
        }
    }

    fn inquired(&mut self, question: &str) -> Result<(), Error> {
        let passphrase = self.passphrase.as_deref().filter(|_| question.starts_with("PASSPHRASE"));
        let line = passphrase.map(|passphrase| format!("D {}\n", escape_bytes(passphrase)));
        let reply = format!("{}END\n", line.unwrap_or_default());
        Ok(self.stream.get_mut().write_all(reply.as_bytes())?)
    }
}

#[derive(Default)]
struct Answer {
    data: Vec<u8>,
    status: Vec<String>,
}

/// A text as an argument: spaces are `+`.
fn escape(text: &str) -> String {
    escape_bytes(text.as_bytes()).replace('+', "%2B").replace(' ', "+")
}

fn escape_bytes(bytes: &[u8]) -> String {
    let letters = bytes.iter().map(|byte| match byte {
        b' '..=b'~' if *byte != b'%' => char::from(*byte).to_string(),
        other => format!("%{other:02X}"),
    });
    letters.collect()
}

fn unescape(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first == b'%' {
            let (digits, after) = rest.split_at_checked(2)?;
            plain.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = after;
        } else {
            plain.push(first);
        }
    }
    Some(plain)
}

/// The numbers of a signature: `(7:sig-val(3:rsa(1:s256:…)))`, of r and s for curves.
fn numbers(mut bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut tokens = Vec::new();
    while let Some((&first, rest)) = bytes.split_first() {
        if matches!(first, b'(' | b')') {
            bytes = rest;
            continue;
        }
        let colon = bytes.iter().position(|byte| *byte == b':')?;
        let length: usize = std::str::from_utf8(&bytes[..colon]).ok()?.parse().ok()?;
        let (token, after) = bytes[colon + 1..].split_at_checked(length)?;
        tokens.push(token);
        bytes = after;
    }
    let [b"sig-val", _, values @ ..] = tokens.as_slice() else { return None };
    let pairs = values.chunks(2).map(|pair| match pair {
        [b"r" | b"s", value] => Some(value.to_vec()),
        _ => None,
    });
    pairs.collect::<Option<Vec<_>>>().filter(|numbers| !numbers.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_the_agent_listens() {
        // As `gpgconf --homedir /tmp/gnupg-home --list-dirs agent-socket` says it.
        let [run, home] = sockets(Path::new("/tmp/gnupg-home"), false, 7);
        assert_eq!(run, Path::new("/run/user/7/gnupg/d.otuxm6cw41nh3yda461cj43a/S.gpg-agent"));
        assert_eq!(home, Path::new("/tmp/gnupg-home/S.gpg-agent"));
        let usual = sockets(Path::new("/home/x/.gnupg"), true, 7);
        assert_eq!(usual[0], Path::new("/run/user/7/gnupg/S.gpg-agent"));
    }

    #[test]
    fn texts_on_the_wire() {
        assert_eq!(escape("a b+%\n"), "a+b%2B%25%0A");
        assert_eq!(unescape(b"a%25%0Ab").unwrap(), b"a%\nb");
        for bad in [&b"%"[..], b"%2", b"%zz"] {
            assert!(unescape(bad).is_none());
        }
    }

    #[test]
    fn signatures() {
        assert_eq!(numbers(b"(7:sig-val(3:rsa(1:s2:\x01\x02)))").unwrap(), [vec![1, 2]]);
        let two = numbers(b"(7:sig-val(5:eddsa(1:r1:a)(1:s1:b)))").unwrap();
        assert_eq!(two, [b"a".to_vec(), b"b".to_vec()]);
        for bad in [
            &b""[..],
            b"(7:sig-val(3:rsa))",
            b"(7:sig-val(3:rsa(1:s9:a)))",
            b"(3:abc)",
            b"9999999999999999999999:a",
        ] {
            assert!(numbers(bad).is_none(), "{bad:?}");
        }
    }
}
