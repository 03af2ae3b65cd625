#!/bin/bash
# check.sh TIER [PATTERN...]: runs one tier of the tests where it can run, and brings its result to
# build/check/TIER.json.
#
#   unit     here
#   fuzz     here
#   machine  here if /dev/kvm is of any use, however slow; else in the testbed
#   jailed   the same, with every monitor in a jail
#   linux    here if /dev/kvm runs guests at native speed; else in the testbed
#   teleport the same, with every machine moved into other processes at random moments
#
# Bounded waits are stretched to the speed of the place, unless MAYFLY_TIMEOUT_SCALE is set.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd -P)
tier=$1
shift
export MAYFLY_BUILD=${MAYFLY_BUILD:-$here/../build}
result=$MAYFLY_BUILD/check/$tier.json
mkdir -p "$MAYFLY_BUILD/check"
rm -f "$result"

speed() { # 0: native, 1: slow, 2: none
	local status=0
	"$here/testbed/testbed.sh" probe >/dev/null 2>&1 || status=$?
	echo "$status"
}

# One emulated host, which gets every second test. Its processor is one, because KVM on two emulated
# ones goes wrong every few minutes (a processor left with its guest's segments). It can die or stand
# still all the same; the next one goes on where it left. Status 124 and 125 are the testbed's own.
one_host() {
	local shard=$1 status=0 hosts=0
	shift
	while [ $hosts -lt 6 ]; do
		hosts=$((hosts + 1)) status=0
		"$here/testbed/testbed.sh" run --smp 1 --mem 6144 --timeout 2400 --stall 400 -- \
			tests/run.py --resume --shard "$shard/2" --jobs 1 "$tier" "$@" || status=$?
		[ $status = 124 ] || [ $status = 125 ] || break
		echo "testbed: emulated host number $hosts of shard $shard is gone (status $status)"
	done
}

in_testbed() {
	local out=$here/../build/testbed/out status=0
	export MAYFLY_TIMEOUT_SCALE=${MAYFLY_TIMEOUT_SCALE:-4}
	rm -f "$out/check/$tier".*
	one_host 1 "$@" &
	one_host 2 "$@" &
	wait
	MAYFLY_OUT=$out "$here/run.py" --merge 2 "$tier" || status=$?
	[ ! -e "$out/check/$tier.json" ] || cp "$out/check/$tier.json" "$result"
	exit "$status"
}

if [ "$tier" != unit ] && [ "$tier" != fuzz ]; then
	case $(speed),$tier in
	0,*) ;;
	1,machine | 1,jailed) export MAYFLY_TIMEOUT_SCALE=${MAYFLY_TIMEOUT_SCALE:-4} ;;
	*) in_testbed "$@" ;;
	esac
fi
exec "$here/run.py" "$tier" "$@"
