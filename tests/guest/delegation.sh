#!/bin/bash
# What a user may do: with a group that is delegated, and without. Run by root, who plays both.
. "$(dirname "$0")/lib.sh"
chmod 755 "$work"
user=tester
id=$(id -u $user)
as() { setpriv --reuid $id --regid $id --init-groups env -u DBUS_SESSION_BUS_ADDRESS HOME=/home/$user XDG_RUNTIME_DIR="$work/run" "$@"; }
install -d -o $user -m 700 "$work/run"
me=$id
umiak() { as "$share/umiak" runtime --root "$work/run/state" "$@"; }

# Nothing is delegated here: this is a group of root's.
bundle plain '.linux.resources = {}' true
bundle limited '.linux.resources = {"memory": {"limit": 30000000}}' true
chown -R $user "$work/plain" "$work/limited" "$work/rootfs"
check "without limits it runs" umiak run -b "$work/plain" plain
refused "with one it is told why not" "cannot limit memory.limit" umiak run -b "$work/limited" limited
check "and how to mend it" grep -q "hint: .*Delegate=" "$work/said"
check "engines' defaults do no harm" sh -c "jq '.linux.resources = {\"pids\": {\"limit\": -1}, \"memory\": {\"limit\": -1}, \"devices\": [{\"allow\": false, \"access\": \"rwm\"}]}' '$work/plain/config.json' >'$work/limited/config.json'"
check "so they run" umiak run -b "$work/limited" limited

# What there is of a container without a group.
bundle bare '.linux.resources = {}' sh -c 'sleep 1000 & sleep 1001 & wait'
chown -R $user "$work/bare"
umiak run -d -b "$work/bare" bare >"$work/got" 2>&1 </dev/null || fail "bare: cannot be started: $(cat "$work/got")"
same "it has no group" null "$(jq .cgroup "$work/run/state/bare/state.json")"
check "exec" umiak exec bare true
eventually "ps: its pid namespace" sh -c "[ \$('$share/umiak' runtime --root '$work/run/state' ps --format json bare | jq length) = 3 ]"
for command in pause resume "events --stats" "update --pids-limit 5"; do
    refused "$command" "no control group of its own" umiak $command bare
done
check "kill --all" umiak kill --all bare KILL
eventually "all have ended" sh -c "! pgrep -u $user -f 'sleep 100[01]'"
check "delete" umiak delete bare

# A delegated group, but only with some controllers.
group=/sys/fs/cgroup/umiak-delegated
mkdir $group
echo +pids >/sys/fs/cgroup/cgroup.subtree_control
mkdir $group/shell
chown $user $group $group/shell $group/cgroup.procs $group/shell/cgroup.procs $group/cgroup.subtree_control $group/shell/cgroup.subtree_control
inside() { (echo $BASHPID >$group/shell/cgroup.procs && umiak "$@"); }
mount='.mounts += [{"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro", "nosuid", "noexec", "nodev"]}]'
bundle pids "$mount"' | .linux.resources = {"pids": {"limit": 9}}' sh -c 'sed s,.*/,, /proc/self/cgroup; cat /sys/fs/cgroup/pids.max'
chown -R $user "$work/pids"
inside run -b "$work/pids" pids >"$work/got" 2>&1
check "a delegated controller limits" grep -qx 9 "$work/got"
check "nothing is left of it" sh -c "! ls -d $group/umiak-pids $group/shell/umiak-pids 2>/dev/null"
bundle limited '.linux.resources = {"memory": {"limit": 30000000}}' true
chown -R $user "$work/limited"
grep -q memory $group/cgroup.controllers || refused "one that is not" "cannot limit memory.limit" inside run -b "$work/limited" limited
rmdir $group/shell $group
finish
