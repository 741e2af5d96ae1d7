#!/bin/sh
# Prepare, in the folder given, a machine for QEMU: Debian's cloud kernel, and an initial file system with the
# interpreter that runs this and the parts of the project that keep things. Needs no root; the kernel is downloaded
# once and kept.
set -eu
folder=$1
python=$2
here=$(dirname "$0")

refuse() { echo "test-powercut: $*" >&2; exit 1; }
PATH=$PATH:/usr/sbin:/sbin
for tool in qemu-system-x86_64 mke2fs e2fsck debugfs ldd; do
    command -v "$tool" > /dev/null || refuse "needs $tool (Debian: apt install qemu-system-x86 e2fsprogs libc-bin)"
done

mkdir -p "$folder"
folder=$(realpath "$folder")
if [ ! -e "$folder/vmlinuz" ]; then
    for tool in apt-get apt-cache dpkg-deb; do
        command -v "$tool" > /dev/null || refuse "needs $tool to fetch a kernel; or put one with ext4 at $folder/vmlinuz and its virtio modules into $folder/modules"
    done
    echo "test-powercut: fetching Debian's cloud kernel, once"
    package=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image/ { print $2; exit }')
    [ -n "$package" ] || refuse "apt knows no linux-image-cloud-amd64; run: apt-get update"
    rm -rf "$folder/kernel" "$folder/modules"
    mkdir "$folder/kernel" "$folder/modules"
    (cd "$folder/kernel" && apt-get -qq -o APT::Sandbox::User="$(id -un)" download "$package" && dpkg-deb -x ./*.deb .) \
        || refuse "$package cannot be fetched"
    find "$folder/kernel" -name 'virtio*.ko*' -exec mv -t "$folder/modules" {} +
    find "$folder/modules" -name '*.xz' -exec xz -d {} +
    mv "$folder"/kernel/boot/vmlinuz-* "$folder/vmlinuz"
    rm -rf "$folder/kernel"
fi
"$python" "$here/stage.py" "$folder"
