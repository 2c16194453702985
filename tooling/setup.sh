#!/bin/sh
# Creates a virtual environment from lock files, whose hashes every downloaded file must match:
# sh tooling/setup.sh FOLDER LOCK... The environment variable PYTHON names the interpreter, EDITABLE a package that is installed
# last, from its folder, with the locked setuptools. uv installs, from PyPI if it is not there. `sh tooling/setup.sh --check FOLDER`
# prints a line if the environment has another Python than it needs.
set -eu
suits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' >/dev/null 2>&1; }
version() { "$1" -c 'import sys; print(*sys.version_info[:2], sep=".")' 2>/dev/null || true; }
fits() { suits "$1/bin/python" && { [ -z "${PYTHON:-}" ] || [ "$(version "$1/bin/python")" = "$(version "$PYTHON")" ]; }; }

if [ "$1" = --check ]; then
    [ ! -d "$2" ] || fits "$2" || echo "$2 has another Python"
    exit
fi
folder=$1
shift
if ! fits "$folder"; then
    python=
    for candidate in ${PYTHON:-python3.11 python3.12 python3 python}; do
        if suits "$candidate"; then python=$candidate && break; fi
    done
    if [ -z "$python" ]; then
        echo "hand1000: needs Python 3.11 or 3.12, found ${PYTHON:-$(python3 --version 2>&1)}; install one," \
            "or name it: make setup PYTHON=/path/to/python3.11" >&2
        exit 1
    fi
    # An environment of another Python would fail again.
    rm -rf "$folder"
    echo "hand1000: $folder: Python $(version "$python")" >&2
    "$python" -m venv "$folder" || {
        echo "hand1000: $python cannot make a virtual environment; install its package venv (python3-venv on Debian)" >&2
        exit 1
    }
fi

if grep -q '^mediapipe==' "$@"; then sh containers/system-packages.sh; fi

# Without uv, the environment gets one; where that fails, pip installs the rest as well.
if ! command -v uv >/dev/null && grep -q '^torch==' "$@"; then
    "$folder/bin/python" -m pip install --quiet --no-deps --require-hashes --requirement tooling/uv.lock 2>/dev/null &&
        PATH="$(cd "$folder/bin" && pwd):$PATH"
fi
echo "hand1000: $folder: installing $(cat "$@" | grep -c '==') packages, some of them large" >&2
if command -v uv >/dev/null; then
    # uv does not read pip's variables. Hashes make it safe to take a file from any of the indexes.
    export UV_INDEX_STRATEGY=unsafe-best-match UV_PYTHON="$folder/bin/python" UV_HTTP_TIMEOUT=180
    export UV_EXTRA_INDEX_URL="${UV_EXTRA_INDEX_URL:-${PIP_EXTRA_INDEX_URL:-}}"
    export UV_FIND_LINKS="${UV_FIND_LINKS:-$(echo "${PIP_FIND_LINKS:-}" | tr ' ' ,)}"
    install() { uv pip install --quiet --no-deps "$@"; }
else
    install() { "$folder/bin/python" -m pip install --quiet --no-compile --no-deps "$@"; }
fi

# Linux gets the CPU's build of torch where an index or a folder of pip has it (PIP_EXTRA_INDEX_URL, PIP_FIND_LINKS), else
# PyPI's, with CUDA. pip prefers a file whose hash is in the index, so the CPU's build is asked for by name.
torch=none
if grep -q '^torch==' "$@"; then
    torch=pypi
    if [ "$(uname -sm)" = "Linux x86_64" ]; then
        torch=cuda
        if message=$(install --require-hashes --requirement containers/torch-cpu.lock 2>&1); then
            torch=cpu
        elif echo "$message" | grep -qi 'hash'; then
            echo "$message" >&2
            exit 1
        fi
    fi
fi
for lock in "$@"; do
    install --require-hashes --requirement "$lock"
done
[ $torch != cuda ] || install --require-hashes --requirement containers/cuda.lock
# `editable_mode=compat` lets type checkers see the package.
[ -z "${EDITABLE:-}" ] || install --no-build-isolation --config-settings editable_mode=compat --editable "$EDITABLE"
