#!/bin/sh
# build.sh OUTDIR : make the initial RAM disks, and the Debian kernel that one of them belongs to.
#
#   OUTDIR/initrd.cpio          for our kernels: busybox, init and load, no modules
#   OUTDIR/debian-vmlinuz       Debian's cloud kernel, as it comes
#   OUTDIR/debian-initrd.cpio   for it: the same with the modules it needs on this machine
#   OUTDIR/bench.cpio           one static program, for measuring boot time
#
# None is compressed: the monitor copies them into guest memory anyway, and unpacking is guest time.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../lib.sh"
[ $# = 1 ] || die "usage: build.sh OUTDIR"
out=$1
modules="virtio_mmio virtio_pci virtio_blk virtio_net virtio_rng virtio_balloon
	vmw_vsock_virtio_transport ext4 squashfs overlay"

build() {
	tree=$1/tree
	mkdir -p "$tree"
	cd "$tree"
	mkdir -p dev proc sys run tmp root etc newroot
	busybox_into "$tree"
	cp "$here/init" init
	chmod 755 init
	gcc -O2 -Wall -static -D_GNU_SOURCE -s -o bin/load "$here/load.c"
	cpio_of "$tree" >"$1/initrd.cpio"

	root=$(deb_root "linux-image-$kernel")
	add_modules "$root" "$kernel" "$tree/modules" $modules
	cpio_of "$tree" >"$1/debian-initrd.cpio"
	cp "${root%/}/boot/vmlinuz-$kernel" "$1/debian-vmlinuz"

	mkdir "$1/bench"
	mkdir "$1/bench/dev"
	gcc -O2 -Wall -static -D_GNU_SOURCE -s -o "$1/bench/init" "$here/bench.c"
	cpio_of "$1/bench" >"$1/bench.cpio"
	rm -rf "$tree" "$1/bench"
}

kernel=$(debian_kernel cloud-amd64)
version=$(available_version "linux-image-$kernel")
key=$(echo "$kernel $version" | hash_of "$here/build.sh" "$here/init" "$here/bench.c" "$here/load.c" \
	"$here/../lib.sh" -)
dir=$(cached "initramfs-$key" build)
for file in initrd.cpio debian-vmlinuz debian-initrd.cpio bench.cpio; do
	publish "$dir/$file" "$out/$file"
done
