#!/bin/sh
# Creates a virtual environment from lock files, whose hashes every downloaded file must match:
# sh tooling/setup.sh FOLDER LOCK... The environment variable PYTHON names the interpreter. uv installs if it is there.
set -eu
folder=$1
shift
suits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null; }

if ! suits "$folder/bin/python"; then
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
    "$python" -m venv "$folder" || {
        echo "hand1000: $python cannot make a virtual environment; install its package venv (python3-venv on Debian)" >&2
        exit 1
    }
fi

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
