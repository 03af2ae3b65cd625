#!/bin/bash
# check.sh TIER [PATTERN...]: runs one tier of the tests where it can run, and brings its result to
# build/check/TIER.json.
#
#   unit     here
#   machine  here if /dev/kvm is of any use, however slow; else in the testbed
#   linux    here if /dev/kvm runs guests at native speed; else in the testbed
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

in_testbed() {
	local out=$here/../build/testbed/out status=0
	rm -f "$out/check/$tier.json"
	MAYFLY_TIMEOUT_SCALE=${MAYFLY_TIMEOUT_SCALE:-4} \
		"$here/testbed/testbed.sh" run --mem 8192 --timeout 3600 -- tests/run.py "$tier" "$@" || status=$?
	[ ! -e "$out/check/$tier.json" ] || cp "$out/check/$tier.json" "$result"
	exit "$status"
}

if [ "$tier" != unit ]; then
	case $(speed),$tier in
	0,*) ;;
	1,machine) export MAYFLY_TIMEOUT_SCALE=${MAYFLY_TIMEOUT_SCALE:-4} ;;
	*) in_testbed "$@" ;;
	esac
fi
exec "$here/run.py" "$tier" "$@"
