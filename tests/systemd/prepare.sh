#!/bin/sh
# Prepare, in the folder given, a small Debian with systemd into which `make install` has put the service.
# Made once and kept; only the service is installed anew. Needs root, debootstrap and systemd-nspawn.
set -eu
folder=$1
root=$folder/root

refuse() { echo "test-systemd: $*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || refuse "needs root, for debootstrap and systemd-nspawn"
for tool in debootstrap systemd-nspawn nsenter unshare; do
    command -v "$tool" > /dev/null || refuse "needs $tool (Debian: apt install debootstrap systemd-container util-linux)"
done

if [ ! -e "$folder/ready" ]; then
    rm -rf "$root"
    mkdir -p "$folder"
    echo "test-systemd: building a Debian in $root, once"
    debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,python3,libpam-systemd \
        bookworm "$root" "${DEBIAN_MIRROR:-http://deb.debian.org/debian}" > "$folder/debootstrap.log" 2>&1 \
        || refuse "debootstrap failed; see $folder/debootstrap.log"
    touch "$folder/ready"
fi
make --no-print-directory install DESTDIR="$(realpath "$root")"
