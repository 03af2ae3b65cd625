#!/bin/sh
# exits_inside.sh COMMAND... : in the testbed, what makes a guest exit while COMMAND boots it. Stops
# when COMMAND prints mayfly-init; COMMAND is killed then.
#
#	tests/testbed/testbed.sh run --deterministic -- benchmarks/exits_inside.sh build/mayfly ...
#
# Counts by reason with the host's time per exit (instructions, tracing included), and for the exits
# that go to the monitor the ports and addresses. This is how the advice in docs/performance.md was
# found.
set -eu
trace=/sys/kernel/tracing
[ -d $trace/events ] || mount -t tracefs trace $trace
echo 40000 >$trace/buffer_size_kb
for event in kvm_exit kvm_entry kvm_pio kvm_mmio kvm_cpuid kvm_msr; do
	echo 1 >$trace/events/kvm/$event/enable
done
"${MAYFLY_BUILD:-build}/bench/drive" -m mayfly-init -- "$@"
echo 0 >$trace/tracing_on

# A line is: task [cpu] flags seconds: event: fields; the task's name may contain a blank.
awk '
function count(what) { n[what]++ }
{
	for (i = 1; $i !~ /^[0-9]+\.[0-9]+:$/ && i < NF; i++)
		;
	at = $i + 0
	event = $(i + 1)
}
event == "kvm_exit:" {
	reason = $0
	sub(/.*reason /, "", reason)
	sub(/ .*/, "", reason)
	left = at
}
event == "kvm_entry:" && left {
	exits[reason]++
	spent[reason] += at - left
	left = 0
}
event == "kvm_pio:" { count("port " $(i + 4) " " $(i + 2)) }
event == "kvm_mmio:" && !/unsatisfied/ {
	address = $0
	sub(/.*gpa 0x/, "", address)
	sub(/ .*/, "", address)
	count("page " substr(address, 1, length(address) - 3) "000 " $(i + 3))
}
END {
	for (r in exits)
		printf "%6d  %8.3f ms  %s\n", exits[r], spent[r] * 1e3, r | "sort -rn"
	close("sort -rn")
	for (w in n)
		printf "%6d  %s\n", n[w], w | "sort -rn"
}' $trace/trace
