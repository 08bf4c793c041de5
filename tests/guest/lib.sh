# What the guest's tests share; sourced. They run in a machine with cgroup v2 and systemd, slowly: nothing
# here asserts a time.
set -u
here=$(dirname "$(readlink -f "$0")")
share=$(dirname "$here")
work=$(mktemp -d /var/tmp/umiak-guest.XXXXXX)
failed=0
count=0
manager=${MANAGER:-cgroupfs}
me=$(id -u)

rt() { "$share/umiak" runtime --root "$work/state" --cgroup-manager "$manager" "$@"; }

# Whether all is to be tried, or only what depends on who makes the groups: the rest is tried by systemd alone.
whole() { [ "$manager" = systemd ]; }

ok() {
    count=$((count + 1))
    echo "ok $*"
}

fail() {
    count=$((count + 1))
    failed=$((failed + 1))
    echo "FAILED $*"
}

# check NAME COMMAND...: the command succeeds.
check() {
    local name=$1
    shift
    if "$@" >"$work/out" 2>&1; then ok "$name"; else fail "$name: $* ($(head -c 600 "$work/out"))"; fi
}

# refused NAME TEXT COMMAND...: the command fails, and says TEXT (all it says is in $work/said).
refused() {
    local name=$1 text=$2
    shift 2
    if "$@" >"$work/said" 2>&1 </dev/null; then
        fail "$name: it worked: $*"
    elif grep -qF -- "$text" "$work/said"; then
        ok "$name"
    else
        fail "$name: it says $(head -c 600 "$work/said")"
    fi
}

# same NAME EXPECTED GOT
same() { if [ "$2" = "$3" ]; then ok "$1"; else fail "$1: expected \"$2\", got \"$3\""; fi; }

# eventually NAME COMMAND...: the command succeeds within some time.
eventually() {
    local name=$1 i
    shift
    for i in $(seq 60); do
        if "$@" >/dev/null 2>&1; then
            ok "$name"
            return
        fi
        sleep .5
    done
    fail "$name: never: $*"
}

# comes COMMAND...: whether the command succeeds while $daemon, which is to make it so, lives.
comes() {
    local i
    for i in $(seq 200); do
        "$@" >/dev/null 2>&1 && return
        kill -0 "$daemon" 2>/dev/null || return 1
        sleep 1
    done
    return 1
}

# daemons PROGRAM...: they are the machine's, or those that scripts/guest brought along. Without them, and
# without root, the test is skipped.
daemons() {
    local program
    PATH=$PATH:/usr/sbin:$share/docker/bin
    for program; do
        if [ "$me" != 0 ] || ! command -v "$program" >/dev/null; then
            echo "skipped: it takes root, and $*"
            rm -rf "$work"
            exit 0
        fi
    done
}

# counted FILE: lines "ok WHAT" and "FAILED WHY" are checks of ours; others tell of a failure.
counted() {
    local line
    while read -r line; do
        case $line in
            "ok "*) ok "${line#ok }" ;;
            *) fail "${line#FAILED }" ;;
        esac
    done <"$1"
}

# bundle NAME FILTER COMMAND...: a bundle with a shell; FILTER is jq's, over its configuration.
bundle() {
    local name=$1 filter=$2
    shift 2
    mkdir -p "$work/$name"
    [ -e "$work/rootfs" ] || cp -r "$share/bundle/rootfs" "$work/rootfs"
    ln -sfn "$work/rootfs" "$work/$name/rootfs"
    local user='.'
    [ "$me" = 0 ] || user='.linux.namespaces += [{"type": "user"}] | .linux.uidMappings = [{"containerID": 0, "hostID": $me, "size": 1}]
        | .linux.gidMappings = .linux.uidMappings | .linux.namespaces |= map(select(.type != "network"))
        | .mounts |= map(select(.type != "sysfs")) | .mounts |= map(.options |= (. // [] | map(select(startswith("gid=") | not))))'
    local list='' number=0 word options=()
    for word; do
        list="$list, \$word$number"
        options+=(--arg "word$number" "$word")
        number=$((number + 1))
    done
    jq --argjson me "$me" --arg root "$work/rootfs" "${options[@]}" ".process.terminal = false
        | .root.path = \$root | .root.readonly = false | .process.args = [${list#, }] | $user | $filter" "$share/bundle/config.json" >"$work/$name/config.json"
}

# start NAME FILTER COMMAND...: a bundle, running as a container of that name.
start() {
    bundle "$@"
    rt run -d -b "$work/$1" "$1" </dev/null >"$work/$1/out" 2>&1 || {
        fail "$1: cannot be started: $(head -c 600 "$work/$1/out")"
        # What follows would only wait in vain.
        finish
    }
}

# group NAME: the directory of its control group.
group() { jq -r .cgroup "$work/state/$1/state.json"; }

drop() { rt delete --force "$1" || fail "$1: cannot be deleted"; }

finish() {
    rm -rf "$work"
    echo "$(basename "$0"), $manager, $(id -un): $count checks, $failed failed"
    [ "$failed" = 0 ]
    exit
}
