#!/bin/bash
# Groups over a container's life: pausing, killing all, listing processes, groups below.
. "$(dirname "$0")/lib.sh"

start one . sh -c 'i=0; while :; do i=$((i+1)); echo $i >/tmp/i; done'
dir=$(group one)
check "it has a group" test -d "$dir"
check "its init is in there" sh -c "grep -qx \"\$(jq .pid '$work/state/one/state.json')\" '$dir/cgroup.procs'"
check "pause" rt pause one
same "state: paused" paused "$(rt state one | jq -r .status)"
same "list: paused" paused "$(rt list | awk '$1 == "one" {print $3}')"
a=$(cat "$work/rootfs/tmp/i"); sleep 1
same "nothing moves" "$a" "$(cat "$work/rootfs/tmp/i")"
refused "pause again" "paused" rt pause one
refused "exec into a paused container" "--ignore-paused" rt exec one true
refused "delete a paused container" "paused" rt delete one
check "resume" rt resume one
same "state: running" running "$(rt state one | jq -r .status)"
refused "resume again" "running" rt resume one
check "exec into a running container" rt exec one true

mkdir "$dir/below"
rt exec -d --cgroup /below one sleep 1000
eventually "exec --cgroup" grep -q . "$dir/below/cgroup.procs"
refused "exec --cgroup: not there" "no such file or directory" rt exec --cgroup nowhere one true
refused "exec --cgroup: out of it" "--cgroup" rt exec --cgroup ../x one true
same "ps counts all groups" "$(cat "$dir/cgroup.procs" "$dir/below/cgroup.procs" | sort -n | tr '\n' ,)" "$(rt ps --format json one | jq -r '.[]' | sort -n | tr '\n' ,)"
check "ps: a table" sh -c "'$share/umiak' runtime --root '$work/state' ps one | grep -q 'sleep 1000'"
check "ps: the host's" sh -c "'$share/umiak' runtime --root '$work/state' ps one -o pid,comm | grep -q sleep"


# A container that has handed its controllers on takes no processes itself: an exec stands beside its init.
start two . sleep 1000
mkdir "$(group two)/init"
jq .pid "$work/state/two/state.json" >"$(group two)/init/cgroup.procs"
if echo +memory >"$(group two)/cgroup.subtree_control" 2>/dev/null; then
    check "exec beside the init" rt exec -d two sleep 1001
    same "it is there" 2 "$(wc -l <"$(group two)/init/cgroup.procs")"
fi
drop two

check "pause for a forced end" rt pause one
check "delete --force of a paused one" rt delete --force one
check "its group is gone" test ! -e "$dir"

start two . sh -c 'sleep 1001 & sleep 1002 & wait'
dir=$(group two)
check "kill --all" rt kill --all two KILL
eventually "all have ended" sh -c "! grep -q . '$dir/cgroup.procs'"
check "delete" rt delete two
check "its group is gone, too" test ! -e "$dir"

start three . sh -c 'trap "" TERM; while :; do sleep .1; done'
check "pause before a kill" rt pause three
check "a paused one can be killed" rt kill three KILL
eventually "it has ended" sh -c "'$share/umiak' runtime --root '$work/state' state three | jq -e '.status == \"stopped\"'"
check "delete: it was paused" rt delete three

# Who forks for ever is ended by cgroup.kill at once; in groups below, too, and with nothing that holds the processes together.
host='.linux.namespaces |= map(select(.type != "pid")) | .mounts |= map(if .type == "proc" then {"destination": "/proc", "type": "none", "source": "/proc", "options": ["rbind"]} else . end)'
# (A shell that cannot fork ends, so that there is always room for others.)
forks='sh -c "while :; do sh -c \"while :; do sleep .1; done\" & done"'
start bomb "$host"' | .linux.resources = {"pids": {"limit": 30}}' sh -c "$forks; exec sleep 1006"
dir=$(group bomb)
mkdir "$dir/below"
rt exec -d --cgroup /below bomb sh -c "$forks" >"$work/got" 2>&1
eventually "it forks to its limit" grep -vq '^max 0$' "$dir/pids.events"
check "kill --all of what forks" rt kill --all bomb KILL
eventually "its groups are empty" sh -c "! [ -e '$dir' ] || grep -qx 'populated 0' '$dir/cgroup.events'"
check "delete: what forked" rt delete bomb
check "its groups are gone" test ! -e "$dir"

# Without a pid namespace of its own the group is what holds the processes together.
start three "$host" sh -c 'setsid sleep 1003 & setsid sleep 1004 & sleep 1005'
dir=$(group three)
rt kill three KILL
eventually "its init has ended" sh -c "'$share/umiak' runtime --root '$work/state' state three | jq -e '.status == \"stopped\"'"
check "delete ends those it left" rt delete three
check "its group is gone as well" test ! -e "$dir"
check "nobody is left" sh -c "! pgrep -f 'sleep 100[3456]'"

# What systemd makes of it.
if [ "$manager" = systemd ]; then
    ctl() { if [ "$me" = 0 ]; then systemctl "$@"; else systemctl --user "$@"; fi; }
    start unit '.annotations = {"org.systemd.property.TimeoutStopUSec": "uint64 7000000"} | .linux.cgroupsPath = "umiak-a.slice:box:unit"
        | .linux.resources = {"memory": {"limit": 50000000}, "pids": {"limit": 30}, "cpu": {"cpus": "1"}}' sleep 1000
    dir=$(group unit)
    same "slices are nested" umiak.slice/umiak-a.slice/box-unit.scope "${dir#"${dir%/umiak.slice/*}"/}"
    same "an annotation" 7s "$(ctl show -p TimeoutStopUSec --value box-unit.scope)"
    same "properties" "50000000 30 1 yes" "$(echo $(for p in MemoryMax TasksMax AllowedCPUs Delegate; do ctl show -p $p --value box-unit.scope; done))"
    check "update" rt update --memory 60000000 --cpu-quota 20000 unit
    same "update: properties" "60000000 200ms" "$(echo $(for p in MemoryMax CPUQuotaPerSecUSec; do ctl show -p $p --value box-unit.scope; done))"
    check "systemd is reloaded" ctl daemon-reload
    same "limits stay" "59998208 30 20000 100000 1" "$(cd "$dir" && echo $(cat memory.max pids.max cpu.max cpuset.cpus))"
    refused "a name in use" "UnitExists" rt run -b "$work/unit" again
    check "its owner lives" rt exec unit true
    check "who kills it all need not tell us" sh -c "echo 1 >'$dir/cgroup.kill'"
    eventually "the unit goes by itself" sh -c "! [ -e '$dir' ]"
    check "delete" rt delete unit
    same "no unit is left" not-found "$(ctl show -p LoadState --value box-unit.scope)"
    bundle bad '.linux.cgroupsPath = "/not/a:unit"' true
    refused "not systemd's form" "slice:prefix:name" rt run -b "$work/bad" bad
    bundle bad '.annotations = {"org.systemd.property.NoSuchThing": "true"}' true
    refused "no such property" "NoSuchThing" rt run -b "$work/bad" bad
    check "nobody is left of it" sh -c "! [ -e '$work/state/bad' ]"
fi

# A place of its own.
if [ "$me" = 0 ] && [ "$manager" = cgroupfs ]; then
    start four '.linux.cgroupsPath = "/umiak-test/deep/four"' sleep 1000
    same "an absolute path" /sys/fs/cgroup/umiak-test/deep/four "$(group four)"
    check "controllers are handed down" grep -q memory /sys/fs/cgroup/umiak-test/deep/four/cgroup.controllers
    bundle five '.linux.cgroupsPath = "/umiak-test/deep/four"' true
    refused "a group in use" "busy" rt run -b "$work/five" five
    check "and its owner lives" rt exec four true
    drop four
    rmdir /sys/fs/cgroup/umiak-test/deep /sys/fs/cgroup/umiak-test
    # No internal processes: the kernel's rule, told with a cure.
    mkdir /sys/fs/cgroup/full
    sleep 1000 & sleeper=$!
    echo $sleeper >/sys/fs/cgroup/full/cgroup.procs
    bundle six '.linux.cgroupsPath = "/full/six" | .linux.resources = {"pids": {"limit": 5}}' true
    refused "a parent with processes" "has processes of its own" rt run -b "$work/six" six
    check "nothing is left" test ! -e /sys/fs/cgroup/full/six
    kill $sleeper; wait $sleeper 2>/dev/null
    rmdir /sys/fs/cgroup/full
fi
finish
