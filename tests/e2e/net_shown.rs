//! Programs that people run in containers, over the networks of containers: what they need of a network works.

use std::process::Stdio;

use crate::net_relay::PYTHON;
use crate::requires;
use crate::support::net::{FAR, Internet, NEAR};
use crate::support::{Need, Output, Umiak, eventually, finish};

/// The machine's programs in a container.
const PROGRAMS: [&str; 8] = [
    "-v",
    "/usr:/usr:ro",
    "-v",
    "/usr/lib:/lib:ro",
    "-v",
    "/usr/lib64:/lib64:ro",
    "-e",
    "PATH=/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin",
];
const IMAGE: &str = "localhost/busybox";

struct World {
    umiak: Umiak,
    /// None: the machine's own network, which nothing is sent to.
    internet: Option<Internet>,
}

impl World {
    fn new() -> Self {
        Self { umiak: Umiak::with_busybox(), internet: Some(Internet::new()) }
    }

    /// Of containers that speak to each other alone.
    fn inner() -> Self {
        Self { umiak: Umiak::with_busybox(), internet: None }
    }

    fn internet(&mut self) -> &mut Internet {
        self.internet.as_mut().unwrap()
    }

    fn umiak(&self, args: &[&str]) -> Output {
        let command = self.umiak.command(args);
        let mut command =
            self.internet.as_ref().map_or(command, |internet| internet.near(&self.umiak.command(args)));
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        finish(child, b"", args.join(" "))
    }

    /// A command in a container that ends with it.
    fn run(&self, options: &[&str], words: &[&str]) -> Output {
        self.umiak(&[&["run", "--rm"], options, &PROGRAMS, &[IMAGE], words].concat())
    }

    fn serve(&self, name: &str, options: &[&str], words: &[&str], port: u16) {
        let head = ["run", "-d", "--name", name];
        self.umiak(&[&head[..], options, &PROGRAMS, &[IMAGE], words].concat()).ok();
        let listens = format!(":{port} ");
        eventually(&format!("{name} listens"), || {
            let shown = self.umiak.run(&["exec", name, "busybox", "netstat", "-ltn"]).stdout;
            if self.umiak.status(name) != "running" {
                panic!("{}", self.umiak.run(&["logs", name]).stderr);
            }
            shown.contains(&listens)
        });
    }

    fn far(&self, words: &[&str]) -> Output {
        let mut command = self.internet.as_ref().unwrap().far(words);
        let child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        finish(child, b"", words.join(" "))
    }

    fn end(&self) {
        self.umiak.run(&["rm", "-a", "-f", "-t", "0"]).ok();
    }
}

#[test]
fn iperf3() {
    requires!(Need::Image("busybox"), Need::Tool("ip"), Need::Tool("iperf3"));
    let mut world = World::new();
    let far = "import os; os.execvp('iperf3', ['iperf3', '-s', '-p', '5201'])";
    world.internet().serve(far, FAR[0], 5201);
    let sent = |output: &Output| {
        let told: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
        told["end"]["sum_received"]["bytes"].as_f64().or(told["end"]["sum"]["bytes"].as_f64()).unwrap()
    };
    for (ip, options) in
        [(FAR[0], &[][..]), (FAR[1], &["-R"]), (FAR[0], &["-P", "4"]), (FAR[1], &["-u", "-b", "20M"])]
    {
        let words = [&["iperf3", "-J", "-t", "1", "-c", ip, "-p", "5201"], options].concat();
        let output = world.run(&[], &words).ok();
        assert!(sent(&output) > 1e6, "{options:?}: {}", output.stdout);
    }
    world.serve("c", &["-p", "5202:5202"], &["iperf3", "-s", "-p", "5202"], 5202);
    for options in [&[][..], &["-R"]] {
        let output =
            world.far(&[&["iperf3", "-J", "-t", "1", "-c", NEAR[0], "-p", "5202"], options].concat()).ok();
        assert!(sent(&output) > 1e6, "{options:?}: {}", output.stdout);
    }
    world.end();
}

/// Answers requests of HTTP and keeps connections.
const HTTP: &str = "
import http.server
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        self.send_response(200); self.send_header('Content-Length', '5'); self.end_headers(); self.wfile.write(b'here\\n')
    def log_message(self, *a): pass
class S(http.server.ThreadingHTTPServer):
    request_queue_size = 512
    # wrk ends its connections while they are being answered, which is no news.
    def handle_error(self, *a): pass
S(('0.0.0.0', 8000), H).serve_forever()
";

#[test]
fn wrk_and_curl() {
    requires!(
        Need::Image("busybox"),
        Need::Tool("ip"),
        Need::Tool("wrk"),
        Need::Tool("curl"),
        Need::Tool("python3")
    );
    let mut world = World::new();
    world.internet().serve(HTTP, FAR[0], 8000);
    let url = format!("http://{}:8000/", FAR[0]);
    world.run(&[], &["curl", "-sS", "--max-time", "20", &url]).ok().says("here");
    let many = world.run(&[], &["wrk", "-t", "1", "-c", "50", "-d", "2", &url]).ok();
    assert!(many.stdout.contains("requests in") && !many.stdout.contains("Socket errors"), "{}", many.stdout);
    world.serve("web", &["-p", "8080:8000"], &["/usr/bin/python3", "-c", HTTP], 8000);
    let url = format!("http://{}:8080/", NEAR[0]);
    let many = world.far(&["wrk", "-t", "1", "-c", "50", "-d", "2", &url]).ok();
    assert!(many.stdout.contains("requests in") && !many.stdout.contains("Socket errors"), "{}", many.stdout);
    world.end();
}

#[test]
fn a_tls_server_is_known_by_its_name() {
    requires!(Need::Image("busybox"), Need::Tool("ip"), Need::Tool("curl"), Need::Tool("openssl"));
    let world = World::inner();
    world.umiak(&["network", "create", "web"]).ok();
    let dir = world.umiak.dir.join("tls");
    std::fs::create_dir(&dir).unwrap();
    let key =
        ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
    let made = std::process::Command::new("openssl")
        .args(key)
        .args(["-subj", "/CN=safe", "-addext", "subjectAltName=DNS:safe", "-keyout", "key", "-out", "cert"])
        .current_dir(&dir)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let volume = format!("{}:/tls:ro", dir.display());
    let server = ["openssl", "s_server", "-accept", "443", "-www", "-cert", "/tls/cert", "-key", "/tls/key"];
    world.serve("safe", &["--network", "web", "-v", &volume], &server, 443);
    let options = ["--network", "web", "-v", &volume];
    let ask = |name: &str| {
        let url = format!("https://{name}/");
        world.run(&options, &["curl", "-sS", "--max-time", "20", "--cacert", "/tls/cert", &url])
    };
    ask("safe").ok().has("TLSv1.3");
    assert_ne!(ask("safe.dns.podman").code, Some(0), "another name than the certificate's");
    world.end();
}

const WEBSOCKET: &str = "
import base64, hashlib, os, socket, struct, sys
GUID = b'258EAFA5-E914-47DA-95CA-C5AB0DC85B11'
def read(f):
    head = f.read(2)
    if len(head) < 2: return None, b''
    size = head[1] & 127
    if size == 126: size = struct.unpack('>H', f.read(2))[0]
    mask = f.read(4) if head[1] & 128 else b'\\0' * 4
    return head[0] & 15, bytes(b ^ mask[i % 4] for i, b in enumerate(f.read(size)))
def frame(kind, data, mask=b''):
    size = bytes([len(data) | (128 if mask else 0)]) if len(data) < 126 else bytes([126 | (128 if mask else 0)]) + struct.pack('>H', len(data))
    return bytes([128 | kind]) + size + mask + (bytes(b ^ mask[i % 4] for i, b in enumerate(data)) if mask else data)
def serve(port):
    s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(('', port)); s.listen(8)
    while True:
        c, _ = s.accept(); f = c.makefile('rb'); key = b''
        while (line := f.readline().strip()):
            if line.lower().startswith(b'sec-websocket-key:'): key = line.split(b':')[1].strip()
        sure = base64.b64encode(hashlib.sha1(key + GUID).digest())
        c.sendall(b'HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\nSec-WebSocket-Accept: ' + sure + b'\\r\\n\\r\\n')
        while True:
            kind, data = read(f)
            if kind in (None, 8): break
            c.sendall(frame(10 if kind == 9 else kind, data[::-1]))
        c.close()
def ask(host, port):
    s = socket.create_connection((host, port), timeout=20); f = s.makefile('rb')
    key = base64.b64encode(os.urandom(16))
    s.sendall(b'GET / HTTP/1.1\\r\\nHost: x\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\nSec-WebSocket-Version: 13\\r\\nSec-WebSocket-Key: ' + key + b'\\r\\n\\r\\n')
    head = b''
    while not head.endswith(b'\\r\\n\\r\\n'): head += f.read(1)
    assert base64.b64encode(hashlib.sha1(key + GUID).digest()) in head
    for text in (b'umiak', b'x' * 5000 + b'y'):
        s.sendall(frame(1, text, b'mask')); kind, data = read(f)
        assert (kind, data) == (1, text[::-1])
    s.sendall(frame(9, b'', b'mask')); assert read(f)[0] == 10
    print('kept')
";

#[test]
fn a_websocket_stays_open_both_ways() {
    requires!(Need::Image("busybox"), Need::Tool("ip"), Need::Tool("python3"));
    let mut world = World::new();
    let server = format!("{WEBSOCKET}serve(8001)");
    world.internet().serve(&server, FAR[0], 8001);
    let out = format!("{WEBSOCKET}ask('{}', 8001)", FAR[0]);
    world.run(&[], &["/usr/bin/python3", "-c", &out]).ok().says("kept");
    world.serve("c", &["-p", "8002:8001"], &["/usr/bin/python3", "-c", &server], 8001);
    world.far(&["python3", "-c", &format!("{WEBSOCKET}ask('{}', 8002)", NEAR[0])]).ok().says("kept");
    world.end();
}

#[test]
fn ssh_between_containers() {
    requires!(Need::ManyIds, Need::Image("busybox"), Need::Tool("ip"), Need::Tool("ssh"), Need::Tool("sshd"));
    let world = World::inner();
    world.umiak(&["network", "create", "lan"]).ok();
    let script = "mkdir -p /run/sshd /root/.ssh /etc/ssh && grep -q ^sshd: /etc/passwd || \
        echo sshd:x:99:99::/run/sshd:/bin/false >> /etc/passwd; cp /keys/id.pub /root/.ssh/authorized_keys && \
        cp /keys/host /etc/ssh/host && chmod 600 /etc/ssh/host && chmod -R go= /root && chown -R 0:0 /root && \
        exec /usr/sbin/sshd -f /dev/null -D -e -p 22 -h /etc/ssh/host -o UsePAM=no -o StrictModes=no";
    let keys = world.umiak.dir.join("keys");
    std::fs::create_dir(&keys).unwrap();
    for name in ["id", "host"] {
        let path = keys.join(name);
        let made = std::process::Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(path)
            .status();
        assert!(made.unwrap().success());
    }
    let volume = format!("{}:/keys:ro", keys.display());
    world.serve("server", &["--network", "lan", "-v", &volume], &["sh", "-c", script], 22);
    let client = "cp /keys/id /id && chmod 600 /id && ssh -F none -i /id -o StrictHostKeyChecking=no \
        -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR root@server 'echo from $SSH_CONNECTION; cat' </keys/id.pub";
    let output = world.run(&["--network", "lan", "-v", &volume], &["sh", "-c", client]).ok();
    assert!(
        output.stdout.starts_with("from 10.") && output.stdout.contains("ssh-ed25519"),
        "{}",
        output.stdout
    );
    world.end();
}

/// Where Debian has PostgreSQL's programs.
fn postgres() -> Option<std::path::PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    versions.filter_map(|entry| Some(entry.ok()?.path().join("bin"))).find(|dir| dir.join("initdb").is_file())
}

#[test]
fn postgresql_between_containers() {
    requires!(Need::ManyIds, Need::Image("busybox"), Need::Tool("ip"), Need::Tool("psql"));
    let Some(dir) = postgres() else {
        return crate::support::skip("needs the package postgresql", false);
    };
    let world = World::inner();
    world.umiak(&["network", "create", "data"]).ok();
    let bin = dir.display();
    let script = format!(
        "{bin}/initdb -D /tmp/data -A trust -U umiak --no-sync >/dev/null && \
         echo 'host all all all trust' >> /tmp/data/pg_hba.conf && \
         exec {bin}/postgres -D /tmp/data -c listen_addresses='*' -c unix_socket_directories=/tmp"
    );
    let options = ["--network", "data", "--user", "1000", "--tmpfs", "/tmp:mode=1777", "-e", "LC_ALL=C"];
    world.serve("db", &options, &["sh", "-c", &script], 5432);
    let sql = "create table t (n int, x text); insert into t select i, repeat('x', 1000) from generate_series(1, 20000) i; \
               select count(*), sum(length(x)) from t";
    // Debian's own one chooses a version by files that a container has not.
    let psql = dir.join("psql");
    let psql = [psql.to_str().unwrap(), "-h", "db", "-U", "umiak", "-d", "postgres", "-qAt"];
    eventually("the database answers", || {
        let output = world.run(&options, &[&psql[..], &["-c", "select 1"]].concat());
        assert!(!output.stderr.contains("not found"), "{}", output.stderr);
        output.stdout == "1\n"
    });
    world.run(&options, &[&psql[..], &["-c", sql]].concat()).ok().says("20000|20000000");
    // What is larger than any buffer on the way.
    let output = world.run(&options, &[&psql[..], &["-c", "select x from t"]].concat()).ok();
    assert_eq!(output.stdout.len(), 20000 * 1001);
    world.end();
}

#[test]
fn multicast_is_refused_at_once() {
    requires!(Need::Image("busybox"), Need::Tool("python3"));
    let world = World::inner();
    let program = "
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
try: s.sendto(b'x', ('239.1.2.3', 5353)); print('sent')
except OSError as e: print(e.strerror)
";
    let output = world.run(&[], &["/usr/bin/python3", "-c", program]).ok();
    assert_eq!(output.stdout, "No route to host\n");
}

/// Sends so many megabytes and tells the checksum of what it sent, and of what comes back.
const MUCH: &str = "
import socket, sys, threading, zlib
def receive(s):
    crc = size = 0
    buffer = bytearray(1 << 20)
    while (n := s.recv_into(buffer)):
        crc = zlib.crc32(memoryview(buffer)[:n], crc); size += n
    return crc, size
def send(s, seed, megabytes):
    block = bytes((i * 7 + seed) & 255 for i in range(1 << 16)) * 16
    crc = 0
    for i in range(megabytes):
        s.sendall(block); crc = zlib.crc32(block, crc)
    s.shutdown(socket.SHUT_WR)
    return crc, megabytes << 20
def both(s, seed, megabytes):
    got = []
    t = threading.Thread(target=lambda: got.append(receive(s))); t.start()
    sent = send(s, seed, megabytes); t.join()
    return sent, got[0]
def serve(port, megabytes):
    l = socket.socket(); l.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); l.bind(('', port)); l.listen(4)
    c, _ = l.accept()
    sent, got = both(c, 1, megabytes)
    c, _ = l.accept()
    c.sendall(repr((got, sent)).encode()); c.close()
def ask(host, port, megabytes):
    s = socket.create_connection((host, port)); mine = both(s, 2, megabytes); s.close()
    theirs = socket.create_connection((host, port)).recv(1000).decode()
    print(repr(mine) == theirs, mine[1][1] >> 20)
";

#[test]
fn a_gigabyte_goes_each_way_at_once() {
    requires!(Need::Image("busybox"), Need::Tool("ip"), Need::Tool("python3"));
    let mut world = World::new();
    world.internet().serve(&format!("{MUCH}serve(8003, 1024)"), FAR[0], 8003);
    let out = format!("{MUCH}ask('{}', 8003, 1024)", FAR[0]);
    world.run(&[], &["/usr/bin/python3", "-c", &out]).ok().says("True 1024");
    let served = format!("{MUCH}serve(8004, 64)");
    world.serve("c", &["-p", "8004:8004"], &["/usr/bin/python3", "-c", &served], 8004);
    let come = format!("{MUCH}ask('{}', 8004, 64)", NEAR[0]);
    world.far(&["python3", "-c", &come]).ok().says("True 64");
    world.end();
}

#[test]
fn as_many_connections_as_files_allow() {
    requires!(Need::Image("busybox"), Need::Tool("ip"), Need::Tool("python3"));
    let mut world = World::new();
    let server = "
import resource, selectors, socket
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]; resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
l = socket.socket(); l.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); l.bind(('198.18.0.2', 8005)); l.listen(4096)
poll = selectors.EpollSelector(); poll.register(l, 1)
while True:
    for key, _ in poll.select():
        if key.fileobj is l: c, _ = l.accept(); poll.register(c, 1)
        else:
            d = key.fileobj.recv(100)
            if d: key.fileobj.sendall(d)
            else: poll.unregister(key.fileobj); key.fileobj.close()
";
    world.internet().serve(server, FAR[0], 8005);
    // The relay has two descriptors for each, the container's program one.
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let wanted = (files / 2).saturating_sub(files / 16 + 600).min(10_000);
    let program = format!(
        "
import resource, socket
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]; resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
all = []
for i in range({wanted}):
    s = socket.socket(); s.settimeout(60); s.connect(('{}', 8005)); all.append(s)
for i, s in enumerate(all): s.sendall(b'%d' % i)
print(sum(s.recv(100) == b'%d' % i for i, s in enumerate(all)))
",
        FAR[0]
    );
    let nofile = format!("nofile={files}:{files}");
    let output = world.run(&["--ulimit", &nofile], &["/usr/bin/python3", "-c", &program]).ok();
    output.says(&wanted.to_string());
}

#[test]
fn beyond_its_files_a_relay_refuses_at_once() {
    requires!(Need::Image("busybox"), Need::Tool("ip"), Need::Tool("python3"), Need::Tool("prlimit"));
    let mut world = World::new();
    world.internet().serve(HTTP, FAR[0], 8000);
    let program = format!(
        "
import socket, time
all, why = [], ''
while len(all) < 1000:
    s = socket.socket(); s.settimeout(60)
    try: s.connect(('{}', 8000)); all.append(s)
    except OSError as e: why = type(e).__name__; break
print(len(all) > 15, why)
all.clear()
# There is room when the server, too, has closed them.
for _ in range(200):
    try: s = socket.create_connection(('{}', 8000), timeout=60); print('again'); break
    except ConnectionRefusedError: time.sleep(0.1)
",
        FAR[0], FAR[0]
    );
    let args = [&["run", "--rm"], &PYTHON[..], &[IMAGE, "/usr/bin/python3", "-c", &program]].concat();
    limited(&mut world, &args).ok().says("True ConnectionRefusedError\nagain");
}

/// Runs a command that may have 1,200 files.
fn limited(world: &mut World, args: &[&str]) -> Output {
    let inner = world.umiak.command(args);
    let mut limited = std::process::Command::new("prlimit");
    limited.env_clear().envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    limited.arg("--nofile=1200:1200").arg(inner.get_program()).args(inner.get_args());
    limited.current_dir(&world.umiak.dir);
    let mut command = world.internet().near(&limited);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    finish(child, b"", args.join(" "))
}

/// With 1,200 files there are 75 flows of datagrams each way.
#[test]
fn beyond_its_flows_the_oldest_make_room() {
    requires!(Need::Image("busybox"), Need::Tool("ip"), Need::Tool("python3"), Need::Tool("prlimit"));
    let mut world = World::new();
    world.internet().serve(&format!("{WHO}serve('{}', '{}')", FAR[0], FAR[1]), FAR[0], 4000);
    let many = |address: &str, port: u16| {
        format!(
            "{WHO}
all = []
for _ in range(200):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(10); s.connect(('{address}', {port})); all.append(s)
    s.send(b'x'); s.recv(100)
all[0].send(b'x'); all[0].recv(100)
print(len(all), 'answered')
"
        )
    };
    let server = format!("{}\nserve('0.0.0.0', '::')", many(FAR[0], 4000));
    let words = ["--name", "c", "-p", "4100:4000/udp", IMAGE, "/usr/bin/python3", "-u", "-c", &server];
    limited(&mut world, &[&["run", "-d"], &PYTHON[..], &words].concat()).ok();
    eventually("all are answered", || world.umiak.run(&["logs", "c"]).stdout.contains("200 answered"));
    eventually("it listens", || {
        world.umiak.run(&["exec", "c", "busybox", "netstat", "-lun"]).stdout.contains(":4000 ")
    });
    world.far(&["python3", "-c", &many(NEAR[0], 4100)]).ok().says("200 answered");
    world.end();
}

/// Who is seen, by TCP and UDP on port 4000.
const WHO: &str = "
import socket, sys, threading
def tcp(f, host):
    s = socket.socket(f); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if f == socket.AF_INET6: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    s.bind((host, 4000)); s.listen(64)
    while True:
        c, p = s.accept(); c.sendall(p[0].encode()); c.close()
def udp(f, host):
    s = socket.socket(f, socket.SOCK_DGRAM)
    if f == socket.AF_INET6: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    s.bind((host, 4000))
    while True:
        d, p = s.recvfrom(100); s.sendto(p[0].encode(), p)
def ask(ip, kind, port):
    s = socket.socket(socket.AF_INET6 if ':' in ip else socket.AF_INET, kind); s.settimeout(10); s.connect((ip, port))
    if kind == socket.SOCK_DGRAM: s.send(b'x')
    return s.recv(100).decode()
def both(ips, port):
    print(' '.join(ask(ip, kind, port) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM) for ip in ips))
def serve(v4, v6):
    for f in (tcp, udp): threading.Thread(target=f, args=(socket.AF_INET6, v6), daemon=True).start()
    threading.Thread(target=udp, args=(socket.AF_INET, v4), daemon=True).start()
    tcp(socket.AF_INET, v4)
";

/// TCP and UDP × IPv4 and IPv6 × a network of its own and a shared one × out and in: the address that the other
/// side sees.
#[test]
fn the_table_of_addresses_that_are_seen() {
    requires!(Need::Image("busybox"), Need::Tool("ip"), Need::Tool("python3"));
    let mut world = World::new();
    world.internet().serve(&format!("{WHO}serve('{}', '{}')", FAR[0], FAR[1]), FAR[0], 4000);
    world.umiak(&["network", "create", "--ipv6", "lan"]).ok();
    let (near, far) =
        (format!("{0} {1} {0} {1}", NEAR[0], NEAR[1]), format!("{0} {1} {0} {1}", FAR[0], FAR[1]));
    for (network, port) in [("default", 4100), ("lan", 4200)] {
        let out = format!("{WHO}both({FAR:?}, 4000)");
        world.run(&["--network", network], &["/usr/bin/python3", "-c", &out]).ok().says(&near);
        let published = [format!("{port}:4000"), format!("{port}:4000/udp")];
        let options = ["--network", network, "-p", &published[0], "-p", &published[1]];
        let name = format!("c-{network}");
        let server = format!("{WHO}serve('0.0.0.0', '::')");
        world.serve(&name, &options, &["/usr/bin/python3", "-c", &server], 4000);
        eventually("both families listen", || {
            let shown = world.umiak.run(&["exec", &name, "busybox", "netstat", "-lun"]).stdout;
            shown.matches(":4000 ").count() == 2
        });
        world.far(&["python3", "-c", &format!("{WHO}both({NEAR:?}, {port})")]).ok().says(&far);
    }
    world.end();
}

#[test]
fn nothing_is_tracked() {
    requires!(Need::Root, Need::Image("busybox"), Need::Tool("ip"), Need::Tool("python3"));
    let mut world = World::new();
    world.internet().serve(HTTP, FAR[0], 8000);
    let program = format!(
        "import socket, time; s = socket.create_connection(('{}', 8000)); print('up', flush=True); time.sleep(1000)",
        FAR[0]
    );
    let words = ["--name", "c", IMAGE, "/usr/bin/python3", "-c", &program];
    world.umiak(&[&["run", "-d"], &PYTHON[..], &words].concat()).ok();
    eventually("it is connected", || world.umiak.run(&["logs", "c"]).stdout.contains("up"));
    let mut seen = 0;
    for pid in crate::support::processes(&world.umiak.dir) {
        let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { continue };
        for task in tasks.filter_map(Result::ok).map(|task| task.path()) {
            if std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name == "inner\n") {
                let net = format!("--net={}", task.join("ns/net").display());
                let count = ["cat", "/proc/sys/net/netfilter/nf_conntrack_count"];
                let output = std::process::Command::new("nsenter").arg(net).args(count).output().unwrap();
                // A kernel without conntrack has no such file.
                assert!(matches!(&output.stdout[..], b"0\n" | b""), "{output:?}");
                seen += 1;
            }
        }
    }
    assert_eq!(seen, 1);
    world.end();
}

#[test]
fn a_peer_that_vanishes_holds_up_nobody_else() {
    requires!(Need::Image("busybox"), Need::Tool("ip"), Need::Tool("python3"));
    let mut world = World::new();
    world.internet().serve(HTTP, FAR[0], 8000);
    let program = format!(
        "
import socket, sys, time
gone = socket.create_connection(('203.0.113.7', 8000)); print('up', flush=True)
sys.stdin.readline()
gone.setblocking(False)
try:
    for i in range(100000): gone.send(b'x' * 10000)
except BlockingIOError: print('full', flush=True)
s = socket.create_connection(('{}', 8000), timeout=20); s.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n'); print(s.recv(12).decode(), flush=True)
gone.close()
",
        FAR[0]
    );
    let words = ["-i", IMAGE, "/usr/bin/python3", "-c", &program];
    let command = world.umiak.command(&[&["run", "--rm"], &PYTHON[..], &words].concat());
    let mut command = world.internet().near(&command);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut said, &mut line).unwrap();
    assert_eq!(line, "up\n");
    world.far(&["ip", "address", "del", "203.0.113.7/32", "dev", "lo"]).ok();
    world.far(&["ip", "route", "add", "blackhole", "203.0.113.7"]).ok();
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"on\n").unwrap();
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut said, &mut rest).unwrap();
    assert_eq!(rest, "full\nHTTP/1.1 200\n");
    assert!(child.wait().unwrap().success());
}
