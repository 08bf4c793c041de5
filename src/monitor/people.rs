//! Who processes are that have become somebody else, where there is one id: the rules of setuid(2) and the like, and
//! the marks by which they are known. The kernel hands a mark on at fork and keeps it over exec
//! ([`crate::sys::marks`]), so that no process needs to be followed.

use crate::sys::marks::Mark;

/// More are not remembered: a container that makes up people takes no more of our memory than this.
const MOST_PEOPLE: usize = 1024;
/// More groups of one are not.
pub const MOST_GROUPS: usize = 256;

/// Marks of those who may be helped to make files.
const FREE: u64 = 0x756d_6961_6b01_0000;
/// And of those who have confined themselves: lower, so that none of them can ever be above.
const CONFINED: u64 = 0x756d_6961_6b00_0000;

/// Real, effective and saved id.
type Three = [u32; 3];

/// Who a process is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// Users.
    pub uid: Three,
    /// Groups.
    pub gid: Three,
    /// Supplementary groups; none if they are the kernel's.
    pub groups: Option<Vec<u32>>,
    /// It wants to keep its capabilities when it gives up user 0 (`PR_SET_KEEPCAPS`).
    pub keeps: bool,
    /// It has kept them, and with them the power over ids.
    pub powers: bool,
    /// It has given up powers over files by Landlock, of which nobody else can know (landlock(7)).
    pub confined: bool,
}

/// What a process wants to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// setuid(2).
    Uid(Option<u32>),
    /// setreuid(2).
    Reuid([Option<u32>; 2]),
    /// setresuid(2).
    Resuid([Option<u32>; 3]),
    /// setgid(2).
    Gid(Option<u32>),
    /// setregid(2).
    Regid([Option<u32>; 2]),
    /// setresgid(2).
    Resgid([Option<u32>; 3]),
    /// setgroups(2).
    Groups(Vec<u32>),
    /// prctl(2), `PR_SET_KEEPCAPS`.
    Keep(bool),
}

impl Change {
    /// By a call's name and arguments, of which `read` reads so many groups.
    pub fn of(
        name: &str,
        arguments: &[u64; 6],
        read: impl FnOnce(usize, u64) -> Result<Vec<u32>, i32>,
    ) -> Result<Option<Self>, i32> {
        let id = |index: usize| Some(arguments[index] as u32).filter(|id| *id != u32::MAX);
        Ok(Some(match name {
            "setuid" => Self::Uid(id(0)),
            "setreuid" => Self::Reuid([id(0), id(1)]),
            "setresuid" => Self::Resuid([id(0), id(1), id(2)]),
            "setgid" => Self::Gid(id(0)),
            "setregid" => Self::Regid([id(0), id(1)]),
            "setresgid" => Self::Resgid([id(0), id(1), id(2)]),
            "setgroups" => match arguments[0] as i32 {
                count @ 0..=65_536 => Self::Groups(read(count as usize, arguments[1])?),
                _ => return Err(libc::EINVAL),
            },
            "prctl" if arguments[0] as i32 == libc::PR_SET_KEEPCAPS => Self::Keep(arguments[1] != 0),
            _ => return Ok(None),
        }))
    }

    /// Whether all ids are these, which there are: the kernel can do it.
    pub fn is_within(&self, uid: u32, gid: u32) -> bool {
        let within = |ids: &[Option<u32>], own: u32| ids.iter().flatten().all(|id| *id == own);
        match self {
            Self::Uid(id) => within(&[*id], uid),
            Self::Reuid(ids) => within(ids, uid),
            Self::Resuid(ids) => within(ids, uid),
            Self::Gid(id) => within(&[*id], gid),
            Self::Regid(ids) => within(ids, gid),
            Self::Resgid(ids) => within(ids, gid),
            Self::Groups(_) => false,
            Self::Keep(_) => true,
        }
    }
}

fn set(ids: Three, id: Option<u32>, root: bool) -> Result<Three, i32> {
    let id = id.ok_or(libc::EINVAL)?;
    if root {
        Ok([id; 3])
    } else if id == ids[0] || id == ids[2] {
        Ok([ids[0], id, ids[2]])
    } else {
        Err(libc::EPERM)
    }
}

fn set_two(ids: Three, [real, effective]: [Option<u32>; 2], root: bool) -> Result<Three, i32> {
    let allowed = |id: Option<u32>, from: &[u32]| id.is_none_or(|id| root || from.contains(&id));
    if !allowed(real, &ids[..2]) || !allowed(effective, &ids) {
        return Err(libc::EPERM);
    }
    let now = [real.unwrap_or(ids[0]), effective.unwrap_or(ids[1])];
    let saves = real.is_some() || effective.is_some_and(|id| id != ids[0]);
    Ok([now[0], now[1], if saves { now[1] } else { ids[2] }])
}

fn set_three(ids: Three, wanted: [Option<u32>; 3], root: bool) -> Result<Three, i32> {
    if wanted.iter().flatten().any(|id| !root && !ids.contains(id)) {
        return Err(libc::EPERM);
    }
    Ok([0, 1, 2].map(|index| wanted[index].unwrap_or(ids[index])))
}

impl Person {
    /// Who all are that have become nobody else.
    fn plain(uid: u32, gid: u32) -> Self {
        Self { uid: [uid; 3], gid: [gid; 3], groups: None, keeps: false, powers: false, confined: false }
    }

    /// Who it is after an exec, of which it takes the owner and the group of the program's file, if any.
    pub fn after_exec(&self, uid: Option<u32>, gid: Option<u32>) -> Self {
        let taken = |ids: Three, id: Option<u32>| id.map_or(ids, |id| [ids[0], id, id]);
        let (uid, gid) = (taken(self.uid, uid), taken(self.gid, gid));
        Self { uid, gid, keeps: false, powers: false, ..self.clone() }
    }

    /// Who it is after a change; the error number if it may not. `root`: whether it has root's powers over ids.
    fn after(&self, change: &Change, root: bool) -> Result<Self, i32> {
        let mut next = self.clone();
        match change {
            Change::Uid(id) => next.uid = set(self.uid, *id, root)?,
            Change::Reuid(ids) => next.uid = set_two(self.uid, *ids, root)?,
            Change::Resuid(ids) => next.uid = set_three(self.uid, *ids, root)?,
            Change::Gid(id) => next.gid = set(self.gid, *id, root)?,
            Change::Regid(ids) => next.gid = set_two(self.gid, *ids, root)?,
            Change::Resgid(ids) => next.gid = set_three(self.gid, *ids, root)?,
            Change::Groups(_) if !root => return Err(libc::EPERM),
            Change::Groups(groups) => next.groups = Some(groups.clone()),
            Change::Keep(keeps) => next.keeps = *keeps,
        }
        // As capabilities(7) says of changes of user ids.
        if self.uid.contains(&0) && !next.uid.contains(&0) {
            next.powers = self.keeps;
        }
        Ok(next)
    }
}

/// All people of a container.
#[derive(Debug)]
pub struct People {
    plain: Person,
    others: Vec<Person>,
}

impl People {
    /// Of one with these ids.
    pub fn new(uid: u32, gid: u32) -> Self {
        Self { plain: Person::plain(uid, gid), others: Vec::new() }
    }

    /// Who all are that have become nobody else.
    pub fn plain(&self) -> &Person {
        &self.plain
    }

    /// Who has a mark; none who has become nobody else.
    pub fn with(&self, mark: Mark) -> Option<&Person> {
        let (base, confined) = if mark.value >= FREE { (FREE, false) } else { (CONFINED, true) };
        let index = usize::try_from(mark.value.checked_sub(base)?).ok()?;
        self.others.get(index).filter(|person| person.confined == confined)
    }

    /// Who it is after a change, with the error number if it may not.
    pub fn after(&self, person: &Person, change: &Change) -> Result<Person, i32> {
        // With another id than 0 the container's processes are that, and nobody was ever kept from anything.
        let root = person.uid[1] == 0 || person.powers || person.uid[1] == self.plain.uid[1];
        person.after(change, root)
    }

    /// The mark that makes a process with this mark that person; none if he cannot be remembered.
    pub fn mark(&mut self, person: &Person, mark: Mark) -> Option<Mark> {
        if *person == self.plain {
            return Some(Mark { value: mark.most, most: mark.most });
        }
        if person.groups.as_ref().is_some_and(|groups| groups.len() > MOST_GROUPS) {
            return None;
        }
        let index = match self.others.iter().position(|other| other == person) {
            Some(index) => index,
            None if self.others.len() < MOST_PEOPLE => {
                self.others.push(person.clone());
                self.others.len() - 1
            }
            None => return None,
        };
        let base = if person.confined { CONFINED } else { FREE };
        let (value, most) = (base + index as u64, if person.confined { FREE - 1 } else { mark.most });
        let most = most.min(mark.most);
        (value <= most).then_some(Mark { value, most })
    }

    /// The mark of a process with this mark that confines itself.
    pub fn confined(&mut self, mark: Mark) -> Mark {
        let person = Person { confined: true, ..self.with(mark).unwrap_or(&self.plain).clone() };
        // Who cannot be remembered is nobody else from now on, and cannot become it.
        let none = Mark { value: 0, most: 0 };
        self.mark(&person, mark).unwrap_or(none)
    }
}

/// Whether a process with this mark may have confined itself: then it gets no help to make files.
pub fn is_confined(mark: Mark) -> bool {
    mark.most < FREE
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: u64 = u64::MAX;
    const UNLIMITED: Mark = Mark { value: u64::MAX, most: u64::MAX };

    fn change(name: &str, arguments: [u64; 3]) -> Change {
        let [first, second, third] = arguments;
        let read = |count, _| Ok((0..count as u32).collect());
        Change::of(name, &[first, second, third, 0, 0, 0], read).unwrap().unwrap()
    }

    /// As setuid(2), setreuid(2) and setresuid(2) have it.
    #[test]
    fn rules_are_the_kernels() {
        let people = People::new(0, 0);
        let root = people.plain().clone();
        let app = people.after(&root, &change("setuid", [33, 0, 0])).unwrap();
        assert_eq!(app.uid, [33; 3]);
        for refused in [("setuid", [0, 0, 0]), ("setreuid", [NONE, 0, 0]), ("setresuid", [33, 33, 34])] {
            assert_eq!(people.after(&app, &change(refused.0, refused.1)), Err(libc::EPERM), "{refused:?}");
        }
        assert_eq!(people.after(&app, &change("setgroups", [0, 0, 0])), Err(libc::EPERM));
        assert_eq!(people.after(&app, &change("setgid", [5, 0, 0])), Err(libc::EPERM));
        assert_eq!(people.after(&root, &change("setuid", [NONE, 0, 0])), Err(libc::EINVAL));
        // For a while, and back.
        let (narrow, wide) = (u64::from(u32::MAX), NONE);
        let away = people.after(&root, &change("setresuid", [narrow, 33, wide])).unwrap();
        assert_eq!(away.uid, [0, 33, 0]);
        assert_eq!(people.after(&away, &change("setresuid", [NONE, 0, NONE])).unwrap(), root);
        assert_eq!(people.after(&away, &change("setuid", [0, 0, 0])).unwrap(), root);
        // Capabilities that are kept, until the next exec.
        let keeper = people.after(&root, &change("prctl", [8, 1, 0])).unwrap();
        let keeper = people.after(&keeper, &change("setresuid", [33, 33, 33])).unwrap();
        assert_eq!(people.after(&keeper, &change("setgid", [5, 0, 0])).unwrap().gid, [5; 3]);
        assert_eq!(keeper.after_exec(None, None), app);
        let taken = app.after_exec(Some(0), Some(7));
        assert_eq!((taken.uid, taken.gid), ([33, 0, 0], [0, 7, 7]));
        // Two are swapped; the saved one follows.
        let swapped = people.after(&away, &change("setreuid", [33, 0, 0])).unwrap();
        assert_eq!(swapped.uid, [33, 0, 0]);
        assert_eq!(people.after(&swapped, &change("setreuid", [0, 33, 0])).unwrap().uid, [0, 33, 33]);
        let member = people.after(&root, &change("setgroups", [3, 1, 0])).unwrap();
        assert_eq!(member.groups, Some(vec![0, 1, 2]));
        let member = people.after(&member, &change("setregid", [7, 8, 0])).unwrap();
        assert_eq!((member.gid, member.uid), ([7, 8, 8], [0; 3]));
        assert_eq!(people.after(&member, &change("setresgid", [1, 2, 3])).unwrap().gid, [1, 2, 3]);
        assert!(
            change("setreuid", [0, NONE, 0]).is_within(0, 7) && !change("setgid", [0, 0, 0]).is_within(0, 7)
        );
        assert!(Change::of("setgroups", &[NONE, 0, 0, 0, 0, 0], |_, _| Ok(Vec::new())).is_err());
        assert_eq!(Change::of("getuid", &[0; 6], |_, _| Ok(Vec::new())), Ok(None));
    }

    #[test]
    fn marks_tell_people_apart() {
        let mut people = People::new(0, 0);
        let with = |uid| Person { uid: [uid; 3], ..Person::plain(0, 0) };
        let marks: Vec<Mark> =
            [1, 2, 1].iter().map(|id| people.mark(&with(*id), UNLIMITED).unwrap()).collect();
        assert_eq!((marks[0] == marks[2], marks[0] == marks[1]), (true, false));
        assert_eq!(people.with(marks[1]), Some(&with(2)));
        let plain = people.plain().clone();
        assert_eq!(people.mark(&plain, marks[1]), Some(UNLIMITED));
        for value in [0, 5, CONFINED, CONFINED + 1, FREE + 2, FREE - 1, u64::MAX] {
            assert_eq!(people.with(Mark { value, most: u64::MAX }), None, "{value:x}");
        }
        // Who has confined himself stays so, whoever he becomes and whatever mark he takes.
        let confined = people.confined(marks[0]);
        assert!(confined.most < FREE && people.with(confined).unwrap().confined);
        let next = people.after(people.with(confined).unwrap(), &change("setuid", [1, 0, 0])).unwrap();
        assert!(people.mark(&next, confined).unwrap().most < FREE);
        assert!(people.with(Mark { value: CONFINED + 1, most: confined.most }).is_none());
        assert!(people.mark(&with(9), confined).is_none());
        // There is an end to it.
        let many = Person { groups: Some(vec![0; MOST_GROUPS + 1]), ..with(1) };
        assert_eq!(people.mark(&many, UNLIMITED), None);
        let last = (100..100_000).find(|id| people.mark(&with(*id), UNLIMITED).is_none());
        assert!(last.is_some_and(|last| last < 100 + MOST_PEOPLE as u32));
        assert_eq!(people.confined(marks[1]), Mark { value: 0, most: 0 });
    }
}
