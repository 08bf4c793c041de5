//! Hostile surroundings: each is built, in a mount namespace of its own, and a container is run in it by a user
//! whom nobody else knows of. What came of it is the table in docs/rootless.md, which a test compares.

use crate::doctor::{FILTERED, ask, causes, tidy};
use crate::requires;
use crate::support::{self, Need, Umiak, images};

/// What comes of `umiak run`.
enum Comes {
    /// It runs, with as many ids as there should be.
    Runs,
    /// It runs with one id.
    OneId,
    /// It is refused: a part of the error, and one of the hint.
    Refused(&'static str, &'static str),
}

struct Surrounding {
    /// As the table calls it.
    name: &'static str,
    /// What builds it.
    build: &'static str,
    comes: Comes,
    /// The cause that the doctor tells; empty for none.
    cause: &'static str,
}

const fn on(name: &'static str, build: &'static str, comes: Comes, cause: &'static str) -> Surrounding {
    Surrounding { name, build, comes, cause }
}

use Comes::{OneId, Refused, Runs};

const SURROUNDINGS: &[Surrounding] = &[
    on("nothing special", ":", Runs, ""),
    on("no newuidmap", "bind /dev/null /usr/bin/newuidmap", OneId, "no-helper"),
    on(
        "newuidmap without its set-user-ID bit",
        "cp /usr/bin/newuidmap $D/h; chmod 755 $D/h; bind $D/h /usr/bin/newuidmap",
        OneId,
        "helper-without-powers",
    ),
    on(
        "newuidmap on a nosuid mount",
        "mkdir $D/n; mount -t tmpfs -o nosuid,mode=755 x $D/n; cp -p /usr/bin/newuidmap $D/n/h; bind $D/n/h /usr/bin/newuidmap",
        OneId,
        "helper-nosuid",
    ),
    on("no range in /etc/subuid", ": > $D/subuid", OneId, "no-subids"),
    on(
        "a user whom /etc/passwd does not know",
        "grep -v otter /etc/passwd > $D/p || :; bind $D/p /etc/passwd",
        OneId,
        "no-subids",
    ),
    on("no_new_privs (a service, a job of CI)", "AFTER=--no-new-privs", OneId, "no-new-privileges"),
    on(
        "home on overlayfs",
        "mkdir $D/o; mount -t tmpfs x $D/o; mkdir $D/o/l $D/o/u $D/o/w; \
         mount -t overlay -o lowerdir=$D/o/l,upperdir=$D/o/u,workdir=$D/o/w x $H; chown 4321 $H",
        Runs,
        "no-overlay",
    ),
    on(
        "home on a file system without attributes (ramfs)",
        "mount -t ramfs x $H; chown 4321 $H; chmod 700 $H",
        Runs,
        "",
    ),
    on(
        "home mounted noexec, nosuid and nodev",
        "bind $H $H; mount -o remount,bind,noexec,nosuid,nodev $H",
        Runs,
        "",
    ),
    on(
        "home read-only",
        "bind $H $H; mount -o remount,bind,ro $H",
        Refused("read-only file system", "--root"),
        "read-only-store",
    ),
    on(
        "home full",
        "mount -t tmpfs -o size=64k,uid=4321 x $H",
        Refused("no space left", "the disk is full"),
        "full-store",
    ),
    on("XDG_RUNTIME_DIR not set (cron, su)", "XDG=; WRAP=setsid", Runs, "no-runtime-dir"),
    on("XDG_RUNTIME_DIR deleted", "XDG=XDG_RUNTIME_DIR=$D/gone", Runs, "runtime-dir-gone"),
    on(
        "XDG_RUNTIME_DIR of another user (su, sudo)",
        "chown 77 $D/run; chmod 700 $D/run",
        Runs,
        "foreign-runtime-dir",
    ),
    on(
        "/tmp full",
        "cp $BIN $D/umiak; bind $D /mnt; mount -t tmpfs -o size=64k,nr_inodes=9 x /tmp; mkdir -p $D; bind /mnt $D; BIN=$D/umiak; : > /tmp/a; : > /tmp/b",
        Runs,
        "",
    ),
    on("processes of others hidden (hidepid=2)", "mount -t proc -o hidepid=2 proc /proc", Runs, ""),
    on("no /dev/net/tun", "[ ! -e /dev/net/tun ] || bind /dev/null /dev/net/tun", Runs, ""),
    on(
        "clone3 forbidden, as by filters of containers",
        "filter \"f.add_rule(ERRNO(38), 'clone3')\"",
        Runs,
        "",
    ),
    on(
        "user namespaces switched off",
        "elsewhere max_user_namespaces",
        Refused("user namespace", "max_user_namespaces"),
        "max-user-namespaces",
    ),
    on(
        "network namespaces switched off",
        "elsewhere max_net_namespaces",
        Refused("namespaces", "max_net_namespaces"),
        "namespace-limit",
    ),
    on(
        "user namespaces forbidden by a filter, as in Docker",
        "",
        Refused("user", "seccomp"),
        "seccomp-filter",
    ),
    on(
        "parts of /proc covered, as in Docker",
        "bind /dev/null /proc/cpuinfo",
        Refused("proc", "--pid=host"),
        "proc-covered",
    ),
    on(
        "parts of /proc covered, with --pid=host",
        "bind /dev/null /proc/cpuinfo; OPTIONS=--pid=host",
        Runs,
        "proc-covered",
    ),
    on(
        "files in memory not executable (vm.memfd_noexec=2)",
        "printf '%s\\n' 'echo 2 > /proc/sys/vm/memfd_noexec' 'exec \"$@\"' > $D/inside; \
         WRAP=\"unshare --pid --fork --mount-proc sh $D/inside\"",
        Refused("stub", "memfd_noexec"),
        "memfd-noexec",
    ),
];

const TABLE: &str = include_str!("../../docs/rootless.md");

impl Surrounding {
    /// Its line of the table.
    fn line(&self) -> String {
        let comes = match self.comes {
            Runs => "runs".to_owned(),
            OneId => "runs, with one id".to_owned(),
            Refused(_, hint) => format!("refused; the hint names `{hint}`"),
        };
        let cause = if self.cause.is_empty() { "–".to_owned() } else { format!("`{}`", self.cause) };
        format!("| {} | {comes} | {cause} |", self.name)
    }

    fn build(&self) -> String {
        if self.build.is_empty() { format!("filter \"{}\"", FILTERED[0].0) } else { self.build.to_owned() }
    }

    /// What is wrong with what came of it.
    fn wrong(&self, umiak: &Umiak) -> Option<String> {
        let build = format!("cp -r {} $D/image; {}", images().join("busybox").display(), self.build());
        let job = "\ncat > $D/job <<END\n$BIN pull -q oci:$D/image:localhost/busybox:latest >/dev/null && \
                   $BIN run --rm --name one $OPTIONS busybox cat /proc/self/uid_map\n\
                   code=\\$?\n$BIN rm -af -t 0 >/dev/null 2>&1\nexit \\$code\nEND\nJOB=\"sh $D/job\"";
        let output = ask(umiak, &format!("{build}\n{job}"));
        let told = |part: &str, with: &str| {
            let found = output.stderr.lines().find(|line| line.starts_with(with));
            found.is_some_and(|line| line.to_lowercase().contains(part))
        };
        let ids = |line: &str| line.split_whitespace().last()?.parse::<u32>().ok();
        let ids = || output.stdout.lines().filter_map(ids).sum::<u32>();
        let right = match self.comes {
            Runs => output.code == Some(0) && ids() == 65537,
            OneId => output.code == Some(0) && ids() == 1,
            Refused(error, hint) => {
                output.code == Some(125) && told(error, "error: ") && told(hint, "hint: ")
            }
        };
        let found = (!right).then(|| format!("{:?} {:?} {}", output.code, output.stdout, output.stderr));
        support::eventually("no process is left", || support::processes(&umiak.dir).is_empty());
        found
    }
}

#[test]
fn containers_run_wherever_they_can() {
    requires!(
        Need::Root,
        Need::Image("busybox"),
        Need::Tool("newuidmap"),
        Need::Tool("setpriv"),
        Need::Tool("python3")
    );
    let mut wrong = Vec::new();
    for surrounding in SURROUNDINGS {
        let umiak = Umiak::new();
        wrong.extend(surrounding.wrong(&umiak).map(|what| format!("{}: {what}", surrounding.name)));
        tidy(&umiak);
        let umiak = Umiak::new();
        let output = ask(&umiak, &surrounding.build());
        let found = std::panic::catch_unwind(|| causes(&output));
        let expected: Vec<&str> =
            Some(surrounding.cause).filter(|cause| !cause.is_empty()).into_iter().collect();
        if !matches!(&found, Ok(found) if *found == expected) {
            wrong.push(format!("{}: the doctor says {found:?}", surrounding.name));
        }
        tidy(&umiak);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_table_in_the_documentation_is_this_one() {
    let lines: Vec<String> = SURROUNDINGS.iter().map(Surrounding::line).collect();
    let missing: Vec<&String> = lines.iter().filter(|line| !TABLE.contains(line.as_str())).collect();
    assert!(missing.is_empty(), "docs/rootless.md should have:\n{}", lines.join("\n"));
}

/// Two users who call their containers and volumes alike meet nowhere.
#[test]
fn two_users_with_the_same_names() {
    requires!(Need::Root, Need::Image("busybox"), Need::Tool("newuidmap"), Need::Tool("setpriv"));
    let umiak = Umiak::new();
    // Without directories of their own for what is volatile: both use /tmp.
    let script = format!(
        "cp -r {} $D/image; mkdir $D/other; chown 4322:4322 $D/other; echo stoat:x:4322:4322::/:/bin/sh >> $D/passwd; XDG=\n\
         for file in subuid subgid; do echo stoat:700065536:65536 >> $D/$file; done\n\
         as() {{ who=$1 home=$2; shift 2; setpriv --reuid $who --regid $who --clear-groups env -i PATH=/usr/bin:/bin HOME=$home $BIN \"$@\"; }}\n\
         for user in '4321 $H' '4322 $D/other'; do\n\
         eval \"as $user pull -q oci:$D/image:localhost/busybox:latest\" > /dev/null\n\
         eval \"as $user run -d --name web -v data:/data busybox sh -c 'echo $user | cut -c1-4 > /data/who; sleep 1000'\" > /dev/null\n\
         done\n\
         for user in '4321 $H' '4322 $D/other'; do\n\
         eval \"as $user exec web cat /data/who\"; eval \"as $user ps -a --format '{{{{.Names}}}}'\"\n\
         eval \"as $user rm -f -t 0 web\" > /dev/null\ndone; exit",
        images().join("busybox").display()
    );
    let output = ask(&umiak, &script).ok();
    assert_eq!(output.stdout, "4321\nweb\n4322\nweb\n", "{}", output.stderr);
    tidy(&umiak);
    let _ = std::fs::remove_dir_all(umiak.dir.join("other"));
}
