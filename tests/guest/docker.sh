#!/bin/bash
# dockerd with this runtime, and real limits. Its programs are the machine's, or those that scripts/guest brought along.
. "$(dirname "$0")/lib.sh"
daemons dockerd containerd docker
[ -d "$share/docker/lib" ] && export LD_LIBRARY_PATH=$share/docker/lib
cp "$share/umiak" "$work/umiak-runtime"
echo '{}' >"$work/daemon.json"
# It waits 15 seconds for its containerd, and gives up: too little for a slow machine's first time.
for try in 1 2 3; do
    dockerd --config-file "$work/daemon.json" --data-root "$work/data" --exec-root "$work/exec" --pidfile "$work/pid" -H "unix://$work/socket" \
        --bridge none --iptables=false --ip6tables=false --ip-masq=false --storage-driver vfs --exec-opt "native.cgroupdriver=$manager" \
        --add-runtime "umiak=$work/umiak-runtime" >"$work/log" 2>&1 &
    daemon=$!
    docker() { env -u LD_LIBRARY_PATH timeout 300 docker -H "unix://$work/socket" "$@"; }
    comes docker info && break
    [ -e "$work/exec/containerd/containerd.pid" ] && kill "$(cat "$work/exec/containerd/containerd.pid")" 2>/dev/null
done
if docker info >/dev/null 2>&1; then
    ok "dockerd starts"
else
    fail "dockerd does not start: $(tail -n 3 "$work/log")"
    finish
fi
client="env -u LD_LIBRARY_PATH docker -H unix://$work/socket"
# A line that says yes, of a docker with a terminal; its input stays open as a person's does.
terminal() {
    timeout 300 script -qec "$client $1" /dev/null < <(sleep 120) | tr -cd '[:print:]\n' | grep -o 'yes.*' | tail -1
}
same "by this manager, on v2" "$manager 2" "$(docker info -f '{{.CgroupDriver}} {{.CgroupVersion}}')"
check "an image" sh -c "tar -C '$share/bundle/rootfs' -c . | $client import - box"
run() { docker run --runtime umiak --network none "$@"; }
same "run" hello "$(run --rm box echo hello)"
same "run: limits" "67108864 0 20 50000 100000 1" "$(run --rm --memory 64m --memory-swap 64m --pids-limit 20 --cpus .5 --cpuset-cpus 1 box sh -c \
    'cd /sys/fs/cgroup; echo $(cat memory.max memory.swap.max pids.max cpu.max cpuset.cpus)')"
if whole; then
    same "run: a terminal" "yes /dev/pts/0" "$(terminal "run --runtime umiak --network none --rm -it box sh -c '[ -t 0 ] && echo yes \$(tty)'")"
    check "run: a restart policy" run -d --name again --restart on-failure:2 box sh -c 'exit 3'
    check "run -d, and a health check" run -d --name well --health-cmd 'test -e /tmp/well' --health-interval 1s box sleep 1000
fi
check "run -d" run -d --name one --memory 64m box sh -c 'trap "exit 5" TERM; while :; do sleep .2; done'
if whole; then
    docker exec one sh -c 'exit 9'
    same "exec: its exit code" 9 $?
    same "exec: a terminal" yes "$(terminal "exec -it one sh -c '[ -t 0 ] && echo yes'")"
    check "exec: make it well" docker exec well touch /tmp/well
fi
check "pause" docker pause one
whole && same "inspect: paused" paused "$(docker inspect -f '{{.State.Status}}' one)"
check "unpause" docker unpause one
check "update" docker update --memory 48m --memory-swap 48m --cpus .25 --pids-limit 33 one
same "update: it counts" "50331648 33 25000 100000" "$(docker exec one sh -c 'cd /sys/fs/cgroup; echo $(cat memory.max pids.max cpu.max)')"
check "stats" sh -c "$client stats --no-stream --format '{{.MemUsage}} {{.PIDs}}' one | grep -q '48MiB [1-9]'"
check "top" sh -c "$client top one | grep -q sleep"
check "stop" docker stop -t 100 one
same "stop: the program's own code" 5 "$(docker inspect -f '{{.State.ExitCode}}' one)"
if whole; then
    check "start again" docker start one
    check "kill, by a signal" docker kill -s KILL one
    same "wait" 137 "$(docker wait one)"
    eventually "health check" sh -c "[ \$($client inspect -f '{{.State.Health.Status}}' well) = healthy ]"
    eventually "it was started again" sh -c "[ \"\$($client inspect -f '{{.RestartCount}} {{.State.Status}} {{.State.ExitCode}}' again)\" = '2 exited 3' ]"
fi
run --rm --memory 20m --memory-swap 20m box dd if=/dev/zero of=/dev/null bs=100M count=1 >/dev/null 2>&1
same "out of memory: its exit code" 137 $?
# systemd may remove the group of a container that has ended before anybody has read why: here a process stays.
run --name two --memory 20m --memory-swap 20m box sh -c 'dd if=/dev/zero of=/dev/null bs=100M count=1; sleep 3' >/dev/null 2>&1
same "out of memory" true "$(docker inspect -f '{{.State.OOMKilled}}' two)"
refused "devices" "not permitted" run --rm --cap-add MKNOD box sh -c 'mknod /dev/x c 1 1 && head -c1 /dev/x'
check "privileged" run --rm --privileged box sh -c 'exec 3</dev/loop-control'
check "rm" sh -c "$client rm -f \$($client ps -aq)"
kill $daemon
wait $daemon 2>/dev/null
finish
