#!/bin/sh
# System libraries that Open3D loads (libusb-1.0, libGL, libEGL, libX11) and, with --dev, Node.js, which
# the tests use to run the Khronos glTF validator. Installs what is missing where it may (root on Debian
# or Ubuntu); otherwise says the exact command. Does nothing when all is there, or not on Linux.
set -eu
[ "$(uname -s)" = Linux ] || exit 0

has_library() {
    # ldconfig knows the system's folders; some distributions keep it off a user's PATH.
    PATH="$PATH:/sbin:/usr/sbin" ldconfig -p 2>/dev/null | grep -q "$1"
}

missing=""
has_library 'libusb-1\.0\.so\.0' || missing="$missing libusb-1.0-0"
has_library 'libGL\.so\.1' || missing="$missing libgl1"
has_library 'libEGL\.so\.1' || missing="$missing libegl1"
has_library 'libX11\.so\.6' || missing="$missing libx11-6"
if [ "${1:-}" = --dev ]; then
    command -v node >/dev/null 2>&1 || missing="$missing nodejs"
    command -v npm >/dev/null 2>&1 || missing="$missing npm"
fi
[ -n "$missing" ] || exit 0

command="apt-get install -y --no-install-recommends$missing"
if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
    echo "Installing system packages:$missing"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive $command
elif command -v apt-get >/dev/null 2>&1; then
    echo "System packages are missing. Please run this, then the same make command again:" >&2
    echo "    sudo apt-get update && sudo $command" >&2
    exit 1
else
    echo "System packages are missing (Debian names):$missing" >&2
    echo "Please install them with your package manager; on Fedora:" >&2
    echo "    sudo dnf install libusb1 mesa-libGL mesa-libEGL libX11 nodejs npm" >&2
    exit 1
fi
