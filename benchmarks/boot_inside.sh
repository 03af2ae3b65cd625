#!/bin/sh
# boot_inside.sh RUNS IMAGES [NAME]... : the part of boot.py that runs in the testbed. Starts each
# monitor in turn with the same kernel and RAM disk; prints `== NAME` and the samples of drive.
#
# Everything that is started or read lies in memory and was used once before the first run that
# counts: else the clock would show how quick the file system of the machine outside is.
set -eu
runs=$1 images=$2
shift 2
build=${MAYFLY_BUILD:-$PWD/build}
bench=$build/bench
dir=/run/bench
mkdir -p $dir
mount -t tmpfs bench $dir

# The root file system is an overlay with its upper layer in memory: a file that was replaced is there.
into_memory() {
	for file; do
		file=$(readlink -f "$file")
		[ ! -f "$file" ] || { cp -p "$file" "$file.new" && mv -f "$file.new" "$file"; }
	done
}
into_memory /etc/localtime /etc/ld.so.cache
if qemu=$(command -v qemu-system-x86_64); then
	into_memory "$qemu" /usr/share/qemu/*.bin /usr/share/qemu/*.rom /usr/share/seabios/* \
		/usr/lib/x86_64-linux-gnu/qemu/* \
		$(ldd "$qemu" | sed -n 's/.*=> \(\/[^ ]*\).*/\1/p')
fi
cp "${MAYFLY_BIN:-$build/mayfly}" $dir/mayfly
cp "$bench/drive" "$images/vmlinux-up" "$images/bench.cpio" $dir/
cd $dir

# As most servers have it: huge pages for those who ask. QEMU always asks.
echo madvise >/sys/kernel/mm/transparent_hugepage/enabled

# One command line for all. acpi=off because QEMU's microvm without its own firmware tables has none;
# mitigations=off is the guest's own decision, said beside the result.
args="console=ttyS0 quiet reboot=k panic=1 8250.nr_uarts=1 no_timer_check tsc=reliable"
args="$args cryptomgr.notests mitigations=off acpi=off i8042.noaux i8042.nomux i8042.dumbkbd ${MAYFLY_ARGS:-}"
boot="{\"kernel_image_path\":\"$dir/vmlinux-up\",\"initrd_path\":\"$dir/bench.cpio\",\"boot_args\":\"$args\"}"

# The same with the tables that mayfly gives a guest which is not told to ignore them.
boot_acpi=$(echo "$boot" | sed 's/ acpi=off//')

mayfly_file() {
	machine="{\"vcpu_count\":1,\"mem_size_mib\":128$2}"
	echo "{\"boot-source\":$1,\"machine-config\":$machine,\"drives\":[]}" >machine.json
	./drive -m mayfly-init -- ./mayfly --no-api --config-file machine.json --level Error
}

# Each a way to bring the machine up; the word after it is how.
one() {
	case $1 in
	mayfly) mayfly_file "$boot" '' ;;
	mayfly-4k) mayfly_file "$boot" ',"huge_pages":"None"' ;;
	mayfly-thp) mayfly_file "$boot" ',"huge_pages":"Transparent"' ;;
	mayfly-acpi) mayfly_file "$boot_acpi" '' ;;
	mayfly-api | firecracker)
		[ "$1" = firecracker ] || set -- ./mayfly
		./drive -m mayfly-init -a $dir/api.sock -p "/boot-source $boot" \
			-p '/machine-config {"vcpu_count":1,"mem_size_mib":128}' \
			-p '/actions {"action_type":"InstanceStart"}' -- \
			"$1" --api-sock $dir/api.sock --level Error
		;;
	qemu)
		./drive -m mayfly-init -- "$qemu" -M \
		microvm,accel=kvm,x-option-roms=off,rtc=off,acpi=off,pit=off,pic=off,isa-serial=on \
			-cpu host -smp 1 -m 128 -nodefaults -no-user-config -nographic -no-reboot \
			-serial stdio -kernel vmlinux-up -initrd bench.cpio -append "$args"
		;;
	lkvm)
		./drive -m mayfly-init -- lkvm run -c 1 -m 128 -k vmlinux-up -i bench.cpio -p "$args"
		;;
	esac
}

echo "args $args"
echo "host $(uname -r)"
echo "thp $(cat /sys/kernel/mm/transparent_hugepage/enabled)"
for name; do
	one "$name" >/dev/null
done
while [ "$runs" != 0 ]; do
	for name; do
		echo "== $name"
		one "$name"
	done
	runs=$((runs - 1))
done
