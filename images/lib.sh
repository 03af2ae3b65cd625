# Sourced by the build scripts: the cache, and Debian packages unpacked without installing them.
#
# Everything that takes time is made once, in the cache, under a name that holds a hash of all that
# went into it; so a name that exists is finished and never changes.

cache=${MAYFLY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mayfly}
mkdir -p "$cache"

die() {
	echo "${0##*/}: $*" >&2
	exit 1
}

# hash_of FILE... : a short name for the contents of the files (and of standard input, if "-").
hash_of() {
	cat "$@" | sha256sum | cut -c1-16
}

# cached NAME FUNCTION... : print the path of NAME in the cache; if it is not there, have FUNCTION
# fill a new directory (its last argument) for it. One maker at a time; a failure leaves nothing.
# Not to be called where the shell ignores failures (before || or &&, in a condition).
cached() (
	set -eu
	name=$1
	shift
	if [ ! -e "$cache/$name" ]; then
		exec 9>"$cache/$name.lock"
		flock 9
		if [ ! -e "$cache/$name" ]; then
			new=$(mktemp -d "$cache/tmp.XXXXXX")
			trap 'rm -rf "$new"' EXIT
			chmod 755 "$new"
			"$@" "$new" >&2
			mv "$new" "$cache/$name"
		fi
		rm -f "$cache/$name.lock"
	fi
	echo "$cache/$name"
)

# publish SOURCE TARGET : a copy; a link would let whoever writes to TARGET change the cache.
publish() {
	mkdir -p "$(dirname "$2")"
	cp --reflink=auto --sparse=always --remove-destination "$1" "$2"
}

installed_version() {
	dpkg-query -W -f '${db:Status-Status} ${Version}\n' "$1" 2>/dev/null | sed -n 's/^installed //p'
}

available_version() {
	apt-cache show --no-all-versions "$1" 2>/dev/null | sed -n 's/^Version: //p' | head -n 1
}

download() (
	cd "$2"
	# The sandbox user of apt may not write here; packages are verified all the same.
	if [ "$(id -u)" = 0 ]; then
		apt-get -q -o APT::Sandbox::User=root download "$1"
	else
		apt-get -q download "$1"
	fi
	dpkg-deb -x ./*.deb .
	rm -f ./*.deb
	for version in lib/modules/*; do
		[ ! -d "$version" ] || depmod -b . "${version##*/}"
	done
)

# deb_root PACKAGE : print a directory below which the files of PACKAGE are: / where the package is
# installed, else an unpacked copy in the cache. Nothing is ever installed, least of all a kernel,
# which would rewrite the boot loader of the machine.
deb_root() {
	if [ -n "$(installed_version "$1")" ]; then
		echo /
	else
		deb_version=$(available_version "$1")
		[ -n "$deb_version" ] || die "package $1 is neither installed nor known to apt"
		cached "deb-$1-$deb_version" download "$1"
	fi
}

# debian_kernel FLAVOUR : the version (as of uname -r) of Debian's current kernel of that flavour.
debian_kernel() {
	dk_version=$(apt-cache depends "linux-image-$1" |
		sed -n "s/.*Depends: linux-image-\(.*-$1\).*/\1/p" | head -n 1)
	[ -n "$dk_version" ] || die "apt knows no linux-image-$1"
	echo "$dk_version"
}

# add_modules ROOT VERSION DIR MODULE... : copy kernel modules and what they depend on into DIR and
# list them, in an order in which they can be loaded, in DIR/list. Which are built in, and who needs
# whom, changes from one kernel package to the next: ask modprobe, wire nothing.
add_modules() {
	am_root=$1 am_version=$2 am_dir=$3
	shift 3
	mkdir -p "$am_dir"
	: >"$am_dir/order"
	for am_module in "$@"; do
		modprobe -d "$am_root" -S "$am_version" --show-depends "$am_module" \
			>>"$am_dir/order" || die "kernel $am_version has no module $am_module"
	done
	while read -r am_verb am_path am_rest; do
		[ "$am_verb" = insmod ] || continue
		am_name=${am_path##*/}
		am_name=${am_name%.xz}
		[ ! -e "$am_dir/$am_name" ] || continue
		case $am_path in
		*.xz) xz -dc "$am_path" >"$am_dir/$am_name" ;;
		*) cp "$am_path" "$am_dir/" ;;
		esac
		echo "$am_name" >>"$am_dir/list"
	done <"$am_dir/order"
	rm "$am_dir/order"
}

# busybox_into DIR : busybox under the names of all its commands in DIR/bin.
busybox_into() {
	bb_root=$(deb_root busybox-static)
	mkdir -p "$1/bin"
	cp "${bb_root%/}/bin/busybox" "$1/bin/busybox"
	for bb_name in $("$1/bin/busybox" --list); do
		[ "$bb_name" = busybox ] || ln -s busybox "$1/bin/$bb_name"
	done
}

# cpio_of DIR : an initial RAM disk of DIR on standard output, the same bytes for the same contents.
cpio_of() {
	find "$1" -exec touch -h -d @1 {} +
	(cd "$1" && find . -mindepth 1 | LC_ALL=C sort |
		cpio -o -H newc -R 0:0 --reproducible --quiet)
}
