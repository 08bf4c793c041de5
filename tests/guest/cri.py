#!/usr/bin/env python3
"""A pod through containerd's CRI plugin, as a kubelet has it: cri.py SOCKET IMAGE LOGS [NAME=VALUE...]

Says "ok WHAT" or "FAILED WHAT" for each thing that is tried, and fails if one has. The words after the
directory for logs change what is expected:

  cgroup=no           the plugin sets no limits (disable_cgroup): those that it would set are not looked for
  parent=PATH         the pod's cgroup_parent

cri.py image ROOTFS FILE NAME makes an image of a directory, as docker save writes it, whose program sleeps: a pod's
first container does nothing else.

gRPC is spoken here by hand (HTTP/2 of RFC 9113, HPACK of RFC 7541 without its dynamic table, protocol buffers of
k8s.io/cri-api runtime.v1), because a client cannot be had as a package. One call at a time, no streams.
"""
import socket
import struct
import sys
import time

SERVICE = "/runtime.v1.RuntimeService/"

# --- HPACK: the reader's side. The code is canonical, so that the lengths give the codes (RFC 7541, B);
# only what is printable is known, as nothing else stands in a header.
HUFFMAN = {}
_code = _length = 0
for _bits, _symbols in [(5, "012aceiost"), (6, " %-./3456789=A_bdfghlmnpru"), (7, ":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"),
                        (8, "&*,;XZ"), (10, '!"()?'), (11, "'+|"), (12, "#>"), (13, "\0$@[]~"), (14, "^}"), (15, "<`{")]:
    _code <<= _bits - _length
    _length = _bits
    for _symbol in _symbols:
        HUFFMAN[_bits, _code] = _symbol
        _code += 1


def huffman(data):
    text, code, length = "", 0, 0
    for byte in data:
        for shift in range(7, -1, -1):
            code, length = code << 1 | byte >> shift & 1, length + 1
            if (length, code) in HUFFMAN:
                text += HUFFMAN[length, code]
                code = length = 0
    return text


def integer(data, at, bits):
    mask = (1 << bits) - 1
    value, at = data[at] & mask, at + 1
    if value == mask:
        shift = 0
        while True:
            byte, at = data[at], at + 1
            value += (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
    return value, at


def text_of(data, at):
    coded = data[at] & 128
    length, at = integer(data, at, 7)
    raw = data[at:at + length]
    return (huffman(raw) if coded else raw.decode()), at + length


def headers_of(data):
    """Those with a name of their own; what is taken from a table is of no interest here."""
    found, at = {}, 0
    while at < len(data):
        first = data[at]
        if first & 128:
            _, at = integer(data, at, 7)
        elif first & 224 == 32:
            _, at = integer(data, at, 5)
        else:
            index, at = integer(data, at, 6 if first & 64 else 4)
            name = ""
            if index == 0:
                name, at = text_of(data, at)
            value, at = text_of(data, at)
            found[name] = value
    return found


# --- Protocol buffers: a message is a list of (field, value); value is a number, text, bytes or such a list.
def varint(number):
    number &= (1 << 64) - 1
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def encode(fields):
    out = b""
    for field, value in fields:
        if isinstance(value, int):
            out += varint(field << 3) + varint(value)
            continue
        if isinstance(value, list):
            value = encode(value)
        elif isinstance(value, str):
            value = value.encode()
        out += varint(field << 3 | 2) + varint(len(value)) + value
    return out


def decode(data):
    """The last value of each field: numbers, and bytes."""
    found, at = {}, 0
    while at < len(data):
        key, at = number_at(data, at)
        if key & 7 == 0:
            found[key >> 3], at = number_at(data, at)
        elif key & 7 == 2:
            length, at = number_at(data, at)
            found[key >> 3], at = data[at:at + length], at + length
        else:
            at += {1: 8, 5: 4}[key & 7]
    return found


def number_at(data, at):
    value = shift = 0
    while True:
        byte, at = data[at], at + 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


class Refused(Exception):
    """The server's grpc-message."""


class Server:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(300)
        self.socket.connect(path)
        self.stream = -1
        # No dynamic table, and windows that no answer of ours fills.
        settings = struct.pack(">HIHI", 1, 0, 4, 1 << 30)
        self.socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + self.frame(4, 0, 0, settings)
                            + self.frame(8, 0, 0, struct.pack(">I", 1 << 30)))

    @staticmethod
    def frame(kind, flags, stream, payload):
        return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload

    def read(self, length):
        data = b""
        while len(data) < length:
            part = self.socket.recv(length - len(data))
            if not part:
                raise Refused("the connection was closed")
            data += part
        return data

    def call(self, method, *fields):
        self.stream += 2
        block = b""
        for name, value in [(":method", "POST"), (":scheme", "http"), (":path", SERVICE + method), (":authority", "localhost"),
                            ("content-type", "application/grpc"), ("te", "trailers")]:
            block += b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        message = encode(fields)
        self.socket.sendall(self.frame(1, 4, self.stream, block)
                            + self.frame(0, 1, self.stream, b"\0" + struct.pack(">I", len(message)) + message))
        body, block = b"", b""
        while True:
            head = self.read(9)
            length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
            stream = int.from_bytes(head[5:], "big")
            payload = self.read(length)
            if kind == 4 and not flags & 1:
                self.socket.sendall(self.frame(4, 1, 0, b""))
            elif kind == 6 and not flags & 1:
                self.socket.sendall(self.frame(6, 1, 0, payload))
            elif kind in (3, 7) and (kind == 7 or stream == self.stream):
                raise Refused(f"{method}: HTTP/2 frame {kind}: {payload!r}")
            elif stream == self.stream and kind == 0:
                body += payload
                if payload:
                    self.socket.sendall(self.frame(8, 0, 0, struct.pack(">I", length)))
            elif stream == self.stream and kind in (1, 9):
                block += payload
            if stream == self.stream and kind in (0, 1, 9) and flags & 1:
                break
        told = headers_of(block)
        if told.get("grpc-status") != "0":
            raise Refused(f"{method}: {told.get('grpc-message', told)}")
        return decode(body[5:])


def image(rootfs, file, name):
    # A small Python, which is enough for all else, lacks some of these.
    import hashlib, io, json, tarfile
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        archive.add(rootfs, ".")
    layer = layer.getvalue()
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["sleep", "1000000"], "Env": ["PATH=/bin"]},
                         "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]}})
    manifest = json.dumps([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}])
    with tarfile.open(file, "w") as archive:
        for member, content in [("layer.tar", layer), ("config.json", config.encode()), ("manifest.json", manifest.encode())]:
            info = tarfile.TarInfo(member)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


# --- The pod.
failed = 0


def ok(what):
    print("ok", what, flush=True)


def fail(what, why):
    global failed
    failed += 1
    print(f"FAILED {what}: {why}", flush=True)


def same(what, expected, got):
    ok(what) if expected == got else fail(what, f"expected {expected!r}, got {got!r}")


def eventually(what, condition):
    end = time.monotonic() + 120
    while not condition():
        if time.monotonic() > end:
            return fail(what, "never")
        time.sleep(0.2)
    ok(what)


STATES = ["created", "running", "exited"]


class Pod:
    def __init__(self, server, image, logs, parent):
        self.server, self.image = server, image
        node = 2  # NamespaceMode.NODE: the host's network, which needs no plugin
        linux = [(2, [(1, [(1, node)])])]
        if parent:
            linux.insert(0, (1, parent))
        self.config = [(1, [(1, "pod"), (2, "uid-1"), (3, "default"), (4, 0)]), (3, logs), (8, linux)]
        self.id = server.call("RunPodSandbox", (1, self.config))[1].decode()

    def create(self, name, command, linux=(), tty=False):
        config = [(1, [(1, name), (2, 0)]), (2, [(1, self.image)])] + [(3, word) for word in command]
        config += [(6, [(1, "GREETING"), (2, "from CRI")]), (10, [(1, "a"), (2, "b")]), (11, f"{name}.log"), (13, int(tty)), (15, list(linux))]
        return self.server.call("CreateContainer", (1, self.id), (2, config), (3, self.config))[1].decode()

    def status(self, container):
        status = decode(self.server.call("ContainerStatus", (1, container))[1])
        return STATES[status.get(3, 0)], status.get(7, 0), status.get(10, b"").decode()

    def execute(self, container, *command, timeout=0):
        fields = [(1, container)] + [(2, word) for word in command] + [(3, timeout)]
        answer = self.server.call("ExecSync", *fields)
        return answer.get(1, b"").decode().strip(), answer.get(3, 0)


def main():
    path, image, logs = sys.argv[1:4]
    words = dict(word.split("=", 1) for word in sys.argv[4:])
    limits = words.get("cgroup") != "no"
    server = Server(path)
    version = server.call("Version", (1, "v1"))
    same("cri: version", "containerd", version[2].decode())
    pod = Pod(server, image, logs, words.get("parent"))
    ok("cri: RunPodSandbox")
    status = decode(server.call("PodSandboxStatus", (1, pod.id))[1])
    same("cri: PodSandboxStatus: ready", 0, status.get(3, 0))

    resources = [(1, [(1, 100000), (2, 50000), (3, 512), (4, 64 << 20), (5, 500), (6, "0")])] if limits else []
    trap = "trap 'exit 5' TERM; echo started $GREETING; while :; do sleep .2; done"
    one = pod.create("one", ["sh", "-c", trap], resources)
    same("cri: CreateContainer", "created", pod.status(one)[0])
    server.call("StartContainer", (1, one))
    same("cri: StartContainer", "running", pod.status(one)[0])
    eventually("cri: its log", lambda: "stdout F started from CRI" in open(f"{logs}/one.log").read())
    same("cri: ExecSync", ("in", 0), pod.execute(one, "echo", "in"))
    same("cri: ExecSync: its exit code", ("", 9), pod.execute(one, "sh", "-c", "exit 9"))
    try:
        pod.execute(one, "/no-such-program")
        fail("cri: ExecSync: no such program", "it worked")
    except Refused as error:
        text = str(error)
        same("cri: ExecSync: no such program", True, "no such file or directory" in text or text)
    try:
        pod.execute(one, "sleep", "1000", timeout=1)
        fail("cri: ExecSync: a timeout", "it ended")
    except Refused as error:
        text = str(error)
        same("cri: ExecSync: a timeout", True, "timeout" in text or "deadline" in text or text)
    # A pod's containers share its namespaces; this is how probes and sidecars find each other.
    names = "for n in ipc uts net; do readlink /proc/self/ns/$n; done"
    other = pod.create("other", ["sh", "-c", "echo one line; exit 7"])
    pause = pod.create("sidecar", ["sleep", "1000"])
    server.call("StartContainer", (1, pause))
    same("cri: containers of a pod share namespaces", pod.execute(one, "sh", "-c", names), pod.execute(pause, "sh", "-c", names))
    server.call("StartContainer", (1, other))
    eventually("cri: a container that ends", lambda: pod.status(other)[0] == "exited")
    same("cri: its exit code and reason", ("exited", 7, "Error"), pod.status(other))
    if limits:
        files = "cd /sys/fs/cgroup; echo $(cat memory.max cpu.max cpu.weight cpuset.cpus); cat /proc/self/oom_score_adj"
        same("cri: limits", "67108864 50000 100000 59 0\n500", pod.execute(one, "sh", "-c", files)[0])
        server.call("UpdateContainerResources", (1, one), (2, [(1, 100000), (2, 25000), (4, 96 << 20), (6, "1")]))
        same("cri: UpdateContainerResources", "100663296 25000 100000 59 1\n500", pod.execute(one, "sh", "-c", files)[0])
        stats = decode(server.call("ContainerStats", (1, one))[1])
        used = decode(decode(stats[3]).get(2, b"")).get(1, 0)
        same("cri: ContainerStats: memory", True, 0 < used < 96 << 20 or used)
        # Where a container's last process is what is killed, systemd may remove the group before the shim has read
        # why (so it is with runc, too): here a small one stays.
        hog = pod.create("hog", ["sh", "-c", "dd if=/dev/zero of=/dev/null bs=100M count=1; sleep 3; exit 3"],
                         [(1, [(4, 20 << 20), (10, 20 << 20)])])
        server.call("StartContainer", (1, hog))
        eventually("cri: out of memory", lambda: pod.status(hog)[0] == "exited")
        same("cri: it is told", ("exited", 3, "OOMKilled"), pod.status(hog))
    server.call("StopContainer", (1, one), (2, 100))
    same("cri: StopContainer: the program's own code", ("exited", 5), pod.status(one)[:2])
    server.call("StopContainer", (1, pause), (2, 0))
    same("cri: StopContainer: without a delay", ("exited", 137), pod.status(pause)[:2])
    server.call("RemoveContainer", (1, one))
    try:
        pod.status(one)
        fail("cri: RemoveContainer", "it is still there")
    except Refused:
        ok("cri: RemoveContainer")
    server.call("StopPodSandbox", (1, pod.id))
    server.call("RemovePodSandbox", (1, pod.id))
    same("cri: RemovePodSandbox: nothing is left", {}, server.call("ListContainers"))


if sys.argv[1] == "image":
    sys.exit(image(*sys.argv[2:]))
try:
    main()
except (Refused, OSError) as error:
    fail("cri", error)
sys.exit(failed != 0)
