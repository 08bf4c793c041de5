"""What scripts/bench measures of the network: a rootless container's way out and in against slirp4netns and pasta, and
against a bridge of root's with nftables. All of them in namespaces made for it: `near` is the host that each runs
on, `far` is where the servers are; the bridge has a host of its own, for what it needs of nftables slows all others.

The programs that measure are the same for all: they are put into the container's network namespace as root."""

import json
import os
import signal
import statistics
import subprocess
import time

FAR = "198.18.0.2"
BRIDGE_FAR = "198.18.1.2"
NEAR = "198.18.0.1"
SECONDS = float(os.environ.get("SECONDS", "2"))

SERVER = r"""
import socket, threading
def serve(port, each):
    s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("0.0.0.0", port)); s.listen(4096)
    while True: each(s.accept()[0])
def one(c):
    c.sendall(c.recv(16)); c.close()
def echo(c):
    c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        while True:
            d = c.recv(65536)
            if not d: break
            c.sendall(d)
    except OSError: pass
    c.close()
def datagrams():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("0.0.0.0", 7002))
    while True:
        d, peer = s.recvfrom(65536); s.sendto(d, peer)
threading.Thread(target=datagrams, daemon=True).start()
threading.Thread(target=serve, args=(7000, one), daemon=True).start()
threading.Thread(target=serve, args=(7003, lambda c: threading.Thread(target=echo, args=(c,), daemon=True).start()), daemon=True).start()
serve(7001, echo)
"""

# Median microseconds of: a connection with one byte each way; a round trip of 100 bytes by TCP, by UDP.
CLIENT = r"""
import socket, statistics, sys, time
what, host, port, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
spent = []
if what == "connect":
    for _ in range(count):
        begin = time.perf_counter()
        s = socket.socket(); s.connect((host, port)); s.sendall(b"x"); s.recv(1)
        spent.append(time.perf_counter() - begin)
        s.close()
else:
    s = socket.socket(socket.AF_INET, socket.SOCK_STREAM if what == "tcp" else socket.SOCK_DGRAM)
    s.settimeout(5); s.connect((host, port))
    if what == "tcp": s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for _ in range(count):
        begin = time.perf_counter()
        s.send(b"x" * 100); s.recv(1000)
        spent.append(time.perf_counter() - begin)
print(statistics.median(spent) * 1e6)
"""

CONNECTIONS = r"""
import resource, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
all = [socket.create_connection((sys.argv[1], 7003)) for _ in range(1000)]
for s in all: s.sendall(b"x" * 1000); s.recv(1000, socket.MSG_WAITALL)
print("there", flush=True)
sys.stdin.read()
"""


def sh(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode:
        raise SystemExit(f"bench: {command[-8:]}: {done.stderr.strip()}")
    return done.stdout


class Way:
    """One way from a container to the far side."""

    def __init__(self, name, pid, helpers, far=FAR, published=None):
        self.name, self.pid, self.helpers, self.far, self.published = name, pid, helpers, far, published
        self.samples = {}

    def inside(self, *command):
        return ["nsenter", "--target", str(self.pid), "--net", *command]

    def add(self, what, value):
        self.samples.setdefault(what, []).append(value)

    def median(self, what):
        return statistics.median(self.samples[what])

    def spent(self):
        """CPU seconds of the helpers until now."""
        ticks = 0
        for pid in self.helpers:
            with open(f"/proc/{pid}/stat") as file:
                fields = file.read().rsplit(")", 1)[1].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")


class Net:
    """The namespaces, and what runs in them."""

    def __init__(self, bench):
        self.bench = bench
        self.started = []
        self.held = {}
        self.names = []

    def __enter__(self):
        for name in ("near", "far", "root", "bridged"):
            self.held[name] = self.begin(["unshare", "--net", "sleep", "infinity"]).pid
        for name, pid in self.held.items():
            while open(f"/proc/{pid}/comm").read() != "sleep\n":
                time.sleep(0.01)
            sh(*self.at(name), "ip", "link", "set", "lo", "up")
        self.cable("near", "far", "198.18.0.1/24", "198.18.0.2/24", "wan0")
        self.cable("root", "far", "198.18.1.1/24", "198.18.1.2/24", "wan1")
        for name, gateway in (("near", FAR), ("root", BRIDGE_FAR)):
            sh(*self.at(name), "ip", "route", "add", "default", "via", gateway)
        self.bridge()
        self.begin([*self.at("far"), "python3", "-c", SERVER])
        for port in ("5201", "5202"):
            self.begin([*self.at("far"), "iperf3", "--server", "--port", port])
        return self

    def __exit__(self, *_):
        for process in reversed(self.started):
            process.send_signal(signal.SIGKILL)
            process.wait()
        for name in self.names:
            sh("ip", "netns", "delete", name)

    def at(self, name):
        return ["nsenter", "--target", str(self.held[name]), "--net"]

    def begin(self, command, **options):
        options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **options}
        process = self.bench.start(command, root=True, **options)
        self.started.append(process)
        return process

    def cable(self, one, other, address, peer, device):
        sh(*self.at(one), "ip", "link", "add", device, "type", "veth", "peer", "name", device, "netns",
           str(self.held[other]))
        for name, ip in ((one, address), (other, peer)):
            sh(*self.at(name), "ip", "address", "add", ip, "dev", device)
            sh(*self.at(name), "ip", "link", "set", device, "up")

    def bridge(self):
        root = self.at("root")
        sh(*root, "ip", "link", "add", "br0", "type", "bridge")
        sh(*root, "ip", "address", "add", "10.90.0.1/24", "dev", "br0")
        sh(*root, "ip", "link", "set", "br0", "up")
        sh(*root, "ip", "link", "add", "port0", "type", "veth", "peer", "name", "eth0", "netns", str(self.held["bridged"]))
        sh(*root, "ip", "link", "set", "port0", "master", "br0", "up")
        for words in ("address add 10.90.0.2/24 dev eth0", "link set eth0 up", "route add default via 10.90.0.1"):
            sh(*self.at("bridged"), "ip", *words.split())
        sh(*root, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        rules = "table ip nat { chain out { type nat hook postrouting priority 100; oifname wan1 masquerade; }; }"
        sh(*root, "nft", rules)

    def as_user(self, *command):
        """A command of the user in the near host."""
        bench = self.bench
        settings = [f"{name}={value}" for name, value in bench.env.items()]
        ids = ["--reuid", str(bench.uid), "--regid", str(bench.gid), "--clear-groups"]
        return [*self.at("near"), "setpriv", *ids, "env", "-i", *settings, *command]

    # -- the ways

    def umiak(self):
        run = ["run", "-d", "--name", "net", "-p", "5401:5401", "-p", "5403:7001", "localhost/busybox", "sleep", "100000"]
        sh(*self.as_user(*self.bench.umiak, *run))
        pid = sh(*self.as_user(*self.bench.umiak, "inspect", "--format", "{{.State.Pid}}", "net")).strip()
        with open(f"/proc/{pid}/stat") as file:
            monitor = file.read().rsplit(")", 1)[1].split()[1]
        with open(f"/proc/{monitor}/task/{monitor}/children") as file:
            relays = [child for child in file.read().split() if child != pid]
        return Way("umiak", pid, relays, published={"bulk": 5401, "round": 5403})

    def of_peer(self, *command):
        """A command of the user, or of root where a user may not open the tap devices that the peers need."""
        user = os.stat("/dev/net/tun").st_mode & 0o006 == 0o006
        if not user and not any("tap devices" in note for note in self.bench.notes):
            self.bench.notes.append("The peers ran as root: /dev/net/tun, tap devices, is closed to users here.")
        return user, (self.as_user(*command) if user else [*self.at("near"), *command])

    def container(self):
        """What holds an empty network namespace, and the namespace's name if it is root's."""
        user, command = self.of_peer("sleep", "infinity")
        at = command.index("sleep")
        words = ["unshare", "--net", *(["--user", "--map-root-user"] if user else [])]
        holder = self.begin([*command[:at], *words, *command[at:]])
        while open(f"/proc/{holder.pid}/comm").read() != "sleep\n":
            time.sleep(0.01)
        if user:
            return holder.pid, None
        # Pasta opens it when it has given its powers up: by a name that all may see.
        name = f"umiak-bench-{holder.pid}"
        sh("ip", "netns", "attach", name, str(holder.pid))
        self.names.append(name)
        return holder.pid, f"/run/netns/{name}"

    def slirp4netns(self):
        pid, path = self.container()
        target = ["--netns-type=path", path] if path else [str(pid)]
        helper = self.begin(self.of_peer("slirp4netns", "--configure", "--mtu=65520", *target, "tap0")[1])
        return Way("slirp4netns", pid, [helper.pid])

    def pasta(self):
        pid, path = self.container()
        target = ["--runas", "0", "--netns", path] if path else [str(pid)]
        words = ["pasta", "--config-net", "--no-map-gw", "--foreground", "--ipv4-only", "-t", "5402,5404:7001", "-u", "none",
                 "-T", "none", "-U", "none", *target]
        helper = self.begin(self.of_peer(*words)[1])
        return Way("pasta", pid, [helper.pid], published={"bulk": 5402, "round": 5404})

    def root_bridge(self):
        return Way("bridge", self.held["bridged"], [], far=BRIDGE_FAR)

    # -- what is measured

    def bulk(self, way, what, command):
        before = way.spent()
        text = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS * 10 + 30).stdout
        spent = way.spent() - before
        end = json.loads(text).get("end", {})
        if "sum_received" not in end:
            return False
        gigabytes = end["sum_received"]["bytes"] / 1e9
        used = end["cpu_utilization_percent"]
        both = (used["host_total"] + used["remote_total"]) / 100 * end["sum_received"]["seconds"]
        way.add(what, end["sum_received"]["bits_per_second"] / 1e9)
        way.add(what + " cpu", (spent + both) / max(gigabytes, 1e-3))
        return True

    def round(self, way):
        iperf = ["iperf3", "--json", "--time", str(SECONDS), "--client"]
        self.bulk(way, "up", way.inside(*iperf, way.far))
        self.bulk(way, "down", way.inside(*iperf, way.far, "--reverse"))
        for what, port, count in (("connect", 7000, 1000), ("tcp", 7001, 5000), ("udp", 7002, 5000)):
            command = way.inside("python3", "-c", CLIENT, what, way.far, str(port), str(count))
            way.add(what, float(sh(*command, timeout=120)))
        if way.published:
            bulk = [*self.at("far"), *iperf, NEAR, "--port", str(way.published["bulk"])]
            self.bulk(way, "in", bulk)
            self.bulk(way, "out", [*bulk, "--reverse"])
            command = [*self.at("far"), "python3", "-c", CLIENT, "tcp", NEAR, str(way.published["round"]), "5000"]
            way.add("in tcp", float(sh(*command, timeout=120)))

    def until_open(self, way):
        """Waits until the servers are reached; ends the bench if they are not."""
        program = f"import socket; socket.create_connection(('{way.far}', 7003), 1)"
        for _ in range(50):
            if subprocess.run(way.inside("python3", "-c", program), capture_output=True).returncode == 0:
                return
            time.sleep(0.1)
        raise SystemExit(f"bench: {way.name} does not reach the far side")

    def memory(self, way):
        """KiB that 1,000 connections are carried with: what the process has written, and its share of all that it uses
        (of the program's own pages its monitor and other containers have theirs)."""
        process = self.bench.start(way.inside("python3", "-c", CONNECTIONS, way.far), root=True,
                                   stdout=subprocess.PIPE)
        process.stdout.readline()
        values = {"Pss": 0, "Private_Dirty": 0}
        with open(f"/proc/{way.helpers[0]}/smaps_rollup") as file:
            for line in file:
                name = line.split(":")[0]
                if name in values:
                    values[name] += int(line.split()[1])
        process.kill()
        process.wait()
        return values


def faster(bench, name, ours, theirs, what, least, unit="Gb/s"):
    """A row of what more is better of: the peer's share of ours."""
    a, b = ours.median(what), theirs.median(what)
    bench.row(f"{name} ({theirs.name})", f"{a:.1f} {unit}", f"{b:.1f} {unit}", b / a, round(1 / least, 2))


def less(bench, name, ours, theirs, what, most, unit):
    """A row of what less is better of."""
    a, b = ours.median(what), theirs.median(what)
    digits = 2 if unit == "s" else 0
    bench.row(f"{name} ({theirs.name})", f"{a:.{digits}f} {unit}", f"{b:.{digits}f} {unit}", a / b, most)


def measure(bench, rounds):
    bench.busybox()
    with Net(bench) as net:
        ours, slirp, pasta, bridge = net.umiak(), net.slirp4netns(), net.pasta(), net.root_bridge()
        ways = [ours, slirp, pasta, bridge]
        for way, port in ((ours, 5401), (pasta, 5402)):
            net.begin(way.inside("iperf3", "--server", "--port", str(port)))
            net.begin(way.inside("python3", "-c", SERVER))
        for way in ways:
            net.until_open(way)
        for turn in range(rounds):
            for way in ways if turn % 2 else reversed(ways):
                net.round(way)
        for what, name in (("up", "outbound, up"), ("down", "outbound, down")):
            faster(bench, name, ours, slirp, what, 4 if what == "up" else 2)
            faster(bench, name, ours, pasta, what, 1.3)
            faster(bench, name, ours, bridge, what, 0.7)
            less(bench, name + ": CPU of a GB", ours, slirp, what + " cpu", 0.5, "s")
            less(bench, name + ": CPU of a GB", ours, pasta, what + " cpu", 0.7, "s")
        less(bench, "connect and one byte", ours, slirp, "connect", 0.35, "µs")
        less(bench, "connect and one byte", ours, pasta, "connect", 0.8, "µs")
        # What no relay can be below: the bridge's packets are carried by nobody.
        for name, what, unit in (("outbound, up: CPU of a GB", "up cpu", "s"), ("outbound, down: CPU of a GB", "down cpu", "s"),
                                 ("connect and one byte", "connect", "µs")):
            less(bench, name, ours, bridge, what, None, unit)
        for what, name in (("tcp", "round trip, TCP"), ("udp", "round trip, UDP"), ("in tcp", "published, round trip")):
            less(bench, name, ours, pasta, what, 1, "µs")
        faster(bench, "published, in", ours, pasta, "in", 1)
        faster(bench, "published, out", ours, pasta, "out", 1)
        memory = net.memory(ours)
        bench.row("memory under 1,000 connections", f"{memory['Pss'] / 1024:.1f} MiB ({memory['Private_Dirty'] / 1024:.1f} its own)",
                  "5 MiB", memory['Pss'] / 1024 / 5, 1)
        bench.clean()
        for turn in range(rounds * 4):
            for what in ([[], ["--network", "none"]])[::1 if turn % 2 else -1]:
                command = net.as_user(*bench.umiak, "run", "--rm", *what, "localhost/busybox", "true")
                ours.add("start" + " ".join(what), bench.timed(command, root=True)[0] * 1e3)
        added = ours.median("start") - ours.median("start--network none")
        bench.row("added to the start of a container", f"{added:.1f} ms", "3 ms", added / 3, 1)
    bench.notes.append("Network: the peer's share of our throughput (so less is better), of our time and CPU the share of "
                       "the peer's. CPU is that of both ends and what carries.")
