#!/usr/bin/env python3
"""Measures what control groups cost, on a machine with cgroup v2, as a user whose systemd delegates them:

    bench_limits.py UMIAK IMAGE.tar [CONTAINERS] [ROUNDS]

  stats      `stats --no-stream` of so many containers, CPU time against podman's
  limits     what limits (memory, processes, processors) add to a start with --cgroup-manager cgroupfs
  calls      system calls of a start, with limits and without
  messages   what is sent to systemd's bus for a start with its groups

Both sides of a pair run in turns; medians. Podman needs an image localhost/busybox of its own, and a keyring for each
container: for more than about 95 root has to raise /proc/sys/kernel/keys/maxkeys and maxbytes.
"""

import os
import re
import subprocess
import sys
import time


def measured(words):
    """Wall and CPU time of a command that has to succeed. A small machine's Python has few modules: CPU time is
    counted in hundredths of a second, which is little over there."""
    before, start = os.times(), time.monotonic()
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    wall, after = time.monotonic() - start, os.times()
    if done.returncode:
        sys.exit(f"{' '.join(words)}: {done.stderr}")
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return wall, used


def pairs(rounds, one, other):
    """Medians of (wall, CPU) of two commands, in turns."""
    found = ([], [])
    for number in range(rounds):
        for side in (0, 1) if number % 2 else (1, 0):
            found[side].append(measured((one, other)[side]))
    return [[sorted(column)[len(column) // 2] for column in zip(*side)] for side in found]


def installed(name):
    return any(os.access(os.path.join(place, name), os.X_OK) for place in os.environ["PATH"].split(":"))


def main():
    umiak, image = os.path.abspath(sys.argv[1]), sys.argv[2]
    count, rounds = (int(word) for word in (sys.argv[3:] + ["20", "9"][len(sys.argv[3:]):])[:2])
    scratch = subprocess.run(["mktemp", "-d", "-p", "/var/tmp"], capture_output=True, text=True).stdout.strip()
    ours = [umiak, "--root", f"{scratch}/store", "--runroot", f"{scratch}/run"]
    name = "localhost/busybox:latest"
    measured([*ours, "pull", "-q", f"oci-archive:{image}"])
    words = ["run", "--rm", "--network", "none"]
    run = [*ours, *words]
    limits = ["--memory", "200m", "--pids-limit", "100", "--cpus", "1.5"]
    by_files = [*ours, "--cgroup-manager", "cgroupfs", *words]
    try:
        plain, limited = pairs(2 * rounds, [*by_files, name, "true"], [*by_files, *limits, name, "true"])
        print(f"start: {plain[0] * 1e3:.2f} ms, with limits {limited[0] * 1e3:.2f} ms; "
              f"CPU {plain[1] * 1e3:.2f} and {limited[1] * 1e3:.2f} ms", flush=True)
        if installed("strace"):
            trace = f"{scratch}/trace"
            calls = "trace=connect,sendto,sendmsg,write"
            # With one id: who is traced gains nothing by programs that map more.
            one = ["--uidmap", "0:0:1", "--gidmap", "0:0:1"]
            by_systemd = [*ours, "--cgroup-manager", "systemd", *words, *one, *limits, name, "true"]
            measured(["strace", "-f", "-s", "4000", "-e", calls, "-o", trace, *by_systemd])
            text = open(trace).read()
            # Times over there say little of some calls more: they are counted.
            counts = []
            for more in [], limits:
                words_of = [*ours, "--cgroup-manager", "cgroupfs", *words, *one, *more, name, "true"]
                measured(["strace", "-f", "-o", f"{scratch}/all", *words_of])
                counts.append(sum("(" in line for line in open(f"{scratch}/all")))
            print(f"calls of a start: {counts[0]}, with limits {counts[1]}", flush=True)
            methods = re.findall(r'(Hello|StartTransientUnit|SetUnitProperties|AddMatch|Subscribe|GetUnit|Get|GetAll)\\0', text)
            print(f"messages to the bus: {methods}", flush=True)
        if count and installed("podman"):
            for number in range(count):
                measured([*run, "-d", "--name", f"u{number}", name, "sleep", "100000"])
                measured(["podman", "run", "-d", "--rm", "--network", "none", "--name", f"p{number}",
                          "localhost/busybox", "sleep", "100000"])
            one, other = pairs(rounds, [*ours, "stats", "--no-stream"], ["podman", "stats", "--no-stream"])
            print(f"stats of {count}: {one[1] * 1e3:.1f} ms CPU, podman {other[1] * 1e3:.1f} ms, "
                  f"ratio {one[1] / other[1]:.3f}; wall {one[0] * 1e3:.1f} and {other[0] * 1e3:.1f} ms", flush=True)
    finally:
        subprocess.run([*ours, "rm", "-fa", "-t", "0"], capture_output=True)
        subprocess.run(["podman", "rm", "-fa", "-t", "0"], capture_output=True)
        subprocess.run(["rm", "-rf", scratch], capture_output=True)


if __name__ == "__main__":
    main()
