#!/bin/bash
# containerd with this runtime: through ctr, and through its CRI plugin as a kubelet calls it.
. "$(dirname "$0")/lib.sh"
daemons containerd ctr
rootfs=$share/bundle/rootfs
cp "$share/umiak" "$work/umiak-runtime"
mkdir "$work/logs"
cat >"$work/config.toml" <<TOML
version = 2
root = "$work/root"
state = "$work/state-of-it"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.opt"]
[grpc]
  address = "$work/socket"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
    default_runtime_name = "umiak"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.umiak]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.umiak.options]
        BinaryName = "$work/umiak-runtime"
        SystemdCgroup = $([ "$manager" = systemd ] && echo true || echo false)
TOML
containerd --config "$work/config.toml" >"$work/log" 2>&1 &
daemon=$!
ctr() { timeout 300 ctr --address "$work/socket" "$@"; }
if comes ctr version; then
    ok "containerd starts"
else
    fail "containerd does not start: $(tail -n 3 "$work/log")"
    finish
fi

# Where a container's group is to be: ctr has no form of its own for systemd's.
place() { if [ "$manager" = systemd ]; then echo "system.slice:ctr:$1"; else echo "/ctr/$1"; fi; }
run() {
    local options=()
    while [[ $1 = -* ]]; do options+=("$1"); shift; done
    local id=$1
    shift
    [ "$manager" = cgroupfs ] || options+=(--runc-systemd-cgroup)
    ctr run --runc-binary "$work/umiak-runtime" --cgroup "$(place "$id")" "${options[@]}" --rootfs "$rootfs" "$id" "$@"
}
ctr events >"$work/events" 2>&1 &
events=$!
same "ctr run" hello "$(run --rm one echo hello)"
if whole; then
    run --rm one sh -c 'exit 7' >/dev/null 2>&1
    same "ctr run: its exit code" 7 $?
    refused "ctr run: no such program" "no such file or directory" run --rm one /no-such-program
fi
check "ctr run -d" run -d --null-io --memory-limit=67108864 --cpus=0.5 two sh -c 'trap "exit 5" TERM; while :; do sleep .2; done'
# It makes no cgroup namespace, so the limits are read outside.
same "ctr run: limits" "67108864 50000 100000" "$(cd "$(find /sys/fs/cgroup -type d \( -path '*/ctr/two' -o -name ctr-two.scope \))" && echo $(cat memory.max cpu.max))"
same "ctr task exec" in "$(ctr task exec --exec-id e1 two sh -c "echo in; sleep 2")"
if whole; then
    ctr task exec --exec-id e2 two sh -c 'exit 9' >/dev/null 2>&1
    same "ctr task exec: its exit code" 9 $?
    same "ctr task exec: a terminal" yes "$(timeout 300 script -qec "ctr --address $work/socket task exec --tty --exec-id e3 two sh -c '[ -t 0 ] && echo yes'" /dev/null </dev/null | tr -cd '[:print:]\n' | grep -o yes | tail -1)"
fi
check "ctr task pause" ctr task pause two
same "ctr task ls: paused" PAUSED "$(ctr task ls | awk '$1 == "two" {print $3}')"
check "ctr task resume" ctr task resume two
check "ctr task ps" sh -c "[ \$(ctr --address '$work/socket' task ps two | wc -l) -ge 2 ]"
metrics=$(ctr task metrics two)
same "ctr task metrics: memory" 67108864 "$(awk '$1 == "memory.usage_limit" {print $2}' <<<"$metrics")"
check "ctr task metrics: the rest" awk '$1 ~ /^(pids.current|cpu.usage_usec|memory.usage)$/ && $2 > 0 {n++} END {exit n != 3}' <<<"$metrics"
check "ctr task kill" ctr task kill -s TERM two
eventually "it stops" sh -c "ctr --address '$work/socket' task ls | grep -q 'two.*STOPPED'"
check "ctr task rm: the program's own code" sh -c "ctr --address '$work/socket' task rm two 2>&1 | grep 'exit code 5'"
check "ctr container rm" ctr container rm two
run --rm --null-io --memory-limit=20971520 hog dd if=/dev/zero of=/dev/null bs=100M count=1 >"$work/got" 2>&1
same "out of memory: its exit code" 137 $?
# Where the container's last process is what is killed, systemd may remove the group before the shim has read why.
run --rm --null-io --memory-limit=20971520 hog sh -c 'dd if=/dev/zero of=/dev/null bs=100M count=1; sleep 3' >"$work/got" 2>&1
eventually "ctr events: out of memory" grep -q '/tasks/oom.*hog' "$work/events"
for event in create start paused resumed exec-started exit delete; do
    check "ctr events: $event" grep -q "/tasks/$event " "$work/events"
done
kill $events
wait $events 2>/dev/null
check "no container is left" sh -c "! ls -d /sys/fs/cgroup/ctr/* /sys/fs/cgroup/system.slice/ctr-*.scope 2>/dev/null"
rmdir /sys/fs/cgroup/ctr 2>/dev/null

if [ "$(ctr plugins ls | awk '$2 == "cri" {print $4}')" = ok ]; then
    check "an image for pods" ctr -n k8s.io images import --snapshotter native "$share/pause.tar"
    # A kubelet's, by QoS class.
    if [ "$manager" = systemd ]; then parent=kubepods-burstable.slice; else parent=/kubepods/burstable/pod1; fi
    python3 "$share/guest/cri.py" "$work/socket" localhost/pause:1 "$work/logs" "parent=$parent" >"$work/cri" 2>&1
    counted "$work/cri"
    check "no pod is left" sh -c "! find /sys/fs/cgroup/kubepods* -name cgroup.procs -exec grep -H . {} + 2>/dev/null | grep ."
else
    fail "the CRI plugin is not there: $(grep -m1 'cri.*error' "$work/log")"
fi
kill $daemon
wait $daemon 2>/dev/null
finish
