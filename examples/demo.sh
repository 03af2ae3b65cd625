#!/bin/sh
# demo.sh MAYFLY IMAGES : boot a Linux microVM through the API, as a control plane would, with curl.
#
# IMAGES holds debian-vmlinuz and debian-initrd.cpio (images/initramfs/build.sh). Shows the requests,
# the guest's console, how long the boot took, and the exit status after the guest powered off.
set -eu
mayfly=$1
images=$2
dir=$(mktemp -d)
sock=$dir/api.sock
trap 'kill "$pid" 2>/dev/null || true; rm -rf "$dir"' EXIT

now_ms() { echo $(($(date +%s%N) / 1000000)); }

put() {
	printf '\n> PUT %s %s\n' "$1" "$2"
	curl -sS --fail-with-body --unix-socket "$sock" -X PUT "http://localhost$1" \
		-H 'Content-Type: application/json' -d "$2"
}

# The socket's name appears once it accepts; inotify would tell, a short wait is enough for a demo.
"$mayfly" --api-sock "$sock" >"$dir/console" 2>&1 </dev/null &
pid=$!
while [ ! -S "$sock" ]; do
	kill -0 "$pid" || { cat "$dir/console"; exit 1; }
	sleep 0.01
done

put /machine-config '{"vcpu_count": 2, "mem_size_mib": 256}'
put /boot-source "{\"kernel_image_path\": \"$images/debian-vmlinuz\",
  \"initrd_path\": \"$images/debian-initrd.cpio\",
  \"boot_args\": \"console=ttyS0 quiet reboot=k panic=1 mayfly.do=poweroff\"}"
put /entropy '{}'
began=$(now_ms)
put /actions '{"action_type": "InstanceStart"}'

echo
echo "--- log and console of the microVM ---"
tail -n +1 -f --pid="$pid" "$dir/console" | while IFS= read -r line; do
	printf '%s\n' "$line"
	case $line in
	*"mayfly guest: up"*)
		echo "    (user space $(($(now_ms) - began)) ms after InstanceStart)"
		;;
	esac
done
status=0
wait "$pid" || status=$?
echo "--- the guest is off; the monitor ended with status $status ---"
grep -q "mayfly guest: up" "$dir/console" || { echo "the guest did not come up"; exit 1; }
exit "$status"
