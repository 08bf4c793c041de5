#!/bin/bash
# The engine's limits, by the flags that people use: that they are kept, changed, told, and the same as podman's.
. "$(dirname "$0")/lib.sh"
if [ ! -e "$share/busybox.tar" ]; then
    echo "skipped: it takes the image busybox"
    rm -rf "$work"
    exit 0
fi
mkdir -m 700 "$work/run"
umiak() { "$share/umiak" --root "$work/store" --runroot "$work/run/umiak" --cgroup-manager "$manager" "$@"; }
export -f umiak
export share work manager
check "pull" umiak pull -q "oci-archive:$share/busybox.tar"
image=$(umiak images -q | head -1)
path() { umiak inspect --format '{{.State.CgroupPath}}' "$1"; }
file() { cat "$(path "$1")/$2"; }
up() { umiak run -d --network none "$@" >"$work/out" 2>&1 </dev/null || fail "run $*: $(head -c 600 "$work/out")"; }
down() { umiak rm -f -t 0 "$@" >/dev/null || fail "rm $*"; }

# Memory.
umiak run --network none --name hog --memory 24m --memory-swap 24m "$image" dd if=/dev/zero of=/dev/null bs=100M count=1 >"$work/got" 2>&1
same "memory: out of it, the program is killed" 137 $?
same "memory: inspect tells" "true 137" "$(umiak inspect --format '{{.State.OOMKilled}} {{.State.ExitCode}}' hog)"
same "memory: events tell, before the end" "oom died" "$(umiak events --stream=false --filter container=hog --format '{{.Status}}' | grep -E '^(oom|died)$' | xargs)"
down hog
# Several processes, each within the limit: it is one for all of them.
many='for i in 1 2 3 4; do (dd if=/dev/zero of=/dev/shm/$i bs=1M count=12) & done; wait; sleep 1000'
up --name many --memory 32m --memory-swap 32m --shm-size 1g "$image" sh -c "$many"
eventually "memory: of several processes together" sh -c "grep -E '^oom_kill [1-9]' '$(path many)/memory.events'"
eventually "memory: an event while it runs" bash -c "umiak events --stream=false --filter container=many --filter event=oom | grep -q oom"
same "memory: inspect of one that runs" true "$(umiak inspect --format '{{.State.OOMKilled}}' many)"
check "memory: never above it" test "$(file many memory.peak 2>/dev/null || file many memory.current)" -le 33554432
down many

# systemd removes the group with its last process: a monitor that has to wait on a busy machine comes too late to read.
if [ "$manager" = systemd ]; then
    mkdir -m 777 "$work/gate"
    # gate NAME COMMAND: runs it in a container with little memory when the gate is open.
    gate() {
        rm -f "$work/gate/go"
        up --name "$1" -v "$work/gate:/gate" --memory 24m --memory-swap 24m "$image" sh -c "$2; until [ -e /gate/go ]; do sleep .1; done; $3"
        dir=$(path "$1") monitor=$(umiak inspect --format '{{.State.ConmonPid}}' "$1")
    }
    more='dd if=/dev/zero of=/dev/null bs=100M count=1'
    gate late true "exec $more"
    kill -STOP "$monitor"
    touch "$work/gate/go"
    eventually "memory: the group of one that was killed is gone" test ! -e "$dir"
    kill -CONT "$monitor"
    same "memory: a late monitor" 137 "$(umiak wait late)"
    same "memory: a late monitor knows why" "true 137" "$(umiak inspect --format '{{.State.OOMKilled}} {{.State.ExitCode}}' late)"
    same "memory: its events, before the end" "oom died" "$(umiak events --stream=false --filter container=late --format '{{.Status}}' | grep -E '^(oom|died)$' | xargs)"
    # Nor is it the program alone that may be killed.
    gate part true "$more; exit 3"
    kill -STOP "$monitor"
    touch "$work/gate/go"
    eventually "memory: the group of one whose part was killed is gone" test ! -e "$dir"
    kill -CONT "$monitor"
    same "memory: a late monitor, a part" "3 true" "$(umiak wait part) $(umiak inspect --format '{{.State.OOMKilled}}' part)"
    # One that comes to its limit without being killed, and is killed by somebody else while another one of its slice has none.
    gate calm 'dd if=/dev/zero of=/gate/file bs=1M count=60; rm /gate/file; exec sleep 1000' true
    eventually "memory: it comes to its limit" grep -qE '^max [1-9]' "$dir/memory.events"
    eventually "memory: it goes on" grep -q sleep "/proc/$(umiak inspect --format '{{.State.Pid}}' calm)/comm"
    sleep 3
    kill -STOP "$monitor"
    umiak run --rm --network none --memory 24m --memory-swap 24m "$image" $more >/dev/null 2>&1
    same "memory: another one is killed" 137 $?
    kill -9 "$(umiak inspect --format '{{.State.Pid}}' calm)"
    eventually "memory: the group of the other one is gone" test ! -e "$dir"
    kill -CONT "$monitor"
    same "memory: not everybody is killed for want of it" "137 false" "$(umiak wait calm) $(umiak inspect --format '{{.State.OOMKilled}}' calm)"
    down late part calm
fi

# Processes, processors.
up --name pids --pids-limit 8 "$image" sleep 1000
# Who led the shell in is counted, too, until his end is noticed.
umiak exec pids sh -c 'sleep 1; for i in 1 2 3 4 5 6 7 8 9; do sleep 100 & done; wait' >"$work/got" 2>&1
check "processes: fork is refused at the limit" grep -q "can't fork" "$work/got"
check "processes: it was counted" grep -qv '^max 0$' "$(path pids)/pids.events"
same "processes: stats" 7 "$(umiak stats --no-stream --format '{{.PIDs}}' pids)"
down pids
up --name cpu --cpus 0.1 --cpuset-cpus 1 --cpuset-mems 0 --cpu-shares 512 "$image" sh -c 'while :; do :; done'
same "processors: cpu.max" "10000 100000" "$(file cpu cpu.max)"
same "processors: cpu.weight" 59 "$(file cpu cpu.weight)"
same "processors: the set" 1 "$(file cpu cpuset.cpus.effective)"
same "processors: the program's own" 1 "$(umiak exec cpu grep Cpus_allowed_list /proc/self/status | awk '{print $2}')"
eventually "processors: it is throttled" sh -c "awk '/^nr_throttled/ {exit !(\$2 > 3)}' '$(path cpu)/cpu.stat'"

# Changed while it runs, and after it.
check "update" umiak update --cpus 1.5 --memory 64m --pids-limit 30 --memory-reservation 32m cpu
same "update: the files" "150000 100000 67108864 67108864 33554432 30" "$(cd "$(path cpu)" && echo $(cat cpu.max memory.max memory.swap.max memory.low pids.max))"
same "update: inspect" "67108864 134217728 1500000000 30" "$(umiak inspect --format '{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}}' cpu)"
same "stats: the limit" 67108864 "$(umiak stats --no-stream --format '{{.MemLimit}}' cpu)"
refused "update: a contradiction" "--memory-swap" umiak update --memory-swap 32m cpu
refused "update: nonsense" "--memory \"lots\"" umiak update --memory lots --pids-limit 31 cpu
same "update: what was refused changed nothing" "67108864 30" "$(cd "$(path cpu)" && echo $(cat memory.max pids.max))"
check "update: other processors" umiak update --cpuset-cpus 0 cpu
same "update: the program's own" 0 "$(umiak exec cpu grep Cpus_allowed_list /proc/self/status | awk '{print $2}')"
if [ "$manager" = systemd ]; then
    [ "$me" = 0 ] && scope=--system || scope=--user
    check "systemd reloads" systemctl $scope daemon-reload
    same "and the limits stay" "150000 100000 67108864 30 0" "$(cd "$(path cpu)" && echo $(cat cpu.max memory.max pids.max cpuset.cpus.effective))"
fi
check "restart" umiak restart -t 0 cpu
same "limits after a restart" "150000 100000 67108864 33554432 30 0" "$(cd "$(path cpu)" && echo $(cat cpu.max memory.max memory.low pids.max cpuset.cpus.effective))"
check "update: none" umiak update --cpus 0 --memory 0 --pids-limit -1 --cpuset-cpus '' --memory-reservation 0 cpu
same "update: all are off" "max 100000 max max 0 max" "$(cd "$(path cpu)" && echo $(cat cpu.max memory.max memory.swap.max memory.low pids.max))"
same "update: all processors" 0-1 "$(file cpu cpuset.cpus.effective)"
check "update of one that does not run" bash -c "umiak stop -t 0 cpu && umiak update --memory 48m cpu && umiak start cpu"
same "it starts with them" 50331648 "$(file cpu memory.max)"
check "clone" umiak container clone --pids-limit 12 --run cpu copy
same "clone: its limits and its own" "50331648 12" "$(cd "$(path copy)" && echo $(cat memory.max pids.max))"
check "pause" umiak pause copy
same "paused" paused "$(umiak inspect --format '{{.State.Status}}' copy)"
check "unpause" umiak unpause copy
down cpu copy
# The monitor starts it again by itself, in a group of the same name.
up --name again --restart always --memory 40m "$image" sh -c 'sleep 2; exit 1'
eventually "restart policy: it was started again" bash -c "[ \"\$(umiak inspect --format '{{.RestartCount}}' again)\" -ge 1 ]"
eventually "restart policy: with its limits" bash -c "grep -qx 41943040 \"\$(umiak inspect --format '{{.State.CgroupPath}}' again)/memory.max\""
down again

# A monitor that is killed leaves a group, which the next start replaces.
up --name lost --memory 40m --cpus 0.5 "$image" sh -c 'trap "" TERM; sleep 1000'
dir=$(path lost)
kill -9 "$(umiak inspect --format '{{.State.ConmonPid}}' lost)"
check "killed monitor: stop" umiak stop -t 0 lost
check "killed monitor: start" umiak start lost
same "killed monitor: the limits are there" "41943040 50000 100000" "$(cd "$(path lost)" && echo $(cat memory.max cpu.max))"
down lost
eventually "killed monitor: nothing is left" test ! -e "$dir"

# The rest.
up --name rest --cgroup-conf memory.high=40000000 --oom-score-adj 500 --blkio-weight 500 "$image" sleep 1000
same "cgroup-conf" 39997440 "$(file rest memory.high)"
same "oom-score-adj" 500 "$(umiak exec rest cat /proc/1/oom_score_adj)"
same "blkio-weight" 500 "$(cat "$(path rest)/io.bfq.weight" 2>/dev/null | awk '/default/ {print $2}' | grep . || awk '/default/ {print ($2 == 4950) ? 500 : $2}' "$(path rest)/io.weight")"
dir=$(path rest)
down rest
check "the group is gone" test ! -e "$dir"
refused "a file that is not there" "memory.nothing" umiak run --rm --network none --cgroup-conf memory.nothing=1 "$image" true
refused "a parent that is not there" "--cgroup-parent" umiak run --rm --network none --cgroup-parent /no/such/group "$image" true
refused "too little memory to start" "too little memory" umiak run --rm --network none --memory 4k "$image" true
same "nothing is left of what was refused" "" "$(umiak ps -aq)"
if [ "$manager" = systemd ]; then
    up --name sliced --cgroup-parent umiaktest.slice --memory 40m "$image" sleep 1000
    check "cgroup-parent: a slice" bash -c "[[ '$(path sliced)' == */umiaktest.slice/umiak-*.scope ]]"
    down sliced
    refused "cgroup-parent: no slice" "slice" umiak run --rm --network none --cgroup-parent /x "$image" true
elif [ "$me" = 0 ]; then
    mkdir /sys/fs/cgroup/umiaktest
    up --name placed --cgroup-parent /umiaktest --memory 40m "$image" sleep 1000
    same "cgroup-parent: a path" "/sys/fs/cgroup/umiaktest/umiak-$(umiak inspect --format '{{.Id}}' placed) 41943040" "$(path placed) $(file placed memory.max)"
    down placed
    check "cgroup-parent: it is left empty" rmdir /sys/fs/cgroup/umiaktest
fi
# Below our own group, where we step aside. What is left of us is systemd's to tidy up.
own=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)
if [ "$manager" = cgroupfs ] && [ "$own" != /sys/fs/cgroup/ ] && [ -w "$own" ]; then
    up --name half --cgroups split --memory 40m "$image" sleep 1000
    same "split: the container's" "$own 41943040" "$(dirname "$(path half)") $(file half memory.max)"
    same "split: ours" "$own/supervisor" "/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)"
    down half
fi

# Input and output: a loop device is the machine's.
if [ "$me" = 0 ]; then
    truncate -s 40M "$work/disk"
    loop=$(losetup --show -f "$work/disk")
    number=$(lsblk -ndo MAJ:MIN "$loop" | tr -d ' ')
    up --name io --device "$loop:/dev/disk" --device-read-bps "$loop:4mb" --device-write-bps "$loop:4mb" --device-write-iops "$loop:4000" "$image" sleep 1000
    same "io.max" "$number rbps=4194304 wbps=4194304 riops=max wiops=4000" "$(file io io.max)"
    begin=$(date +%s%N)
    check "io: reading" umiak exec io dd if=/dev/disk of=/dev/null bs=1M count=20 iflag=direct
    long=$((($(date +%s%N) - begin) / 1000000))
    same "io: reading is slowed down ($long ms)" yes "$([ "$long" -gt 3000 ] && echo yes)"
    check "update: io" umiak update --device-read-bps "$loop:9mb" --device-write-iops "$loop:0" io
    same "update: io.max" "$number rbps=9437184 wbps=4194304 riops=max wiops=max" "$(file io io.max)"
    same "inspect: io" "$loop 9437184" "$(umiak inspect --format '{{(index .HostConfig.BlkioDeviceReadBps 0).Path}} {{(index .HostConfig.BlkioDeviceReadBps 0).Rate}}' io)"
    down io
    losetup -d "$loop"
fi

# The same words, the same outcome: what a container sees of its own group.
if whole && command -v podman >/dev/null; then
    both() {
        local ours theirs
        ours=$(umiak run --rm --network none "${@:1:$#-1}" "$image" sh -c "${*: -1}" 2>/dev/null; echo "$?")
        theirs=$(podman run --rm --network none --pids-limit 0 "${@:1:$#-1}" localhost/busybox sh -c "${*: -1}" 2>/dev/null; echo "$?")
        same "as podman: ${*:1:$#-1}" "$(echo $theirs)" "$(echo $ours)"
    }
    all='cd /sys/fs/cgroup; cat memory.max memory.swap.max memory.low cpu.max pids.max 2>/dev/null | xargs'
    both -m 64m "$all"
    both -m 64m --memory-swap 64m "$all"
    both -m 64m --memory-swap -1 --memory-reservation 32m "$all"
    both -m 64m --cpus 0.5 --pids-limit 9 "$all"
    both -m 64m --cpu-period 50000 --cpu-quota 20000 "$all"
    both -m 64m --cpuset-cpus 1 'cat /sys/fs/cgroup/cpuset.cpus /sys/fs/cgroup/memory.max'
    both -m 16m --memory-swap 16m 'dd if=/dev/zero of=/dev/null bs=100M count=1; sleep 0'
    both --pids-limit 6 'for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait'
    both --cgroup-conf memory.high=50000000 'cat /sys/fs/cgroup/memory.high'
    for wrong in "-m 1x" "-m -1" "--memory-swap 64m" "-m 64m --memory-swap 32m" "--memory-swappiness 50" "--oom-kill-disable" \
        "--cpus 1 --cpu-quota 5000" "--cpu-quota 500" "--cpu-period 500" "--cpu-shares -1" "--cpuset-cpus 9" "--cpuset-cpus x" \
        "--pids-limit x" "--pids-limit -5" "--device-read-bps /dev/nothing:1m" "--cgroup-conf nonsense=1" "--cgroups strange"; do
        umiak run --rm --network none $wrong "$image" true >/dev/null 2>&1
        ours=$?
        podman run --rm --network none $wrong localhost/busybox true >/dev/null 2>&1
        theirs=$?
        same "as podman: refused: $wrong" "refused refused" "$([ $ours = 0 ] || echo refused) $([ $theirs = 0 ] || echo refused)"
    done
    # Podman leaves it out with a warning where the kernel has no scheduler that weighs, which depends on what ran before.
    refused "a weight that is none" "--blkio-weight" umiak run --rm --network none --blkio-weight 5 "$image" true
fi
same "no container is left" "" "$(umiak ps -aq)"
finish
