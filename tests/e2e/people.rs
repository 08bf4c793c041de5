//! Who processes are that have become somebody else, where there is one id and that is remembered.

use std::path::PathBuf;

use crate::requires;
use crate::support::{self, Need, Umiak};

const WORDS: [&str; 6] = ["run", "--rm", "--network", "none", "--security-opt", "ownership=remembered"];

fn sh(umiak: &Umiak, options: &[&str], image: &str, script: &str) -> support::Output {
    umiak.run(&[&WORDS, options, &[image, "sh", "-c", script]].concat())
}

#[test]
fn who_became_somebody_is_told_so() {
    requires!(Need::Image("debian"), Need::NoSubuid);
    let umiak = Umiak::with_image("debian");
    let run = |script: &str| sh(&umiak, &[], "debian", script);
    // By way of programs for it; and what those start, also when nobody waits for it any more.
    run("su -s /bin/sh daemon -c 'id -u; id -g; sh -c \"id -un\"'; id -u").ok().says("1\n1\ndaemon\n0");
    run("runuser -u games -- id -un; chroot --userspec=33:44 / id -u").ok().says("games\n33");
    run("setpriv --reuid 42 --regid 43 --groups 7,8 sh -c 'id -u; id -g; id -G; \
         (sleep 0.3; id -u > /tmp/late) & '; sleep 1; cat /tmp/late; id -G")
    .ok()
    .says("42\n43\n43 7 8\n42\n0");
    // Not those that were there before.
    let perl = "pipe($r, $w); if (!fork) { close $w; <$r>; print \"child $< $>\\n\"; exit } \
                use POSIX; POSIX::setuid(33); close $w; wait; print \"$< $>\\n\"; \
                POSIX::setuid(0) or print \"$!\\n\"; POSIX::setuid(33) and print \"33\\n\"";
    run(&format!("perl -e '{perl}'")).ok().says("child 0 0\n33 33\nOperation not permitted\n33");
    let perl = "$) = \"5 6 7\"; $> = 33; print \"$< $> $)\\n\"; $> = 0; print \"$< $>\\n\"; \
                ($<, $>) = (33, 34); print \"$< $>\\n\"; $> = 35; print \"$>\\n\"";
    run(&format!("perl -e '{perl}'")).ok().says("0 33 5 6 7\n0 0\n33 34\n34");
    // Threads that are as old as the change are of the same process.
    run("setpriv --reuid 42 --clear-groups sh -c 'setpriv --reuid 0 id -u || echo kept; id -u'")
        .ok()
        .says("kept\n42");
}

#[test]
fn what_somebody_makes_is_theirs() {
    requires!(Need::Image("debian"), Need::NoSubuid);
    let umiak = Umiak::with_image("debian");
    let app = |before: &str, script: &str| {
        let script = format!("{before} setpriv --reuid 42 --regid 43 --clear-groups sh -c '{script}'");
        sh(&umiak, &[], "debian", &script)
    };
    let look = "stat -c \"%u:%g %a\"";
    app("umask 027;", &format!("cd /tmp; touch f; mkdir d d/e/ ; echo x > d/e/g; mktemp -p d > name; {look} f d d/e d/e/g $(cat name); cat d/e/g"))
        .ok()
        .says("42:43 640\n42:43 750\n42:43 750\n42:43 640\n42:43 600\nx");
    // A directory's group; a link to nowhere; what is there; what cannot be.
    app(
        "mkdir /tmp/s; chown 1:50 /tmp/s; chmod 2777 /tmp/s;",
        &format!("mkdir /tmp/s/d; touch /tmp/s/f; {look} /tmp/s/d /tmp/s/f"),
    )
    .ok()
    .says("42:50 2755\n42:50 644");
    app(
        "touch /tmp/old;",
        &format!(
            "echo more >> /tmp/old; {look} /tmp/old; ln -s new /tmp/link; echo x > /tmp/link; cat /tmp/new; \
         set -C; echo y > /tmp/new || echo there"
        ),
    )
    .ok()
    .says("0:0 644\nx\nthere");
    let errors =
        app("", "mkdir /tmp; mkdir /none/x; true > /none/x; true > /proc/none; mkdir /etc/passwd/x").stderr;
    for (error, count) in
        [("File exists", 1), ("No such file", 1), ("nonexistent", 2), ("Not a directory", 1)]
    {
        assert_eq!(errors.matches(error).count(), count, "{error}: {errors}");
    }
    // Roots and working directories are the caller's.
    app(
        "mkdir -p /r/bin /r/tmp; for file in /bin/touch $(ldd /bin/touch | grep -o \"/[^ ]*\"); do mkdir -p /r${file%/*}; cp -L $file /r$file; done;",
        "chroot /r /bin/touch /tmp/inside; stat -c %u /r/tmp/inside; test -e /tmp/inside || echo outside",
    )
    .ok()
    .says("42\noutside");
}

/// A program that is its owner's for whoever starts it.
#[test]
fn set_user_id_programs_take_theirs() {
    requires!(Need::Image("debian"), Need::NoSubuid);
    let umiak = Umiak::with_image("debian");
    let script = "cp /usr/bin/id /tmp/i; chmod 4755 /tmp/i; cp /usr/bin/id /tmp/o; chown 7:8 /tmp/o; chmod 6755 /tmp/o; \
                  grep -q 'NoNewPrivs:.*0' /proc/self/status || echo none; \
                  setpriv --reuid 42 --regid 43 --clear-groups sh -c '/tmp/i -u; /tmp/i -ru; /tmp/o -u; /tmp/o -g; id -u'; \
                  setpriv --no-new-privs --reuid 42 --clear-groups /tmp/i -u";
    let none = sh(&umiak, &[], "debian", script).ok().stdout;
    let expected =
        if none.starts_with("none") { "none\n42\n42\n42\n43\n42\n42\n" } else { "0\n42\n7\n8\n42\n42\n" };
    assert_eq!(none, expected);
}

/// Who confines himself keeps to it: we make nothing for him, whoever he says he is.
#[test]
fn who_is_confined_stays_so() {
    requires!(Need::Image("debian"), Need::NoSubuid, Need::Tool("python3"));
    let umiak = Umiak::with_image("debian");
    let python = r#"
import ctypes, os, resource
libc = ctypes.CDLL(None, use_errno=True)
os.setresgid(43, 43, 43); os.setresuid(42, 42, 42)
open("/tmp/before", "w")
print(os.stat("/tmp/before").st_uid, resource.getrlimit(10)[0] > 1 << 60)
mark = resource.getrlimit(10)[0]
handled = ctypes.c_uint64(1 << 8 | 1 << 7)
rules = libc.syscall(444, ctypes.byref(handled), 8, 0)
libc.prctl(38, 1, 0, 0, 0)
print(libc.syscall(446, rules, 0))
def tried(what):
    try: what(); print("made")
    except PermissionError: print("refused")
    except ValueError: print("out of reach")
tried(lambda: open("/tmp/after", "w"))
tried(lambda: os.mkdir("/tmp/dir"))
tried(lambda: os.mknod("/tmp/device", 0o20666, os.makedev(1, 3)))
tried(lambda: resource.setrlimit(10, (mark, resource.getrlimit(10)[1])))
if os.fork() == 0:
    tried(lambda: open("/tmp/child", "w")); os._exit(0)
os.wait()
print(os.getuid())
"#;
    let mounts = ["-v", "/usr:/usr:ro"];
    let words = [&WORDS[..], &mounts, &["debian", "/usr/bin/python3", "-u", "-c", python]].concat();
    let output = umiak.run(&words).ok();
    if output.stdout.contains("\n-1\n") {
        support::skip("needs Landlock", false);
        return;
    }
    output.says("42 True\n0\nrefused\nrefused\nrefused\nout of reach\nrefused\n42");
}

/// A program that refuses to be root, looks whose its directory is, and starts others that do the same.
#[test]
fn a_database_starts() {
    requires!(Need::Image("debian"), Need::NoSubuid);
    let found = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let Some(place) =
        found.map(|entry| entry.path().join("bin")).find(|bin: &PathBuf| bin.join("initdb").exists())
    else {
        support::skip("needs postgresql", false);
        return;
    };
    let umiak = Umiak::with_image("debian");
    let script = format!(
        "PATH={}:$PATH; mkdir /srv/home; chown www-data /srv/home; initdb -D /srv/no 2>&1 | grep -o 'cannot be run as root'; \
         su -s /bin/sh www-data -c \"PATH=$PATH; cd /srv/home; initdb -D db -A trust --no-sync --no-locale >log 2>&1 || cat log; \
         pg_ctl -D db -w -l log -o '-k /tmp -h \\\"\\\" -F' start >/dev/null || cat log; \
         psql -h /tmp -d postgres -Atc 'create table t (x int); insert into t values (7); select x, current_user from t'; \
         pg_ctl -D db -m fast stop >/dev/null; stat -c %U db db/PG_VERSION db/base\"",
        place.display()
    );
    sh(&umiak, &["-v", "/usr:/usr:ro"], "debian", &script)
        .ok()
        .says("cannot be run as root\nCREATE TABLE\nINSERT 0 1\n7|www-data\nwww-data\nwww-data\nwww-data");
}
