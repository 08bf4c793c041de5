//! `top`: a container's processes, as seen from inside it, read from `/proc` (proc_pid_status(5)) by us.

use std::collections::HashMap;
use std::path::Path;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::{Engine, Error};
use crate::base::idmap::{IdMapping, IdRange};
use crate::base::time;
use crate::runtime::processes;
use crate::security::{capability, passwd};
use crate::storage::containers::{ContainerRecord, RunState, Status};
use crate::sys::host;
use crate::sys::path::Root;
use crate::sys::process::{self, DetailedStat};

/// How much of a container's passwd or group file is read.
const NAMES_LIMIT: u64 = 1 << 20;

/// What the kernel shows of an id that a user namespace lacks (`/proc/sys/kernel/overflowuid`).
const OVERFLOW_ID: u32 = 65534;

/// One column: Podman's name for it, the code of AIX's ps, and its heading.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    name: &'static str,
    code: &'static str,
    /// Above it.
    pub heading: &'static str,
    show: fn(&Process, &Scene) -> String,
}

macro_rules! columns {
    ($($name:literal $code:literal $heading:literal $show:expr;)*) => {
        &[$(Column { name: $name, code: $code, heading: $heading, show: $show }),*]
    };
}

/// All columns that there are.
const COLUMNS: &[Column] = columns! {
    "args" "%a" "COMMAND" |p, _| p.command.clone();
    "capamb" "" "AMBIENT CAPS" |p, s| p.capabilities("CapAmb", s);
    "capbnd" "" "BOUNDING CAPS" |p, s| p.capabilities("CapBnd", s);
    "capeff" "" "EFFECTIVE CAPS" |p, s| p.capabilities("CapEff", s);
    "capinh" "" "INHERITED CAPS" |p, s| p.capabilities("CapInh", s);
    "capprm" "" "PERMITTED CAPS" |p, s| p.capabilities("CapPrm", s);
    "comm" "%c" "COMMAND" |p, _| p.stat.name.clone();
    "etime" "%t" "ELAPSED" |p, s| time::go_duration(p.age(s));
    "group" "%G" "GROUP" |p, s| s.inside.group(p.id("Gid", 1));
    "groups" "" "GROUPS" |p, s| p.groups(&s.inside);
    "hgroup" "" "HGROUP" |p, s| s.outside.group(p.id("Gid", 1));
    "hgroups" "" "HGROUPS" |p, s| p.groups(&s.outside);
    "hpid" "" "HPID" |p, _| p.pid.to_string();
    "huser" "" "HUSER" |p, s| s.outside.user(p.id("Uid", 1));
    "label" "" "LABEL" |p, _| p.label.clone();
    "nice" "%n" "NI" |p, _| p.stat.nice.to_string();
    "pcpu" "%C" "%CPU" |p, s| format!("{:.3}", p.processor_share(s));
    "pgid" "%r" "PGID" |p, s| p.number("NSpgid", s.level).to_string();
    "pid" "%p" "PID" |p, s| p.number("NSpid", s.level).to_string();
    "ppid" "%P" "PPID" |p, s| s.pids.get(&p.stat.parent).unwrap_or(&0).to_string();
    "rgroup" "%g" "RGROUP" |p, s| s.inside.group(p.id("Gid", 0));
    "rss" "" "RSS" |p, _| p.number("VmRSS", 0).to_string();
    "ruser" "%u" "RUSER" |p, s| s.inside.user(p.id("Uid", 0));
    "seccomp" "" "SECCOMP" |p, _| p.seccomp();
    "state" "" "STATE" |p, _| p.stat.state.to_string();
    "stime" "" "STIME" |p, s| time::go(p.started_second(s), &TimeZone::system());
    "time" "%x" "TIME" |p, s| time::go_duration(p.stat.processor_time / s.ticks * 1000);
    "tty" "%y" "TTY" |p, _| processes::terminal(p.stat.terminal);
    "user" "%U" "USER" |p, s| s.inside.user(p.id("Uid", 1));
    "vsz" "%z" "VSZ" |p, _| p.number("VmSize", 0).to_string();
};

const DEFAULT: &str = "user,pid,ppid,pcpu,etime,tty,time,args";

/// The columns that are asked for; `None` if the words are no such, but ps(1)'s.
pub fn columns(words: &[String]) -> Option<Vec<Column>> {
    let text = if words.is_empty() { DEFAULT.to_owned() } else { words.join(",") };
    let find =
        |word: &str| COLUMNS.iter().find(|c| c.name == word || (c.code == word && !word.is_empty())).copied();
    text.split(',').map(find).collect()
}

/// The names of all columns.
pub fn column_names() -> Vec<&'static str> {
    COLUMNS.iter().map(|column| column.name).collect()
}

impl Engine {
    /// A line of cells for each process of a running container.
    pub fn top(&self, text: &str, columns: &[Column]) -> Result<Vec<Vec<String>>, Error> {
        let (record, status) = self.lookup(text)?;
        let state = match &status {
            Status::Running(state) => state,
            Status::Paused(_) => return Err(Error::Paused(record.name)),
            other => return Err(Error::NotRunning { name: record.name, status: other.word() }),
        };
        let pids = match processes::of(state.pid, state.cgroup.as_deref()) {
            Ok(Some(pids)) => pids,
            Ok(None) => {
                return Err(Error::Ungrouped { action: "listing the processes of", name: record.name });
            }
            Err(source) => return Err(Error::Processes { name: record.name, source }),
        };
        // One that has ended meanwhile is none of the container's any more.
        let found: Vec<Process> = pids.into_iter().filter_map(Process::read).collect();
        let scene = Scene::new(&record, state, &found);
        Ok(found.iter().map(|p| columns.iter().map(|c| (c.show)(p, &scene)).collect()).collect())
    }
}

/// What is known of one process.
struct Process {
    pid: i32,
    stat: DetailedStat,
    status: String,
    command: String,
    label: String,
}

impl Process {
    fn read(pid: i32) -> Option<Self> {
        let text = |file: &str| std::fs::read(format!("/proc/{pid}/{file}"));
        let stat = process::detailed_stat(pid).ok()?;
        let label = text("attr/current").unwrap_or_default();
        let label = String::from_utf8_lossy(&label).trim_matches(['\0', '\n']).to_owned();
        Some(Self {
            pid,
            status: String::from_utf8_lossy(&text("status").ok()?).into_owned(),
            command: processes::command(pid, &stat.name),
            label: if label.is_empty() { "?".to_owned() } else { label },
            stat,
        })
    }

    /// The words of a line of `/proc/PID/status`.
    fn words(&self, key: &str) -> impl DoubleEndedIterator<Item = &str> {
        let line = self.status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.unwrap_or_default().split_whitespace()
    }

    fn number(&self, key: &str, at: usize) -> u64 {
        self.words(key).nth(at).and_then(|word| word.parse().ok()).unwrap_or(0)
    }

    /// Of the real (0) or the effective (1) kind.
    fn id(&self, key: &str, kind: usize) -> u32 {
        self.words(key).nth(kind).and_then(|word| word.parse().ok()).unwrap_or(OVERFLOW_ID)
    }

    fn groups(&self, names: &Names) -> String {
        let ids = self.words("Groups").filter_map(|word| word.parse().ok());
        ids.map(|id| names.group(id)).collect::<Vec<_>>().join(",")
    }

    fn capabilities(&self, key: &str, scene: &Scene) -> String {
        let mask = self.words(key).next().and_then(|word| u64::from_str_radix(word, 16).ok()).unwrap_or(0);
        if mask == 0 {
            return "none".to_owned();
        }
        if mask == scene.all_capabilities {
            return "full".to_owned();
        }
        let names = capability::names(mask);
        names.iter().map(|name| name.trim_start_matches("CAP_")).collect::<Vec<_>>().join(",")
    }

    fn seccomp(&self) -> String {
        match self.words("Seccomp").next() {
            Some("0") => "disabled",
            Some("1") => "strict",
            Some("2") => "filter",
            _ => "?",
        }
        .to_owned()
    }

    fn started(&self, scene: &Scene) -> Timestamp {
        scene.boot + SignedDuration::from_millis((self.stat.start_time * 1000 / scene.ticks) as i64)
    }

    /// Nothing finer is shown.
    fn started_second(&self, scene: &Scene) -> Timestamp {
        Timestamp::from_second(self.started(scene).as_second()).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// In milliseconds.
    fn age(&self, scene: &Scene) -> u64 {
        u64::try_from(scene.now.duration_since(self.started(scene)).as_millis()).unwrap_or(0)
    }

    /// Per cent of one processor since it was started.
    fn processor_share(&self, scene: &Scene) -> f64 {
        let used = self.stat.processor_time as f64 / scene.ticks as f64 * 1000.0;
        used / self.age(scene).max(1) as f64 * 100.0
    }
}

/// What the cells of all processes depend on.
struct Scene {
    /// How deep the container's pid namespace is below the one that `/proc` shows.
    level: usize,
    /// Pids inside by those outside.
    pids: HashMap<i32, u64>,
    inside: Names,
    outside: Names,
    boot: Timestamp,
    now: Timestamp,
    ticks: u64,
    all_capabilities: u64,
}

impl Scene {
    fn new(record: &ContainerRecord, state: &RunState, found: &[Process]) -> Self {
        // The first process is in the container's own namespace; others may have made deeper ones.
        let first = found.iter().find(|process| process.pid == state.pid);
        let level = first.map_or(0, |process| process.words("NSpid").count().saturating_sub(1));
        let inside = |file: &str| {
            // Of the container itself, resolved beneath its root.
            let root = Root::open(Path::new(&format!("/proc/{}/root", state.pid)));
            root.and_then(|root| root.read(Path::new(file), NAMES_LIMIT)).unwrap_or_default()
        };
        let outside = |file: &str| std::fs::read(Path::new("/").join(file)).unwrap_or_default();
        let last = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").unwrap_or_default();
        let last: u32 = last.trim().parse().unwrap_or(63);
        Self {
            level,
            pids: found.iter().map(|process| (process.pid, process.number("NSpid", level))).collect(),
            inside: Names::new(&inside("etc/passwd"), &inside("etc/group"), record.mapping.as_ref()),
            outside: Names::new(&outside("etc/passwd"), &outside("etc/group"), None),
            boot: processes::boot_time(),
            now: Timestamp::now(),
            ticks: host::clock_ticks().max(1),
            all_capabilities: u64::MAX >> 63_u32.saturating_sub(last),
        }
    }
}

/// Names of ids.
struct Names {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
    mapping: Option<IdMapping>,
}

impl Names {
    fn new(users: &[u8], groups: &[u8], mapping: Option<&IdMapping>) -> Self {
        let text = |name: Vec<u8>| String::from_utf8_lossy(&name).into_owned();
        // Of several names for one id the first counts.
        let mut names = Self { users: HashMap::new(), groups: HashMap::new(), mapping: mapping.cloned() };
        for user in passwd::users(users) {
            names.users.entry(user.uid).or_insert_with(|| text(user.name));
        }
        for group in passwd::groups(groups) {
            names.groups.entry(group.gid).or_insert_with(|| text(group.name));
        }
        names
    }

    fn user(&self, id: u32) -> String {
        name(&self.users, self.mapping.as_ref().map(|m| &*m.uids), id)
    }

    fn group(&self, id: u32) -> String {
        name(&self.groups, self.mapping.as_ref().map(|m| &*m.gids), id)
    }
}

fn name(names: &HashMap<u32, String>, ranges: Option<&[IdRange]>, host: u32) -> String {
    let id = ranges.map_or(host, |ranges| IdMapping::to_container(ranges, host).unwrap_or(OVERFLOW_ID));
    names.get(&id).cloned().unwrap_or_else(|| id.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headings(words: &[&str]) -> Option<Vec<&'static str>> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        Some(columns(&words)?.iter().map(|column| column.heading).collect())
    }

    #[test]
    fn columns_by_name_and_code() {
        let default = ["USER", "PID", "PPID", "%CPU", "ELAPSED", "TTY", "TIME", "COMMAND"];
        assert_eq!(headings(&[]).unwrap(), default);
        assert_eq!(headings(&["pid,%C", "hpid"]).unwrap(), ["PID", "%CPU", "HPID"]);
        assert_eq!(headings(&["-eo", "pid"]), None);
        assert_eq!(headings(&["pid,"]), None);
        assert_eq!(headings(&["aux"]), None);
    }

    #[test]
    fn ids_as_the_container_sees_them() {
        let ranges = vec![
            IdRange { container: 0, host: 1000, size: 1 },
            IdRange { container: 1, host: 5000, size: 9 },
        ];
        let mapping = IdMapping { uids: ranges.clone(), gids: ranges };
        let names = Names::new(b"root:x:0:0::/:\nfive:x:5:5::/:\n", b"wheel:x:0:\n", Some(&mapping));
        assert_eq!((names.user(1000), names.group(1000)), ("root".to_owned(), "wheel".to_owned()));
        assert_eq!((names.user(5004), names.group(5004)), ("five".to_owned(), "5".to_owned()));
        assert_eq!(names.user(77), "65534");
    }

    #[test]
    fn a_process_by_its_status() {
        let status = "Uid:\t1\t2\t3\t4\nGroups:\t0 5 \nNSpid:\t900\t12\t1\nSeccomp:\t2\nCapEff:\t0000000000000401\n\
                      VmRSS:\t  123 kB\n";
        let stat = DetailedStat {
            name: "x".into(),
            state: 'S',
            parent: 1,
            terminal: 0,
            processor_time: 150,
            nice: 0,
            start_time: 0,
        };
        let process =
            Process { pid: 900, stat, status: status.into(), command: "x".into(), label: "?".into() };
        let names = || Names::new(b"", b"root:x:0:\n", None);
        let now = Timestamp::now();
        let scene = Scene {
            level: 1,
            pids: HashMap::new(),
            inside: names(),
            outside: names(),
            boot: now - SignedDuration::from_secs(60),
            now,
            ticks: 100,
            all_capabilities: 0xff,
        };
        let show = |name: &str| (columns(&[name.to_owned()]).unwrap()[0].show)(&process, &scene);
        let shown: Vec<String> = [
            "pid", "hpid", "ppid", "user", "ruser", "groups", "seccomp", "capeff", "capprm", "rss", "vsz",
            "etime", "time", "pcpu",
        ]
        .iter()
        .map(|name| show(name))
        .collect();
        assert_eq!(
            shown,
            [
                "12",
                "900",
                "0",
                "2",
                "1",
                "root,5",
                "filter",
                "CHOWN,NET_BIND_SERVICE",
                "none",
                "123",
                "0",
                "1m0s",
                "1s",
                "2.500"
            ]
        );
    }
}
