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

fn has_tap() -> bool {
    std::fs::File::options().read(true).write(true).open("/dev/net/tun").is_ok()
}

#[test]
fn by_slirp4netns() {
    requires!(Need::Image("busybox"), Need::Tool("ip"), Need::Tool("python3"), Need::Tool("slirp4netns"));
    if !has_tap() {
        return crate::support::skip("needs /dev/net/tun", true);
    }
    let world = World::new("helper");
    world
        .inside(&[], &format!("ip address show dev eth0; nc {} 4000", FAR[0]))
        .ok()
        .has("10.0.2.100/24")
        .has("tcp from");
    world.umiak.run(&["info"]).ok().has("slirp4netns");
    ends_with_its_container(&world, "slirp4netns");
}

#[test]
fn by_pasta() {
    requires!(Need::Image("busybox"), Need::Tool("ip"), Need::Tool("python3"), Need::Tool("pasta"));
    if !has_tap() {
        return crate::support::skip("needs /dev/net/tun", true);
    }
    let world = World::new("pasta");
    let script =
        format!("ip address show dev eth0; timeout 5 nc {} 4000; timeout 5 nc {} 4000; true", FAR[0], FAR[1]);
    let said = world.inside(&[], &script);
    // Older ones say things more than once to a kernel that they do not know.
    let from = |ip: &str| said.stdout.contains(&format!("tcp from {ip}"));
    assert!(said.stdout.contains("10.0.2.100/24"), "{} {}", said.stdout, said.stderr);
    assert!(from(NEAR[0]) && from(NEAR[1]), "{} {}", said.stdout, said.stderr);
    let lookup = ["--dns", FAR[0], "--dns-option", "ndots:1"];
    world.inside(&lookup, "nslookup -type=a far.example").ok().has("198.18.0.2");
    world.umiak.run(&["info"]).ok().has("rung: pasta");
    let args =
        ["run", "-d", "--name", "web", "-p", "8080:80", "localhost/busybox", "httpd", "-f", "-h", "/etc"];
    world.run(&args).ok();
    let url = format!("http://{}:8080/hostname", NEAR[0]);
    let program = format!("import urllib.request as u; print(u.urlopen('{url}', timeout=5).status)");
    eventually("the port is there", || {
        let output = world.internet.far(&["python3", "-c", &program]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim() == "200"
    });
    // Nothing of it is left, so that another can have the port.
    world.umiak.run(&["restart", "-t", "0", "web"]).ok();
    world.umiak.run(&["rm", "-f", "-t", "0", "web"]).ok();
    ends_with_its_container(&world, "pasta");
}

/// The program is there as long as the container, whoever is killed.
fn ends_with_its_container(world: &World, program: &str) {
    let args = ["run", "-d", "--name", "c", "localhost/busybox", "sleep", "1000"];
    world.run(&args).ok();
    world.umiak.run(&["restart", "-t", "0", "c"]).ok();
    world.umiak.run(&["rm", "-f", "-t", "0", "c"]).ok();
    world.run(&[&args[..3], &["d"], &args[4..]].concat()).ok();
    let pid = |what: &str| {
        let format = format!("{{{{.State.{what}}}}}");
        world.umiak.run(&["inspect", "-f", &format, "d"]).ok().stdout.trim().to_owned()
    };
    let (program_of, monitor) = (pid("Pid"), pid("ConmonPid"));
    let namespace = std::fs::read_link(format!("/proc/{program_of}/ns/net")).unwrap();
    kill(&monitor);
    // It may be a moment behind, or end when the container does.
    world.umiak.run(&["rm", "-f", "-t", "0", "d"]).ok();
    eventually(&format!("{program} ends"), || {
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        !all.into_iter()
            .any(|one| std::fs::read_link(one.path().join("ns/net")).is_ok_and(|other| other == namespace))
    });
}

fn kill(pid: &str) {
    let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn podmans_words_for_a_network_mean_ours() {
    requires!(Need::Image("busybox"), Need::Tool("ip"), Need::Tool("python3"));
    let world = World::new("native");
    for words in [
        "slirp4netns",
        "pasta",
        "slirp4netns:cidr=10.0.2.0/24,mtu=9000,enable_ipv6=false,port_handler=slirp4netns",
        "pasta:--ipv4-only,--no-map-gw",
    ] {
        let script = format!("cat /sys/class/net/eth0/address; nc {} 4000", FAR[0]);
        world.inside(&["--network", words], &script).ok().has(&format!("tcp from {}", NEAR[0]));
        world.umiak.run(&["info"]).ok().has("rung: tproxy");
    }
    for (words, part) in [
        ("slirp4netns:outbound_addr=192.0.2.1", "is not supported yet"),
        ("pasta:-T,8080", "is not supported yet"),
        ("pasta:cidr=10.0.2.0/24", "no option \"cidr\""),
        ("slirp4netns:mtu=9", "no MTU"),
    ] {
        world.umiak.run(&["run", "--network", words, "busybox", "true"]).exits(125).tells(part);
    }
}

#[test]
fn what_the_last_ways_cannot_do_is_told() {
    requires!(Need::Image("busybox"));
    for (rung, options, part) in [
        ("helper", &["-p", "127.0.0.1::80"][..], "slirp4netns cannot do this: published ports"),
        ("helper", &["--egress", "deny=10.0.0.0/8"], "cannot do this: rules for what goes out"),
        ("pasta", &["--egress", "deny=10.0.0.0/8"], "pasta cannot do this: rules for what goes out"),
        ("pasta", &["--mac-address", "02:00:00:00:00:01"], "cannot do this: a hardware address"),
    ] {
        let mut umiak = Umiak::with_busybox();
        umiak.set_env("UMIAK_NETWORK_RUNG", rung);
        let args = [&["run", "--rm"], options, &["busybox", "true"]].concat();
        let output = umiak.run(&args).exits(125);
        if !output.stderr.contains("is not installed") {
            output.tells(part).hints("--network host");
        }
        umiak.run(&["ps", "-aq"]).ok().says("");
    }
}

/// What a link on the way cannot take whole is told to a program that asks for nothing else.
#[test]
fn the_largest_packet_of_a_way_is_found() {
    requires!(Need::Image("busybox"), Need::Tool("ip"), Need::Tool("python3"));
    for rung in ["native", "frames"] {
        let world = World::new(rung);
        let script = "
            set -e
            ip link add narrow type veth peer name end
            for device in narrow end; do ip link set $device mtu 1300 up; done
            ip route add 192.0.2.0/24 dev narrow
            ip -6 route add 2001:db8:0:9::/64 dev narrow
            echo 1 >/proc/sys/net/ipv4/ip_forward
            echo 1 >/proc/sys/net/ipv6/conf/all/forwarding";
        assert!(world.internet.far(&["sh", "-c", script]).status().unwrap().success());
        // IP_MTU_DISCOVER and IP_MTU, IPV6_MTU_DISCOVER and IPV6_MTU (ip(7), ipv6(7)).
        let program = "
import errno, socket, time
for ip, level, discover, mtu in (('192.0.2.5', 0, 10, 14), ('2001:db8:0:9::5', 41, 23, 24)):
    s = socket.socket(socket.AF_INET6 if level else socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(level, discover, 2)
    s.connect((ip, 9))
    for attempt in range(200):
        try: s.send(b'x' * 1400)
        except OSError as e:
            if e.errno == errno.EMSGSIZE: break
            raise
        time.sleep(0.05)
    print(s.getsockopt(level, mtu))
";
        world.python(program).ok().says("1300\n1300");
    }
}

#[test]
fn what_a_network_is_is_told_wherever_the_host_has_moved() {
    requires!(Need::Image("busybox"), Need::Tool("ip"));
    let world = World::new("native");
    world.run(&["run", "-d", "--name", "c", "localhost/busybox", "sleep", "1000"]).ok();
    let told =
        |what: &str| world.run(&["inspect", "-f", &format!("{{{{.NetworkSettings.{what}}}}}"), "c"]).ok();
    told("IPAddress").says("10.0.2.100");
    // With this way a container that is started now has another subnet.
    let moved = world.internet.privileged(&["ip", "route", "add", "10.0.2.0/24", "dev", "wan"]).status();
    assert!(moved.unwrap().success());
    told("IPAddress").says("10.0.2.100");
    told("Gateway").says("10.0.2.2");
    told("GlobalIPv6Address").says("fd00::100");
    world.run(&["restart", "-t", "0", "c"]).ok();
    told("IPAddress").says("10.210.2.100");
    world.run(&["rm", "-f", "-t", "0", "c"]).ok();
}
