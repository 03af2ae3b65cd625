#!/bin/sh
# build.sh OUTDIR : make OUTDIR/rootfs.ext4, a small root file system for a virtio block device.
#
# The same busybox and init as in the RAM disk, so the same mayfly.do= words. Needs no root: mke2fs
# fills the image itself. Copy it before giving it to a guest that may write.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../lib.sh"
[ $# = 1 ] || die "usage: build.sh OUTDIR"
out=$1
init=$here/../initramfs/init

build() {
	tree=$1/tree
	mkdir -p "$tree"
	cd "$tree"
	mkdir -p dev proc sys run tmp root etc mnt sbin
	busybox_into "$tree"
	cp "$init" sbin/init
	chmod 755 sbin/init
	chmod 1777 tmp
	echo 'root::0:0:root:/root:/bin/sh' >etc/passwd
	echo 'root:x:0:' >etc/group
	echo 'mayfly' >etc/hostname
	find . -exec touch -h -d @1 {} +
	# The image is the same, byte for byte, whenever and wherever it is made.
	E2FSPROGS_FAKE_TIME=1 mke2fs -q -t ext4 -d "$tree" -L mayfly -m 0 \
		-U 6d617966-6c79-4000-8000-726f6f746673 \
		-E root_owner=0:0,hash_seed=6d617966-6c79-4000-8000-726f6f746673 \
		"$1/rootfs.ext4" 32M
	rm -rf "$tree"
}

key=$(installed_version e2fsprogs | hash_of "$here/build.sh" "$init" "$here/../lib.sh" -)
dir=$(cached "rootfs-$key" build)
publish "$dir/rootfs.ext4" "$out/rootfs.ext4"
