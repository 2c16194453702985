#!/usr/bin/env bash
# datasets 5.2.0: an imagefolder leaves out an image that no line of its metadata names, without a word.
#
# The reverse, a line without an image, fails, but only when the row is decoded. Whoever adds an image and forgets its line
# trains on fewer images than the folder has. Expected output:
#   2 images, 1 rows
#   FileNotFoundError
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "datasets==5.2.0" "pillow==12.3.0"
cat > "$folder/load.py" <<'PYTHON'
from pathlib import Path

import datasets
from PIL import Image

datasets.disable_progress_bars()
for name, images, lines in (("image", "ab", "a"), ("line", "a", "ab")):
    Path(name).mkdir()
    for image in images:
        Image.new("RGB", (8, 8)).save(f"{name}/{image}.png")
    rows = "\n".join(f'{{"file_name": "{line}.png", "text": "x"}}' for line in lines)
    Path(f"{name}/metadata.jsonl").write_text(rows)
    try:
        loaded = datasets.load_dataset("imagefolder", data_dir=name, split="train")
        list(loaded)
        print(f"{len(images)} images, {len(loaded)} rows")
    except Exception as error:
        cause = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        print(type(cause).__name__)
PYTHON
cd "$folder"
output=$(HF_HOME="$folder/hf" HF_HUB_OFFLINE=1 "$folder/venv/bin/python" load.py 2>/dev/null)
echo "$output"
test "$output" = "2 images, 1 rows
FileNotFoundError"
