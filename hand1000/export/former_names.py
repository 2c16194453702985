"""Files and names by which transformers 4 finds a tokenizer and a text encoder that transformers 5 saved.

Without `vocab.json` and `merges.txt` version 4 raises a TypeError. Weights without the prefix `text_model.` it does not
find, and initializes them at random with a warning. Version 5 reads both forms.
"""

import json
from pathlib import Path

from safetensors.torch import load_file, save_file

from hand1000.storage.files import read_json

PREFIX = "text_model."


def write_tokenizer_files(folder: Path) -> None:
    """Write `vocab.json` and `merges.txt` beside the `tokenizer.json` of CLIP or Qwen in `folder`."""
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    if "merges" not in model:  # T5 has no such files
        return
    (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False))
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")


def add_text_model_prefix(folder: Path) -> None:
    """Rename the weights of the text encoder of CLIP in `folder`, in its `model.safetensors`.

    An encoder with a projection has the prefix in both versions, and a language model has none.
    """
    if not read_json(folder / "config.json")["model_type"].startswith("clip"):
        return
    path = folder / "model.safetensors"
    weights = load_file(path)
    if "text_projection.weight" in weights:
        return
    weights = {PREFIX + name.removeprefix(PREFIX): value for name, value in weights.items()}
    save_file(weights, path, metadata={"format": "pt"})
