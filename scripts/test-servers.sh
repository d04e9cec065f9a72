#!/bin/sh
# PostgreSQL, Redis, RabbitMQ and Prometheus for `make test-faults`, Chromium for `make test-slow`, from Debian's
# packages. The tests start private instances on free ports; the services that the packages would start are left off.
# Needs root.
set -eu
packages=""
ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || packages="$packages postgresql"
command -v redis-server >/dev/null 2>&1 || packages="$packages redis-server"
command -v rabbitmq-server >/dev/null 2>&1 || [ -x /usr/sbin/rabbitmq-server ] || packages="$packages rabbitmq-server"
command -v prometheus >/dev/null 2>&1 || packages="$packages prometheus"
command -v chromium-headless-shell >/dev/null 2>&1 || command -v chromium >/dev/null 2>&1 ||
    packages="$packages chromium-headless-shell"
[ -n "$packages" ] || exit 0
command="apt-get install -y --no-install-recommends$packages"
if ! command -v apt-get >/dev/null 2>&1 || [ "$(id -u)" != 0 ]; then
    echo "Servers for the tests are missing. Please run: sudo apt-get update && sudo $command" >&2
    exit 1
fi
# policy-rc.d answers 101: do not start services of packages that are being installed.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
    trap 'rm -f "$policy"' EXIT
fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 $command
