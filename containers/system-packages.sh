#!/bin/sh
# Installs the shared libraries that OpenCV and MediaPipe load, unless the machine has them.
set -eu
needed=""
for pair in libGL.so.1:libgl1 libglib-2.0.so.0:libglib2.0-0 libEGL.so.1:libegl1 libGLESv2.so.2:libgles2; do
    library=${pair%%:*}
    if ! { ldconfig -p 2>/dev/null || /sbin/ldconfig -p; } | grep -q "$library"; then
        needed="$needed ${pair#*:}"
    fi
done
[ -z "$needed" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq
    # shellcheck disable=SC2086  # one word per package
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $needed >/dev/null
else
    echo "hand1000: missing system libraries; install:$needed" >&2
fi
