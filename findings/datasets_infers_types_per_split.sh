#!/usr/bin/env bash
# datasets 5.2.0: an imagefolder's types are inferred from each split's metadata.jsonl alone.
#
# A column that is null in all lines of one split has the type null there, and `load_dataset` refuses the folder, although
# JSON has no other way to say "no value". An empty list, a missing column and whole numbers beside fractions fail alike.
# metadata.parquet states its types, and a column may be null throughout. Expected output:
#   null: ValueError
#   empty list: ValueError
#   whole numbers: ValueError
#   parquet: [0.1, 0.2] None
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "datasets==5.2.0" "pillow==12.3.0"
cat > "$folder/load.py" <<'PYTHON'
import json
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

datasets.disable_progress_bars()


def load(name, box, parquet=False):
    for split, value in (("train", [0.1, 0.2]), ("test", box)):
        folder = Path(name) / split
        folder.mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(folder / "a.png")
        row = {"file_name": "a.png", "bbox": value}
        if parquet:
            schema = pa.schema([("file_name", pa.string()), ("bbox", pa.list_(pa.float64()))])
            pq.write_table(pa.Table.from_pylist([row], schema=schema), folder / "metadata.parquet")
        else:
            (folder / "metadata.jsonl").write_text(json.dumps(row))
    try:
        loaded = datasets.load_dataset("imagefolder", data_dir=name)
        print(f"{name}: {loaded['train'][0]['bbox']} {loaded['test'][0]['bbox']}")
    except ValueError as error:
        print(f"{name}: {type(error).__name__}")


load("null", None)
load("empty list", [])
load("whole numbers", [0, 1])
load("parquet", None, parquet=True)
PYTHON
cd "$folder"
output=$(HF_HOME="$folder/hf" HF_HUB_OFFLINE=1 "$folder/venv/bin/python" load.py 2>/dev/null)
echo "$output"
test "$output" = "null: ValueError
empty list: ValueError
whole numbers: ValueError
parquet: [0.1, 0.2] None"
