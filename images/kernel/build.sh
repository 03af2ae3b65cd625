#!/bin/sh
# build.sh FLAVOUR OUTDIR : make OUTDIR/vmlinux-FLAVOUR and OUTDIR/bzImage-FLAVOUR.
#
# A kernel is Debian's linux-source and the patches here, everything off, plus common.config, plus
# FLAVOUR.config. The result is cached by a hash of these: the second call is instant.
#   smp  for any number of processors
#   up   for one, and the faster for it
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../lib.sh"
[ $# = 2 ] || die "usage: build.sh FLAVOUR OUTDIR"
flavour=$1
out=$2
source=linux-source-6.12
fragments="$here/common.config $here/$flavour.config"
[ -f "$here/$flavour.config" ] || die "no flavour '$flavour'"

# Only what an x86 kernel without PCI can ask for: a third of the bytes, and of the inodes.
unpack() {
	xz -T0 -dc "$1" | tar -x -C "$2" --strip-components=1 \
		--exclude='linux-source-*/Documentation/*/*' \
		--exclude='linux-source-*/arch/[!x]*/*.[chS]' \
		--exclude='linux-source-*/arch/[!x]*/*.dts*' \
		--exclude='linux-source-*/drivers/gpu/*.[ch]' \
		--exclude='linux-source-*/drivers/media/*.[ch]' \
		--exclude='linux-source-*/drivers/net/*/*.[ch]' \
		--exclude='linux-source-*/sound/*.[ch]' \
		--exclude='linux-source-*/tools/perf/*' \
		--exclude='linux-source-*/tools/testing/*'
}

# Kconfig drops what it cannot satisfy without a word: name it.
check_config() {
	for word in $(sed -n 's/^\(CONFIG_[A-Z0-9_]*=.*\)/\1/p' $fragments); do
		grep -qxF "$word" "$1" || echo "$word"
	done
	for word in $(sed -n 's/^# \(CONFIG_[A-Z0-9_]*\) is not set$/\1/p' $fragments); do
		! grep -q "^$word=" "$1" || echo "$word=n"
	done
}

build() {
	tree=$1/tree
	mkdir "$tree"
	root=$(deb_root $source)
	unpack "${root%/}/usr/src/$source.tar.xz" "$tree"
	for change in "$here"/*.patch; do
		patch -s -p1 -d "$tree" <"$change"
	done
	cat "$tree/kernel/configs/tiny-base.config" $fragments >"$1/wanted"

	# allnoconfig over a list is what tinyconfig itself is, with our list in place of its own.
	kmake="make -s -C $tree ARCH=x86 KBUILD_BUILD_USER=mayfly KBUILD_BUILD_HOST=mayfly"
	$kmake KCONFIG_ALLCONFIG="$1/wanted" allnoconfig
	refused=$(check_config "$tree/.config")
	[ -z "$refused" ] || die "Kconfig did not take:" $refused

	$kmake -j"$(nproc)" KBUILD_BUILD_TIMESTAMP='1970-01-01' bzImage
	strip -o "$1/vmlinux" "$tree/vmlinux"
	# Firecracker's way in, and the quickest: without the note there is no PVH entry.
	readelf -n "$1/vmlinux" | grep -q 'note type: (0x00000012)' || die "vmlinux has no PVH note"
	cp "$tree/arch/x86/boot/bzImage" "$1/bzImage"
	cp "$tree/.config" "$1/config"
	rm -rf "$tree" "$1/wanted"
}

version=$(installed_version $source)
version=${version:-$(available_version $source)}
key=$(echo "$version" | hash_of $fragments "$here"/*.patch "$here/build.sh" -)
dir=$(cached "kernel-$flavour-$key" build)
publish "$dir/vmlinux" "$out/vmlinux-$flavour"
publish "$dir/bzImage" "$out/bzImage-$flavour"
