#!/bin/sh
# Installs the system packages that the tests talk to: as root on Debian by apt, elsewhere it says what to type.
set -eu

have() {
    PATH="$PATH:/usr/sbin:/usr/local/sbin" command -v "$1" >/dev/null
}

compiles() {
    printf '%s\n' "$1" | cc -E -o /dev/null - 2>/dev/null
}

missing=
have mosquitto || missing="$missing mosquitto"
have cc && compiles '#include <stdio.h>' || missing="$missing gcc libc6-dev"
have cc && compiles '#include <modbus/modbus.h>' || missing="$missing libmodbus-dev"
have mbpoll || missing="$missing mbpoll"
have node || missing="$missing nodejs"
have npm || missing="$missing npm"
have mkfs.ext4 || missing="$missing e2fsprogs"
have mkfs.xfs || missing="$missing xfsprogs"

if [ -n "$missing" ]; then
    if [ "$(id -u)" -ne 0 ] || ! have apt-get; then
        echo "The tests talk to programs that are not installed. On Debian or Ubuntu, type:" \
            "sudo apt-get update && sudo apt-get install -y --no-install-recommends$missing" >&2
        exit 1
    fi
    echo "==> Debian packages:$missing"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    # shellcheck disable=SC2086  # one word for each package
    apt-get install -y -qq -o DPkg::Lock::Timeout=120 --no-install-recommends $missing >/dev/null
fi

if ! node -e 'process.exit(Number(process.versions.node.split(".")[0]) >= 18 ? 0 : 1)'; then
    echo "The tests need Node.js 18 or newer; $(command -v node) is $(node --version)." >&2
    exit 1
fi
