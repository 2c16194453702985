#!/usr/bin/env bash
# tarfile of Python 3.11 to 3.13: a header that is cut short or damaged ends an archive, without a word.
#
# Only the first header must be intact, and data that is cut short is an error. So a webdataset shard whose download
# stopped within a header, of which one bit changed, or which was joined of two, is read up to there. Expected output:
#   whole: 3 members
#   cut within the third header: 2 members
#   one bit of the second header: 1 members
#   two archives in one file: 3 members
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/read.py" <<'PYTHON'
import io
import tarfile

buffer = io.BytesIO()
with tarfile.open(fileobj=buffer, mode="w") as tar:
    for name in "abc":
        info = tarfile.TarInfo(name)
        info.size = 512
        tar.addfile(info, io.BytesIO(bytes(512)))
whole = buffer.getvalue()
damaged = bytearray(whole)
damaged[1024] ^= 1
for title, data in (
    ("whole", whole),
    ("cut within the third header", whole[: 2 * 1024 + 100]),
    ("one bit of the second header", bytes(damaged)),
    ("two archives in one file", whole + whole),
):
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        print(f"{title}: {len(tar.getmembers())} members")
PYTHON
output=$(python3 "$folder/read.py")
echo "$output"
test "$output" = "whole: 3 members
cut within the third header: 2 members
one bit of the second header: 1 members
two archives in one file: 3 members"
