#!/bin/bash
# testbed.sh: run something where /dev/kvm works, on any machine.
#
#   testbed.sh probe                          how fast does /dev/kvm here run guests? (see probe.c)
#   testbed.sh exec [OPTION]... -- COMMAND... here if that is native speed, else in the testbed
#   testbed.sh run  [OPTION]... -- COMMAND... in the testbed
#
# The testbed is an AMD server emulated by QEMU in software, with SVM and nested paging, on which
# Debian's kernel has a real and complete /dev/kvm. It sees the whole file system of this machine;
# what it writes there stays in its memory and is gone with it. COMMAND runs as root in the top
# directory of the repository, its output appears as it is written, its exit status is the result.
# To bring files out, write them into the directory $MAYFLY_OUT (build/testbed/out).
# $MAYFLY_TESTBED is 1 inside. Variables named MAYFLY_* are passed on.
#
#   --smp N           processors (2)
#   --mem MIB         memory (4096); the layer of written files is part of it
#   --timeout SECONDS no run takes longer (1800); exit status 124 says that it would have
#   --stall SECONDS   a command that prints nothing for so long has hung: the testbed ends (never)
#   --deterministic   one processor and one nanosecond per instruction: every clock inside counts
#                     instructions, and measurements repeat to the last digit. But waiting for a
#                     file takes no instructions: time then leaps to the next timer, so use no
#                     timeouts inside, and read what a measurement needs (cat) before it.
#   --console FILE    where the messages of the emulated host's kernel go; without, they are kept
#                     in build/testbed/console.log when the testbed fails
#
# Exit status 125: the testbed itself failed.
#
# Not as on a real server: QEMU's AMD does not hand XSETBV to the host, so guests find XSAVE
# inconsistent ("XSAVE consistency problem"), say so and do without AVX.
set -euo pipefail
shopt -s inherit_errexit
here=$(cd "$(dirname "$0")" && pwd -P)
repo=$(cd "$here/../.." && pwd -P)
. "$repo/images/lib.sh"
out=$repo/build/testbed/out

# An EPYC, less what QEMU cannot emulate and would warn of.
cpu=EPYC,+svm,+npt,-rdseed,-sha-ni,-fxsr-opt,-misalignsse,-3dnowprefetch,-osvw,-topoext,-nrip-save
cpu=$cpu,-xsavec
# An emulated host that is stuck panics, and so ends the run with a reason on its console.
cmdline="console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable nmi_watchdog=0"
cmdline="$cmdline watchdog_thresh=15 softlockup_panic=1"
modules="virtio_pci virtio_console 9pnet_virtio 9p overlay kvm-amd tun loop vhost_vsock vhost_net"

make_probe() {
	gcc -O2 -Wall -o "$1/probe" "$here/probe.c"
}

probe() {
	local dir
	dir=$(cached "probe-$(hash_of "$here/probe.c")" make_probe)
	"$dir/probe"
}

make_host() {
	local root
	root=$(deb_root "linux-image-$kernel")
	cp "${root%/}/boot/vmlinuz-$kernel" "$1/vmlinuz"
	mkdir -p "$1"/tree/{dev,proc,sys,etc}
	busybox_into "$1/tree"
	add_modules "$root" "$kernel" "$1/tree/modules" $modules
	install -m 755 "$here/init" "$1/tree/init"
	cpio_of "$1/tree" >"$1/initrd"
	rm -rf "$1/tree"
}

# The command and what it is to find in its environment, as a second archive behind the first: the
# kernel unpacks both.
make_initrd() {
	local name
	mkdir "$tmp/tree"
	printf '%s=%q\n' REPO "$repo" OUT "$out" TIME "$(date +%s)" >"$tmp/tree/run.env"
	{
		for name in PATH HOME "${!MAYFLY_@}"; do
			printf 'export %s=%q\n' "$name" "${!name}"
		done
		printf 'cd %q || exit 125\n' "$repo"
		printf 'exec'
		printf ' %q' "$@"
		echo
	} >"$tmp/tree/run.sh"
	{
		cat "$host/initrd"
		cpio_of "$tmp/tree"
	} >"$tmp/initrd"
}

# Standard input to standard output until its end; a silence of $stall seconds is noted.
relay() {
	local line status=0
	if [ "$stall" = 0 ]; then
		exec cat
	fi
	while :; do
		IFS= read -r -t "$stall" line && status=0 || status=$?
		[ $status = 0 ] || break
		printf '%s\n' "$line"
	done
	printf '%s' "$line"
	if [ $status -gt 128 ]; then
		echo "testbed: nothing was printed for $stall seconds"
		kill "$(cat "$tmp/qemu")"
	fi
}

run() {
	local processor=(-accel tcg,thread=multi,tb-size=512 -smp "$smp") status=125 ended=0
	local output qemu
	if [ "$deterministic" = 1 ]; then
		processor=(-accel tcg,thread=single,tb-size=512 -icount shift=0,sleep=off -smp 1)
	fi
	kernel=$(debian_kernel amd64) # not the cloud flavour: that has no 9p
	host=$(cached "testbed-$(echo "$kernel" "$modules" |
		hash_of "$here/init" "$repo/images/lib.sh" -)" make_host)

	mkdir -p "$out"
	tmp=$(mktemp -d "${TMPDIR:-/tmp}/mayfly-testbed.XXXXXX")
	trap 'rm -rf "$tmp"' EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP
	export MAYFLY_OUT=$out MAYFLY_TESTBED=1
	make_initrd "$@"
	[ -n "$console" ] || console=$tmp/console
	: >"$tmp/status"
	mkfifo "$tmp/output"
	exec 3<>"$tmp/output"
	relay <"$tmp/output" 3>&- &
	output=$!

	# Nothing outlives this script, however it ends: the kernel sees to that (pdeathsig). QEMU
	# makes its outputs non-blocking for all who share them, so it gets a pipe of its own.
	setpriv --pdeathsig KILL timeout --foreground -k 5 "$timeout" \
		setpriv --pdeathsig KILL qemu-system-x86_64 \
		-M q35 -cpu "$cpu" -m "$mem" "${processor[@]}" \
		-nodefaults -nographic -no-user-config -no-reboot \
		-kernel "$host/vmlinuz" -initrd "$tmp/initrd" \
		-append "$cmdline" \
		-chardev "file,id=console,path=$console" -serial chardev:console \
		-device virtio-serial-pci \
		-chardev "file,id=output,path=$tmp/output" -device virtserialport,chardev=output,name=output \
		-chardev "file,id=status,path=$tmp/status" \
		-device virtserialport,chardev=status,name=status \
		-virtfs local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap \
		-virtfs "local,path=$out,mount_tag=out,security_model=none,multidevs=remap" \
		</dev/null 3>&- &
	qemu=$!
	echo $qemu >"$tmp/qemu"
	wait $qemu || ended=$?
	exec 3>&-
	wait $output
	if [ $ended = 124 ] || ! read -r status <"$tmp/status"; then
		[ $ended = 124 ] && status=124 || status=125
		[ "$console" != "$tmp/console" ] || mv "$console" "$repo/build/testbed/console.log"
		echo "testbed: ended without an exit status; its console is in" \
			"${console/#"$tmp/console"/$repo/build/testbed/console.log}:" >&2
		tail -n 12 "${console/#"$tmp/console"/$repo/build/testbed/console.log}" >&2
	fi
	exit "$status"
}

smp=2 mem=4096 timeout=1800 stall=0 deterministic=0 console=
verb=${1:-help}
[ $# = 0 ] || shift
while [ $# != 0 ]; do
	case $1 in
	--smp) smp=$2; shift ;;
	--mem) mem=$2; shift ;;
	--timeout) timeout=$2; shift ;;
	--stall) stall=$2; shift ;;
	--console) console=$2; shift ;;
	--deterministic) deterministic=1 ;;
	--) shift; break ;;
	*) break ;;
	esac
	shift
done

case $verb in
probe)
	probe
	;;
run)
	[ $# != 0 ] || die "run what?"
	run "$@"
	;;
exec)
	[ $# != 0 ] || die "exec what?"
	if mips=$(probe); then
		mkdir -p "$out"
		cd "$repo"
		MAYFLY_OUT=$out exec "$@"
	fi
	echo "testbed: /dev/kvm here runs ${mips:-no} million instructions a second: emulating" >&2
	run "$@"
	;;
*)
	sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
	exit 1
	;;
esac
