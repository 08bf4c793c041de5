//! Containers on a terminal.

use crate::requires;
use crate::support::{Need, Terminal, Umiak};

#[test]
fn a_shell_on_a_terminal() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let mut terminal = Terminal::start(&umiak, &["run", "--rm", "-it", "--network", "none", "busybox"]);
    terminal.send(b"tty; stty size; echo TERM=$TERM\n");
    terminal.expect("/dev/pts/0");
    terminal.expect("24 80");
    terminal.expect("TERM=xterm");
    terminal.use_shell();
}

#[test]
fn without_a_terminal_option_there_is_none() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    umiak.run(&["run", "--rm", "--network", "none", "busybox", "tty"]).exits(1).says("not a tty");
    // -t without a terminal on umiak's own side still gives one inside.
    umiak.run(&["run", "--rm", "-t", "--network", "none", "busybox", "tty"]).ok().has("/dev/pts/0");
}

#[test]
fn detach_keys_leave_the_container_running() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let mut terminal =
        Terminal::start(&umiak, &["run", "-it", "--name", "box", "--network", "none", "busybox"]);
    terminal.send(b"echo rea''dy\n");
    terminal.expect("ready");
    terminal.send(b"\x10\x11");
    let (code, _) = terminal.wait();
    assert_eq!(code, Some(0));
    assert_eq!(umiak.status("box"), "running");
    let keys = ["run", "-it", "--name", "own", "--detach-keys", "ctrl-x,x", "--network", "none", "busybox"];
    let mut terminal = Terminal::start(&umiak, &keys);
    terminal.send(b"echo rea''dy\n");
    terminal.expect("ready");
    // These are not this container's keys: they are typed into the shell.
    terminal.send(b"\x10\x11");
    terminal.send(b"echo sti''ll here\n");
    terminal.expect("still here");
    terminal.send(b"\x18x");
    assert_eq!(terminal.wait().0, Some(0));
    assert_eq!(umiak.status("own"), "running");
    umiak.run(&["run", "--detach-keys", "nonsense-", "busybox", "true"]).exits(125).tells("nonsense-");
}

#[test]
fn exec_on_a_terminal() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    umiak.detached(&["--name", "box", "--network", "none", "busybox", "sleep", "1000"]);
    let mut terminal = Terminal::start(&umiak, &["exec", "-it", "box", "sh"]);
    terminal.send(b"tty; stty size\n");
    terminal.expect("/dev/pts/");
    terminal.expect("24 80");
    terminal.send(b"exit 3\n");
    assert_eq!(terminal.wait().0, Some(3));
    assert_eq!(umiak.status("box"), "running");
}

#[test]
fn the_terminal_is_restored() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let mut terminal = Terminal::start(&umiak, &["run", "--rm", "-it", "--network", "none", "busybox", "sh"]);
    terminal.send(b"exit\n");
    terminal.expect("exit");
    assert!(terminal.ended(), "run does not end");
    let modes = terminal.local_modes();
    assert!(
        modes.contains(rustix::termios::LocalModes::ECHO | rustix::termios::LocalModes::ICANON),
        "{modes:?}"
    );
}
