#!/bin/sh
# Installs the programs that the tests run, unless the machine has them: Chromium looks at the reports, and PostgreSQL is
# the database of an MLflow server; the fault suite compiles a small C library.
set -eu
needed=""
command -v cc >/dev/null || command -v gcc >/dev/null || needed="$needed gcc libc6-dev"
command -v chromium >/dev/null || needed="$needed chromium"
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || needed="$needed postgresql"
[ -z "$needed" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq
    # shellcheck disable=SC2086  # one word per package
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $needed >/dev/null
else
    echo "hand1000: the tests need these programs; install:$needed" >&2
fi
