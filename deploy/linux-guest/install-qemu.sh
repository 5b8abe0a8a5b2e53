#!/bin/sh
# QEMU 8.1 or newer for Arm, which has vhost-user-scmi: nothing to do where it is there already, else Debian's package,
# from backports where the release's own is too old. Needs root for that.
set -eu

new_enough() {
	version=$(qemu-system-aarch64 --version 2>/dev/null | sed -n 's/.*version \([0-9]*\)\.\([0-9]*\).*/\1 \2/p')
	[ -n "$version" ] && { [ "${version% *}" -gt 8 ] || { [ "${version% *}" -eq 8 ] && [ "${version#* }" -ge 1 ]; }; }
}

new_enough && exit 0
. /etc/os-release
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
	echo "QEMU 8.1 or newer is needed: install qemu-system-arm (on Debian bookworm from bookworm-backports)" >&2
	exit 1
fi
# the mirror that the machine uses for its release has the backports as well
mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' |
	awk '$2 == "bookworm" { print $1; exit }')
if [ "${VERSION_CODENAME:-}" = bookworm ] && [ -n "$mirror" ]; then
	cat >/etc/apt/sources.list.d/bookworm-backports.sources <<-END
		Types: deb
		URIs: $mirror
		Suites: bookworm-backports
		Components: main
		Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
	END
	release="-t bookworm-backports"
fi
apt-get -qq update
# shellcheck disable=SC2086  # none or two words
apt-get -qq install -y --no-install-recommends ${release:-} qemu-system-arm
new_enough || { echo "QEMU is still too old: $(qemu-system-aarch64 --version | head -n 1)" >&2; exit 1; }
