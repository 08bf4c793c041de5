#!/bin/bash
# The limits of `build`: kept by every RUN, told when they are met, and nothing of them in the image.
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
umiak tag "$image" localhost/base:latest
# build NAME INSTRUCTIONS FLAGS...: builds an image of a Dockerfile alone; what is said goes to $work/said.
build() {
    local name=$1 text=$2
    shift 2
    printf 'FROM localhost/base:latest\n%s\n' "$text" | umiak build --network none --no-cache -t "$name" "$@" - >"$work/said" 2>&1
}
read_of() { umiak run --rm --network none "$1" cat "$2"; }

# Memory.
build hog 'RUN dd if=/dev/zero of=/dev/null bs=100M count=1' --memory 24m --memory-swap 24m
same "memory: out of it, the build ends as the program does" 137 $?
check "memory: it is told why" grep -qi memory "$work/said"
check "memory: and where" grep -q 'Dockerfile line 2' "$work/said"
check "memory: no image comes of it" bash -c '! umiak image exists hog'
build part 'RUN dd if=/dev/zero of=/dev/null bs=100M count=1; echo $? > /status' --memory 24m --memory-swap 24m
same "memory: of a part of a step" 0 $?
same "memory: the rest goes on" 137 "$(read_of part /status)"

# All of them, as the step sees them; each step anew.
see='RUN cd /sys/fs/cgroup && cat memory.max memory.swap.max cpu.max cpu.weight pids.max cpuset.cpus.effective | xargs > /limits
RUN cat /sys/fs/cgroup/pids.max > /second'
build seen "$see" --memory 64m --memory-swap 96m --cpu-quota 25000 --cpu-period 50000 -c 512 --pids-limit 33 --cpuset-cpus 1 --cpuset-mems 0
same "all limits: it is built" 0 $? || cat "$work/said"
same "all limits: as the step sees them" "67108864 33554432 25000 50000 59 33 1" "$(read_of seen /limits)"
same "all limits: as the next one sees them" 33 "$(read_of seen /second)"
build cpus 'RUN cat /sys/fs/cgroup/cpu.max > /max' --cpus 0.5
same "--cpus" "50000 100000" "$(read_of cpus /max)"
same "no limit is the image's" max "$(umiak run --rm --network none seen sh -c 'cat /sys/fs/cgroup/pids.max 2>/dev/null || echo max')"

# Processes.
many='RUN for i in 1 2 3 4 5 6 7 8 9; do sleep 1 & done; wait'
build pids "$many" --pids-limit 6
check "processes: fork is refused at the limit" grep -q "can't fork" "$work/said"
build pids "$many" --pids-limit 20
same "processes: below it they are started" 0 $?

# Below another group.
if [ "$manager" = systemd ]; then
    build parent 'RUN sleep 3' --cgroup-parent somebuilds.slice &
    builder=$!
    eventually "parent: the step is below it" bash -c "find /sys/fs/cgroup -path '*somebuilds.slice/*' -name cgroup.procs 2>/dev/null | grep -q ."
    wait $builder
    same "parent: it is built" 0 $?
fi
refused "nonsense is told before anything is done" '--memory "lots"' umiak build --memory lots "$work"

# Nothing is left: no container, no group, no part of a build.
same "no container is left" "" "$(umiak ps -aq --external)"
check "the store is sound" umiak system check
eventually "no group is left" bash -c "! find /sys/fs/cgroup -type d -name '*umiak-[0-9a-f]*' | grep -q ."
umiak rmi -af >/dev/null
umiak builder prune -af >/dev/null
finish
