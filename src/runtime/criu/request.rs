//! What criu is asked for: its remote procedure calls (`rpc.proto` of criu 3.17), in pure code.

use std::path::{Path, PathBuf};

use super::wire::{self, Message, Value};

/// How criu treats control groups (`--manage-cgroups-mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupMode {
    /// Leave them alone.
    Ignore = 0,
    /// Restore the properties only of groups that it makes itself: the usual way.
    Soft = 3,
    /// Restore the properties of all.
    Full = 4,
    /// Only restore if no group is there.
    Strict = 5,
}

impl CgroupMode {
    /// Reads the option's value.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "ignore" => Self::Ignore,
            "soft" => Self::Soft,
            "full" => Self::Full,
            "strict" => Self::Strict,
            _ => return None,
        })
    }
}

/// How the network is held still meanwhile (`--network-lock`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkLock {
    /// By iptables-restore(8).
    Iptables = 1,
    /// By nftables.
    Nftables = 2,
    /// Not at all.
    Skip = 3,
}

impl NetworkLock {
    /// Reads the option's value.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "iptables" => Self::Iptables,
            "nftables" => Self::Nftables,
            "skip" => Self::Skip,
            _ => return None,
        })
    }
}

/// What the command line says, of both directions.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Options {
    /// Where the images are.
    pub images: PathBuf,
    /// Where criu works and puts its log; else where the images are.
    pub work: Option<PathBuf>,
    /// Images of an earlier dump, relative to `images`: what has not changed since is left out.
    pub parent: Option<PathBuf>,
    /// The container goes on after it has been dumped.
    pub leave_running: bool,
    /// Only the memory is dumped, and the container goes on.
    pub pre_dump: bool,
    /// Open TCP connections are taken along.
    pub tcp_established: bool,
    /// Those that are not established yet are left out.
    pub tcp_skip_in_flight: bool,
    /// Those that were taken along are closed.
    pub tcp_close: bool,
    /// Removed files that are open get a name.
    pub link_remap: bool,
    /// Unix sockets may be connected with others outside.
    pub ext_unix_sk: bool,
    /// The container belongs to the caller's session and terminal.
    pub shell_job: bool,
    /// File locks are taken along.
    pub file_locks: bool,
    /// Pages that a later dump has, too, are removed from an earlier one.
    pub auto_dedup: bool,
    /// Pages are fetched when they are needed.
    pub lazy_pages: bool,
    /// Where pages go instead of into files.
    pub page_server: Option<(String, u16)>,
    /// Control groups.
    pub cgroups: Option<CgroupMode>,
    /// The network.
    pub network_lock: Option<NetworkLock>,
    /// AppArmor profile or SELinux label of the restored.
    pub lsm_profile: Option<String>,
    /// SELinux label of its mounts.
    pub lsm_mount_context: Option<String>,
    /// Options of criu's own, which count more than these.
    pub config_file: Option<PathBuf>,
}

impl Options {
    /// Where the log is.
    pub fn log_dir(&self) -> &Path {
        self.work.as_ref().unwrap_or(&self.images)
    }
}

/// A mount whose content criu leaves alone: it comes from outside. For a dump the name that it gets;
/// for a restore, what is to be bound there.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ExternalMount {
    /// Dump: where it is in the container. Restore: its name.
    pub key: PathBuf,
    /// Dump: its name. Restore: what is bound, on the host.
    pub value: PathBuf,
}

/// What a request says beside the options.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Details {
    /// The images' directory, a number of this process; and the working directory.
    pub images_fd: i32,
    /// As above.
    pub work_fd: Option<i32>,
    /// The init, of a dump.
    pub pid: Option<i32>,
    /// The container's root directory; for a restore it has to be a mount.
    pub root: PathBuf,
    /// Mounts that come from outside.
    pub mounts: Vec<ExternalMount>,
    /// Other things from outside, as `net[4026531840]:extRootNetNS`.
    pub external: Vec<String>,
    /// What takes the place of such things in a restore: name, and criu's descriptor.
    pub inherited: Vec<(String, i32)>,
    /// Namespaces to be joined: kind, file.
    pub joined: Vec<(&'static str, PathBuf)>,
    /// Control groups of a restore: controller, path.
    pub cgroups: Vec<(String, String)>,
    /// The group whose freezer holds the container's processes.
    pub freezer: Option<PathBuf>,
}

/// Kinds of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Memory, files and all.
    Dump = 1,
    /// The other way.
    Restore = 2,
    /// Memory only.
    PreDump = 4,
}

const NOTIFY: u64 = 6;

/// The log's name.
pub fn log_name(kind: Kind) -> &'static str {
    if kind == Kind::Restore { "restore.log" } else { "dump.log" }
}

fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_encoded_bytes()
}

/// Writes a request.
pub fn request(kind: Kind, options: &Options, details: &Details) -> Vec<u8> {
    let mut list = Message::default();
    list.number(1, details.images_fd as u64).number(9, 4).text(10, log_name(kind)).flag(12, true);
    if let Some(fd) = details.work_fd {
        list.number(17, fd as u64);
    }
    if let Some(pid) = details.pid {
        list.number(2, pid as u64);
    }
    list.text(13, bytes(&details.root));
    let flags = [
        (3, options.leave_running),
        (4, options.ext_unix_sk),
        (5, options.tcp_established),
        (7, options.shell_job),
        (8, options.file_locks),
        (16, options.auto_dedup),
        (18, options.link_remap),
        (46, options.tcp_skip_in_flight),
        (48, options.lazy_pages),
        (52, options.tcp_close),
        // A device that is gone is opened by what has its place; and the restored is our child.
        (6, kind == Kind::Restore),
        (26, kind == Kind::Restore),
        (15, options.pre_dump || options.parent.is_some()),
        // A terminal whose other end is held outside is handed to us.
        (50, true),
    ];
    for (field, _) in flags.into_iter().filter(|(_, wanted)| *wanted) {
        list.flag(field, true);
    }
    if let Some((address, port)) = &options.page_server {
        list.message(11, Message::default().text(1, address).number(2, (*port).into()));
    }
    if let Some(parent) = &options.parent {
        list.text(14, bytes(parent));
    }
    for mount in &details.mounts {
        list.message(23, Message::default().text(1, bytes(&mount.key)).text(2, bytes(&mount.value)));
    }
    // The first is for criu before 1.8, which knows no modes.
    list.flag(24, true).number(34, options.cgroups.unwrap_or(CgroupMode::Soft) as u64);
    for (controller, path) in &details.cgroups {
        list.message(25, Message::default().text(1, controller).text(2, path));
    }
    for (key, fd) in &details.inherited {
        list.message(27, Message::default().text(1, key).number(2, *fd as u64));
    }
    for external in &details.external {
        list.text(37, external);
    }
    // What is in a network namespace is its maker's business: hooks', or the engine's.
    list.number(38, libc::CLONE_NEWNET as u64);
    for (kind, file) in &details.joined {
        list.message(39, Message::default().text(1, kind).text(2, bytes(file)));
    }
    let texts = [
        (44, details.freezer.as_deref().map(bytes)),
        (51, options.config_file.as_deref().map(bytes)),
        (53, options.lsm_profile.as_deref().map(str::as_bytes)),
        (63, options.lsm_mount_context.as_deref().map(str::as_bytes)),
    ];
    for (field, text) in texts {
        if let Some(text) = text {
            list.text(field, text);
        }
    }
    if let Some(lock) = options.network_lock {
        list.number(64, lock as u64);
    }
    Message::default().number(1, kind as u64).message(2, &list).bytes().to_vec()
}

/// The answer to a notification: go on, or give up.
pub fn notified(success: bool) -> Vec<u8> {
    Message::default().number(1, NOTIFY).flag(3, success).bytes().to_vec()
}

/// What criu says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A step is reached, of which this is the name; criu waits for [`notified`].
    Step {
        /// `post-restore`, …
        name: String,
        /// The init, if it is there already.
        pid: Option<i32>,
    },
    /// It is done; the restored init.
    Done(Option<i32>),
    /// It failed, with an error number if there is a fitting one.
    Failed(i32),
}

/// Reads an answer.
pub fn answer(bytes: &[u8]) -> Option<Answer> {
    let list = wire::fields(bytes)?;
    let find = |list: &[(u32, Value<'_>)], field: u32| {
        list.iter().rev().find(|(f, _)| *f == field).and_then(|(_, value)| match value {
            Value::Number(number) => Some(*number),
            Value::Bytes(_) => None,
        })
    };
    let inner = |field: u32| {
        list.iter().find(|(f, _)| *f == field).and_then(|(_, value)| match value {
            Value::Bytes(bytes) => wire::fields(bytes),
            Value::Number(_) => None,
        })
    };
    let number = |value: u64| i32::try_from(value).ok().filter(|n| *n > 0);
    if find(&list, 2)? == 0 {
        return Some(Answer::Failed(find(&list, 7).and_then(number).unwrap_or(0)));
    }
    if find(&list, 1)? == NOTIFY {
        let notify = inner(5)?;
        let name = notify.iter().find_map(|(field, value)| match (field, value) {
            (1, Value::Bytes(bytes)) => Some(String::from_utf8_lossy(bytes).into_owned()),
            _ => None,
        })?;
        return Some(Answer::Step { name, pid: find(&notify, 2).and_then(number) });
    }
    Some(Answer::Done(inner(4).and_then(|restore| find(&restore, 1)).and_then(number)))
}

/// The lines of a log that say why criu failed: the first error, which is mostly the cause, and the
/// last, without their times and places and without mere summaries.
pub fn errors(log: &str) -> Option<String> {
    const SUMMARIES: [&str; 3] = ["Dumping FAILED.", "Restoring FAILED.", "Pre-dumping FAILED."];
    let errors = log.lines().filter_map(|line| {
        let (_, rest) = line.split_once("Error (")?;
        let (_, text) = rest.split_once("): ")?;
        Some(text.trim()).filter(|text| !text.is_empty())
    });
    let (summaries, telling): (Vec<&str>, Vec<&str>) = errors.partition(|text| SUMMARIES.contains(text));
    let text = match telling[..] {
        [] => (*summaries.last()?).to_owned(),
        [only] => only.to_owned(),
        [first, .., last] => format!("{first}; {last}"),
    };
    Some(crate::base::report::plain(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options_of(bytes: &[u8]) -> Vec<(u32, String)> {
        let list = wire::fields(bytes).unwrap();
        let Some((2, Value::Bytes(options))) = list.get(1).copied() else { panic!("{list:?}") };
        let show = |(field, value): (u32, Value<'_>)| match value {
            Value::Number(number) => (field, number.to_string()),
            Value::Bytes(bytes) => (field, String::from_utf8_lossy(bytes).into_owned()),
        };
        wire::fields(options).unwrap().into_iter().map(show).collect()
    }

    #[test]
    fn options_become_fields() {
        let options = Options {
            leave_running: true,
            parent: Some("../before".into()),
            page_server: Some(("::1".into(), 99)),
            cgroups: CgroupMode::parse("full"),
            network_lock: NetworkLock::parse("nftables"),
            ..Options::default()
        };
        let details = Details { images_fd: 7, pid: Some(42), root: "/r".into(), ..Details::default() };
        let list = options_of(&request(Kind::Dump, &options, &details));
        for wanted in
            [(1, "7"), (2, "42"), (3, "1"), (13, "/r"), (14, "../before"), (15, "1"), (34, "4"), (64, "2")]
        {
            assert!(list.contains(&(wanted.0, wanted.1.to_owned())), "{wanted:?} {list:?}");
        }
        assert!(!list.iter().any(|(field, _)| [5, 16, 17, 26, 44].contains(field)), "{list:?}");
        let list = options_of(&request(Kind::Restore, &Options::default(), &details));
        assert!(list.contains(&(26, "1".into())) && list.contains(&(10, "restore.log".into())), "{list:?}");
        assert_eq!(CgroupMode::parse("none"), None);
        assert_eq!(NetworkLock::parse(""), None);
    }

    #[test]
    fn answers_are_understood() {
        let mut step = Message::default();
        step.number(1, 6).flag(2, true).message(5, Message::default().text(1, "post-restore").number(2, 77));
        assert_eq!(answer(step.bytes()), Some(Answer::Step { name: "post-restore".into(), pid: Some(77) }));
        let mut done = Message::default();
        done.number(1, 2).flag(2, true).message(4, Message::default().number(1, 78));
        assert_eq!(answer(done.bytes()), Some(Answer::Done(Some(78))));
        let mut failed = Message::default();
        failed.number(1, 1).flag(2, false).number(7, 17);
        assert_eq!(answer(failed.bytes()), Some(Answer::Failed(17)));
        for bad in [&b""[..], b"\xff", b"\x08\x01"] {
            assert_eq!(answer(bad), None);
        }
    }

    #[test]
    fn the_telling_errors_are_found() {
        let log = "(00.1) Error (criu/a.c:1): first\n(00.2) nothing\n(00.2) Error (criu/b.c:1): second\n\
            (00.3) Error (criu/files.c:296): Can't \u{1b}[31mdump\n(00.4) Error (criu/cr-dump.c:9): Dumping FAILED.\n";
        let line = errors(log).unwrap();
        assert!(line.starts_with("first; Can't ") && line.ends_with("dump"), "{line}");
        assert!(!line.contains('\u{1b}'), "{line}");
        assert_eq!(errors("(00.4) Error (x.c:9): Dumping FAILED.").unwrap(), "Dumping FAILED.");
        assert_eq!(errors("fine"), None);
    }
}
