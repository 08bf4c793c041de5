//! The ways by which a container's packets come to its relay, each forced: what the kernel lacks, the next one does.

use std::process::Stdio;

use crate::net_relay::PYTHON;
use crate::requires;
use crate::support::net::{FAR, Internet, NEAR};
use crate::support::{Need, Output, Umiak, eventually, finish};

/// Who comes is told so, by TCP and UDP, on port 4000 of both families; port 53 answers questions.
const SERVERS: &str = "
import socket, threading
def tcp(family, host):
    s = socket.socket(family, socket.SOCK_STREAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((host, 4000)); s.listen(64)
    while True:
        c, peer = s.accept()
        c.sendall(b'tcp from %s\\n' % peer[0].encode()); c.close()
def udp(family, host):
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.bind((host, 4000))
    while True:
        d, peer = s.recvfrom(65536)
        s.sendto(b'udp from %s %d\\n' % (peer[0].encode(), len(d)), peer)
def names():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(('198.18.0.2', 53))
    while True:
        q, who = s.recvfrom(4096)
        s.sendto(q[:2] + b'\\x81\\x80\\0\\x01\\0\\x01\\0\\0\\0\\0' + q[12:] + b'\\xc0\\x0c\\0\\x01\\0\\x01\\0\\0\\0\\x05\\0\\x04\\xc6\\x12\\0\\x02', who)
for f in (tcp, udp):
    threading.Thread(target=f, args=(socket.AF_INET6, '2001:db8:0:1::2'), daemon=True).start()
    threading.Thread(target=f, args=(socket.AF_INET, '198.18.0.2'), daemon=True).start()
names()
";

const CLIENT: &str = "
import socket
def ask(ip, kind, data):
    s = socket.socket(socket.AF_INET6 if ':' in ip else socket.AF_INET, kind)
    s.settimeout(10); s.connect((ip, 4000))
    if data: s.send(data)
    return s.recv(1000).decode().strip()
tcp = lambda ip: ask(ip, socket.SOCK_STREAM, b'')
udp = lambda ip, size: ask(ip, socket.SOCK_DGRAM, b'x' * size)
";

struct World {
    umiak: Umiak,
    internet: Internet,
}

impl World {
    fn new(rung: &str) -> Self {
        let mut umiak = Umiak::with_busybox();
        umiak.set_env("UMIAK_NETWORK_RUNG", rung);
        let mut internet = Internet::new();
        internet.serve(SERVERS, FAR[0], 4000);
        Self { umiak, internet }
    }

    fn run(&self, args: &[&str]) -> Output {
        let mut command = self.internet.near(&self.umiak.command(args));
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        finish(child, b"", args.join(" "))
    }

    fn inside(&self, options: &[&str], script: &str) -> Output {
        self.run(&[&["run", "--rm"], options, &["localhost/busybox", "sh", "-c", script]].concat())
    }

    fn python(&self, program: &str) -> Output {
        let image = ["localhost/busybox", "/usr/bin/python3", "-c", program];
        self.run(&[&["run", "--rm"], &PYTHON[..], &image].concat())
    }
}

/// What every way can do.
fn works(rung: &str, holds: bool) {
    let world = World::new(rung);
    // Also what is larger than a packet can be.
    let program = format!("{CLIENT}for ip in {FAR:?}: print(tcp(ip), udp(ip, 1), udp(ip, 1), udp(ip, 5000))");
    let said = world.python(&program).ok().stdout;
    let expected =
        NEAR.map(|ip| format!("tcp from {ip} udp from {ip} 1 udp from {ip} 1 udp from {ip} 5000\n"));
    assert_eq!(said, expected.concat(), "{rung}");
    let refused = world.inside(&[], &format!("nc {} 4999", FAR[0]));
    assert_eq!(refused.stderr.contains("refused"), holds, "{rung}: {}", refused.stderr);
    let rule = ["--egress", "deny=198.18.0.2"];
    let denied = world.inside(&rule, &format!("timeout 5 nc {} 4000", FAR[0]));
    assert!(denied.stdout.is_empty(), "{rung}: {}", denied.stdout);
    world.inside(&rule, &format!("nc {} 4000", FAR[1])).ok().has("tcp from");
    let lookup =
        ["--egress", &format!("allow={}", FAR[0]), "--egress", "resolve=far.example", "--dns", FAR[0]];
    world.inside(&lookup, "nslookup -type=a far.example").ok().has("198.18.0.2");
    if holds {
        // Without, it is open until it is reset.
        let others = "nc 169.254.169.254 80 </dev/null && echo open; true";
        world.inside(&[], others).ok().lacks("open");
    }

    let args =
        ["run", "-d", "--name", "web", "-p", "8080:80", "localhost/busybox", "httpd", "-f", "-h", "/etc"];
    world.run(&args).ok();
    let ask = |host: &str| {
        let url = format!("http://{host}:8080/hostname");
        let program = format!("import urllib.request as u; print(u.urlopen('{url}', timeout=5).status)");
        let output = world.internet.far(&["python3", "-c", &program]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    eventually("the server listens", || {
        world.umiak.run(&["exec", "web", "netstat", "-ltn"]).stdout.contains(":80 ")
    });
    assert_eq!(ask(NEAR[0]), "200", "{rung}");
    assert_eq!(ask(&format!("[{}]", NEAR[1])), "200", "{rung}");
    world.umiak.run(&["rm", "-f", "-t", "0", "web"]).ok();
}

#[test]
fn by_rules_with_a_queue() {
    requires!(Need::Image("busybox"), Need::Tool("ip"), Need::Tool("python3"));
    works("native", true);
}

#[test]
fn by_rules_without_a_queue() {
    requires!(Need::Image("busybox"), Need::Tool("ip"), Need::Tool("python3"));
    works("absent", false);
}

#[test]
fn by_carrying_frames() {
    requires!(Need::Image("busybox"), Need::Tool("ip"), Need::Tool("python3"));
    works("frames", true);
}

#[test]
fn the_way_is_told() {
    requires!(Need::Image("busybox"));
    for (rung, word) in [("absent", "tproxy without holding"), ("frames", "frames")] {
        let mut umiak = Umiak::with_busybox();
        umiak.set_env("UMIAK_NETWORK_RUNG", rung);
        umiak.run(&["run", "--rm", "busybox", "true"]).ok();
        umiak.run(&["info"]).ok().has(word);
    }
}

#[test]
fn by_another_program() {
    requires!(Need::Image("busybox"), Need::Tool("ip"), Need::Tool("python3"), Need::Tool("slirp4netns"));
    if std::fs::File::options().read(true).write(true).open("/dev/net/tun").is_err() {
        return crate::support::skip("needs /dev/net/tun", true);
    }
    let world = World::new("helper");
    world
        .inside(&[], &format!("ip address show dev eth0; nc {} 4000", FAR[0]))
        .ok()
        .has("10.0.2.100/24")
        .has("tcp from");
    world.umiak.run(&["info"]).ok().has("slirp4netns");
    let args = ["run", "-d", "--name", "c", "localhost/busybox", "sleep", "1000"];
    world.run(&args).ok();
    world.umiak.run(&["restart", "-t", "0", "c"]).ok();
    world.umiak.run(&["rm", "-f", "-t", "0", "c"]).ok();
}

#[test]
fn what_the_last_way_cannot_do_is_told() {
    requires!(Need::Image("busybox"));
    let mut umiak = Umiak::with_busybox();
    umiak.set_env("UMIAK_NETWORK_RUNG", "helper");
    for (options, part) in [
        (&["-p", "127.0.0.1::80"][..], "cannot do this: published ports"),
        (&["--egress", "deny=10.0.0.0/8"], "cannot do this: rules for what goes out"),
    ] {
        let args = [&["run", "--rm"], options, &["busybox", "true"]].concat();
        umiak.run(&args).exits(125).tells(part).hints("--network host");
    }
    umiak.run(&["ps", "-aq"]).ok().says("");
}
