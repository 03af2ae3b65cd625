#!/bin/sh
# demo.sh MAYFLY IMAGES LOAD : boot a Linux microVM through the API, as a control plane would, with
# curl. The guest talks to the host over a tap and over vsock, then switches itself off.
#
# IMAGES holds debian-vmlinuz, debian-initrd.cpio (images/initramfs/build.sh); LOAD is what guests
# find as /bin/load, for the host's end of the line. Shows the requests, the guest's console, how
# long the boot took, what both ends saw of each other, and how the monitor ended.
#
# The tap is in a network namespace that ends with the demo, so nothing is left of it. Where the
# host lets nobody make one, the guest gets no network card, and the demo says so.
set -eu
mayfly=$1
images=$2
load=$3

make_tap() {
	ip tuntap add tap0 mode tap && ip addr add 10.0.0.1/30 dev tap0 && ip link set tap0 up
}

# All the rest runs in the namespace; the API and vsock are Unix sockets, which do not mind.
case ${MAYFLY_DEMO:-outside} in
outside)
	for how in --net "--map-root-user --net"; do
		if why=$(MAYFLY_DEMO=probe unshare $how "$0" "$@" 2>&1); then
			MAYFLY_DEMO=inside exec unshare $how "$0" "$@"
		fi
	done
	network=
	echo "no network card in this demo; a tap cannot be made: $(echo "$why" | tail -n 1)"
	;;
probe)
	make_tap
	exit
	;;
inside)
	make_tap
	network=yes
	;;
esac

dir=$(mktemp -d)
sock=$dir/api.sock
vsock=$dir/vsock
bytes=4194304
pids=
trap 'kill $pids 2>/dev/null || true; rm -rf "$dir"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

now_ms() { echo $(($(date +%s%N) / 1000000)); }

put() {
	printf '\n> PUT %s %s\n' "$1" "$2"
	curl -sS --fail-with-body --unix-socket "$sock" -X PUT "http://localhost$1" \
		-H 'Content-Type: application/json' -d "$2"
}

# What the guest does; "load" is its and the host's program for talking (images/initramfs/load.c).
guest_script() {
	echo "set -e"
	[ -z "$network" ] || cat <<-END
		ip addr add 10.0.0.2/30 dev eth0
		ip link set eth0 up
		echo "--> ping to the host"
		ping -c 3 -w 30 10.0.0.1
		echo "--> $bytes bytes over TCP to the host"
		load tcp:10.0.0.1:7000 send $bytes
	END
	cat <<-END
		echo "--> 100 messages over vsock to the host and back"
		load vsock:2:7001 ping 100
	END
}

# The host's ends. Guests reach port 7001 of the host as the Unix socket with _7001 in its name.
if [ -n "$network" ]; then
	"$load" @tcp:10.0.0.1:7000 sink >"$dir/tcp" &
	pids="$pids $!"
fi
"$load" "@unix:${vsock}_7001" echo >/dev/null &
pids="$pids $!"

# The socket's name appears once it accepts; inotify would tell, a short wait is enough for a demo.
"$mayfly" --api-sock "$sock" >"$dir/console" 2>&1 </dev/null &
pid=$!
pids="$pids $pid"
while [ ! -S "$sock" ]; do
	kill -0 "$pid" || { cat "$dir/console"; exit 1; }
	sleep 0.01
done

printf '\n--- what the guest is to do ---\n'
guest_script
put /machine-config '{"vcpu_count": 2, "mem_size_mib": 256}'
put /boot-source "{\"kernel_image_path\": \"$images/debian-vmlinuz\",
  \"initrd_path\": \"$images/debian-initrd.cpio\",
  \"boot_args\": \"console=ttyS0 quiet reboot=k panic=1 mayfly.do=sh:$(guest_script | base64 -w 0)\"}"
[ -z "$network" ] || put /network-interfaces/eth0 '{"iface_id": "eth0", "host_dev_name": "tap0"}'
put /vsock "{\"guest_cid\": 3, \"uds_path\": \"$vsock\"}"
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
seen() { grep -q "$1" "$dir/console" || { echo "the guest did not $2"; exit 1; }; }
seen "mayfly guest: up" "come up"
seen "mayfly guest: done 0" "reach the host"
if [ -n "$network" ]; then
	crc=$(sed -n 's/^crc=//p' "$dir/tcp")
	echo "the host received $(sed -n 's/^bytes=//p' "$dir/tcp") bytes over TCP, checksum $crc"
	seen "^crc=$crc" "send the bytes that came"
fi
exit "$status"
