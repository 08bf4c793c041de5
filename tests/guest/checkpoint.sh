#!/bin/bash
# Checkpoint and restore by criu, as root: it is on no machine's usual list, so it comes along.
. "$(dirname "$0")/lib.sh"
if [ ! -x "$share/criu/criu" ]; then
    echo "skipped: it takes criu"
    rm -rf "$work"
    exit 0
fi
mkdir "$work/bin"
printf '#!/bin/sh\nexport LD_LIBRARY_PATH=%s\nexec %s "$@"\n' "$share/criu/lib" "$share/criu/criu" >"$work/bin/criu"
chmod +x "$work/bin/criu"
PATH=$work/bin:$PATH
status() { rt state "$1" 2>/dev/null | jq -r .status; }
log() { tail -n 15 "$work/$1" 2>/dev/null; }
# grows FILE: the counter in it goes on.
grows() { local a; a=$(cat "$1"); sleep 2; [ "$(cat "$1")" -gt "$a" ]; }
# What counts in memory, and says so in a file of the rootfs.
counter='i=0; while :; do i=$((i+1)); echo $i >/tmp/$0.new; mv /tmp/$0.new /tmp/$0; done'

# A container that counts, with a directory of the host, and masked paths as usual.
mkdir "$work/shared"
echo outside >"$work/shared/file"
bind='.mounts += [{"destination": "/shared", "type": "bind", "source": "'$work'/shared", "options": ["rbind", "rw"]}]
    | .linux.resources = {"pids": {"limit": 50}}'
start one "$bind" sh -c "$counter" one
eventually "it counts" test -s "$work/rootfs/tmp/one"
check "checkpoint" rt checkpoint --image-path "$work/images" one
[ -e "$work/images/inventory.img" ] || { cat "$work/out"; log images/dump.log; }
same "it is gone" "" "$(status one)"
same "its group is gone" "" "$(ls -d /sys/fs/cgroup/umiak/one /sys/fs/cgroup/*/umiak-one.scope 2>/dev/null)"
before=$(cat "$work/rootfs/tmp/one")
sleep 1
same "it counts no more" "$before" "$(cat "$work/rootfs/tmp/one")"
check "restore" rt restore -d -b "$work/one" --image-path "$work/images" --pid-file "$work/pid" one
[ "$(status one)" = running ] || log images/restore.log
same "it runs" running "$(status one)"
same "its number is told" "$(rt state one | jq .pid)" "$(cat "$work/pid")"
eventually "it goes on" grows "$work/rootfs/tmp/one"
check "from where it was" test "$(cat "$work/rootfs/tmp/one")" -gt "$before"
check "it is in its group" grep -qx "$(cat "$work/pid")" "$(group one)/cgroup.procs"
same "its limit is there" 50 "$(cat "$(group one)/pids.max")"
same "the mount is there" outside "$(rt exec one cat /shared/file)"
check "masked paths are" rt exec one sh -c '[ -c /proc/kcore ] && ! ls /proc/acpi 2>/dev/null | grep -q .'
check "a bound path is read-only" rt exec one sh -c '! echo 0 >/proc/sys/kernel/panic'
check "nothing of ours is left among the host's mounts" sh -c "! grep -q '$work/state' /proc/self/mountinfo"
same "nor in its directory" "" "$(ls "$work/state/one" | grep criu)"
check "kill" rt kill one KILL
stopped() { [ "$(rt state one | jq -r .status)" = stopped ]; }
eventually "it is stopped" stopped
check "delete" rt delete one

# It can go on.
start two . sh -c "$counter" two
eventually "it counts" test -s "$work/rootfs/tmp/two"
check "checkpoint --leave-running" rt checkpoint --leave-running --image-path "$work/two-images" --work-path "$work/two-work" two
same "it runs" running "$(status two)"
check "it goes on" grows "$work/rootfs/tmp/two"
check "the log is in the working directory" test -s "$work/two-work/dump.log"
check "pre-dump" rt checkpoint --pre-dump --image-path "$work/pre" two
same "it runs" running "$(status two)"
refused "no such parent" "no such file or directory" rt checkpoint --parent-path ../nosuch --image-path "$work/last" two
check "nothing is made for it" test ! -e "$work/last"
refused "an absolute parent" "relative" rt checkpoint --parent-path "$work/pre" --image-path "$work/last" two
check "checkpoint --parent-path" rt checkpoint --parent-path ../pre --image-path "$work/last" two
same "it is gone" "" "$(status two)"
check "it refers to the earlier one" test -e "$work/last/parent/pagemap-1.img"
rm "$work/rootfs/tmp/two"
check "restore from both" rt restore -d -b "$work/two" --image-path "$work/last" two
[ "$(status two)" = running ] || log last/restore.log
eventually "it goes on" grows "$work/rootfs/tmp/two"
refused "a name in use" "already exists" rt restore -d -b "$work/two" --image-path "$work/last" two
drop two

# In the foreground: output and exit code are the caller's.
start three . sh -c 'secret=in-memory; while [ ! -e /tmp/go ]; do sleep .1; done; echo $secret; exit 7'
check "checkpoint" rt checkpoint --image-path "$work/three-images" three
touch "$work/rootfs/tmp/go"
rt restore -b "$work/three" --image-path "$work/three-images" three >"$work/said" 2>&1 </dev/null
same "its exit code" 7 $?
same "its memory, where the caller looks" in-memory "$(cat "$work/said")"
same "it is gone" "" "$(status three)"

# Connections, in a network namespace of the container's own.
start four . sh -c 'nc -l -p 77 -e sh -c "while :; do date +%N; sleep .2; done" & sleep .5; nc 127.0.0.1 77 >/tmp/four'
eventually "they talk" test -s "$work/rootfs/tmp/four"
refused "an open connection" "--tcp-established" rt checkpoint --image-path "$work/four-images" four
same "it runs on" running "$(status four)"
same "what was written is gone, but for the log" dump.log "$(ls "$work/four-images")"
check "checkpoint --tcp-established" rt checkpoint --tcp-established --image-path "$work/four-images" four
size=$(stat -c %s "$work/rootfs/tmp/four")
check "restore --tcp-established" rt restore -d -b "$work/four" --tcp-established --image-path "$work/four-images" four
[ "$(status four)" = running ] || log four-images/restore.log
eventually "they talk on" sh -c "[ \$(stat -c %s '$work/rootfs/tmp/four') -gt $((size + 20)) ]"
drop four

# Hooks, as at other starts and ends.
hook='.hooks = {"prestart": [{"path": "/bin/sh", "args": ["sh", "-c", "echo prestart >>'$work'/hooks"]}],
    "createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", "jq .pid >'$work'/hook-pid; echo createRuntime >>'$work'/hooks"]}],
    "poststop": [{"path": "/bin/sh", "args": ["sh", "-c", "echo poststop >>'$work'/hooks"]}]}'
start five "$hook" sleep 1000
check "checkpoint" rt checkpoint --image-path "$work/five-images" five
check "restore" rt restore -d -b "$work/five" --image-path "$work/five-images" five
same "the hook's process is the init" "$(rt state five | jq .pid)" "$(cat "$work/hook-pid")"
drop five
same "hooks" "prestart createRuntime poststop prestart createRuntime poststop" "$(echo $(cat "$work/hooks"))"

# Again and again, and from a standstill.
start seven '.root.readonly = true | .mounts += [{"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"}]' sh -c 'i=0; while :; do i=$((i+1)); echo $i >/tmp/x; mv /tmp/x /tmp/seven; done'
value() { rt exec seven cat /tmp/seven; }
eventually "it counts" value
for round in 1 2; do
    check "checkpoint, round $round" rt checkpoint --image-path "$work/seven-$round" seven
    [ -e "$work/seven-$round/inventory.img" ] || log "seven-$round/dump.log"
    check "restore, round $round" rt restore -d -b "$work/seven" --image-path "$work/seven-$round" seven
    [ "$(status seven)" = running ] || log "seven-$round/restore.log"
    a=$(value)
    eventually "it goes on, in a tmpfs" sh -c "[ \$('$share/umiak' runtime --root '$work/state' exec seven cat /tmp/seven) -gt ${a:-0} ]"
done
check "pause" rt pause seven
check "checkpoint of a paused one" rt checkpoint --image-path "$work/seven-3" seven
same "it is gone" "" "$(status seven)"
check "restore" rt restore -d -b "$work/seven" --image-path "$work/seven-3" seven
same "it runs" running "$(status seven)"
drop seven

# A terminal: its master, which nobody holds any more, comes over the console socket.
cat >"$work/console.py" <<'PY'
import array, os, socket, sys, time
server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
server.bind(sys.argv[1])
server.listen(1)
server.settimeout(200)
connection, _ = server.accept()
_, ancillary, _, _ = connection.recvmsg(100, socket.CMSG_SPACE(4))
master = array.array("i", ancillary[0][2])[0]
os.write(master, b"typed\n")
out = open(sys.argv[2], "wb", buffering=0)
end = time.time() + 200
while time.time() < end:
    try:
        data = os.read(master, 1000)
    except OSError:
        break
    out.write(data)
PY
if command -v python3 >/dev/null; then
    bundle tty '.process.terminal = true' sh -c 'n=0; while read line; do n=$((n+1)); echo "got $line $n"; done'
    python3 "$work/console.py" "$work/console1" "$work/said1" &
    eventually "somebody listens" test -S "$work/console1"
    check "a container with a terminal" rt create -b "$work/tty" --console-socket "$work/console1" tty
    check "start" rt start tty
    eventually "it answers" grep -q "got typed 1" "$work/said1"
    check "checkpoint" rt checkpoint --image-path "$work/tty-images" tty
    [ -e "$work/tty-images/inventory.img" ] || log tty-images/dump.log
    refused "a terminal for nobody" "needs --console-socket" rt restore -d -b "$work/tty" --image-path "$work/tty-images" tty
    python3 "$work/console.py" "$work/console2" "$work/said2" &
    eventually "somebody listens" test -S "$work/console2"
    check "restore" rt restore -d -b "$work/tty" --image-path "$work/tty-images" --console-socket "$work/console2" tty
    [ "$(status tty)" = running ] || log tty-images/restore.log
    eventually "it answers at the new one, and knows what was" grep -q "got typed 2" "$work/said2"
    drop tty
fi

# As podman asks for it.
if command -v podman >/dev/null && [ "$manager" = cgroupfs ]; then
    cp "$share/umiak" "$work/umiak-runtime"
    pod() { timeout 300 podman --runtime "$work/umiak-runtime" --cgroup-manager cgroupfs "$@"; }
    check "podman run" pod run -d --name six --network none localhost/busybox sh -c 'i=0; while :; do i=$((i+1)); echo $i >/i.new; mv /i.new /i; done'
    eventually "it counts" pod exec six test -s /i
    if pod container checkpoint --keep six >"$work/out" 2>&1; then
        ok "podman container checkpoint"
        same "it is stopped" exited "$(pod inspect --format '{{.State.Status}}' six)"
        check "podman container restore" pod container restore --keep six
        same "it runs" running "$(pod inspect --format '{{.State.Status}}' six)"
        check "it counts on" sh -c "[ \$(podman exec six cat /i) -gt 1 ]"
    else
        fail "podman container checkpoint: $(head -c 600 "$work/out")"
        find /var/lib/containers/storage/overlay-containers -name dump.log -exec tail -n 12 {} +
    fi
    pod rm -f -t 0 six >/dev/null 2>&1
fi

# What goes wrong.
start six . sh -c "$counter" six
refused "a file instead of a directory" "images' directory" rt checkpoint --image-path "$work/shared/file" six
refused "no images" "no such file or directory" rt restore -d -b "$work/six" --image-path "$work/nosuch" other
mkdir "$work/empty"
refused "an empty directory" "descriptors.json" rt restore -d -b "$work/six" --image-path "$work/empty" other
check "nothing is left of it" test ! -e "$work/state/other"
echo '["","",""]' >"$work/empty/descriptors.json"
refused "no images in it" "criu's restore failed" rt restore -d -b "$work/six" --image-path "$work/empty" other
check "nothing is left of it" test ! -e "$work/state/other"
same "no group is" "" "$(ls -d /sys/fs/cgroup/umiak/other /sys/fs/cgroup/*/umiak-other.scope 2>/dev/null)"
refused "a mode" "--manage-cgroups-mode" rt checkpoint --manage-cgroups-mode odd six
refused "a page server" "--page-server" rt checkpoint --page-server nowhere six
refused "a namespace" "--empty-ns" rt checkpoint --empty-ns mount six
refused "no criu" "is not installed" env PATH=/usr/bin:/bin "$share/umiak" runtime --root "$work/state" checkpoint --image-path "$work/none" six
check "and a hint" grep -q '^hint: install the package "criu"' "$work/said"
# One that is killed at its work: here it stands still with the container frozen.
printf '#!/bin/sh\necho 1 >%s/cgroup.freeze\nkill -9 $$\n' "$(group six)" >"$work/bin/criu.dead"
chmod +x "$work/bin/criu.dead"
mkdir "$work/dead"
mv "$work/bin/criu.dead" "$work/dead/criu"
PATH=$work/dead:$PATH refused "a criu that dies" "ended without a word" rt checkpoint --image-path "$work/dead-images" six
same "it runs on" running "$(status six)"
check "it counts on" grows "$work/rootfs/tmp/six"
check "nothing is left of the images" test ! -e "$work/dead-images"
check "it can be dumped later" rt checkpoint --image-path "$work/six-images" six
refused "it is gone" "does not exist" rt checkpoint six
finish
