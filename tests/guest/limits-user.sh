#!/bin/bash
# What an ordinary user gets of limits: asked of their systemd, in a service, without either; and that the command
# that an error names is the cure. Run by root, who plays all of them.
. "$(dirname "$0")/lib.sh"
if [ ! -e "$share/busybox.tar" ]; then
    echo "skipped: it takes the image busybox"
    rm -rf "$work"
    exit 0
fi
chmod 755 "$work"
id=$(id -u tester)
for user in tester other; do install -d -o $user -m 700 "$work/$user"; done
# As cron starts it, or su: nothing is said of a session.
words() { echo "$share/umiak --root $work/$1/store --runroot $work/$1/run"; }
plain() { env -i PATH="$PATH" HOME="/home/$1" setpriv --reuid "$1" --regid "$1" --init-groups "${@:2}"; }
umiak() { plain tester $(words tester) "$@"; }
plain tester $(words tester) pull -q "oci-archive:$share/busybox.tar" >"$work/got" 2>&1 || fail "pull: $(cat "$work/got")"
plain other $(words other) pull -q "oci-archive:$share/busybox.tar" >"$work/got" 2>&1 || fail "pull: $(cat "$work/got")"
image=$(umiak images -q | head -1)
limited() { umiak run --rm --network none "$@" "$image" cat /sys/fs/cgroup/memory.max; }
# The command of the hint that was told last.
cured() {
    local command
    command=$(sed -n 's/^hint: as root: //p' "$work/said" | sed 's/ (or .*//; s/ (which .*//')
    echo "$command" >"$work/cure"
    check "$1: the cure is a command" test -n "$command"
    bash -e "$work/cure" >"$work/got" 2>&1 || fail "$1: $command: $(head -c 600 "$work/got")"
}

# Asked of the user's systemd, which is found without a word from the environment.
same "systemd: a limit" 41943040 "$(limited --memory 40m)"
umiak run -d --network none --name box --memory 40m "$image" sleep 1000 >"$work/got" 2>&1
group=$(umiak inspect --format '{{.State.CgroupPath}} {{.HostConfig.CgroupManager}}' box)
check "systemd: a scope of the user's ($group)" bash -c "[[ '$group' == */user@$id.service/*/umiak-*.scope\ systemd ]]"
# From here no process may be moved there by its user; systemd does it.
umiak exec box sed -n s,^0::,,p /proc/self/cgroup >"$work/got" 2>&1
same "systemd: exec is in there" / "$(cat "$work/got")"
check "systemd: update" umiak update --memory 60m --pids-limit 20 box
same "systemd: updated" "62914560 20" "$(cd "${group% *}" && echo $(cat memory.max pids.max))"
check "systemd: pause" umiak pause box
check "systemd: rm of a paused one" umiak rm -f -t 0 box
eventually "systemd: nothing is left" test ! -e "${group% *}"
# What systemd is not told of it takes away when it sets its groups up anew.
disk=$(lsblk -dnpo NAME,TYPE | awk '$2 == "disk" {print $1; exit}')
if grep -qw io "/sys/fs/cgroup/user.slice/user-$id.slice/user@$id.service/cgroup.controllers" && [ -n "$disk" ]; then
    umiak run -d --network none --name box --device-read-bps "$disk:1mb" --memory 40m "$image" sleep 1000 >"$work/got" 2>&1
    group=$(umiak inspect --format '{{.State.CgroupPath}}' box)
    rate=$(lsblk -dno MAJ:MIN "$disk" | tr -d ' ')
    check "systemd: a rate" grep -q "^$rate rbps=1048576 " "$group/io.max"
    # It works out its files again for every unit of which something changes.
    plain tester env XDG_RUNTIME_DIR="/run/user/$id" systemctl --user daemon-reload
    plain tester env XDG_RUNTIME_DIR="/run/user/$id" systemctl --user set-property --runtime "${group##*/}" MemoryMax=50M
    same "systemd: another limit of systemd's" 52428800 "$(cat "$group/memory.max")"
    check "systemd: the rate has stayed" grep -q "^$rate rbps=1048576 " "$group/io.max"
    umiak rm -f -t 0 box >/dev/null
fi
# Without limits nobody is asked, and there is no group here: the caller's is root's.
umiak run -d --network none --name free --health-cmd 'sleep 30' --health-interval disable "$image" sleep 1000 >"$work/got" 2>&1
same "no limits: no group" "" "$(umiak inspect --format '{{.State.CgroupPath}}' free)"
check "no group: pause has one made" umiak pause free
same "no group: now it is paused" paused "$(umiak inspect --format '{{.State.Status}}' free)"
check "no group: unpause" umiak unpause free
umiak exec -d free sleep 1001
check "no group: update" umiak update --memory 40m free
group=$(umiak inspect --format '{{.State.CgroupPath}}' free)
same "no group: a limit for all of its processes" "41943040 2" "$(cat "$group/memory.max") $(wc -l <"$group/cgroup.procs")"
# Its monitor, which was there before the group, knows of it.
umiak healthcheck run free >/dev/null 2>&1 &
eventually "no group: health checks are in there" sh -c "[ \$(wc -l <'$group/cgroup.procs') = 3 ]"
umiak rm -f -t 0 free >/dev/null
wait
eventually "no group: nothing is left" test ! -e "$group"
umiak run -d --network none --name free --cgroups disabled "$image" sleep 1000 >"$work/got" 2>&1
refused "none wanted: pause" "no control group of its own" umiak pause free
refused "none wanted: update" "--cgroups=disabled" umiak update --memory 40m free
umiak rm -f -t 0 free >/dev/null
umiak --cgroup-manager systemd run -d --network none --name free "$image" sleep 1000 >"$work/got" 2>&1
check "no group, but by systemd: pause" umiak pause free
umiak rm -f -t 0 free >/dev/null

# Parents.
refused "a parent of root's" "not this user's" limited --cgroup-parent /system.slice --memory 40m
refused "a parent that is not there" "no such control group" limited --cgroup-parent /umiak-nothing --memory 40m
refused "by hand, where nothing is delegated" "--memory" umiak --cgroup-manager cgroupfs run --rm --network none --memory 40m "$image" true
check "by hand: the hint" grep -qF -- "--cgroup-manager systemd" "$work/said"

# A controller that is not delegated.
dropins=/etc/systemd/system/user@.service.d
mkdir -p "$dropins" "$work/dropins"
mv "$dropins"/*.conf "$work/dropins" 2>/dev/null
printf '[Service]\nDelegate=\nDelegate=memory pids\n' >"$dropins/only.conf"
systemctl daemon-reload && systemctl restart "user@$id.service" || fail "restarting the user's systemd"
same "delegated: memory" 41943040 "$(limited --memory 40m)"
refused "not delegated: cpu" '--cpus: the controller "cpu" is not delegated' limited --memory 40m --cpus 0.5
same "not delegated: nothing is left" "" "$(umiak ps -aq)"
rm "$dropins/only.conf"
cured "not delegated"
same "now it is" "50000 100000" "$(umiak run --rm --network none --cpus 0.5 "$image" cat /sys/fs/cgroup/cpu.max)"
rm -f "$dropins/delegate.conf"
mv "$work/dropins"/*.conf "$dropins" 2>/dev/null
systemctl daemon-reload

# No systemd of the user's.
loginctl disable-linger tester
systemctl stop "user@$id.service"
refused "no systemd of the user's" "--memory: no control group" limited --memory 40m
umiak run -d --network none --name free "$image" sleep 1000 >"$work/got" 2>&1
refused "no systemd of the user's: pause" "no control group of its own" umiak pause free
refused "no systemd of the user's: update" "--memory: no control group" umiak update --memory 40m free
umiak rm -f -t 0 free >/dev/null
check "without limits it runs" umiak run --rm --network none "$image" true
refused "by name" "no systemd of this user" umiak --cgroup-manager systemd run --rm --network none "$image" true
cured "no systemd of the user's"
eventually "now there is one" test -S "/run/user/$id/bus"
same "and it limits" 41943040 "$(limited --memory 40m)"

# A service of the machine's: its own group, which it fills itself.
loginctl disable-linger other
systemctl stop "user@$(id -u other).service"
service() { systemd-run --quiet --wait --pipe --collect -p User=other "$@" $(words other) run --rm --network none --memory 40m "$image" cat /sys/fs/cgroup/memory.max; }
same "a service with Delegate=yes" 41943040 "$(service -p Delegate=yes 2>&1)"
refused "one without" "--memory: no control group" service

# No systemd at all: another mount namespace hides it.
cat >"$work/shell" <<SHELL
$(words tester) run --rm --network none --memory 40m $image true 2>"$work/tester/said"
echo >"$work/tester/asked"
while ! [ -e "$work/tester/go" ]; do sleep .3; done
$(words tester) run --rm --network none --memory 40m $image cat /sys/fs/cgroup/memory.max >"$work/tester/got" 2>&1
echo >"$work/tester/done"
SHELL
export -f plain
unshare -m bash -c "mount -t tmpfs none /run/systemd && mount -t tmpfs none /run/user && plain tester sh $work/shell" &
eventually "no systemd: it was asked for" test -e "$work/tester/asked"
cp "$work/tester/said" "$work/said"
check "no systemd: refused" grep -qF -- "error: --memory: no control group" "$work/said"
cured "no systemd"
touch "$work/tester/go"
eventually "no systemd: it was tried again" test -e "$work/tester/done"
same "no systemd: and now it limits" 41943040 "$(cat "$work/tester/got")"
wait
finish
