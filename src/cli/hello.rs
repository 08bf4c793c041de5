//! The program of the image `hello`: it runs inside a container and tells what isolates it, from
//! nothing but `/proc` and `/sys` (proc(5), namespaces(7), capabilities(7)).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;

use serde::Serialize;

use super::output::{self, Style};
use crate::base::{report, size};

/// The initial namespaces have fixed numbers (Linux, `include/uapi/linux/nsfs.h`); those of mnt
/// and net only since 6.18, before that they are the first that the kernel gives out at boot.
const INITIAL: &[(&str, u64)] = &[
    ("user", 0xEFFF_FFFD),
    ("pid", 0xEFFF_FFFC),
    ("mnt", 0xEFFF_FFF8),
    ("net", 0xEFFF_FFF9),
    ("ipc", 0xEFFF_FFFF),
    ("uts", 0xEFFF_FFFE),
    ("cgroup", 0xEFFF_FFFB),
    ("time", 0xEFFF_FFFA),
];

/// Where the kernel's numbering of dynamic namespaces starts, and the end of those made at boot.
const BOOT: std::ops::Range<u64> = 0xF000_0000..0xF000_0099;

const CAPABILITIES: &[&str] = &[
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

#[derive(Debug, Serialize)]
struct Namespace {
    id: u64,
    private: bool,
}

#[derive(Debug, Serialize, PartialEq, Eq)]
struct Range {
    inside: u64,
    outside: u64,
    count: u64,
}

#[derive(Debug, Serialize)]
struct Seccomp {
    mode: &'static str,
    filters: u64,
}

#[derive(Debug, Serialize, PartialEq, Eq)]
struct Mount {
    target: String,
    kind: String,
    read_only: bool,
}

#[derive(Debug, Serialize)]
struct Capabilities {
    effective: Vec<String>,
    bounding: Vec<String>,
}

/// Everything that is told. What cannot be found out is empty or `null`.
#[derive(Debug, Serialize)]
struct Facts {
    hostname: String,
    kernel: String,
    pid: u32,
    uid: u64,
    gid: u64,
    namespaces: BTreeMap<String, Namespace>,
    uid_map: Vec<Range>,
    gid_map: Vec<Range>,
    capabilities: Capabilities,
    no_new_privileges: bool,
    seccomp: Seccomp,
    /// Bytes, processes and CPUs, where a limit is set.
    memory_limit: Option<u64>,
    pids_limit: Option<u64>,
    cpu_limit: Option<f64>,
    mounts: Vec<Mount>,
    interfaces: Vec<String>,
}

/// Prints what isolates this process; with `--json` as JSON. Returns the exit code.
pub fn main(args: Vec<OsString>) -> u8 {
    let text = match args.as_slice() {
        [] => pretty(&gather(&read), output::colourful(&io::stdout())),
        [option] if option == "--json" => match serde_json::to_value(gather(&read)) {
            Ok(value) => output::json(&value),
            Err(error) => {
                output::error(&error, None);
                return 1;
            }
        },
        [option] if option == "--help" || option == "-h" => {
            "Usage: hello [--json]\n\nTells what isolates the container it runs in.\n".to_owned()
        }
        _ => {
            output::error_line("hello takes only `--json`", None);
            return 2;
        }
    };
    match output::print(&text) {
        Ok(()) | Err(output::Error::Closed) => 0,
        Err(error) => {
            output::error_line(&report::chain(&error), None);
            1
        }
    }
}

/// A file or link of `/proc` or `/sys`; nothing if it cannot be read.
fn read(path: &str) -> Option<String> {
    if path.starts_with("/proc/self/ns/") {
        return std::fs::read_link(path).ok()?.into_os_string().into_string().ok();
    }
    std::fs::read(path).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

fn gather(read: &dyn Fn(&str) -> Option<String>) -> Facts {
    let text = |path: &str| read(path).unwrap_or_default();
    let status = text("/proc/self/status");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map_or("", str::trim).to_owned()
    };
    let first =
        |name: &str| field(name).split_whitespace().next().and_then(|id| id.parse().ok()).unwrap_or(0);
    let namespaces = INITIAL
        .iter()
        .filter_map(|(kind, _)| {
            let link = read(&format!("/proc/self/ns/{kind}"))?;
            let id = link.strip_suffix(']')?.rsplit('[').next()?.parse().ok()?;
            Some(((*kind).to_owned(), Namespace { id, private: is_private(kind, id) }))
        })
        .collect();
    let limit = |v2: &str, v1: &str| {
        let found =
            read(&format!("/sys/fs/cgroup/{v2}")).or_else(|| read(&format!("/sys/fs/cgroup/{v1}")))?;
        // Version 1 says "no limit" with the largest number of whole pages.
        found.trim().parse().ok().filter(|limit| *limit < 1 << 62)
    };
    Facts {
        hostname: text("/proc/sys/kernel/hostname").trim().to_owned(),
        kernel: text("/proc/sys/kernel/osrelease").trim().to_owned(),
        pid: std::process::id(),
        uid: first("Uid"),
        gid: first("Gid"),
        namespaces,
        uid_map: ranges(&text("/proc/self/uid_map")),
        gid_map: ranges(&text("/proc/self/gid_map")),
        capabilities: Capabilities {
            effective: capabilities(&field("CapEff")),
            bounding: capabilities(&field("CapBnd")),
        },
        no_new_privileges: field("NoNewPrivs") == "1",
        seccomp: Seccomp {
            mode: match field("Seccomp").as_str() {
                "2" => "filter",
                "1" => "strict",
                "0" => "off",
                _ => "unknown",
            },
            filters: first("Seccomp_filters"),
        },
        memory_limit: limit("memory.max", "memory/memory.limit_in_bytes"),
        pids_limit: limit("pids.max", "pids/pids.max"),
        cpu_limit: cpus(&text("/sys/fs/cgroup/cpu.max")),
        mounts: text("/proc/self/mountinfo").lines().filter_map(mount).collect(),
        interfaces: text("/proc/net/dev")
            .lines()
            .filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()))
            .collect(),
    }
}

fn is_private(kind: &str, id: u64) -> bool {
    let initial = INITIAL.iter().any(|(known, number)| *known == kind && *number == id);
    let from_boot = matches!(kind, "mnt" | "net") && BOOT.contains(&id);
    !initial && !from_boot
}

fn ranges(map: &str) -> Vec<Range> {
    let range = |line: &str| {
        let mut numbers = line.split_whitespace().map(|number| number.parse().ok());
        Some(Range { inside: numbers.next()??, outside: numbers.next()??, count: numbers.next()?? })
    };
    map.lines().filter_map(range).collect()
}

fn capabilities(mask: &str) -> Vec<String> {
    let mask = u64::from_str_radix(mask, 16).unwrap_or(0);
    let name = |bit: usize| {
        CAPABILITIES.get(bit).map_or_else(|| format!("capability {bit}"), |name| (*name).to_owned())
    };
    (0..64).filter(|bit| mask >> bit & 1 == 1).map(name).collect()
}

/// `cpu.max` of cgroup version 2: quota and period in microseconds.
fn cpus(text: &str) -> Option<f64> {
    let (quota, period) = text.trim().split_once(' ')?;
    Some(quota.parse::<f64>().ok()? / period.parse::<f64>().ok().filter(|period| *period > 0.0)?)
}

/// A line of `/proc/self/mountinfo`.
fn mount(line: &str) -> Option<Mount> {
    let (own, rest) = line.split_once(" - ")?;
    let mut fields = own.split(' ').skip(4);
    let target = fields.next()?.replace("\\040", " ");
    let options = fields.next()?;
    let kind = rest.split(' ').next()?.to_owned();
    Some(Mount { target, kind, read_only: options.split(',').any(|option| option == "ro") })
}

/// Lines of 76 columns with a label in front of each block.
struct Page {
    text: String,
    colour: bool,
}

const WIDTH: usize = 76;
const LABEL: usize = 16;

impl Page {
    fn line(&mut self, label: &str, body: &str) {
        let padding = " ".repeat(LABEL.saturating_sub(label.chars().count()));
        let label = output::painted(self.colour, Style::Strong, label);
        self.text.push_str(&format!("  {label}{padding}{body}\n"));
    }

    /// Words that flow over as many lines as they need.
    fn words(&mut self, label: &str, words: &[String]) {
        let mut label = label;
        let mut line = String::new();
        for word in words {
            if !line.is_empty() && LABEL + line.chars().count() + 1 + word.chars().count() > WIDTH {
                self.line(label, &line);
                (label, line) = ("", String::new());
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        self.line(label, if words.is_empty() { "none" } else { &line });
    }

    /// A mark: full for what protects, hollow for what does not.
    fn mark(&self, good: bool) -> String {
        if good {
            output::painted(self.colour, Style::Good, "●")
        } else {
            output::painted(self.colour, Style::Warning, "○")
        }
    }
}

fn pretty(facts: &Facts, colour: bool) -> String {
    let mut page = Page { text: String::new(), colour };
    let bar = "─".repeat(WIDTH);
    let title = "Hello from inside a container! This is what isolates me:";
    let inner = format!("  {title}{}", " ".repeat(WIDTH - 2 - title.chars().count()));
    let inner = output::painted(colour, Style::Strong, &inner);
    page.text.push_str(&format!("╭{bar}╮\n│{inner}│\n╰{bar}╯\n"));
    page.line("host name", &output::visible(&facts.hostname));
    page.line(
        "process",
        &format!("{} pid {} on Linux {}", page.mark(facts.pid == 1), facts.pid, facts.kernel),
    );
    for (i, (kind, meaning)) in MEANINGS.iter().enumerate() {
        let Some(namespace) = facts.namespaces.get(*kind) else { continue };
        let (mark, whose) =
            (page.mark(namespace.private), if namespace.private { "its own" } else { "the host's" });
        page.line(if i == 0 { "namespaces" } else { "" }, &format!("{mark} {kind:<7}{whose:<11}{meaning}"));
    }
    page.line("user", &format!("uid {}, gid {}", facts.uid, facts.gid));
    for (label, map) in [("user ids", &facts.uid_map), ("group ids", &facts.gid_map)] {
        let mut label = label;
        for text in mapping(map) {
            page.line(std::mem::take(&mut label), &text);
        }
    }
    page.words("capabilities", &facts.capabilities.effective);
    if facts.capabilities.bounding != facts.capabilities.effective {
        page.words("  at most", &facts.capabilities.bounding);
    }
    let filters = match (facts.seccomp.mode, facts.seccomp.filters) {
        ("filter", 0) => "system calls are filtered".to_owned(),
        ("filter", 1) => "system calls pass 1 filter".to_owned(),
        ("filter", count) => format!("system calls pass {count} filters"),
        (mode, _) => mode.to_owned(),
    };
    page.line("seccomp", &format!("{} {filters}", page.mark(facts.seccomp.mode == "filter")));
    let privileges =
        if facts.no_new_privileges { "setuid programs gain nothing" } else { "setuid programs work" };
    page.line("no_new_privs", &format!("{} {privileges}", page.mark(facts.no_new_privileges)));
    let limits: Vec<String> = [
        facts.memory_limit.map(|bytes| format!("memory {}", size::human_binary(bytes))),
        facts.pids_limit.map(|count| format!("{count} processes")),
        facts.cpu_limit.map(|count| format!("{count:.2} CPUs")),
    ]
    .into_iter()
    .flatten()
    .collect();
    let body = if limits.is_empty() { "none is set".to_owned() } else { limits.join(", ") };
    page.line("cgroup limits", &format!("{} {body}", page.mark(!limits.is_empty())));
    let interfaces = if facts.interfaces.is_empty() { "none".to_owned() } else { facts.interfaces.join(" ") };
    page.line("network", &format!("interfaces: {}", output::visible(&interfaces)));
    mounts(&mut page, &facts.mounts);
    page.text
}

const MEANINGS: &[(&str, &str)] = &[
    ("user", "ids and privileges"),
    ("pid", "sees only its own processes"),
    ("mnt", "sees only its own files"),
    ("net", "interfaces, addresses, ports"),
    ("ipc", "shared memory, message queues"),
    ("uts", "host name"),
    ("cgroup", "root of the cgroup tree"),
    ("time", "boot and monotonic clocks"),
];

/// An id map in words.
fn mapping(ranges: &[Range]) -> Vec<String> {
    if ranges.is_empty() {
        return vec!["unknown".to_owned()];
    }
    let words = |range: &Range| {
        let Range { inside, outside, count } = *range;
        match count {
            4_294_967_295 => "all are the host's own".to_owned(),
            1 => format!("{inside} here is {outside} outside"),
            _ => format!(
                "{inside} to {} here are {outside} to {} outside",
                inside + count - 1,
                outside + count - 1
            ),
        }
    };
    ranges.iter().map(words).collect()
}

fn mounts(page: &mut Page, mounts: &[Mount]) {
    let hides = |mount: &&Mount| {
        let below = ["/proc/", "/sys/"].iter().any(|top| mount.target.starts_with(top));
        below && matches!(mount.kind.as_str(), "tmpfs" | "devtmpfs")
    };
    let names =
        |mounts: Vec<&Mount>| -> Vec<String> { mounts.iter().map(|m| output::visible(&m.target)).collect() };
    let (hidden, seen): (Vec<&Mount>, Vec<&Mount>) = mounts.iter().partition(hides);
    let (fixed, writable): (Vec<&Mount>, Vec<&Mount>) = seen.into_iter().partition(|mount| mount.read_only);
    page.words("writable", &names(writable));
    page.words("read-only", &names(fixed));
    page.words("hidden", &names(hidden));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(path: &str) -> Option<String> {
        let text = match path {
            "/proc/self/status" => {
                "Name:\thello\nUid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nCapEff:\t00000000800405fb\n\
                 CapBnd:\t00000000800405fb\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n"
            }
            "/proc/self/ns/pid" => "pid:[4026532500]",
            "/proc/self/ns/uts" => "uts:[4026531838]",
            "/proc/self/ns/net" => "net:[4026531840]",
            "/proc/self/uid_map" => "         0       1000          1\n         1     100000      65536\n",
            "/proc/sys/kernel/hostname" => "otter\x1b[2J\n",
            "/proc/net/dev" => "Inter-|   Receive\n face |bytes\n    lo:       0       0\n",
            "/sys/fs/cgroup/memory.max" => "67108864\n",
            "/sys/fs/cgroup/pids.max" => "max\n",
            "/sys/fs/cgroup/cpu.max" => "50000 100000\n",
            "/proc/self/mountinfo" => {
                "1 0 0:1 / / rw,nodev - overlay overlay rw\n2 1 0:2 / /proc/sys ro,nosuid - proc proc rw\n\
                 3 1 0:3 / /proc/kcore ro - tmpfs tmpfs ro\n4 1 0:4 / /with\\040space rw - tmpfs t rw\nrubbish\n"
            }
            _ => return None,
        };
        Some(text.to_owned())
    }

    #[test]
    fn reads_a_container() {
        let facts = gather(&container);
        assert!(facts.namespaces["pid"].private);
        assert!(!facts.namespaces["uts"].private && !facts.namespaces["net"].private);
        assert_eq!(facts.uid_map[1], Range { inside: 1, outside: 100_000, count: 65536 });
        assert_eq!(facts.capabilities.effective.len(), 11);
        assert_eq!(facts.capabilities.effective[0], "chown");
        assert_eq!(
            (facts.memory_limit, facts.pids_limit, facts.cpu_limit),
            (Some(64 << 20), None, Some(0.5))
        );
        assert_eq!(facts.interfaces, ["lo"]);
        assert_eq!(facts.mounts.len(), 4);
        assert_eq!(facts.mounts[3].target, "/with space");
    }

    #[test]
    fn tells_it_in_words() {
        let text = pretty(&gather(&container), false);
        for part in [
            "0 here is 1000 outside",
            "1 to 65536 here are 100000 to 165535 outside",
            "● pid    its own",
            "○ uts    the host's",
            "system calls pass 1 filter",
            "memory 64MiB, 0.50 CPUs",
            "writable        / /with space",
            "hidden          /proc/kcore",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
        assert!(!text.contains('\x1b'), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH + 2), "{text}");
    }

    #[test]
    fn needs_neither_proc_nor_sys() {
        let facts = gather(&|_| None);
        assert!(pretty(&facts, true).contains("unknown"));
        assert_eq!(facts.seccomp.mode, "unknown");
        assert!(serde_json::to_string(&facts).is_ok());
    }
}
