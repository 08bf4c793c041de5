//! `--network fast`: connections that are sockets of the host's network.

use std::process::Stdio;

use crate::net_relay::PYTHON;
use crate::requires;
use crate::support::net::{FAR, Internet, NEAR};
use crate::support::{Need, Output, Umiak, eventually, finish};

/// On the far side: who comes is told so, by TCP and UDP on port 4000 of both families; what is sent is sent back
/// on 4001; on 4002 nobody accepts for a while.
const SERVERS: &str = "
import socket, threading
def serve(family, host, port, talk):
    s = socket.socket(family, socket.SOCK_STREAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((host, port)); s.listen(256)
    while True:
        c, peer = s.accept()
        threading.Thread(target=talk, args=(c, peer), daemon=True).start()
def tell(c, peer):
    c.sendall(b'tcp from %s\\n' % peer[0].encode()); c.close()
def echo(c, peer):
    try:
        while True:
            d = c.recv(65536)
            if not d: break
            c.sendall(d)
    except OSError: pass
    c.close()
def udp(family, host):
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.bind((host, 4000))
    while True:
        d, peer = s.recvfrom(65536)
        s.sendto(b'udp from %s %d\\n' % (peer[0].encode(), len(d)), peer)
threads = []
for family, host in ((socket.AF_INET6, '2001:db8:0:1::2'), (socket.AF_INET, '198.18.0.2')):
    for body in ((serve, family, host, 4001, echo), (udp, family, host), (serve, family, host, 4000, tell)):
        threads.append(threading.Thread(target=body[0], args=body[1:], daemon=True))
for thread in threads: thread.start()
threads[0].join()
";

/// What the programs in the container begin with. `is_fast`: no device of the container's has that address.
const BEGIN: &str = "
import array, errno, fcntl, os, select, signal, socket, struct, sys, threading, time
V4, V6 = '198.18.0.2', '2001:db8:0:1::2'
def tcp(ip):
    return socket.socket(socket.AF_INET6 if ':' in ip else socket.AF_INET, socket.SOCK_STREAM)
def is_fast(s): return s.getsockname()[0] in ('198.18.0.1', '2001:db8:0:1::1', '::ffff:198.18.0.1')
def echo(s, text=b'hello'):
    s.sendall(text)
    assert s.recv(1000) == text
";

struct World {
    umiak: Umiak,
    internet: Internet,
}

impl World {
    /// None where the kernel has no means for it.
    fn new() -> Option<Self> {
        let umiak = Umiak::with_busybox();
        let mut internet = Internet::new();
        internet.serve(SERVERS, FAR[0], 4000);
        let world = Self { umiak, internet };
        let first = world.run(&["run", "--rm", "--network", "fast", "localhost/busybox", "true"]);
        if first.code == Some(125) && first.stderr.contains("to its one peer") {
            first.tells("operation not permitted").hints("--network default");
            world.run(&["ps", "-aq"]).ok().says("");
            crate::support::skip("this kernel lets root alone nail a socket to its peer", true);
            return None;
        }
        first.ok();
        Some(world)
    }

    fn run(&self, args: &[&str]) -> Output {
        let mut command = self.internet.near(&self.umiak.command(args));
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        finish(child, b"", args.join(" "))
    }

    fn python_with(&self, options: &[&str], program: &str) -> Output {
        let program = format!("{BEGIN}{program}");
        let image = ["localhost/busybox", "/usr/bin/python3", "-c", &program];
        self.run(&[&["run", "--rm"], options, &PYTHON[..], &image].concat())
    }

    fn python(&self, program: &str) -> Output {
        self.python_with(&["--network", "fast"], program)
    }

    fn detached(&self, name: &str) {
        let args = ["run", "-d", "--name", name, "--network", "fast"];
        self.run(&[&args[..], &PYTHON, &["localhost/busybox", "sleep", "1000"]].concat()).ok();
    }

    fn exec(&self, name: &str, program: &str) -> Output {
        // From outside: who has a user namespace between has no power over what the container is.
        self.umiak.run(&["exec", name, "/usr/bin/python3", "-c", &format!("{BEGIN}{program}")])
    }
}

/// A connection to the far side, and whether it is the host's.
const ONE: &str = "
s = tcp(V4); s.connect((V4, 4001)); echo(s); print(is_fast(s))";

#[test]
fn what_is_connected_is_the_hosts() {
    requires!(Need::Image("busybox"), Need::Tool("ip"), Need::Tool("python3"));
    let Some(world) = World::new() else { return };
    let said = world.python(
        "
for ip in (V4, V6, '::ffff:' + V4):
    s = tcp(ip); s.connect((ip, 4001)); echo(s)
    print(is_fast(s), s.getpeername()[0] == ip, s.getpeername()[1])
    t = tcp(ip); t.connect((ip, 4000)); print(t.recv(99).decode().strip())
# Datagrams, and what it serves itself, are its own network's.
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.connect((V4, 4000)); u.send(b'x')
print(u.recv(99).decode().strip(), u.getsockname()[0])
l = socket.create_server(('127.0.0.1', 80)); m = socket.create_server(('10.0.2.100', 81))
for at, server in ((('127.0.0.1', 80), l), (('10.0.2.100', 81), m)):
    s = socket.create_connection(at); c, peer = server.accept()
    print(peer[0], s.getpeername() == at)
def fails(at):
    try: tcp(at[0]).connect(at)
    except OSError as e: return errno.errorcode[e.errno]
print(fails((V4, 4999)), fails((V6, 4999)), fails(('127.0.0.1', 4999)), fails(('10.0.2.2', 22)))
# One that has failed can be used for another.
s = tcp(V4)
try: s.connect((V4, 4999))
except ConnectionRefusedError: s.connect((V4, 4001)); echo(s); print(is_fast(s))
",
    );
    let told = |ip: &str| format!("True True 4001\ntcp from {ip}\n");
    let v4 = told(NEAR[0]);
    let expected = format!(
        "{v4}{}{}udp from {} 1 10.0.2.100\n127.0.0.1 True\n10.0.2.100 True\n\
         ECONNREFUSED ECONNREFUSED ECONNREFUSED ECONNREFUSED\nTrue\n",
        told(NEAR[1]),
        v4,
        NEAR[0]
    );
    assert_eq!(said.stdout, expected, "{}", said.stderr);
    assert!(said.stderr.starts_with("warning: --network fast"), "{}", said.stderr);
    // The network of others is as it was.
    world.python_with(&[], ONE).ok().says("False");
}

#[test]
fn who_does_not_wait_is_told_when_it_is_there() {
    requires!(Need::Image("busybox"), Need::Tool("ip"), Need::Tool("python3"));
    let Some(world) = World::new() else { return };
    let said = world.python(
        "
def begin(ip, port=4001):
    s = tcp(ip); s.setblocking(False)
    return s, s.connect_ex((ip, port))
for ip in (V4, V6):
    # Waited for afterwards, by poll and epoll.
    s, e = begin(ip); assert e == errno.EINPROGRESS, e
    p = select.poll(); p.register(s, select.POLLOUT); p.poll(10000)
    assert s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    assert s.connect_ex((ip, 4001)) == errno.EISCONN or True
    s.setblocking(True); echo(s); print(is_fast(s))
    # Entered before, level and edge; changed and removed by the same number afterwards.
    for flags in (0, select.EPOLLET, select.EPOLLONESHOT):
        s = tcp(ip); s.setblocking(False)
        ep = select.epoll(); other = select.epoll()
        ep.register(s, flags | select.EPOLLOUT | select.EPOLLIN)
        other.register(s, select.EPOLLIN)
        if not flags: ep.poll(0)
        e = s.connect_ex((ip, 4001)); assert e == errno.EINPROGRESS, e
        if flags & select.EPOLLONESHOT: ep.modify(s, flags | select.EPOLLOUT)
        until, seen = time.time() + 10, []
        while time.time() < until:
            got = ep.poll(10); seen.append(got)
            if got and got[0][1] & select.EPOLLOUT and not got[0][1] & select.EPOLLHUP: break
        assert got and got[0][0] == s.fileno(), (flags, seen)
        s.send(b'x')
        ep.modify(s, select.EPOLLIN)
        got = ep.poll(10); assert got == [(s.fileno(), select.EPOLLIN)], got
        got = [one for one in other.poll(10) if one[0] == s.fileno()]; assert got[0][1] & select.EPOLLIN, got
        ep.unregister(s); other.unregister(s)
        print(is_fast(s))
# Refused.
s, e = begin(V4, 4999)
p = select.poll(); p.register(s, select.POLLOUT); p.poll(10000)
print(errno.errorcode[s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)])
# The same socket again, to another place.
assert s.connect_ex((V4, 4001)) == errno.EINPROGRESS
p.poll(10000); s.setblocking(True); echo(s); print(is_fast(s))
import asyncio
async def main():
    r, w = await asyncio.open_connection(V4, 4001)
    w.write(b'abc'); print(await r.readexactly(3)); print(is_fast(w.get_extra_info('socket')))
    try: await asyncio.open_connection(V4, 4999)
    except ConnectionRefusedError: print('refused')
asyncio.run(main())
",
    );
    let expected = format!("{}ECONNREFUSED\nTrue\nb'abc'\nTrue\nrefused\n", "True\n".repeat(8));
    assert_eq!(said.stdout, expected, "{}", said.stderr);
}

#[test]
fn copies_options_and_children_go_along() {
    requires!(Need::Image("busybox"), Need::Tool("ip"), Need::Tool("python3"));
    let Some(world) = World::new() else { return };
    let said = world.python(
        "
S, T = socket.SOL_SOCKET, socket.IPPROTO_TCP
s = tcp(V4)
wanted = [(S, socket.SO_KEEPALIVE, 1), (T, socket.TCP_NODELAY, 1), (T, socket.TCP_KEEPIDLE, 77),
    (S, socket.SO_OOBINLINE, 1), (socket.IPPROTO_IP, socket.IP_TOS, 16), (T, socket.TCP_USER_TIMEOUT, 5000)]
for level, name, value in wanted: s.setsockopt(level, name, value)
s.setsockopt(S, socket.SO_RCVBUF, 100000)
s.setsockopt(S, socket.SO_LINGER, struct.pack('ii', 1, 3))
buffer = s.getsockopt(S, socket.SO_RCVBUF)
copy = os.dup(s.fileno())
os.set_inheritable(s.fileno(), True)
s.connect((V4, 4001))
print([s.getsockopt(level, name) == value for level, name, value in wanted].count(False))
print(s.getsockopt(S, socket.SO_RCVBUF) == buffer, struct.unpack('ii', s.getsockopt(S, socket.SO_LINGER, 8)))
# What was copied before is the same socket still.
os.write(copy, b'copy'); print(s.recv(10))
print(os.get_inheritable(s.fileno()), os.get_inheritable(copy))
if os.fork() == 0:
    echo(s, b'child'); os._exit(0)
os.wait(); echo(s); print(is_fast(s))
# From threads, many at once.
def one(failed):
    try: c = tcp(V4); c.connect((V4, 4001)); echo(c); assert is_fast(c)
    except Exception as e: failed.append(e)
failed = []
threads = [threading.Thread(target=one, args=(failed,)) for _ in range(100)]
for t in threads: t.start()
for t in threads: t.join()
print(failed)
# Who has too many files open goes by the relay.
many = [os.open('/dev/null', os.O_RDONLY) for _ in range(300)]
s = tcp(V4); s.connect((V4, 4001)); echo(s); print(is_fast(s))
for fd in many: os.close(fd)
# Bound to an address of the container's: so, too.
s = tcp(V4); s.bind(('10.0.2.100', 0)); s.connect((V4, 4001)); echo(s); print(is_fast(s))
",
    );
    let expected = "0\nTrue (1, 3)\nb'copy'\nTrue False\nTrue\n[]\nFalse\nFalse\n";
    assert_eq!(said.stdout, expected, "{}", said.stderr);
}

#[test]
fn who_waits_can_lose_patience() {
    requires!(Need::Image("busybox"), Need::Tool("ip"), Need::Tool("python3"));
    let Some(world) = World::new() else { return };
    // Where packets are lost.
    let neighbour = ["ip", "neigh", "add", "198.18.0.77", "lladdr", "02:00:00:00:00:99", "dev", "wan"];
    assert!(world.internet.privileged(&neighbour).status().unwrap().success());
    let said = world.python(
        "
s = tcp(V4); s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack('ll', 1, 0))
try: s.connect(('198.18.0.77', 1))
except OSError as e: print(e.errno in (errno.EINPROGRESS, errno.EALREADY))
class Rang(Exception): pass
def ring(*_): raise Rang()
signal.signal(signal.SIGALRM, ring); signal.alarm(1)
s = tcp(V4)
try: s.connect(('198.18.0.77', 2))
except Rang: print('rang')
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01); signal.siginterrupt(signal.SIGALRM, False)
for _ in range(300):
    s = tcp(V4); s.connect((V4, 4001)); echo(s)
for _ in range(300):
    s = tcp(V4); s.setblocking(False)
    e = s.connect_ex((V4, 4001)); assert e in (0, errno.EINPROGRESS, errno.EALREADY, errno.EISCONN), e
    p = select.poll(); p.register(s, select.POLLOUT)
    while not p.poll(1000): pass
    s.setblocking(True); echo(s)
signal.setitimer(signal.ITIMER_REAL, 0, 0)
print('all')
",
    );
    assert_eq!(said.stdout, "True\nrang\nall\n", "{}", said.stderr);
}

/// What another thread makes of the address after the question was asked, or of the descriptor, opens nothing.
#[test]
fn nobody_reaches_what_is_closed_to_him() {
    requires!(Need::Image("busybox"), Need::Tool("ip"), Need::Tool("python3"));
    let Some(world) = World::new() else { return };
    let listener = "
import socket
s = socket.create_server(('127.0.0.1', 4444), backlog=256)
t = socket.create_server(('198.18.0.1', 4445), backlog=256)
print('ready', flush=True)
for server in (s, t):
    server.setblocking(False)
import select
while True:
    for one in select.select([s, t], [], [])[0]:
        c, peer = one.accept(); print('came', one.getsockname(), peer, flush=True)
";
    let mut command = world.internet.privileged(&["python3", "-u", "-c", listener]);
    let mut server = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(server.stdout.take().unwrap()));
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    let attack = "
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def address(ip, port): return struct.pack('=HH4s8x', socket.AF_INET, socket.htons(port), socket.inet_aton(ip))
good, bad = address(V4, 4001), address('127.0.0.1', 4444)
memory = ctypes.create_string_buffer(good, 16)
stop = []
def flip():
    while not stop:
        ctypes.memmove(memory, bad, 16); ctypes.memmove(memory, good, 16)
thread = threading.Thread(target=flip, daemon=True); thread.start()
outcomes = {}
for _ in range(400):
    s = tcp(V4); s.settimeout(None); s.setblocking(False)
    r = libc.connect(s.fileno(), memory, 16)
    p = select.poll(); p.register(s, select.POLLOUT); p.poll(200)
    try: peer = s.getpeername()
    except OSError as e: peer = errno.errorcode[e.errno]
    outcomes[peer] = outcomes.get(peer, 0) + 1
    s.close()
stop.append(1); thread.join()
print(('127.0.0.1', 4444) in outcomes, (V4, 4001) in outcomes)
# A socket of the host's, dissolved and connected anew by a call that nobody asks about (its length is odd).
s = tcp(V4); s.connect((V4, 4001)); echo(s); assert is_fast(s)
libc.connect(s.fileno(), struct.pack('=H14x', socket.AF_UNSPEC), 16)
s.settimeout(None); s.setblocking(False)
for to in (bad, address('198.18.0.1', 4445)):
    libc.connect(s.fileno(), to + bytes(4), 20)
    p = select.poll(); p.register(s, select.POLLOUT); p.poll(3000)
    try: print(s.getpeername())
    except OSError as e: print(errno.errorcode[e.errno])
    libc.connect(s.fileno(), struct.pack('=H18x', socket.AF_UNSPEC), 20)
    # Sent and connected in one.
    for way in (lambda: s.sendto(b'x', 0x20000000, (socket.inet_ntoa(to[4:8]), struct.unpack('!H', to[2:4])[0])),
                lambda: s.sendmsg([b'x'], [], 0x20000000, (socket.inet_ntoa(to[4:8]), struct.unpack('!H', to[2:4])[0]))):
        try: way()
        except OSError: pass
    time.sleep(0.2)
    libc.connect(s.fileno(), struct.pack('=H18x', socket.AF_UNSPEC), 20)
# Another socket under the same number, between the question and the call.
host = tcp(V4); host.connect((V4, 4001)); host.settimeout(None); host.setblocking(False)
unix = socket.socket(socket.AF_UNIX); unix.setblocking(False)
place = os.dup(unix.fileno())
stop = []
def swap():
    while not stop:
        os.dup2(host.fileno(), place); os.dup2(unix.fileno(), place)
thread = threading.Thread(target=swap, daemon=True); thread.start()
for _ in range(500):
    libc.connect(host.fileno(), struct.pack('=H14x', socket.AF_UNSPEC), 16)
    libc.connect(place, bad, 16)
stop.append(1); thread.join()
try: s.setsockopt(socket.SOL_SOCKET, 27, 0)
except OSError as e: print('nailed' if e.errno in (errno.EPERM, errno.ENOENT) else e)
# The one it belongs to can be dialled again, and asked about it is another socket.
s = tcp(V4); s.connect((V4, 4001)); libc.connect(s.fileno(), struct.pack('=H14x', socket.AF_UNSPEC), 16)
try: s.connect(('127.0.0.1', 4444))
except OSError as e: print(errno.errorcode[e.errno])
s.connect((V4, 4001)); echo(s); print('again')
";
    let options = ["--network", "fast", "--egress", "deny=198.18.0.1"];
    let said = world.python_with(&options, attack);
    server.kill().unwrap();
    server.wait().unwrap();
    let came: Vec<String> = lines.map(Result::unwrap).collect();
    assert_eq!(
        said.stdout, "False True\nENOTCONN\nENOTCONN\nnailed\nENETUNREACH\nagain\n",
        "{} {came:?}",
        said.stderr
    );
    assert!(came.is_empty(), "{came:?}");
}

#[test]
fn rules_are_those_of_the_relay() {
    requires!(Need::Image("busybox"), Need::Tool("ip"), Need::Tool("python3"));
    let Some(world) = World::new() else { return };
    let ask = |rules: &[&str]| {
        let mut options = vec!["--network", "fast"];
        rules.iter().for_each(|rule| options.extend(["--egress", rule]));
        let program = "
for at in ((V4, 4001), (V6, 4001), ('169.254.169.254', 80)):
    try: s = tcp(at[0]); s.settimeout(None); s.connect(at); echo(s); print(is_fast(s))
    except OSError as e: print('no')
";
        world.python_with(&options, program).ok().stdout.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(ask(&[]), "True True no");
    assert_eq!(ask(&["deny=198.18.0.0/16"]), "no True no");
    assert_eq!(ask(&["allow=198.18.0.2:4001"]), "True no no");
    assert_eq!(ask(&["allow=198.18.0.2:80"]), "no no no");
    // Only the relay knows what a name has been answered with.
    assert_eq!(ask(&["deny=example.org"]), "False False no");
    let loopback = "
s = tcp(V4); s.connect((V4, 4001)); print(is_fast(s))
s = tcp(V4); s.connect(('10.0.2.2', 4555)); print(s.getpeername(), s.recv(9))";
    let server = "
import socket
s = socket.create_server(('127.0.0.1', 4555))
while True: s.accept()[0].send(b'host')
";
    let mut host = world.internet.privileged(&["python3", "-c", server]).spawn().unwrap();
    eventually("it listens", || {
        let mut list = world.internet.privileged(&["ss", "-Hlnt", "sport", "=", ":4555"]);
        !list.output().unwrap().stdout.is_empty()
    });
    let said = world.python_with(&["--network", "fast:host-loopback"], loopback);
    host.kill().unwrap();
    host.wait().unwrap();
    said.ok().says("True\n('10.0.2.2', 4555) b'host'");
}

/// What a program keeps from the network by a namespace of its own stays there.
#[test]
fn a_network_namespace_inside_is_left_alone() {
    requires!(Need::Image("busybox"), Need::Tool("ip"), Need::Tool("python3"));
    let Some(world) = World::new() else { return };
    let program = "
import ctypes
before = tcp(V4)
libc = ctypes.CDLL(None, use_errno=True)
assert libc.unshare(0x40000000) == 0, ctypes.get_errno()
s = tcp(V4)
try: s.connect((V4, 4001)); print('out')
except OSError as e: print(errno.errorcode[e.errno])
before.connect((V4, 4001)); echo(before); print(is_fast(before))
";
    let options = ["--network", "fast", "--cap-add", "SYS_ADMIN"];
    world.python_with(&options, program).ok().says("ENETUNREACH\nTrue");
}

#[test]
fn further_processes_restarts_and_deaths() {
    requires!(Need::Image("busybox"), Need::Tool("ip"), Need::Tool("python3"));
    let Some(world) = World::new() else { return };
    world.detached("c");
    world.exec("c", ONE).ok().says("True");
    let told = |format: &str| world.run(&["inspect", "-f", format, "c"]).ok().stdout.trim().to_owned();
    assert_eq!(told("{{.HostConfig.NetworkMode}}"), "fast");
    assert_eq!(told("{{.NetworkSettings.Networks.fast.IPAddress}}"), "10.0.2.100");
    world.run(&["ps", "-q", "--filter", "network=fast"]).ok().says(&told("{{.Id}}")[..12]);
    world.run(&["restart", "-t", "0", "c"]).ok();
    world.exec("c", ONE).ok().says("True");

    // Another one has the same ports inside.
    let serve = "
s = socket.create_server(('', 80)); c = socket.create_connection(('127.0.0.1', 80)); d, _ = s.accept()
echo_back = d.send(b'own'); print(c.recv(9))";
    world.detached("d");
    for name in ["c", "d"] {
        world.exec(name, serve).ok().says("b'own'");
    }

    // Whoever is killed: what is left ends with the container, and a restart mends all.
    let monitor: i32 = told("{{.State.ConmonPid}}").parse().unwrap();
    let pid = rustix::process::Pid::from_raw(monitor).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    eventually("the monitor has ended", || !std::path::Path::new(&format!("/proc/{monitor}")).exists());
    world.exec("c", ONE).ok().says("True");
    world.run(&["restart", "-t", "0", "c"]).ok();
    world.exec("c", ONE).ok().says("True");
    world.umiak.run(&["rm", "-f", "-t", "0", "c", "d"]).ok();
}

#[test]
fn published_ports_lead_in() {
    requires!(Need::Image("busybox"), Need::Tool("ip"), Need::Tool("python3"));
    let Some(world) = World::new() else { return };
    let args = ["run", "-d", "--name", "web", "--network", "fast", "-p", "8080:80", "localhost/busybox"];
    world.run(&[&args[..], &["httpd", "-f", "-h", "/etc"]].concat()).ok();
    for host in [NEAR[0], &format!("[{}]", NEAR[1])] {
        let url = format!("http://{host}:8080/hostname");
        let program = format!("import urllib.request as u; print(u.urlopen('{url}', timeout=5).status)");
        eventually("the port is there", || {
            let output = world.internet.far(&["python3", "-c", &program]).output().unwrap();
            String::from_utf8_lossy(&output.stdout).trim() == "200"
        });
    }
    world.umiak.run(&["exec", "web", "wget", "-q", "-O-", "http://127.0.0.1/hostname"]).ok();
    world.umiak.run(&["rm", "-f", "-t", "0", "web"]).ok();
}

#[test]
fn a_call_that_is_denied_stays_denied() {
    requires!(Need::Image("busybox"), Need::Tool("ip"), Need::Tool("python3"));
    let Some(world) = World::new() else { return };
    let profile = world.umiak.dir.join("no-connect.json");
    let text = r#"{"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["connect"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}]}"#;
    std::fs::write(&profile, text).unwrap();
    let option = format!("seccomp={}", profile.display());
    let options = ["--network", "fast", "--security-opt", &option];
    let program = "
try: tcp(V4).connect((V4, 4001))
except PermissionError: print('denied')";
    world.python_with(&options, program).ok().says("denied");
    // With none at all it works as well.
    let options = ["--network", "fast", "--security-opt", "seccomp=unconfined"];
    world.python_with(&options, ONE).ok().says("True");
    // As it does where owners are only said to have been taken.
    let program = format!("open('/tmp/f', 'w'); os.chown('/tmp/f', 33, 33)\n{ONE}");
    world.python(&program).ok().says("True");
    let told = r#"{"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/l",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]}"#;
    std::fs::write(&profile, told).unwrap();
    let options = ["--network", "fast", "--security-opt", &option];
    world.python_with(&options, "").exits(125).tells("listenerPath");
}

#[test]
fn who_rules_the_hosts_network_gets_no_socket_of_it() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    for options in [&["--cap-add", "NET_ADMIN"][..], &["--privileged"]] {
        let args = [&["run", "--rm", "--network", "fast"], options, &["busybox", "true"]].concat();
        if rustix::process::getuid().is_root() {
            umiak.run(&args).exits(125).tells("cap_net_admin").hints("--userns auto");
        }
    }
    umiak.run(&["run", "--network", "fast:cidr=1.2.3.0/24", "busybox", "true"]).exits(125).tells("no option");
}

#[test]
fn much_goes_both_ways() {
    requires!(Need::Image("busybox"), Need::Tool("ip"), Need::Tool("python3"));
    let Some(world) = World::new() else { return };
    let program = "
import hashlib
def both(ip, size):
    s = tcp(ip); s.connect((ip, 4001)); assert is_fast(s)
    sent, got, length = hashlib.sha256(), hashlib.sha256(), 0
    block = os.urandom(1 << 16)
    def send():
        for _ in range(size >> 16): s.sendall(block); sent.update(block)
        s.shutdown(socket.SHUT_WR)
    t = threading.Thread(target=send); t.start()
    while True:
        d = s.recv(1 << 18)
        if not d: break
        got.update(d); length += len(d)
    t.join(); print(length == size, got.digest() == sent.digest())
both(V4, 1 << 27); both(V6, 1 << 24)
";
    world.python(program).ok().says("True True\nTrue True");
}
