//! What a container sends and receives by way of its relay: who the other side sees, that errors stay what they
//! are, that bytes arrive, that nobody is held up by others.

use std::process::{Child, Stdio};

use crate::requires;
use crate::support::net::{FAR, FURTHER, Internet, NEAR};
use crate::support::{Need, Output, Umiak, eventually, finish};

/// The machine's Python, in a container.
pub const PYTHON: [&str; 6] = ["-v", "/usr:/usr:ro", "-v", "/usr/lib:/lib:ro", "-v", "/usr/lib64:/lib64:ro"];

/// Servers of either side. `both` runs one for each family and address.
const SERVERS: &str = r#"
import hashlib, socket, struct, sys, threading, time
def listen(ip, port, kind=socket.SOCK_STREAM):
    s = socket.socket(socket.AF_INET6 if ':' in ip else socket.AF_INET, kind)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if ':' in ip: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    s.bind((ip, port))
    if kind == socket.SOCK_STREAM: s.listen(2048)
    return s
def thread(f, *a):
    threading.Thread(target=f, args=a, daemon=True).start()
def serve(s, f):
    while True:
        c, peer = s.accept()
        thread(f, c, peer)
def tcp(ip, port, f):
    thread(serve, listen(ip, port), f)
def who(c, peer):
    c.sendall(b'tcp %s %d' % (peer[0].encode(), peer[1])); c.close()
def who_udp(s):
    while True:
        d, peer = s.recvfrom(65536)
        s.sendto(b'udp %s %d %d' % (peer[0].encode(), peer[1], len(d)), peer)
def udp(ip, port):
    thread(who_udp, listen(ip, port, socket.SOCK_DGRAM))
def digest(c, peer):
    h = hashlib.sha256()
    while True:
        d = c.recv(1 << 16)
        if not d: break
        h.update(d)
    c.sendall(h.digest())
    block = bytes(range(256)) * 4096
    for i in range(int(sys.argv[1]) if len(sys.argv) > 1 else 48): c.sendall(block)
    c.close()
def reset(c, peer):
    c.recv(1)
    c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0)); c.close()
kept, ends = [], []
def never_reads(c, peer):
    kept.append(c)
def echo(c, peer):
    try:
        while True:
            d = c.recv(65536)
            if not d: ends.append(b'end'); break
            c.sendall(d)
    except OSError as e: ends.append(type(e).__name__.encode())
    c.close()
def ended(c, peer):
    c.sendall(b' '.join(ends)); c.close()
def count(c, peer):
    c.sendall(b'%d' % len(kept)); c.close()
"#;

/// Port 4000: who comes, by TCP and UDP; 4001: the digest of what comes, then 48 MB; 4002: a reset; 4003: never
/// reads; 4004: an echo; 4005: how the echoes ended; 4006: how many are not read.
fn far_servers(internet: &mut Internet) {
    let mut program = SERVERS.to_owned();
    for ip in FAR {
        program += &format!("udp('{ip}', 4000)\n");
        for (port, server) in
            [(4000, "who"), (4001, "digest"), (4002, "reset"), (4003, "never_reads"), (4004, "echo")]
        {
            program += &format!("tcp('{ip}', {port}, {server})\n");
        }
    }
    program += &format!("tcp('{}', 4006, count)\n", FAR[0]);
    program += &format!("tcp('{}', 4005, ended)\nwhile True: time.sleep(1000)\n", FAR[0]);
    internet.serve(&program, FAR[0], 4005);
}

fn begin(internet: &Internet, umiak: &Umiak, options: &[&str], program: &str) -> Child {
    let image = ["localhost/busybox", "/usr/bin/python3", "-c", program];
    let args = [&["run", "--network", "default"], options, &PYTHON, &image].concat();
    let mut command = internet.near(&umiak.command(&args));
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// What a program in Python says in a container.
fn ran(internet: &Internet, umiak: &Umiak, options: &[&str], program: &str) -> Output {
    let options = [&["--rm"], options].concat();
    finish(begin(internet, umiak, &options, program), b"", program.to_owned())
}

/// What a client says that sends to an address from one side: `who`, or the name of its error.
const CLIENT: &str = r#"
import socket, sys
def ask(ip, port, kind, size=1):
    family = socket.AF_INET6 if ':' in ip else socket.AF_INET
    s = socket.socket(family, socket.SOCK_STREAM if kind == 'tcp' else socket.SOCK_DGRAM)
    s.settimeout(20)
    try:
        s.connect((ip, port))
        if kind == 'udp': s.send(b'x' * size)
        return s.recv(1000).decode() + ' me %d' % s.getsockname()[1]
    except OSError as e: return type(e).__name__ + ' ' + str(e.errno)
"#;

fn asked(mut command: std::process::Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// An image, and an internet with servers.
fn world() -> (Umiak, Internet) {
    let mut internet = Internet::new();
    far_servers(&mut internet);
    (Umiak::with_busybox(), internet)
}

#[test]
fn who_dials_out_is_seen_as_the_host() {
    requires!(Need::Image("busybox"), Need::Tool("ip"), Need::Tool("python3"));
    let (umiak, internet) = world();
    let mut program = CLIENT.to_owned();
    for ip in FAR {
        for (kind, size) in [("tcp", 1), ("udp", 1), ("udp", 9000)] {
            program += &format!("print(ask('{ip}', 4000, '{kind}', {size}))\n");
        }
    }
    let output = ran(&internet, &umiak, &[], &program).ok();
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert_eq!(lines.len(), 6, "{}", output.stdout);
    for (lines, near) in lines.chunks(3).zip(NEAR) {
        assert!(lines[0].starts_with(&format!("tcp {near} ")), "{}", lines[0]);
        assert!(lines[1].starts_with(&format!("udp {near} ")) && lines[1].contains(" 1 me"), "{}", lines[1]);
        assert!(lines[2].contains(" 9000 me"), "{}", lines[2]);
    }
}

#[test]
fn who_comes_to_a_published_port_keeps_his_address() {
    requires!(Need::Image("busybox"), Need::Tool("ip"), Need::Tool("python3"));
    let umiak = Umiak::with_busybox();
    let internet = Internet::new();
    let mut program = SERVERS.to_owned();
    // The one that is waited for comes last.
    for ip in ["::", "0.0.0.0"] {
        program += &format!("udp('{ip}', 81); tcp('{ip}', 80, who)\n");
    }
    program += "while True: time.sleep(1000)\n";
    let ports = ["-d", "--name", "c", "-p", "4080:80", "-p", "4081:81/udp"];
    finish(begin(&internet, &umiak, &ports, &program), b"", "run".into()).ok();
    let ask = |ip: &str, port: u16, kind: &str| format!("{CLIENT}print(ask('{ip}', {port}, '{kind}'))");
    eventually("the servers in the container listen", || {
        asked(internet.far(&["python3", "-c", &ask(NEAR[0], 4080, "tcp")])).starts_with("tcp")
    });
    for (kind, port) in [("tcp", 4080), ("udp", 4081)] {
        for family in 0..2 {
            let said = asked(internet.far(&["python3", "-c", &ask(NEAR[family], port, kind)]));
            let words: Vec<&str> = said.split(' ').collect();
            assert_eq!(words[..2], [kind, FAR[family]], "{said}");
            assert_eq!(words[2], *words.last().unwrap(), "the client's port, too: {said}");
            let loopback = ["127.0.0.1", "::1"][family];
            let said = asked(internet.privileged(&["python3", "-c", &ask(loopback, port, kind)]));
            let gateway = ["10.0.2.2", "fd00::2"][family];
            assert!(said.starts_with(&format!("{kind} {gateway} ")), "{said}");
        }
    }
}

#[test]
fn a_client_of_a_published_port_where_nobody_listens_is_reset() {
    requires!(Need::Image("busybox"), Need::Tool("ip"), Need::Tool("python3"));
    let umiak = Umiak::with_busybox();
    let internet = Internet::new();
    let program = "import time\nwhile True: time.sleep(1000)";
    let options = ["-d", "--name", "c", "-p", "4080:80"];
    finish(begin(&internet, &umiak, &options, program), b"", "run".into()).ok();
    let ask = format!("{CLIENT}print(ask('{}', 4080, 'tcp'))", NEAR[0]);
    let said = asked(internet.far(&["python3", "-c", &ask]));
    assert!(said.starts_with("ConnectionResetError"), "{said}");
}

#[test]
fn errors_of_the_network_stay_what_they_are() {
    requires!(Need::Image("busybox"), Need::Tool("ip"), Need::Tool("python3"));
    let (umiak, internet) = world();
    for (kind, route) in [("unreachable", "203.0.113.64/26"), ("unreachable", "2001:db8:0:3::/64")] {
        asked(internet.privileged(&["ip", "route", "add", kind, route]));
    }
    let mut program = CLIENT.to_owned();
    let cases = [
        (FAR[0], "tcp", libc::ECONNREFUSED),
        (FAR[1], "tcp", libc::ECONNREFUSED),
        (FAR[0], "udp", libc::ECONNREFUSED),
        (FAR[1], "udp", libc::ECONNREFUSED),
        (FURTHER[0], "tcp", libc::ECONNREFUSED),
        ("203.0.113.70", "tcp", libc::EHOSTUNREACH),
        ("2001:db8:0:3::1", "tcp", libc::EHOSTUNREACH),
    ];
    for (ip, kind, _) in cases {
        program += &format!("print(ask('{ip}', 9, '{kind}'))\n");
    }
    let output = ran(&internet, &umiak, &[], &program).ok();
    for (line, (ip, kind, errno)) in output.stdout.lines().zip(cases) {
        assert!(line.ends_with(&format!(" {errno}")), "{kind} {ip}: {line}");
    }
    assert_eq!(output.stdout.lines().count(), cases.len());
}

#[test]
fn the_hosts_own_loopback_and_link_are_out_of_reach() {
    requires!(Need::Image("busybox"), Need::Tool("ip"), Need::Tool("python3"));
    let umiak = Umiak::with_busybox();
    let internet = Internet::new();
    let mut server = SERVERS.to_owned();
    for ip in ["127.0.0.1", "127.0.0.53", "::1"] {
        server += &format!("tcp('{ip}', 5000, who); udp('{ip}', 5000)\n");
    }
    server += "print('ready', flush=True)\nwhile True: time.sleep(1000)\n";
    let mut command = internet.privileged(&["python3", "-c", &server]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let ask = format!("{CLIENT}print(ask('127.0.0.1', 5000, 'tcp'))");
    eventually("the host's servers listen", || {
        asked(internet.privileged(&["python3", "-c", &ask])).starts_with("tcp")
    });
    let mut program = format!("{CLIENT}socket.setdefaulttimeout(3)\n");
    let targets =
        ["127.0.0.1", "127.0.0.53", "::1", "::ffff:127.0.0.1", "10.0.2.2", "fd00::2", "10.0.2.3", "0.0.0.0"];
    for ip in targets {
        for kind in ["tcp", "udp"] {
            program += &format!("print(ask('{ip}', 5000, '{kind}'))\n");
        }
    }
    program += "print(ask('169.254.169.254', 80, 'tcp'))\n";
    let output = ran(&internet, &umiak, &[], &program);
    let _ = child.kill();
    let _ = child.wait();
    let output = output.ok();
    assert_eq!(output.stdout.lines().count(), targets.len() * 2 + 1, "{}", output.stdout);
    for line in output.stdout.lines() {
        assert!(
            !line.starts_with("tcp") && !line.starts_with("udp"),
            "a server was reached: {}",
            output.stdout
        );
    }
}

#[test]
fn bytes_arrive_and_each_way_ends_by_itself() {
    requires!(Need::Image("busybox"), Need::Tool("ip"), Need::Tool("python3"));
    let (umiak, internet) = world();
    let program = format!(
        "
import hashlib, socket
for ip in {FAR:?}:
    s = socket.create_connection((ip, 4001))
    block = bytes(range(255, -1, -1)) * 4095
    h = hashlib.sha256()
    for i in range(48): s.sendall(block); h.update(block)
    s.shutdown(socket.SHUT_WR)
    got = b''
    while len(got) < 32: got += s.recv(32 - len(got))
    back, count = hashlib.sha256(), 0
    while True:
        d = s.recv(1 << 16)
        if not d: break
        back.update(d); count += len(d)
    want = hashlib.sha256()
    for i in range(48): want.update(bytes(range(256)) * 4096)
    print(got == h.digest(), back.digest() == want.digest(), count >> 20)
"
    );
    ran(&internet, &umiak, &[], &program).ok().says("True True 48\nTrue True 48");
}

/// It arrives in its place among the rest, behind little and behind much.
#[test]
fn urgent_data_is_not_left_out() {
    requires!(Need::Image("busybox"), Need::Tool("ip"), Need::Tool("python3"));
    let (umiak, internet) = world();
    let program = format!(
        "
import hashlib, socket
for ip in {FAR:?}:
    for size in (10, 8 << 20):
        s = socket.create_connection((ip, 4001), timeout=20)
        h = hashlib.sha256()
        for i in range(3):
            block = bytes([i]) * size
            s.sendall(block); s.send(b'!', socket.MSG_OOB); h.update(block + b'!')
        s.sendall(b'end'); h.update(b'end')
        s.shutdown(socket.SHUT_WR)
        print(s.recv(32, socket.MSG_WAITALL) == h.digest())
        while s.recv(1 << 20): pass
"
    );
    ran(&internet, &umiak, &[], &program).ok().says("True\nTrue\nTrue\nTrue");
}

#[test]
fn resets_are_passed_on_both_ways() {
    requires!(Need::Image("busybox"), Need::Tool("ip"), Need::Tool("python3"));
    let (umiak, internet) = world();
    let program = format!(
        "
import socket, struct, time
far = '{}'
s = socket.create_connection((far, 4002)); s.sendall(b'x')
try: print(s.recv(10))
except OSError as e: print(type(e).__name__)
for linger in (1, 0):
    s = socket.create_connection((far, 4004)); s.sendall(b'x'); s.recv(1)
    if linger: s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    s.close()
    ends = b''
    while len(ends.split()) < 2 - linger:
        time.sleep(0.01)
        s = socket.create_connection((far, 4005)); ends = s.recv(1000)
print(ends.decode())
",
        FAR[0]
    );
    ran(&internet, &umiak, &[], &program).ok().says("ConnectionResetError\nConnectionResetError end");
}

/// The handshake's last packet is held until the container's program has been woken. Were it forgotten then, the kernel
/// would send it some tenths of a second later, and count it.
#[test]
fn a_server_knows_of_a_client_that_says_nothing() {
    requires!(Need::Image("busybox"), Need::Tool("ip"), Need::Tool("python3"));
    let (umiak, internet) = world();
    let delayed = || -> u64 {
        let counters = asked(internet.privileged(&["cat", "/proc/self/net/netstat"]));
        let mut lines = counters.lines().filter(|line| line.starts_with("TcpExt:"));
        let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
        let mut both = names.split(' ').zip(values.split(' '));
        both.find(|(name, _)| *name == "DelayedACKs").unwrap().1.parse().unwrap()
    };
    let program = format!(
        r#"
import socket, time
silent = [socket.create_connection((ip, 4003), 20) for ip in ('{}', '{}') for _ in range(10)]
known = 0
while known < 20:
    time.sleep(0.02)
    known = int(socket.create_connection(('{}', 4006), 20).recv(100))
print(known)
"#,
        FAR[0], FAR[1], FAR[0]
    );
    let before = delayed();
    assert_eq!(ran(&internet, &umiak, &[], &program).ok().stdout.trim(), "20");
    // On a machine where nothing goes on for so long it may happen to some.
    let late = delayed() - before;
    assert!(late < 10, "{late} of 20");
}

#[test]
fn one_that_never_reads_holds_up_nobody_else() {
    requires!(Need::Image("busybox"), Need::Tool("ip"), Need::Tool("python3"));
    let (umiak, internet) = world();
    let program = format!(
        "
import select, socket
far = '{}'
stuck = []
for i in range(20):
    s = socket.create_connection((far, 4003)); s.setblocking(False)
    sent = 0
    # Full when nothing more goes for a while.
    while select.select([], [s], [], 0.3)[1] and sent < 1 << 28:
        sent += s.send(b'x' * (1 << 20))
    stuck.append((s, sent))
print(all(sent < 1 << 28 for _, sent in stuck))
s = socket.create_connection((far, 4004))
for i in range(100): s.sendall(b'y' * 1000); assert s.recv(1000, socket.MSG_WAITALL) == b'y' * 1000
print('served')
",
        FAR[0]
    );
    ran(&internet, &umiak, &[], &program).ok().says("True\nserved");
}

#[test]
fn many_connections_are_served_at_once() {
    requires!(Need::Image("busybox"), Need::Tool("ip"), Need::Tool("python3"));
    let (umiak, internet) = world();
    let program = format!(
        "
import resource, socket
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
all = [socket.create_connection(('{}', 4004)) for i in range(400)]
for turn in range(3):
    for i, s in enumerate(all): s.sendall(b'%6d' % i)
    for i, s in enumerate(all): assert s.recv(6, socket.MSG_WAITALL) == b'%6d' % i
for s in all[::2]: s.close()
for i, s in enumerate(all[1::2]): s.sendall(b'z'); assert s.recv(1) == b'z'
print('served')
",
        FAR[0]
    );
    ran(&internet, &umiak, &[], &program).ok().says("served");
}

/// A name server that knows one name; by UDP its answers are cut off for names with `long`.
const NAME_SERVER: &str = r#"
import struct
def answer(q, over_tcp):
    cut = b'long' in q and not over_tcp
    end = q.index(b'\0', 12) + 5
    found = b'\xc0\x0c' + struct.pack('>HHIH', 1, 1, 60, 4) + bytes([192, 0, 2, 9])
    kind = struct.unpack('>H', q[end-4:end-2])[0]
    records = found if kind == 1 and not cut else b''
    flags = 0x8180 | (0x200 if cut else 0)
    return q[:2] + struct.pack('>HHHHH', flags, 1, 1 if records else 0, 0, 0) + q[12:end] + records
def names_udp(s):
    while True:
        q, peer = s.recvfrom(4096); s.sendto(answer(q, False), peer)
def names_tcp(c, peer):
    f = c.makefile('rb')
    while True:
        n = f.read(2)
        if len(n) < 2: break
        a = answer(f.read(struct.unpack('>H', n)[0]), True)
        c.sendall(struct.pack('>H', len(a)) + a)
"#;

#[test]
fn names_are_asked_of_the_hosts_servers_by_udp_and_tcp() {
    // Who may have a resolv.conf of his own without one: root, in a mount namespace.
    requires!(Need::Root, Need::Image("busybox"), Need::Tool("ip"), Need::Tool("python3"));
    let umiak = Umiak::with_busybox();
    let mut internet = Internet::new();
    let program = format!(
        "{SERVERS}{NAME_SERVER}thread(names_udp, listen('{0}', 53, socket.SOCK_DGRAM))\n\
         tcp('{0}', 53, names_tcp)\nwhile True: time.sleep(1000)\n",
        FAR[0]
    );
    internet.serve(&program, FAR[0], 53);
    // The first one does not answer.
    let servers = umiak.file("resolv.conf", &format!("nameserver 198.18.0.99\nnameserver {}\n", FAR[0]));
    let program = "
import socket
for name in ('www.example.org', 'long.example.org'):
    print(socket.getaddrinfo(name, 80, socket.AF_INET, socket.SOCK_STREAM)[0][4][0])
print(open('/etc/resolv.conf').read().count('10.0.2.3'))
";
    let args = ["run", "--rm", "--network", "default"];
    let args = [&args[..], &PYTHON, &["localhost/busybox", "/usr/bin/python3", "-c", program]].concat();
    let command = umiak.command(&args);
    let mut wrapped = std::process::Command::new("unshare");
    wrapped.args(["--mount", "sh", "-c", "mount --bind $0 /etc/resolv.conf && exec \"$@\""]);
    wrapped.arg(servers).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        wrapped.env(name, value.unwrap_or_default());
    }
    let mut command = internet.near(&wrapped);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    finish(child, b"", args.join(" ")).ok().says("192.0.2.9\n192.0.2.9\n1");
}

#[test]
fn a_published_port_in_use_is_told_before_the_container_starts() {
    requires!(Need::Image("busybox"), Need::Tool("ip"), Need::Tool("python3"));
    let umiak = Umiak::with_busybox();
    let internet = Internet::new();
    let sleeping = "import time\nwhile True: time.sleep(1000)";
    let options = ["-d", "--name", "c", "-p", "4080:80"];
    finish(begin(&internet, &umiak, &options, sleeping), b"", "run".into()).ok();
    let output = ran(&internet, &umiak, &["-p", "4080:80"], "print('started')").exits(125);
    let output = output.tells("4080");
    assert!(output.stdout.is_empty(), "{}", output.stdout);
}

#[test]
fn what_rules_refuse_is_noted() {
    requires!(Need::Image("busybox"), Need::Tool("ip"), Need::Tool("python3"));
    let (umiak, internet) = world();
    let mut program = CLIENT.to_owned();
    for (ip, kind) in [(FAR[0], "tcp"), (FAR[1], "tcp"), (FURTHER[0], "tcp"), (FURTHER[0], "udp")] {
        program += &format!("print(ask('{ip}', 4000, '{kind}').split(' ')[0])\n");
    }
    let rule = format!("allow={}:4000", FAR[0]);
    let options = ["--name", "c", "--egress", &rule];
    let output = finish(begin(&internet, &umiak, &options, &program), b"", "run".into()).ok();
    output.says("tcp\nPermissionError\nOSError\nOSError");
    let id = umiak.inspect("c", "{{.Id}}");
    let log = std::fs::read_to_string(umiak.dir.join("store/containers").join(id).join("refused")).unwrap();
    let lines: Vec<&str> = log.lines().map(|line| line.split_once(' ').unwrap().1).collect();
    let expected = [
        format!("tcp [{}]:4000 prohibited", FAR[1]),
        format!("tcp {}:4000 prohibited", FURTHER[0]),
        format!("udp {}:4000 prohibited", FURTHER[0]),
    ];
    assert_eq!(lines, expected, "{log}");
}
