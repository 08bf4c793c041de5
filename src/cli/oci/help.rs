//! Help for the runtime's command line, made from the tables that it is parsed by.

use super::args::{GLOBAL, Known, UsageError};
use super::commands::COMMANDS;
use super::{Done, print};

/// What options mean: of the same name they mean the same in all commands. First the value's name.
const MEANINGS: &[(&str, &str, &str)] = &[
    ("additional-gids", "GID", "a further group"),
    ("all", "", "signal all processes of the container"),
    ("apparmor", "PROFILE", "AppArmor profile of the process"),
    ("auto-dedup", "", "drop pages from earlier images that later ones have, too"),
    ("blkio-weight", "N", "share of disk time, 10 to 1000"),
    ("bundle", "DIR", "the bundle (default: the current directory)"),
    ("cap", "CAP", "give the process this capability, too"),
    ("cgroup", "PATH", "run the process in this cgroup below the container's"),
    ("cgroup-manager", "NAME", "cgroupfs, systemd or disabled"),
    ("config", "FILE", "the configuration (default: config.json in the bundle)"),
    ("console-socket", "SOCKET", "send the terminal to this socket"),
    ("cpu-burst", "MICROSECONDS", "CPU time that may be saved up"),
    ("cpu-idle", "0|1", "run only when nothing else does"),
    ("cpu-period", "MICROSECONDS", "period of the CPU quota"),
    ("cpu-quota", "MICROSECONDS", "CPU time in a period; -1 lifts the limit"),
    ("cpu-rt-period", "MICROSECONDS", "period of the real-time quota"),
    ("cpu-rt-runtime", "MICROSECONDS", "real-time CPU time in a period"),
    ("cpu-share", "N", "share of CPU time, 2 to 262144"),
    ("cpuset-cpus", "LIST", "processors, as 0-3,6"),
    ("cpuset-mems", "LIST", "memory nodes"),
    ("criu", "PATH", "has no effect, as in runc"),
    ("cwd", "DIR", "the working directory"),
    ("debug", "", "log every step"),
    ("detach", "", "do not wait for the process"),
    ("empty-ns", "network", "has no effect: network namespaces are always restored empty"),
    ("env", "NAME=VALUE", "set a variable"),
    ("ext-unix-sk", "", "allow Unix sockets that are connected with others outside"),
    ("file", "FILE", "the file's name (default: config.json)"),
    ("file-locks", "", "take file locks along"),
    ("force", "", "kill it first; that there is none is no error"),
    ("format", "FORMAT", "table or json"),
    ("help", "", "print this"),
    ("ignore-paused", "", "also if the container is paused"),
    ("image-path", "DIR", "the images (default: checkpoint in the current directory)"),
    ("interval", "DURATION", "how often (default: 5s)"),
    ("keep", "", "do not delete the container when it ends"),
    ("kernel-memory", "BYTES", "only of cgroup v1, refused if not empty"),
    ("kernel-memory-tcp", "BYTES", "only of cgroup v1, refused if not empty"),
    ("l3-cache-schema", "SCHEMA", "share of the cache (resctrl), like L3:0=ff"),
    ("lazy-pages", "", "fetch pages when they are needed (criu lazy-pages)"),
    ("leave-running", "", "let the container go on"),
    ("link-remap", "", "give removed files that are open a name"),
    ("log", "FILE", "append errors and warnings to this file"),
    ("log-format", "FORMAT", "text or json"),
    ("log-level", "LEVEL", "debug, warning or error"),
    ("lsm-mount-context", "LABEL", "SELinux label of the mounts"),
    ("lsm-profile", "TYPE:NAME", "AppArmor profile or SELinux label of the processes"),
    ("manage-cgroups-mode", "MODE", "soft (default), full, strict or ignore"),
    ("mem-bw-schema", "SCHEMA", "share of memory bandwidth (resctrl), like MB:0=20"),
    ("memory", "BYTES", "memory; -1 lifts the limit"),
    ("memory-reservation", "BYTES", "memory that is kept for it"),
    ("memory-swap", "BYTES", "memory and swap together; -1 lifts the limit"),
    ("network-lock", "METHOD", "iptables (default), nftables or skip"),
    ("no-new-keyring", "", "do not make a session keyring"),
    ("no-new-privs", "", "no exec can give privileges"),
    ("no-pivot", "", "move the root instead of pivoting: for a host on a ramfs"),
    ("no-subreaper", "", "has no effect: there never is one"),
    ("page-server", "ADDRESS:PORT", "send pages there instead of into files"),
    ("parent-path", "DIR", "earlier images, relative to --image-path"),
    ("pid-file", "FILE", "write the process's number to this file"),
    ("pidfd-socket", "SOCKET", "send a pidfd of the process to this socket"),
    ("pids-limit", "N", "processes; -1 lifts the limit"),
    ("pre-dump", "", "write the memory only, and let the container go on"),
    ("preserve-fds", "N", "let N descriptors from 3 on through"),
    ("process", "FILE", "the process as JSON"),
    ("process-label", "LABEL", "SELinux label of the process"),
    ("quiet", "", "only ids"),
    ("regex", "", "ID is a regular expression: all containers that match"),
    ("resources", "FILE", "all limits as JSON; - for standard input"),
    ("root", "DIR", "where containers' states are kept"),
    ("rootless", "BOOL", "true, false or auto; with false a container must get a control group"),
    ("rootless", "", "for an ordinary user"),
    ("shell-job", "", "allow a container in the caller's session"),
    ("stats", "", "print once and end"),
    ("status-fd", "N", "write a byte to this descriptor when pages can be fetched"),
    ("systemd-cgroup", "", "let systemd make control groups"),
    ("tcp-close", "", "close the TCP connections that were taken along"),
    ("tcp-established", "", "take open TCP connections along"),
    ("tcp-skip-in-flight", "", "leave TCP connections out that are not open yet"),
    ("tty", "", "give the process a terminal"),
    ("user", "UID[:GID]", "who the process is"),
    ("version", "", "print the version"),
    ("work-path", "DIR", "criu's working directory and log (default: the images')"),
];

fn meaning(name: &str, takes_value: bool) -> Option<&'static (&'static str, &'static str, &'static str)> {
    MEANINGS.iter().find(|(known, value, _)| *known == name && value.is_empty() != takes_value)
}

fn lines(options: &[Known]) -> String {
    let mut text = String::new();
    for (name, short, takes_value) in options {
        let meaning = meaning(name, *takes_value);
        let (value, about) = meaning.map_or(("", ""), |(_, value, about)| (*value, *about));
        let short = short.map_or("    ".to_owned(), |short| format!("-{short}, "));
        text.push_str(format!("  {short}{:<26} {about}", format!("--{name} {value}")).trim_end());
        text.push('\n');
    }
    text
}

/// Prints the help of a command, or of all.
pub(super) fn print_for(command: Option<&str>) -> Done {
    let Some(name) = command else {
        let commands: String =
            COMMANDS.iter().map(|command| format!("  {:<10} {}\n", command.name, command.about)).collect();
        return print(&format!(
            "Usage: umiak-runtime [OPTIONS] COMMAND [OPTIONS] [ID]\n\nCommands:\n{commands}\nOptions:\n{}",
            lines(GLOBAL)
        ));
    };
    let found = COMMANDS.iter().find(|command| command.name == name);
    let command = found.ok_or_else(|| UsageError::Command { name: name.to_owned(), meant: None })?;
    let usage = format!("Usage: umiak-runtime {name} [OPTIONS] {}", command.arguments);
    let about = command.about;
    print(&format!("{}\n\n{about}\n\nOptions:\n{}", usage.trim_end(), lines(command.options)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_has_a_meaning() {
        for (name, _, takes_value) in COMMANDS.iter().flat_map(|command| command.options).chain(GLOBAL) {
            assert!(meaning(name, *takes_value).is_some(), "{name}");
        }
    }
}
