#!/bin/bash
# Device rules, carried out by the kernel.
. "$(dirname "$0")/lib.sh"
mknod='.process.capabilities |= map_values(. + ["CAP_MKNOD"] | unique)'
rules='.linux.resources = {"devices": [{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "r"}]}'
start rules "$mknod | $rules" sleep 1000
inside() { rt exec rules sh -c "$1"; }
if [ "$me" = 0 ]; then
    check "mknod is allowed" inside 'mknod /dev/mem c 1 1 && mknod /dev/disk b 254 0 && mknod /dev/fuse c 10 229'
    # spec: linux.resources.devices[].allow, linux.resources.devices[].access
    refused "memory cannot be read" "not permitted" inside 'head -c1 /dev/mem'
    refused "disks cannot be read" "not permitted" inside 'head -c1 /dev/disk'
    refused "disks cannot be written" "not permitted" inside 'echo >/dev/disk'
    # spec: linux.resources.devices[].type, linux.resources.devices[].major, linux.resources.devices[].minor
    check "what is allowed can be read" inside 'exec 3</dev/fuse'
    refused "but not be written" "not permitted" inside 'exec 3>/dev/fuse'
    check "null, zero, random, ptmx" inside 'echo x >/dev/null && head -c4 /dev/zero /dev/urandom >/dev/null && exec 3<>/dev/ptmx'
    if [ "$manager" = systemd ]; then
        check "systemd is reloaded" systemctl daemon-reload
        check "what is allowed still is" inside 'exec 3</dev/fuse'
        refused "and no more" "not permitted" inside 'head -c1 /dev/disk'
    fi
    check "update: other rules" sh -c "echo '{\"devices\": [{\"allow\": true, \"access\": \"rwm\"}]}' | '$share/umiak' runtime --root '$work/state' update -r - rules"
    check "now disks can be read" inside 'head -c1 /dev/disk'
    check "update: and back" sh -c "echo '{\"devices\": [{\"allow\": false, \"access\": \"rwm\"}]}' | '$share/umiak' runtime --root '$work/state' update -r - rules"
    refused "disks cannot be read again" "not permitted" inside 'head -c1 /dev/disk'
    refused "nor what was allowed" "not permitted" inside 'exec 3</dev/fuse'
    check "another update keeps the rules" rt update --pids-limit 40 rules
    refused "still not" "not permitted" inside 'head -c1 /dev/disk'
else
    # In a user namespace nodes cannot be made, so no rules are needed.
    refused "mknod" "not permitted" inside 'mknod /dev/mem c 1 1'
    check "null and zero" inside 'echo x >/dev/null && head -c4 /dev/zero >/dev/null'
fi
drop rules
finish
