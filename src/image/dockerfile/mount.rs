//! `RUN --mount=type=…,…`

use super::error::similar;
use super::{Mount, MountError};
use crate::base::size;

const KINDS: &[&str] = &["bind", "cache", "secret", "ssh", "tmpfs"];

/// Every name of a member, what it is called here, and the kinds that take it.
const MEMBERS: &[(&str, &str, &[&str])] = &[
    ("type", "type", KINDS),
    ("target", "target", KINDS),
    ("dst", "target", KINDS),
    ("destination", "target", KINDS),
    ("source", "source", &["bind", "cache", "secret"]),
    ("src", "source", &["bind", "cache", "secret"]),
    ("from", "from", &["bind", "cache"]),
    ("id", "id", &["cache", "secret", "ssh"]),
    ("ro", "readonly", KINDS),
    ("readonly", "readonly", KINDS),
    ("rw", "readwrite", KINDS),
    ("readwrite", "readwrite", KINDS),
    ("sharing", "sharing", &["cache"]),
    ("required", "required", &["secret", "ssh"]),
    ("mode", "mode", &["cache", "secret", "ssh", "tmpfs"]),
    ("tmpfs-mode", "mode", &["tmpfs"]),
    ("uid", "uid", &["cache", "secret", "ssh"]),
    ("gid", "gid", &["cache", "secret", "ssh"]),
    ("size", "size", &["tmpfs"]),
    ("tmpfs-size", "size", &["tmpfs"]),
    ("env", "env", &["secret"]),
    // Labels of SELinux, which we do not set anywhere.
    ("z", "relabel", &["bind", "cache"]),
    ("relabel", "relabel", &["bind", "cache"]),
    // Means something on macOS alone.
    ("consistency", "consistency", &["bind"]),
];

/// What Podman's users may write besides.
const UNSUPPORTED: &[&str] = &[
    "bind-nonrecursive",
    "bind-propagation",
    "no-dereference",
    "nodev",
    "noexec",
    "nosuid",
    "private",
    "rprivate",
    "rshared",
    "rslave",
    "shared",
    "slave",
    "tmpcopyup",
    "u",
];

/// Replaces variables in a member's value.
pub(super) type Expand<'e, E> = &'e dyn Fn(&str) -> Result<String, E>;

impl Mount {
    /// Reads a mount whose variables are not known yet: what has some is looked at later.
    pub(super) fn parse(written: &str) -> Result<Self, MountError> {
        Self::read(written, None)
    }

    /// The same mount with variables replaced.
    pub(super) fn expanded<E: From<MountError>>(&self, expand: Expand<E>) -> Result<Self, E> {
        let members = fields(&self.written)?;
        let expand_value = |member: &String| match member.split_once('=') {
            Some((name, value)) => Ok(format!("{name}={}", expand(value)?)),
            None => Ok(member.clone()),
        };
        let members = members.iter().map(expand_value).collect::<Result<Vec<_>, E>>()?;
        Ok(Self::read(&self.written, Some(members))?)
    }

    fn read(written: &str, expanded: Option<Vec<String>>) -> Result<Self, MountError> {
        let last = expanded.is_some();
        let members = expanded.map_or_else(|| fields(written), Ok)?;
        let open = |value: &str| !last && value.contains('$');
        let mut mount = Self { written: written.to_owned(), kind: "bind".to_owned(), ..Self::default() };
        let mut given: Vec<&'static str> = Vec::new();
        for member in &members {
            let (name, value) = match member.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (&**member, None),
            };
            let known = MEMBERS.iter().find(|(known, ..)| known.eq_ignore_ascii_case(name));
            let Some((_, name, _)) = known else {
                if let Some(name) = UNSUPPORTED.iter().find(|known| known.eq_ignore_ascii_case(name)) {
                    return Err(MountError::Unsupported(name));
                }
                let names: Vec<_> = MEMBERS.iter().map(|(name, ..)| *name).collect();
                return Err(MountError::Member { member: name.to_owned(), similar: similar(name, &names) });
            };
            given.push(name);
            if let Some(value) = value.filter(|value| open(value)) {
                mount.set_open(name, value);
            } else {
                mount.set(name, value)?;
            }
        }
        // Which kind it is may be known only later, and what that takes as well.
        if !open(&mount.kind) {
            mount.check(&given)?;
        }
        Ok(mount)
    }

    /// Takes a member that has variables, if it is a text.
    fn set_open(&mut self, name: &'static str, value: &str) {
        let text = value.to_owned();
        match name {
            "type" => self.kind = text,
            "target" => self.target = Some(text),
            "source" => self.source = Some(text),
            "from" => self.from = Some(text),
            "id" => self.id = Some(text),
            "sharing" => self.sharing = Some(text),
            "env" => self.env = Some(text),
            _ => {}
        }
    }

    fn set(&mut self, name: &'static str, value: Option<&str>) -> Result<(), MountError> {
        let text = || value.filter(|value| !value.is_empty()).ok_or(MountError::NoValue(name));
        let wrong = |takes| MountError::Value { member: name, takes, value: value.unwrap_or("").to_owned() };
        let yes_no = || match value.map(str::to_ascii_lowercase).as_deref() {
            None | Some("true" | "t" | "1") => Ok(true),
            Some("false" | "f" | "0") => Ok(false),
            Some(_) => Err(wrong("true or false")),
        };
        let id = || text()?.parse::<u32>().map_err(|_| wrong("a number"));
        match name {
            "type" => {
                let kind = text()?.to_ascii_lowercase();
                if !KINDS.contains(&&*kind) {
                    let similar = similar(&kind, KINDS);
                    return Err(MountError::Kind { kind, similar });
                }
                self.kind = kind;
            }
            "target" => self.target = Some(text()?.to_owned()),
            // An empty one means what none means, so that a variable may switch it off.
            "source" => self.source = value.filter(|value| !value.is_empty()).map(str::to_owned),
            "from" => self.from = value.filter(|value| !value.is_empty()).map(str::to_owned),
            "id" => self.id = value.filter(|value| !value.is_empty()).map(str::to_owned),
            "env" => self.env = Some(text()?.to_owned()),
            "readonly" => self.read_only = Some(yes_no()?),
            "readwrite" => self.read_only = Some(!yes_no()?),
            "required" => self.required = yes_no()?,
            "sharing" => match text()?.to_ascii_lowercase() {
                sharing if matches!(&*sharing, "shared" | "private" | "locked") => {
                    self.sharing = Some(sharing);
                }
                _ => return Err(wrong("shared, private or locked")),
            },
            "mode" => {
                let mode = u32::from_str_radix(text()?, 8).ok().filter(|mode| *mode <= 0o7777);
                self.mode = Some(mode.ok_or_else(|| wrong("an octal mode"))?);
            }
            "uid" => self.uid = Some(id()?),
            "gid" => self.gid = Some(id()?),
            "size" => self.size = Some(size::parse(text()?).map_err(|_| wrong("a size, such as 64m"))?),
            _ => {}
        }
        Ok(())
    }

    /// What its kind takes and needs.
    fn check(&mut self, given: &[&'static str]) -> Result<(), MountError> {
        let kind = || self.kind.clone();
        for name in given {
            let takes =
                |(_, member, kinds): &(&str, &str, &[&str])| member == name && kinds.contains(&&*self.kind);
            if !MEMBERS.iter().any(takes) {
                return Err(MountError::NotOfKind { kind: kind(), member: name });
            }
        }
        match &*self.kind {
            "cache" | "tmpfs" if self.target.is_none() => {
                Err(MountError::Needs { kind: kind(), member: "target" })
            }
            "bind" => {
                // Others mount on the working directory then.
                self.target.get_or_insert_with(|| ".".to_owned());
                Ok(())
            }
            "secret" => {
                // Other builders take either for the secret's name.
                self.id = self.id.take().or_else(|| self.source.take());
                if self.id.is_none() && self.target.is_none() && self.env.is_none() {
                    return Err(MountError::Needs { kind: self.kind.clone(), member: "id" });
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// Members, parted by commas as in a line of CSV: in quotes a comma is one, and two quotes are one.
fn fields(text: &str) -> Result<Vec<String>, MountError> {
    let mut list = Vec::new();
    let mut field = String::new();
    let mut quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => field.extend(chars.next()),
            '"' if quoted => quoted = false,
            '"' if field.is_empty() => quoted = true,
            ',' if !quoted => list.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    if quoted {
        return Err(MountError::Quote);
    }
    list.push(field);
    Ok(list)
}
