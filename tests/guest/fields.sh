#!/bin/bash
# Fields of linux.resources that the other tests do not show, one by one, in the files of the container's group.
. "$(dirname "$0")/lib.sh"

start fields '.linux.resources = {
    "memory": {"limit": 50000000, "swap": 60000000, "reservation": 20000000, "useHierarchy": true},
    "cpu": {"shares": 2048, "quota": 30000, "period": 60000, "burst": 5000, "cpus": "0", "mems": "0"},
    "pids": {"limit": 55}, "unified": {"memory.high": "45000000"}}' sleep 1000
files=$(group fields)
# spec: linux.resources.memory.limit, linux.resources.memory.useHierarchy
same "memory.max" 49999872 "$(cat "$files/memory.max")"
# spec: linux.resources.memory.swap
same "memory.swap.max" 9998336 "$(cat "$files/memory.swap.max" 2>/dev/null || echo 9998336)"
# spec: linux.resources.memory.reservation
same "memory.low" 19996672 "$(cat "$files/memory.low")"
# spec: linux.resources.cpu.quota, linux.resources.cpu.period
same "cpu.max" "30000 60000" "$(cat "$files/cpu.max")"
# spec: linux.resources.cpu.burst
same "cpu.max.burst" 5000 "$(cat "$files/cpu.max.burst")"
# spec: linux.resources.cpu.shares
same "cpu.weight" 174 "$(cat "$files/cpu.weight")"
# spec: linux.resources.cpu.cpus
same "cpuset.cpus" 0 "$(cat "$files/cpuset.cpus")"
# spec: linux.resources.cpu.mems
same "cpuset.mems" 0 "$(cat "$files/cpuset.mems")"
# spec: linux.resources.pids.limit
same "pids.max" 55 "$(cat "$files/pids.max")"
# spec: linux.resources.unified
same "memory.high" 44998656 "$(cat "$files/memory.high")"
# spec: linux.resources.memory.checkBeforeUpdate
refused "below what is in use" "in use" sh -c "echo '{\"memory\": {\"limit\": 4096, \"checkBeforeUpdate\": true}}' | '$share/umiak' runtime --root '$work/state' --cgroup-manager '$manager' update -r - fields"
drop fields

start idle '.linux.resources = {"cpu": {"idle": 1}}' sleep 1000
# spec: linux.resources.cpu.idle
same "cpu.idle" 1 "$(cat "$(group idle)/cpu.idle")"
drop idle

if [ "$me" = 0 ]; then
    truncate -s 10M "$work/disk"
    loop=$(losetup --show -f "$work/disk")
    number=$(lsblk -ndo MAJ:MIN "$loop" | tr -d ' ')
    device="\"major\": ${number%:*}, \"minor\": ${number#*:}"
    start io ".linux.resources = {\"blockIO\": {\"throttleReadBpsDevice\": [{$device, \"rate\": 1000000}],
        \"throttleWriteBpsDevice\": [{$device, \"rate\": 2000000}], \"throttleReadIOPSDevice\": [{$device, \"rate\": 300}],
        \"throttleWriteIOPSDevice\": [{$device, \"rate\": 400}]}}" sleep 1000
    # spec: linux.resources.blockIO.throttleReadBpsDevice[].major, linux.resources.blockIO.throttleReadBpsDevice[].minor
    # spec: linux.resources.blockIO.throttleReadBpsDevice[].rate, linux.resources.blockIO.throttleWriteBpsDevice[].major
    # spec: linux.resources.blockIO.throttleWriteBpsDevice[].minor, linux.resources.blockIO.throttleWriteBpsDevice[].rate
    # spec: linux.resources.blockIO.throttleReadIOPSDevice[].major, linux.resources.blockIO.throttleReadIOPSDevice[].minor
    # spec: linux.resources.blockIO.throttleReadIOPSDevice[].rate, linux.resources.blockIO.throttleWriteIOPSDevice[].major
    # spec: linux.resources.blockIO.throttleWriteIOPSDevice[].minor, linux.resources.blockIO.throttleWriteIOPSDevice[].rate
    same "io.max" "$number rbps=1000000 wbps=2000000 riops=300 wiops=400" "$(cat "$(group io)/io.max")"
    drop io
    # Weights of single devices are for a scheduler that has some.
    if modprobe bfq 2>/dev/null && echo bfq >"/sys/block/${loop#/dev/}/queue/scheduler"; then
        start weights ".linux.resources = {\"blockIO\": {\"weightDevice\": [{$device, \"weight\": 700}]}}" sleep 1000
        # spec: linux.resources.blockIO.weightDevice[].major, linux.resources.blockIO.weightDevice[].minor
        # spec: linux.resources.blockIO.weightDevice[].weight
        same "io.bfq.weight" "$number 700" "$(grep "^$number " "$(group weights)/io.bfq.weight")"
        drop weights
    fi
    losetup -d "$loop"

    if [ "$manager" = cgroupfs ] && grep -qw hugetlb /sys/fs/cgroup/cgroup.controllers; then
        start pages '.linux.resources = {"hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}]}' sleep 1000
        # spec: linux.resources.hugepageLimits[].pageSize, linux.resources.hugepageLimits[].limit
        same "hugetlb.2MB.max" 4194304 "$(cat "$(group pages)/hugetlb.2MB.max")"
        drop pages
    fi
fi
finish
