#!/bin/bash
# The engine's containers: in a group of their own, with nothing more than that.
. "$(dirname "$0")/lib.sh"
if [ ! -e "$share/busybox.tar" ]; then
    echo "skipped: it takes the image busybox"
    rm -rf "$work"
    exit 0
fi
mkdir -m 700 "$work/run"
umiak() { "$share/umiak" --root "$work/store" --runroot "$work/run/umiak" "$@"; }
check "pull" umiak pull -q "oci-archive:$share/busybox.tar"
image=$(umiak images -q | head -1)
same "run" hello "$(umiak run --rm "$image" echo hello)"
same "run: its group is the root of what it sees" "0::/" "$(umiak run --rm "$image" cat /proc/self/cgroup)"
# Containers of the runtime's face may have had some handed down already.
parent=/sys/fs/cgroup/umiak
[ "$me" = 0 ] || parent=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)
before=$(cat "$parent/cgroup.subtree_control")
id=$(umiak run -d "$image" sleep 1000)
dir=$(umiak inspect --format '{{.State.CgroupPath}}' "$id")
check "it has a group" test -d "$dir"
check "its program is in there" sh -c "grep -q . '$dir/cgroup.procs'"
umiak exec -d "$id" sleep 1001 || fail "exec"
eventually "an exec is in there too" sh -c "[ \$(wc -l <'$dir/cgroup.procs') = 2 ]"
same "no controllers were handed down for it" "$before" "$(cat "$parent/cgroup.subtree_control")"
check "rm" umiak rm -f -t 0 "$id"
check "the group is gone" test ! -e "$dir"
finish
