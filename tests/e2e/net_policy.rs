//! What a container cannot dial, and who answers its questions for names: a container that tries to get out by
//! every way that there is, and a far side that writes down what arrives.

use std::path::Path;
use std::process::Stdio;

use crate::requires;
use crate::support::net::{FAR, FURTHER, Internet};
use crate::support::{Need, Umiak, finish};

/// The far side: name servers at all addresses, and servers of TCP at their port 4000. All that arrives is
/// written into a file.
fn far_side(log: &Path) -> String {
    format!("LOG = {:?}\n{}", log.display().to_string(), FAR_SIDE)
}

const FAR_SIDE: &str = r#"
import socket, struct, threading
def note(text):
    with open(LOG, 'a') as log:
        log.write(text + '\n')
NAMES = {'allowed.test': ('198.18.0.2', '2001:db8:0:1::2'), 'other.test': ('203.0.113.7', '2001:db8:0:2::7'),
         'loop.test': ('127.0.0.1', '::1')}
def reply(packet):
    labels, at = [], 12
    while packet[at]:
        labels.append(packet[at+1:at+1+packet[at]].decode()); at += 1 + packet[at]
    kind = struct.unpack('>H', packet[at+1:at+3])[0]
    name = '.'.join(labels).lower()
    note('dns ' + name)
    found = NAMES.get(name)
    data = b''
    if found and kind in (1, 28):
        raw = socket.inet_pton(socket.AF_INET if kind == 1 else socket.AF_INET6, found[0 if kind == 1 else 1])
        data = b'\xc0\x0c' + struct.pack('>HHIH', kind, 1, 60, len(raw)) + raw
    head = packet[:2] + struct.pack('>HHHHH', 0x8180 if found else 0x8183, 1, 1 if data else 0, 0, 0)
    return head + packet[12:at+5] + data
def names_tcp():
    s = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(('198.18.0.2', 53)); s.listen(8)
    while True:
        c, _ = s.accept()
        size = c.recv(2)
        if len(size) == 2:
            packet = c.recv(struct.unpack('>H', size)[0])
            answer = reply(packet)
            c.sendall(struct.pack('>H', len(answer)) + answer)
        c.close()
def datagrams(family, host):
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.bind((host, 53))
    while True:
        packet, peer = s.recvfrom(4096)
        note('udp ' + host)
        s.sendto(reply(packet), peer)
def serve(family, host):
    s = socket.socket(family, socket.SOCK_STREAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((host, 4000)); s.listen(64)
    while True:
        c, _ = s.accept()
        note('tcp ' + host)
        c.sendall(b'hello\n'); c.close()
for host in ('198.18.0.2', '203.0.113.7'):
    for work in (datagrams, serve):
        threading.Thread(target=work, args=(socket.AF_INET, host), daemon=True).start()
for host in ('2001:db8:0:1::2', '2001:db8:0:2::7'):
    for work in (datagrams, serve):
        threading.Thread(target=work, args=(socket.AF_INET6, host), daemon=True).start()
names_tcp()
"#;

struct World {
    // The first to go: its servers write into the other's directory.
    internet: Internet,
    umiak: Umiak,
    log: std::path::PathBuf,
}

impl World {
    fn new() -> Self {
        let umiak = Umiak::with_busybox();
        let log = umiak.file("arrived", "");
        let mut internet = Internet::new();
        internet.serve(&far_side(&log), FAR[0], 53);
        Self { internet, umiak, log }
    }

    /// What a script in a container says, standard error with it.
    fn container(&self, flags: &[&str], script: &str) -> String {
        let script = format!("exec 2>&1; {script}; true");
        let args = [&["run", "--rm"], flags, &["localhost/busybox", "sh", "-c", &script]].concat();
        let mut command = self.internet.near(&self.umiak.command(&args));
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        finish(child, b"", args.join(" ")).ok().stdout
    }

    /// What has arrived at the far side since the last look.
    fn arrived(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap();
        std::fs::write(&self.log, "").unwrap();
        text
    }
}

#[test]
fn what_no_rule_allows_does_not_get_out() {
    requires!(Need::Image("busybox"), Need::Tool("ip"), Need::Tool("ss"), Need::Tool("python3"));
    let world = World::new();
    let dns = FAR[0];
    // That the ways are there: without rules all of them are taken.
    let attempts = format!(
        "for to in {} {} {} {}; do timeout 3 nc $to 4000 </dev/null; timeout 3 nslookup leak.test $to; done",
        FAR[0], FAR[1], FURTHER[0], FURTHER[1]
    );
    let open = world.container(&["--dns", dns], &format!("{attempts}; nslookup secret.test"));
    assert_eq!(open.matches("hello").count(), 4, "{open}");
    let arrived = world.arrived();
    assert_eq!(arrived.matches("tcp ").count(), 4, "{arrived}");
    for address in [FAR, FURTHER].concat() {
        assert!(arrived.contains(&format!("udp {address}")), "{arrived}");
    }
    assert!(arrived.contains("dns secret.test"), "{arrived}");
    for rules in [
        &["--egress", "deny=*"][..],
        &["--egress", "allow=10.99.0.0/16"],
        &["--egress", "allow=allowed.test:4001"],
    ] {
        let flags = [&["--dns", dns], rules].concat();
        let script = format!(
            "{attempts}; nslookup secret.test; nslookup secret.test {dns}; nslookup -type=ptr 7.113.0.203.in-addr.arpa;
             echo x | timeout 3 nc {dns} 53; ping -c 1 -W 1 {dns} && echo pinged; ping -6 -c 1 -W 1 {} && echo pinged",
            FAR[1]
        );
        let said = world.container(&flags, &script);
        assert!(!said.contains("hello") && !said.contains("pinged"), "{rules:?}: {said}");
        assert_eq!(world.arrived(), "", "{rules:?}: {said}");
    }
}

#[test]
fn a_name_opens_the_addresses_that_it_has() {
    requires!(Need::Image("busybox"), Need::Tool("ip"), Need::Tool("ss"), Need::Tool("python3"));
    let world = World::new();
    let flags =
        ["--dns", FAR[0], "--egress", "allow=allowed.test:4000,loop.test", "--egress", "resolve=other.test"];
    let dial = |to: &str| format!("timeout 3 nc {to} 4000 </dev/null");
    // Nobody has asked yet.
    let said = world.container(&flags, &dial(FAR[0]));
    assert!(!said.contains("hello"), "{said}");
    let said = world.container(&flags, &dial("allowed.test"));
    assert_eq!(said, "hello\n");
    let said = world
        .container(&flags, &format!("nslookup ALLOWED.test >/dev/null; {}; {}", dial(FAR[0]), dial(FAR[1])));
    assert_eq!(said, "hello\nhello\n");
    world.arrived();
    // Of another port, of a name that may be asked for only, of one that means our own loopback.
    let said = world.container(
        &flags,
        &format!(
            "nslookup allowed.test >/dev/null; timeout 3 nc {} 53 </dev/null; {}; {}",
            FAR[0],
            dial("other.test"),
            dial("loop.test")
        ),
    );
    assert!(!said.contains("hello"), "{said}");
    let arrived = world.arrived();
    assert!(arrived.contains("dns other.test") && !arrived.contains("tcp "), "{arrived}");
    let said = world.container(
        &["--dns", FAR[0], "--egress", "deny=203.0.113.0/24"],
        &format!("{}; {}", dial(FURTHER[0]), dial(FAR[0])),
    );
    assert_eq!(said.matches("hello").count(), 1, "{said}");
}

#[test]
fn the_host_is_reached_only_by_its_option() {
    requires!(Need::Image("busybox"), Need::Tool("ip"), Need::Tool("ss"), Need::Tool("python3"));
    let world = World::new();
    let server = "
import socket
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(('127.0.0.1', 4100)); s.listen(8)
print('listening', flush=True)
while True:
    c, _ = s.accept(); c.sendall(b'loopback\\n'); c.close()
";
    let mut command = world.internet.privileged(&["python3", "-c", server]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line)
        .unwrap();
    let all = "for to in 127.0.0.1 0.0.0.0 10.0.2.2 169.254.169.254 198.18.0.1 host.containers.internal; do
               timeout 3 nc $to 4100 </dev/null; done; timeout 3 nc ::ffff:127.0.0.1 4100 </dev/null";
    let said = world.container(&[], all);
    assert!(!said.contains("loopback"), "{said}");
    let said = world.container(
        &["--network", "default:host-loopback"],
        "timeout 3 nc host.containers.internal 4100 </dev/null",
    );
    assert_eq!(said, "loopback\n");
    let said = world.container(
        &["--network", "slirp4netns:allow_host_loopback=true", "--add-host", "me:host-gateway"],
        "timeout 3 nc 10.0.2.2 4100 </dev/null; timeout 3 nc me 4100 </dev/null; timeout 3 nc 127.0.0.1 4100 </dev/null",
    );
    assert_eq!(said.matches("loopback").count(), 2, "{said}");
    let _ = child.kill();
    let _ = child.wait();
}
