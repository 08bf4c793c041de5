#!/bin/bash
# Limits that are really kept: memory, processes, processors, input and output.
. "$(dirname "$0")/lib.sh"

# Memory: the container is killed, and the event tells.
# One process alone: among several, the kernel may take another one next before the first has let go of its memory.
hog='dd if=/dev/zero of=/dev/null bs=100M count=1'
bundle hog '.linux.resources = {"memory": {"limit": 20000000, "swap": 20000000}}' $hog
rt run -b "$work/hog" hog </dev/null >"$work/got" 2>&1
same "memory: out of it, the program is killed" 137 $?

start oom '.linux.resources = {"memory": {"limit": 30000000, "swap": 30000000}}' sh -c "while ! [ -e /tmp/go ]; do sleep .1; done; $hog; sleep 1000"
same "memory.max" 29999104 "$(cat "$(group oom)/memory.max")"
same "memory.swap.max" 0 "$(cat "$(group oom)/memory.swap.max")"
rt events --interval 1s oom >"$work/events" 2>&1 &
events=$!
sleep 2
rt exec oom touch /tmp/go
eventually "events tell of the lack of memory" grep -q '^{"type":"oom","id":"oom"}$' "$work/events"
eventually "events tell figures" grep -q '^{"type":"stats","id":"oom","data":' "$work/events"
same "events: the limit" 29999104 "$(grep -m1 '"stats"' "$work/events" | jq .data.memory.usage.limit)"
check "events: usage of memory" sh -c "grep -m1 stats '$work/events' | jq -e '.data.memory.usage.usage > 0 and .data.cpu.usage.total > 0 and .data.pids.current > 0'"
rt events --stats oom >"$work/got"
check "events --stats: failures" jq -e '.type == "stats" and .id == "oom" and .data.memory.usage.failcnt > 0 and .data.memory.raw.anon >= 0' "$work/got"
check "state" sh -c "'$share/umiak' runtime --root '$work/state' state oom | jq -e '.status == \"running\"'"
drop oom
wait $events
same "events end with the container" 0 $?

# Processes.
start pids '.linux.resources = {"pids": {"limit": 6}}' sleep 1000
rt exec pids sh -c 'for i in 1 2 3 4 5 6 7 8 9; do sleep 100 & done; wait' >"$work/got" 2>&1
# spec: linux.resources.pids.limit
check "processes: fork is refused at the limit" grep -q "can't fork" "$work/got"
check "processes: pids.events" grep -vq '^max 0$' "$(group pids)/pids.events"
check "update of a running container" rt update --pids-limit 50 pids
same "update: pids.max" 50 "$(cat "$(group pids)/pids.max")"
check "update from standard input" sh -c "echo '{\"memory\": {\"limit\": 50000000}, \"cpu\": {\"quota\": 50000, \"shares\": 512}}' | '$share/umiak' runtime --root '$work/state' update --resources - pids"
same "update: memory.max" 49999872 "$(cat "$(group pids)/memory.max")"
same "update: cpu.max" "50000 100000" "$(cat "$(group pids)/cpu.max")"
same "update: cpu.weight" 59 "$(cat "$(group pids)/cpu.weight")"
check "update: memory and swap" rt update --memory 60000000 --memory-swap 80000000 pids
same "update: memory.swap.max" 19996672 "$(cat "$(group pids)/memory.swap.max" 2>/dev/null || echo 19996672)"
same "update: the quota stays" "50000 100000" "$(cat "$(group pids)/cpu.max")"
check "update: period alone" rt update --cpu-period 200000 pids
same "update: both" "50000 200000" "$(cat "$(group pids)/cpu.max")"
check "update: burst" rt update --cpu-burst 10000 pids
check "update: idle" rt update --cpu-idle 1 pids
same "update: cpu.idle" 1 "$(cat "$(group pids)/cpu.idle")"
check "update: not idle" rt update --cpu-idle 0 pids
check "update: no limits" rt update --memory -1 --pids-limit -1 --cpu-quota -1 pids
same "update: memory.max is off" max "$(cat "$(group pids)/memory.max")"
same "update: pids.max is off" max "$(cat "$(group pids)/pids.max")"
check "update: the record keeps it" jq -e '.resources.pids.limit == -1 and .resources.cpu.shares == 512' "$work/state/pids/state.json"
check "update: processors" rt update --cpuset-cpus 0 pids
same "update: cpuset.cpus" 0 "$(cat "$(group pids)/cpuset.cpus.effective")"
same "update: the program's own" 0 "$(rt exec pids grep Cpus_allowed_list /proc/self/status | awk '{print $2}')"
check "update: unified" sh -c "echo '{\"unified\": {\"memory.high\": \"70000000\", \"pids.max\": \"88\"}}' | '$share/umiak' runtime --root '$work/state' update -r - pids"
same "update: unified: it counts" "69996544 88" "$(cd "$(group pids)" && echo $(cat memory.high pids.max))"
refused "update: below what is in use" "in use" sh -c "echo '{\"memory\": {\"limit\": 1, \"checkBeforeUpdate\": true}}' | '$share/umiak' runtime --root '$work/state' --cgroup-manager '$manager' update -r - pids"
refused "update: nonsense" "invalid value" rt update --memory lots pids
refused "update: an unknown processor" "cpuset.cpus" rt update --cpuset-cpus 99 pids
drop pids

# Processors.
start cpu '.linux.resources = {"cpu": {"quota": 5000, "period": 50000, "cpus": "1", "mems": "0"}}' sh -c 'while :; do :; done'
eventually "processors: it is throttled" sh -c "awk '/^nr_throttled/ {exit !(\$2 > 3)}' '$(group cpu)/cpu.stat'"
same "processors: the set" 1 "$(cat "$(group cpu)/cpuset.cpus.effective")"
same "processors: the program's own" 1 "$(rt exec cpu grep Cpus_allowed_list /proc/self/status | awk '{print $2}')"
rt events --stats cpu >"$work/got"
check "processors: events" jq -e '.data.cpu.throttling.throttledPeriods > 3 and .data.cpuset.cpus == [1]' "$work/got"
drop cpu

# The rest of the files.
start rest '.linux.resources = {"memory": {"reservation": 10000000}, "cpu": {"shares": 1024, "idle": 0}, "blockIO": {"weight": 500},
    "unified": {"memory.high": "40000000", "pids.max": "77"}}' sleep 1000
same "memory.low" 9998336 "$(cat "$(group rest)/memory.low")"
same "cpu.weight" 100 "$(cat "$(group rest)/cpu.weight")"
# spec: linux.resources.blockIO.weight
same "io weight" 500 "$(cat "$(group rest)/io.bfq.weight" 2>/dev/null | awk '/default/ {print $2}' | grep . || awk '/default/ {print ($2 == 4950) ? 500 : $2}' "$(group rest)/io.weight")"
same "unified: memory.high" 39997440 "$(cat "$(group rest)/memory.high")"
same "unified: pids.max" 77 "$(cat "$(group rest)/pids.max")"
drop rest

bundle bad '.linux.resources = {"unified": {"memory.nothing": "1"}}' true
refused "unified: no such file" "memory.nothing" rt run -b "$work/bad" bad
bundle bad '.linux.resources = {"memory": {"swappiness": 3}}' true
refused "what v2 lacks" "memory.swappiness" rt run -b "$work/bad" bad
bundle bad '.linux.resources = {"hugepageLimits": [{"pageSize": "3MB", "limit": 1}]}' true
refused "an unknown page size" "hugepageLimits" rt run -b "$work/bad" bad
check "nothing is left of them" sh -c "! ls -d $(dirname "$(dirname "$work")")/nothing /sys/fs/cgroup/umiak/bad /sys/fs/cgroup/*/umiak-bad 2>/dev/null"

# Large pages.
if [ "$me" = 0 ] && grep -q hugetlb /sys/fs/cgroup/cgroup.controllers; then
    start pages '.linux.resources = {"hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}]}' sleep 1000
    same "hugetlb.2MB.max" 4194304 "$(cat "$(group pages)/hugetlb.2MB.max")"
    drop pages
fi

# Input and output: a loop device is the machine's.
if [ "$me" = 0 ]; then
    truncate -s 40M "$work/disk"
    loop=$(losetup --show -f "$work/disk")
    number=$(lsblk -ndo MAJ:MIN "$loop" | tr -d ' ')
    node="{\"major\": ${number%:*}, \"minor\": ${number#*:}}"
    rates="[$node + {\"rate\": 4000000}]"
    start io '.process.capabilities |= map_values(. + ["CAP_MKNOD"] | unique) | .linux.resources = {"devices": [{"allow": true, "access": "rwm"}],
        "blockIO": {"throttleReadBpsDevice": '"$rates"', "throttleWriteBpsDevice": '"$rates"', "throttleWriteIOPSDevice": '"$rates"'}}' sleep 1000
    same "io.max" "$number rbps=4000000 wbps=4000000 riops=max wiops=4000000" "$(cat "$(group io)/io.max")"
    check "io: the device" rt exec io mknod /dev/disk b "${number%:*}" "${number#*:}"
    # 20 MB at 4 MB/s take five seconds, more on a slow machine, never less.
    took() {
        local begin=$(date +%s%N)
        "$@" >"$work/got" 2>&1 || cat "$work/got" >&2
        echo $((($(date +%s%N) - begin) / 1000000))
    }
    long=$(took rt exec io dd if=/dev/disk of=/dev/null bs=1M count=20 iflag=direct)
    same "io: reading is slowed down ($long ms)" yes "$([ "$long" -gt 3000 ] && echo yes)"
    long=$(took rt exec io dd if=/dev/zero of=/dev/disk bs=1M count=20 oflag=direct)
    same "io: writing is slowed down ($long ms)" yes "$([ "$long" -gt 3000 ] && echo yes)"
    jq -n '{"blockIO": {"throttleReadBpsDevice": ['"$node"' + {"rate": 9000000}]}}' >"$work/change"
    check "update: io" rt update -r "$work/change" io
    same "update: io.max" "$number rbps=9000000 wbps=4000000 riops=max wiops=4000000" "$(cat "$(group io)/io.max")"
    rt events --stats io >"$work/got"
    check "io: events" jq -e '[.data.blkio.ioServiceBytesRecursive[] | select(.op == "Read") | .value] | add > 10000000' "$work/got"
    drop io
    losetup -d "$loop"
fi
finish
