"""What becomes of one container: created, started, stopped, removed, its output and its files."""

import os
import statistics

GIGABYTE = 1 << 30
# As a chatty program writes.
LINE = b"a line of a program that says what it does, with a number of words\n"


class Side:
    """One of the two engines."""

    def __init__(self, bench, command, flags):
        self.bench, self.command, self.flags = bench, command, flags

    def words(self, *words):
        return [*self.command, *words]

    def make(self, verb, *program, name=None):
        flags = ["--network", "none", *self.flags, *(["--name", name] if name else [])]
        return self.words(*verb.split(), *flags, "localhost/busybox", *program)

    def prepared(self, before, timed, after=()):
        """Times one command between others that are not timed."""
        for command in before:
            self.bench.do(command)
        result = self.bench.timed(timed)
        for command in after:
            self.bench.do(command, check=False)
        return result

    def create(self):
        return self.bench.timed(self.make("create", "true"))

    def start(self):
        created = self.make("create", "sleep", "1000", name="life")
        return self.prepared([created], self.words("start", "life"), [self.words("rm", "-f", "-t", "0", "life")])

    def stop(self):
        running = self.make("run -d", "sleep", "1000", name="life")
        return self.prepared([running], self.words("stop", "-t", "0", "life"), [self.words("rm", "-f", "life")])

    def remove(self):
        running = self.make("run -d", "sleep", "1000", name="life")
        return self.prepared([running], self.words("rm", "-f", "-t", "0", "life"))

    def write(self):
        self.bench.do(self.words("rm", "-f", "-t", "0", "writer"), check=False)
        return self.bench.timed(self.make(f"run -v {self.bench.home}/text:/text:ro", "cat", "/text", name="writer"))

    def copy_in(self):
        self.bench.do(self.words("rm", "-f", "-t", "0", "files"), check=False)
        self.bench.do(self.make("create", "true", name="files"))
        return self.bench.timed(self.words("cp", self.bench.home + "/big", "files:/big"))

    def copy_out(self):
        return self.prepared([["rm", "-f", self.bench.home + "/copy"]],
                             self.words("cp", "files:/big", self.bench.home + "/copy"))


def fill(bench, name, block, times):
    path = f"{bench.home}/{name}"
    with open(path, "wb") as file:
        for _ in range(times):
            file.write(block)
    os.chown(path, bench.uid, bench.gid)


def life(bench):
    bench.busybox()
    bench.clean()
    ours, theirs = Side(bench, bench.umiak, []), Side(bench, bench.podman, bench.podman_run)
    bench.pair("`create`", 0.05, ours.create, theirs.create, rounds=10)
    bench.clean()
    bench.pair("`start`", 0.05, ours.start, theirs.start, rounds=10)
    bench.pair("`stop -t 0`", 0.05, ours.stop, theirs.stop, rounds=10)
    bench.pair("`rm -f` of one that runs", 0.05, ours.remove, theirs.remove, rounds=10)
    whole = LINE * ((1 << 20) // len(LINE))
    fill(bench, "text", whole, GIGABYTE // len(whole))
    bench.pair("`run` of a program that writes 1 GiB to its standard output", 0.5, ours.write, theirs.write, rounds=3)
    logs = lambda side, *flags: lambda: bench.timed(side.words("logs", *flags, "writer"))
    # Once: it takes Podman more than a minute.
    mine, other = (logs(side)()[0] for side in (ours, theirs))
    bench.row("`logs` of that", f"{mine * 1e3:.1f} ms", f"{other * 1e3:.1f} ms", mine / other, 0.5)
    bench.pair("`logs --tail 10` of that", 0.5, logs(ours, "--tail", "10"), logs(theirs, "--tail", "10"), rounds=5)
    bench.do(ours.make("run", "sh", "-c", f"yes | head -n {1 << 20}", name="little"), output=False)
    bench.pair("`logs --tail 10` of 1 GiB, against 1 MiB", 1.5, logs(ours, "--tail", "10"),
               lambda: bench.timed(ours.words("logs", "--tail", "10", "little")))
    bench.clean()
    fill(bench, "big", os.urandom(1 << 20), GIGABYTE >> 20)
    bench.pair("`cp` of 1 GiB into a container", 0.5, ours.copy_in, theirs.copy_in, rounds=3)
    bench.pair("`cp` of 1 GiB out of one", 0.5, ours.copy_out, theirs.copy_out, rounds=3)
    bench.clean()


def many(bench):
    """`ps` with 400 and with 10,000 of ours: what one more costs."""
    bench.busybox()
    bench.clean()
    costs, made = [], 0
    nothing = statistics.median(bench.timed([*bench.umiak, "ps", "--all"])[0] for _ in range(10))
    for number in (400, 10000):
        create = " ".join([*bench.umiak, "create", "--network", "none", "localhost/busybox", "true"])
        bench.do(["sh", "-c", f"for i in $(seq {number - made}); do {create}; done"], output=False)
        made = number
        took = statistics.median(bench.timed([*bench.umiak, "ps", "--all"])[0] for _ in range(10))
        costs.append((took - nothing) / number)
    few, lots = (f"{cost * 1e6:.1f} µs" for cost in costs)
    bench.row("`ps --all`, for each of 10,000 containers, against each of 400", lots, few, costs[1] / costs[0], 1)
    bench.clean()
