//! `doctor` on hosts that are broken on purpose: in a mount namespace of their own with files bound over, with
//! limits, in namespaces with other settings, behind seccomp filters. Each has one fault, and that must be named.

use std::process::{Command, Stdio};

use crate::requires;
use crate::support::{self, Need, Umiak};

/// What machines lack that these tests run on, and containers do without.
const AMBIENT: [&str; 4] = ["no-delegation", "no-cgroup-v2", "no-controllers", "no-lingering"];

/// Prepares a user with everything, whom nobody else knows of; then what breaks the host; then asks.
const HOST: &str = r#"
set -e
D=$1 BIN=$2
H=$D/home
chown 4321:4321 $H $D/run
bind() { mount --bind "$1" "$2"; }
cp /etc/passwd $D/passwd
echo "otter:x:4321:4321::$H:/bin/sh" >> $D/passwd
bind $D/passwd /etc/passwd
for file in subuid subgid; do echo otter:700000000:65536 > $D/$file; bind $D/$file /etc/$file; done
WRAP= XDG=XDG_RUNTIME_DIR=$D/run PLACE=HOME=$H FLAGS='--format json'
# A user namespace of all ids, whose settings are its own.
elsewhere() {
    unshare --user sleep 1000 &
    holder=$!
    trap 'kill $holder' EXIT
    while [ "$(cat /proc/$holder/comm)" != sleep ]; do sleep 0.01; done
    echo 0 0 4294967295 > /proc/$holder/uid_map
    echo 0 0 4294967295 > /proc/$holder/gid_map
    printf '%s\n' "echo 0 > /proc/sys/user/$1" 'exec "$@"' > $D/inside
    WRAP="nsenter --user --target $holder --setuid 0 --setgid 0 sh $D/inside"
}
# Calls refused by a filter: lines of Python.
filter() {
    printf '%s\n' 'import os, sys' 'from seccomp import *' 'f = SyscallFilter(ALLOW)' 'f.set_attr(Attr.CTL_NNP, 0)' "$1" \
        'f.load()' 'os.execvp(sys.argv[1], sys.argv[1:])' > $D/filter.py
    WRAP="/usr/bin/python3 $D/filter.py"
}
"#;

/// Has the user run a command.
const ASK: &str = r#"
eval "set -- $WRAP setpriv --reuid 4321 --regid 4321 --clear-groups $AFTER"
"$@" env -i PATH=/usr/bin:/bin:/usr/sbin LC_ALL=C $PLACE $XDG $MORE ${JOB:-$BIN doctor $FLAGS}
"#;

/// Asks the doctor, or has what `JOB` says done, on such a host.
pub fn ask(umiak: &Umiak, breaks: &str) -> support::Output {
    let script = format!("{HOST}\n{breaks}\n{ASK}");
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh"]);
    command
        .arg(&umiak.dir)
        .arg(Umiak::binary())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    support::finish(command.spawn().unwrap(), b"", format!("doctor where {breaks}"))
}

pub fn causes(output: &support::Output) -> Vec<String> {
    let value: serde_json::Value = serde_json::from_str(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}\n{}\n{}", output.stdout, output.stderr));
    let checks = value["checks"].as_array().unwrap();
    let ill = checks.iter().filter(|check| check["state"] != "ok");
    for check in ill.clone() {
        assert!(check["cure"].is_string(), "{check}");
    }
    let broken = checks.iter().any(|check| check["state"] == "broken");
    assert_eq!((value["broken"].as_bool(), output.code), (Some(broken), Some(i32::from(broken))));
    let names = ill.map(|check| check["cause"].as_str().unwrap().to_owned());
    names.filter(|name| !AMBIENT.contains(&name.as_str())).collect()
}

/// What is done to the host, and the one cause of what follows.
const BROKEN: &[(&str, &str)] = &[
    ("bind /dev/null /usr/bin/newuidmap", "no-helper"),
    ("cp /usr/bin/newgidmap $D/h; chmod 755 $D/h; bind $D/h /usr/bin/newgidmap", "helper-without-powers"),
    (
        "mkdir $D/n; mount -t tmpfs -o nosuid,mode=755 x $D/n; cp -p /usr/bin/newuidmap $D/n/h; bind $D/n/h /usr/bin/newuidmap",
        "helper-nosuid",
    ),
    ("printf '#!/bin/sh\nexit 1\n' > $D/h; chmod 4755 $D/h; bind $D/h /usr/bin/newuidmap", "helper-refuses"),
    ("AFTER=--no-new-privs", "no-new-privileges"),
    ("echo other:1:1 > $D/subuid", "no-subids"),
    (": > $D/subgid", "no-subids"),
    ("chmod 600 $D/subgid", "no-subid-file"),
    ("echo otter:one:two > $D/subuid", "ill-subid-line"),
    ("echo otter:4000:65536 > $D/subuid", "ill-subid-line"),
    ("echo otter:700000000:100 > $D/subgid", "few-subids"),
    ("echo stoat:700000100:65536 >> $D/subuid", "shared-subids"),
    ("grep -v otter /etc/passwd > $D/p || :; bind $D/p /etc/passwd", "no-subids"),
    ("elsewhere max_user_namespaces", "max-user-namespaces"),
    ("elsewhere max_net_namespaces", "namespace-limit"),
    ("elsewhere max_pid_namespaces", "namespace-limit"),
    ("elsewhere max_mnt_namespaces", "namespace-limit"),
    ("elsewhere max_uts_namespaces", "namespace-limit"),
    (
        "mkdir -p $D/r$D; for d in $(ls /); do [ -L /$d ] && cp -a /$d $D/r/ || { [ -d /$d ] && [ $d != tmp ] && mkdir -p $D/r/$d && mount --rbind /$d $D/r/$d; } || :; done; \
         bind $D $D/r$D; case $BIN in $D/*) ;; *) cp $BIN $D/umiak; BIN=$D/umiak ;; esac; WRAP=\"chroot $D/r\"",
        "chroot",
    ),
    ("bind /dev/null /proc/cpuinfo", "proc-covered"),
    ("mount -t tmpfs x /proc", "no-proc"),
    ("mkdir -p $H/.local/share; mount -t tmpfs -o ro x $H/.local/share", "read-only-store"),
    ("mkdir -p $H/.local; chmod 755 $H/.local", "closed-store"),
    ("mkdir -p $H/.local/share/umiak; chown -R 77 $H/.local/share/umiak", "foreign-store"),
    ("mkdir -p $H/.local/share; mount -t tmpfs -o size=64k,uid=4321 x $H/.local/share", "full-store"),
    ("mkdir -p $H/.local/share; mount -t tmpfs -o nr_inodes=5,uid=4321 x $H/.local/share", "full-store"),
    ("mkdir -p $H/.local/share; mount -t tmpfs -o size=100m,uid=4321 x $H/.local/share", "little-space"),
    (
        "mkdir -p $H/.local/share; mkdir $D/o; mount -t tmpfs x $D/o; mkdir $D/o/l $D/o/u $D/o/w; \
         mount -t overlay -o lowerdir=$D/o/l,upperdir=$D/o/u,workdir=$D/o/w x $H/.local/share; chown 4321 $H/.local/share",
        "no-overlay",
    ),
    (
        "printf '%s\n' 'echo 2 > /proc/sys/vm/memfd_noexec' 'exec \"$@\"' > $D/inside; \
         WRAP=\"unshare --pid --fork --mount-proc sh $D/inside\"",
        "memfd-noexec",
    ),
    ("XDG=", "no-runtime-dir"),
    ("XDG=XDG_RUNTIME_DIR=$D/gone", "runtime-dir-gone"),
    ("XDG=XDG_RUNTIME_DIR=run", "relative-runtime-dir"),
    ("chown 77 $D/run", "foreign-runtime-dir"),
    ("touch $D/f; bind $D/f /dev/null", "no-device"),
    (
        "mkdir $D/n; mount -t tmpfs x $D/n; mknod -m 600 $D/n/zero c 1 5; bind $D/n/zero /dev/zero",
        "no-device",
    ),
    (
        "mkdir -p $H/.local/share/umiak/containers; chown -R 4321:4321 $H/.local; chown 0:0 $H/.local/share/umiak/containers",
        "foreign-store",
    ),
    ("head -c 5000 /dev/urandom > $D/h; chmod 4755 $D/h; bind $D/h /usr/bin/newuidmap", "helper-no-program"),
    ("PLACE=HOME=/nonexistent/otter", "closed-store"),
    ("cp -a /etc $D/etc; rm $D/etc/subuid; mkdir $D/etc/subuid; bind $D/etc /etc", "no-subid-file"),
    ("WRAP='prlimit --nofile=40:40'", "few-files"),
    ("WRAP='prlimit --fsize=65536:65536'", "file-size-limit"),
    ("AFTER='prlimit --nproc=1:1'", "too-many-processes"),
];

#[test]
fn broken_hosts() {
    requires!(Need::Root, Need::Tool("newuidmap"), Need::Tool("setpriv"));
    let mut wrong = Vec::new();
    for (breaks, cause) in BROKEN {
        let umiak = Umiak::new();
        let output = ask(&umiak, breaks);
        let found = std::panic::catch_unwind(|| causes(&output));
        match found {
            Ok(found) if found == [*cause] => {}
            Ok(found) => wrong.push(format!("{breaks}: {found:?}, not {cause}\n{}", output.stdout)),
            Err(_) => wrong.push(format!("{breaks}: {}", output.stderr)),
        }
        tidy(&umiak);
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), BROKEN.len(), wrong.join("\n"));
}

/// What the user made is not this one's to look after.
pub fn tidy(umiak: &Umiak) {
    let _ = std::fs::remove_dir_all(umiak.dir.join("home"));
}

/// Calls that a filter refuses, and the cause.
pub const FILTERED: &[(&str, &str)] = &[
    (
        "f.add_rule(ERRNO(1), 'unshare', Arg(0, MASKED_EQ, 0x10000000, 0x10000000))
f.add_rule(ERRNO(1), 'clone', Arg(0, MASKED_EQ, 0x10000000, 0x10000000))
f.add_rule(ERRNO(38), 'clone3')",
        "seccomp-filter",
    ),
    (
        "for name in 'mount', 'fsopen', 'fsmount', 'open_tree', 'move_mount': f.add_rule(ERRNO(1), name)",
        "seccomp-filter",
    ),
    ("f.add_rule(ERRNO(97), 'socket', Arg(0, EQ, 16), Arg(2, EQ, 12))", "no-nftables"),
    ("f.add_rule(ERRNO(97), 'socket', Arg(0, EQ, 16), Arg(2, EQ, 0))", "no-veth"),
    ("f.add_rule(ERRNO(38), 'seccomp')", "no-seccomp"),
    ("f.add_rule(ERRNO(38), 'memfd_create')", "no-memfd"),
    // What is not looked for by itself shows when a container is run.
    ("f.add_rule(ERRNO(1), 'sethostname')", "seccomp-filter"),
    ("f.add_rule(ERRNO(38), 'openat2')", "trial-failed"),
    (
        "f.add_rule(ERRNO(1), 'pidfd_open'); f.add_rule(ERRNO(1), 'setns'); f.add_rule(ERRNO(1), 'ptrace')",
        "seccomp-filter",
    ),
    ("f.add_rule(ERRNO(1), 'pivot_root')", "seccomp-filter"),
    ("f.add_rule(ERRNO(1), 'openat2')", "seccomp-filter"),
    ("f.add_rule(ERRNO(1), 'socket', Arg(0, EQ, 16))", "seccomp-filter"),
];

#[test]
fn hosts_behind_filters() {
    requires!(Need::Root, Need::Tool("newuidmap"), Need::Tool("setpriv"), Need::Tool("python3"));
    let module = Command::new("/usr/bin/python3").args(["-c", "import seccomp"]).output().unwrap();
    if !module.status.success() {
        support::skip("needs python3-seccomp", false);
        return;
    }
    let mut wrong = Vec::new();
    for (rules, cause) in FILTERED {
        let umiak = Umiak::new();
        let output = ask(&umiak, &format!("filter \"{rules}\""));
        match std::panic::catch_unwind(|| causes(&output)) {
            Ok(found) if found == [*cause] => {}
            Ok(found) => wrong.push(format!("{rules}: {found:?}, not {cause}\n{}", output.stdout)),
            Err(_) => wrong.push(format!("{rules}: {}", output.stderr)),
        }
        tidy(&umiak);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let umiak = Umiak::new();
    // A switch that this kernel does not have.
    let switch = format!(
        "filter \"{}\"; mount -t tmpfs x /proc/sys/kernel; echo 0 > /proc/sys/kernel/unprivileged_userns_clone",
        FILTERED[0].0
    );
    assert_eq!(causes(&ask(&umiak, &switch)), ["unprivileged-userns-clone"]);
    tidy(&umiak);
    let umiak = Umiak::new();
    let pod = format!("filter \"{}\"; MORE=KUBERNETES_SERVICE_HOST=1", FILTERED[0].0);
    assert!(ask(&umiak, &pod).stdout.contains("seccompProfile"));
    tidy(&umiak);
}

#[test]
fn a_host_on_which_all_is_well() {
    requires!(Need::Root, Need::Tool("newuidmap"), Need::Tool("setpriv"));
    for harmless in [":", "mount -t proc -o hidepid=2 proc /proc", "bind /dev/null /dev/net/tun || :"] {
        let umiak = Umiak::new();
        assert_eq!(causes(&ask(&umiak, harmless)), [""; 0], "{harmless}");
        tidy(&umiak);
    }
    let umiak = Umiak::new();
    let told = ask(&umiak, "FLAGS=");
    assert!(told.stdout.contains("ok       user namespaces: one was made"), "{}", told.stdout);
    assert!(!ask(&umiak, "FLAGS=--quiet").stdout.contains("ok  "));
    tidy(&umiak);
    let umiak = Umiak::new();
    ask(&umiak, "PLACE=").exits(125).tells("$HOME");
    tidy(&umiak);
}

#[test]
fn who_runs_the_tests_can_run_containers() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let output = umiak.run(&["doctor", "--format", "json"]).ok();
    assert!(
        causes(&output).iter().all(|cause| cause == "no-subids" || cause == "no-runtime-dir"),
        "{}",
        output.stdout
    );
    umiak.run(&["run", "--rm", "--network", "none", "busybox", "true"]).ok();
    umiak.run(&["doctor", "--format", "{{.broken}} {{json .}}"]).ok().has("false {");
    let info = umiak.run(&["info", "--format", "{{json .host.isolation.checks}}"]).ok().stdout;
    assert!(info.contains("\"topic\":\"user ids\""), "{info}");
    // Who is not root has keep-id; what it costs depends on the ids and the file system.
    let cost =
        umiak.run(&["info", "--format", "{{.host.isolation.ids.otherMappings}}"]).ok().has("--userns=");
    assert!(rustix::process::geteuid().is_root() || cost.stdout.contains("keep-id"), "{}", cost.stdout);
    assert!(["nothing", "copy"].iter().any(|word| cost.stdout.contains(word)), "{}", cost.stdout);
    umiak.run(&["doctor", "nonsense"]).exits(125).tells("nonsense");
}
