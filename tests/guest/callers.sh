#!/bin/bash
# Podman with this runtime: every command that reaches a runtime.
. "$(dirname "$0")/lib.sh"
command -v podman >/dev/null || { echo "skipped: podman is missing"; exit 0; }
ln -f "$share/umiak" "$work/umiak-runtime" 2>/dev/null || cp "$share/umiak" "$work/umiak-runtime"
image=localhost/busybox
pod() { timeout 300 podman --runtime "$work/umiak-runtime" --cgroup-manager "$manager" "$@"; }
# A line that says yes, of a podman with a terminal; its input stays open as a person's does.
terminal() {
    timeout 300 script -qec "podman --runtime $work/umiak-runtime --cgroup-manager $manager $1" /dev/null < <(sleep 120) |
        tr -cd '[:print:]\n' | grep -o 'yes.*' | tail -1
}
said() { pod "$@" 2>&1 | tr -d '\r'; }

same "run" hello "$(said run --rm --network none $image echo hello)"
if whole; then
    pod run --rm --network none $image sh -c 'exit 7' >/dev/null 2>&1
    same "run: its exit code" 7 $?
    pod run --rm --network none $image /nothing >"$work/got" 2>&1
    same "run: no such program" 127 $?
    same "run: standard input" 5 "$(printf 'a\nb\nc\nd\ne\n' | said run --rm -i --network none $image wc -l)"
    same "run: a terminal" "yes /dev/pts/0" "$(terminal "run --rm -it --network none $image sh -c '[ -t 0 ] && echo yes \$(tty)'")"
fi
same "run: limits" "67108864 20 50000 100000" "$(said run --rm --network none --memory 64m --pids-limit 20 --cpus .5 $image sh -c 'cd /sys/fs/cgroup; echo $(cat memory.max pids.max cpu.max)')"
pod run --rm --network none --memory 20m --memory-swap 20m $image dd if=/dev/zero of=/dev/null bs=100M count=1 >"$work/got" 2>&1
same "run: out of memory" 137 $?

check "run -d" pod run -d --name one --network none --memory 64m --health-cmd 'test -e /tmp/well' --health-interval disable $image sh -c 'trap "exit 5" TERM; while :; do sleep .2; done'
same "exec" in "$(said exec one echo in)"
if whole; then
    pod exec one sh -c 'exit 9'
    same "exec: its exit code" 9 $?
    same "exec: a terminal" yes "$(terminal "exec -it one sh -c '[ -t 0 ] && echo yes'")"
    refused "healthcheck: not yet" "unhealthy" sh -c "podman --runtime $work/umiak-runtime --cgroup-manager $manager healthcheck run one || { echo unhealthy; false; }"
    check "exec: make it well" pod exec one touch /tmp/well
    check "healthcheck" pod healthcheck run one
fi
check "pause" pod pause one
whole && same "inspect: paused" paused "$(said inspect --format '{{.State.Status}}' one)"
whole && refused "exec into a paused one" "improper" pod exec one true
check "unpause" pod unpause one
whole && same "inspect: running" running "$(said inspect --format '{{.State.Status}}' one)"
# Podman gives up when a process ends between its two looks.
eventually "top" sh -c "podman --runtime $work/umiak-runtime --cgroup-manager $manager top one | grep -q sleep"
check "stats" sh -c "podman --runtime $work/umiak-runtime --cgroup-manager $manager stats --no-stream --format '{{.MemUsage}} {{.PIDs}}' one | grep -q '67.11MB'"
check "update" pod update --memory 48m --cpus .25 one
same "update: it counts" "50331648 25000 100000" "$(said exec one sh -c 'cd /sys/fs/cgroup; echo $(cat memory.max cpu.max)')"
check "stop" pod stop -t 60 one
same "stop: the program's own code" 5 "$(said inspect --format '{{.State.ExitCode}}' one)"
if whole; then
    check "start again" pod start one
    check "kill" pod kill -s KILL one
    same "wait" 137 "$(said wait one)"
fi
check "rm" pod rm one
whole && check "run: a read-only root, tmpfs, user" pod run --rm --network none --read-only --tmpfs /x --user 1:1 $image sh -c 'touch /x/y && ! touch /y && [ $(id -u) = 1 ]'
if [ "$me" = 0 ]; then
    check "run: a device" pod run --rm --network none --device /dev/loop-control $image sh -c 'exec 3</dev/loop-control'
    refused "run: not that device" "permi" pod run --rm --network none --cap-add MKNOD $image sh -c 'mknod /dev/x c 10 237 && exec 3</dev/x'
    check "run: privileged" pod run --rm --network none --privileged $image sh -c 'exec 3</dev/loop-control'
fi
check "nothing is left" sh -c "! podman ps -aq | grep -q ."
finish
