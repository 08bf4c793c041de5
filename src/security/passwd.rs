//! `passwd(5)` and `group(5)`, parsed from bytes: those of images are hostile, and the C library's
//! own lookups would load plug-ins. A line that is none is skipped.

/// A line of a passwd file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Name.
    pub name: Vec<u8>,
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Home directory.
    pub home: Vec<u8>,
}

/// A line of a group file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Name.
    pub name: Vec<u8>,
    /// Group id.
    pub gid: u32,
    /// Names of members.
    pub members: Vec<Vec<u8>>,
}

/// The users of a passwd file.
pub fn users(file: &[u8]) -> impl Iterator<Item = User> + '_ {
    file.split(|b| *b == b'\n').filter_map(|line| {
        let fields: Vec<&[u8]> = line.split(|b| *b == b':').collect();
        let [name, _, uid, gid, _, home, ..] = fields[..] else { return None };
        Some(User { name: name.to_vec(), uid: number(uid)?, gid: number(gid)?, home: home.to_vec() })
            .filter(|user| !user.name.is_empty())
    })
}

/// The line of a user in a passwd file, who is named or numbered.
pub fn line_of<'a>(user: &str, file: &'a [u8]) -> Option<&'a [u8]> {
    file.split(|b| *b == b'\n').find(|line| {
        users(line)
            .next()
            .is_some_and(|known| known.name == user.as_bytes() || Some(known.uid) == number(user.as_bytes()))
    })
}

/// The groups of a group file.
pub fn groups(file: &[u8]) -> impl Iterator<Item = Group> + '_ {
    file.split(|b| *b == b'\n').filter_map(|line| {
        let fields: Vec<&[u8]> = line.split(|b| *b == b':').collect();
        let [name, _, gid, ref rest @ ..] = fields[..] else { return None };
        let members = rest.first().copied().unwrap_or_default().split(|b| *b == b',');
        let members = members.map(<[u8]>::trim_ascii).filter(|m| !m.is_empty()).map(<[u8]>::to_vec).collect();
        Some(Group { name: name.to_vec(), gid: number(gid)?, members }).filter(|group| !group.name.is_empty())
    })
}

/// An id; the highest number means "none" to the kernel's calls (chown(2), setresuid(2)).
fn number(field: &[u8]) -> Option<u32> {
    std::str::from_utf8(field).ok()?.parse().ok().filter(|id| *id != u32::MAX)
}

/// Who a container's process is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Home directory.
    pub home: Vec<u8>,
}

/// A user or group that is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// No such user.
    #[error("unable to find user {0}: no matching entries in passwd file")]
    User(String),
    /// No such group.
    #[error("unable to find group {0}: no matching entries in group file")]
    Group(String),
}

/// Resolves `user[:group]`, each a name or a number, as engines do: a number need not be known; a
/// user without a group gets its primary one and all that list it as a member.
pub fn resolve(text: &str, passwd: &[u8], group: &[u8]) -> Result<Identity, LookupError> {
    let (user, wanted_group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|g| !g.is_empty())),
        None => (text, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let as_number = number(user.as_bytes());
    // A number is never a name: an image could call its root "1000".
    let entry = match as_number {
        Some(uid) => users(passwd).find(|u| u.uid == uid),
        None => users(passwd).find(|u| u.name == user.as_bytes()),
    };
    let uid = match (&entry, as_number) {
        (Some(entry), _) => entry.uid,
        (None, Some(uid)) => uid,
        (None, None) => return Err(LookupError::User(user.to_owned())),
    };
    let home =
        entry.as_ref().map(|e| e.home.clone()).filter(|h| !h.is_empty()).unwrap_or_else(|| b"/".to_vec());
    if let Some(name) = wanted_group {
        let gid = group_id(name, group)?;
        return Ok(Identity { uid, gid, groups: Vec::new(), home });
    }
    let gid = entry.as_ref().map_or(0, |e| e.gid);
    let mut supplementary = Vec::new();
    if let Some(entry) = &entry {
        for group in groups(group).filter(|g| g.members.contains(&entry.name)) {
            if group.gid != gid && !supplementary.contains(&group.gid) {
                supplementary.push(group.gid);
            }
        }
    }
    Ok(Identity { uid, gid, groups: supplementary, home })
}

/// The number of a group that is named or numbered; a number need not be known.
pub fn group_id(name: &str, group: &[u8]) -> Result<u32, LookupError> {
    let known = || groups(group).find(|g| g.name == name.as_bytes()).map(|g| g.gid);
    number(name.as_bytes()).or_else(known).ok_or_else(|| LookupError::Group(name.to_owned()))
}

/// Whether `user[:group]` cannot be resolved without the files.
pub fn has_names(text: &str) -> bool {
    text.split(':').any(|part| !part.is_empty() && number(part.as_bytes()).is_none())
}

/// The home directory of a user id, if it is known.
pub fn home_of(uid: u32, passwd: &[u8]) -> Option<Vec<u8>> {
    users(passwd).find(|u| u.uid == uid).map(|u| u.home).filter(|h| !h.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n# nonsense\nbad:x:y:0::/:\nwww:x:33:33:w:/var/www:/x\n1000:x:0:8::/n:\n";
    const GROUP: &[u8] =
        b"root:x:0:\nwww:x:33:\nadm:x:4:root, www\nssl:x:101:www\ndup:x:101:www\nopen:x:9\n50:x:0:";

    #[test]
    fn names_and_numbers() {
        let id = |text| resolve(text, PASSWD, GROUP).unwrap();
        assert_eq!(
            id("www"),
            Identity { uid: 33, gid: 33, groups: vec![4, 101], home: b"/var/www".to_vec() }
        );
        assert_eq!(id("33").groups, [4, 101]);
        assert_eq!(id("www:adm"), Identity { uid: 33, gid: 4, groups: vec![], home: b"/var/www".to_vec() });
        assert_eq!(id("5:6"), Identity { uid: 5, gid: 6, groups: vec![], home: b"/".to_vec() });
        assert_eq!(id("5").gid, 0);
        assert_eq!(id("1000:50"), Identity { uid: 1000, gid: 50, groups: vec![], home: b"/".to_vec() });
        assert_eq!(id("").uid, 0);
        assert!(resolve("nobody", PASSWD, GROUP).is_err());
        assert!(resolve("www:nogroup", PASSWD, GROUP).is_err());
        assert!(resolve("-1", PASSWD, GROUP).is_err());
        assert!(has_names("www") && has_names("0:adm") && has_names("-1"));
        assert!(!has_names("") && !has_names("0:5") && !has_names("7:"));
    }
}
