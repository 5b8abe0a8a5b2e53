#!/bin/sh
# Makes the guest's kernel and first file system: build.sh OUT [PYTHON]
#
# Image               taken from $RINGMESH_LINUX_GUEST where there is one, else built from Debian's linux-source
# initramfs.cpio.gz   Debian's busybox-static for arm64 and our init; no root and no cross tools needed
#
# RINGMESH_LINUX_SOURCE: sources of one's own (a directory) in place of Debian's; then $RINGMESH_LINUX_GUEST is not asked.
set -eu

out=$1
python=${2:-python3}
here=$(cd "$(dirname "$0")" && pwd)
given=${RINGMESH_LINUX_GUEST:-$here/../../../shared/linux-guest}
source=${RINGMESH_LINUX_SOURCE:-}
package=linux-source-6.12
busybox_package=busybox-static

say() { echo "linux-guest: $*"; }
die() {
	echo "linux-guest: $*" >&2
	exit 1
}

mkdir -p "$out"
out=$(cd "$out" && pwd)
work=$out/work
mkdir -p "$work"

# Indices of the machine's own package sources for arm64, in a directory of ours: neither root nor a foreign
# architecture is needed for a download.
apt_arm64() {
	state=$work/apt
	mkdir -p "$state/lists/partial" "$state/cache/archives/partial"
	set -- -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Sandbox::User= \
		-o Dir::State::status=/dev/null -o Dir::State::lists="$state/lists" -o Dir::Cache="$state/cache" "$@"
	apt-get -qq "$@"
}

busybox() {
	if [ ! -x "$work/busybox" ] && command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null; then
		say "fetching $busybox_package for arm64"
		rm -f "$work"/busybox*.deb
		(cd "$work" && apt_arm64 update && apt_arm64 download "$busybox_package") &&
			dpkg-deb -x "$work"/busybox*.deb "$work/busybox.d" &&
			cp "$work/busybox.d/bin/busybox" "$work/busybox" || rm -f "$work/busybox"
		rm -rf "$work/apt" "$work/busybox.d"
	fi
	if [ -x "$work/busybox" ]; then
		busybox=$work/busybox
	elif [ -f "$given/initramfs.cpio.gz" ]; then
		busybox=$given/initramfs.cpio.gz
	else
		die "no static busybox for arm64: $busybox_package could not be fetched and $given has none"
	fi
}

kernel_sources() {
	if [ -n "$source" ]; then
		[ -f "$source/Kconfig" ] || die "RINGMESH_LINUX_SOURCE=$source: no kernel sources there"
		return
	fi
	source=$work/linux
	[ -f "$source/Kconfig" ] && return
	archive=/usr/src/$package.tar.xz
	if [ ! -f "$archive" ]; then
		say "fetching $package"
		rm -f "$work/$package"_*.deb
		(cd "$work" && apt-get -qq download "$package") ||
			die "no $package here: on Debian bookworm it comes from bookworm-security or bookworm-backports"
		dpkg-deb -x "$work/$package"_*.deb "$work/source.d"
		archive=$work/source.d/usr/src/$package.tar.xz
	fi
	say "unpacking $archive"
	rm -rf "$source.part" && mkdir "$source.part"
	tar -xJf "$archive" -C "$source.part" --strip-components=1
	mv "$source.part" "$source"
	rm -rf "$work/source.d" "$work/$package"_*.deb
}

kernel() {
	kernel_sources
	cross=${CROSS_COMPILE-aarch64-linux-gnu-}
	[ "$(uname -m)" = aarch64 ] && cross=${CROSS_COMPILE-}
	for tool in "${cross}gcc" make flex bison bc; do
		command -v "$tool" >/dev/null || die "no $tool: apt-get install gcc-aarch64-linux-gnu make flex bison bc libssl-dev"
	done
	build() { make -s -C "$source" O="$work/build" ARCH=arm64 CROSS_COMPILE="$cross" "$@"; }
	say "configuring; then the kernel is built, which takes some minutes"
	mkdir -p "$work/build"
	build tinyconfig
	"$source/scripts/kconfig/merge_config.sh" -m -O "$work/build" "$work/build/.config" "$here/kernel.config" >/dev/null
	build olddefconfig
	for option in ARM_SCMI_TRANSPORT_VIRTIO_ATOMIC_ENABLE ARM_SCMI_RAW_MODE_SUPPORT ARM_SCMI_DEBUG_COUNTERS; do
		grep -q "^CONFIG_$option=y" "$work/build/.config" || die "this kernel has no $option; 6.12 or newer is wanted"
	done
	build -j"$(nproc)" Image
	cp "$work/build/arch/arm64/boot/Image" "$out/Image"
}

busybox
(cd "$here/../.." && "$python" -m services.linux_guest.initramfs --busybox "$busybox" --out "$out/initramfs.cpio.gz")
say "made $out/initramfs.cpio.gz"

if [ -z "$source" ] && [ -f "$given/Image" ]; then
	[ "$given" -ef "$out" ] || cp "$given/Image" "$out/Image"
	say "took the kernel of $given"
else
	kernel
	say "made $out/Image"
fi
