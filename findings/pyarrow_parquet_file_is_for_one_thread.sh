#!/usr/bin/env bash
# pyarrow 25.0.1: two threads that read row groups of one ParquetFile disturb each other.
#
# The documentation does not say that a ParquetFile belongs to one thread. Concurrent calls of read_row_group now and then
# raise "ReadRangeCache did not find matching cache entry", or crash the process. A ParquetFile of its own for each read is
# safe; with the metadata of the first, the footer is not read again. Expected output:
#   shared: failed
#   own: ok
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "pyarrow==25.0.1"
cat > "$folder/read.py" <<'PYTHON'
import sys
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq

rows = [{"image": {"bytes": bytes([index]) * 2000, "path": "x"}} for index in range(6)]
pq.write_table(pa.Table.from_pylist(rows), "images.parquet", row_group_size=2)
for _ in range(200):
    shared = pq.ParquetFile("images.parquet")

    def read(group):
        own = pq.ParquetFile("images.parquet", metadata=shared.metadata)
        return (shared if sys.argv[1] == "shared" else own).read_row_group(group, columns=["image.bytes"])

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(read, [0, 1, 2] * 8))
PYTHON
cd "$folder"
try() {
    for _ in $(seq 40); do
        "$folder/venv/bin/python" read.py "$1" >/dev/null 2>&1 || { echo "$1: failed"; return; }
    done
    echo "$1: ok"
}
output=$(try shared 2>/dev/null; try own)
echo "$output"
test "$output" = "shared: failed
own: ok"
