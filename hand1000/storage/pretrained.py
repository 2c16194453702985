"""Loading of diffusers' and transformers' models and tokenizers from folders: the one place that calls their loaders.

The code of a model's folder is never run and never asked about, pickles are never read, and the network is not used.
"""

import inspect
import logging
import math
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hand1000.core.errors import Hand1000Error, translate_load_errors
from hand1000.storage.files import read_json
from hand1000.storage.weights import BUFFERS, check_weights, find_weights, require_complete

_MAX_LAYERS, _MAX_INTEGER, _MAX_LENGTH = 1024, 2**24, 4096
"""Bounds of layer counts, other integers and lists in a configuration, far above those of any model that is loaded."""

_LAYER_COUNT = re.compile(r"layers?(_per_block)?$|depth$")
_LOGGERS = ("transformers.modeling_utils", "diffusers.models.modeling_utils")


def load_model(
    model_class: Any, folder: Path, kind: str, *, may_lack: str = "$^", ignored: str = "$^", **options: Any
) -> Any:
    """Load a model of diffusers or transformers, in evaluation mode, with exactly the tensors of its files.

    Args:
        model_class: Class with `from_pretrained`.
        folder: Folder with `config.json` and safetensors files.
        kind: What the model is, for errors.
        may_lack: Pattern of the names of tensors that the model does not need.
        ignored: Pattern of the names of tensors in the files that belong to another part.
        options: Further arguments of `from_pretrained`, such as `torch_dtype`.

    Raises:
        Hand1000Error: A file is missing or malformed; a tensor is missing, unexpected, of another shape or type or not
            finite; or the configuration is not one of this class.
    """
    if not folder.is_dir():
        raise Hand1000Error(f"{folder}: cannot be loaded as {kind}: no such folder")
    if (folder / "adapter_config.json").exists():
        raise Hand1000Error(f"{folder}: cannot be loaded as {kind}: it holds an adapter; merge it into its base model")
    if not (folder / "config.json").exists():
        raise Hand1000Error(
            f"{folder}: cannot be loaded as {kind}: it has no config.json; choose the model's own folder"
        )
    _check_types(folder / "config.json", model_class)
    for path in find_weights(folder, kind):
        check_weights(path, getattr(model_class, "_keep_in_fp32_modules", None) or ())
    with translate_load_errors(str(folder), kind), _without_reports():
        model, info = model_class.from_pretrained(
            folder,
            trust_remote_code=False,
            use_safetensors=True,
            local_files_only=True,
            ignore_mismatched_sizes=_reports_shapes(model_class),
            output_loading_info=True,
            **options,
        )
        if messages := info["error_msgs"]:
            raise ValueError(messages[0])
    missing = [name for name in info["missing_keys"] if not re.search(may_lack, name)]
    unexpected = [name for name in info["unexpected_keys"] if not re.search(ignored, name) and not BUFFERS.search(name)]
    require_complete(str(folder), kind, missing, unexpected, info["mismatched_keys"])
    return model.eval()


def load_part(part_class: Any, folder: Path, kind: str, **options: Any) -> Any:
    """Load a tokenizer or an image processor, as `kind`, from a folder.

    Raises:
        Hand1000Error: A file is missing or malformed.
    """
    if not folder.is_dir():
        raise Hand1000Error(f"{folder}: cannot be loaded as {kind}: no such folder")
    # Without local_files_only, which a tokenizer would save in its configuration: a folder needs no network.
    with translate_load_errors(str(folder), kind):
        return part_class.from_pretrained(folder, trust_remote_code=False, **options)


def check_vocabulary(tokenizer: Any, embedding: Any, source: str) -> None:
    """Raise a Hand1000Error if a tokenizer has tokens that the `embedding` of its model does not have."""
    largest, words = max(tokenizer.get_vocab().values(), default=-1), embedding.num_embeddings
    if largest >= words:
        raise Hand1000Error(
            f"{source}: the tokenizer has token {largest}, but the model reads {words} tokens; restore the tokenizer "
            "of this model"
        )


def check_config(path: Path) -> Mapping[str, Any]:
    """Read a `config.json` and check that it cannot make a library build a model without bounds.

    Raises:
        Hand1000Error: The file is missing or malformed, or a number in it is out of range.
    """
    config = read_json(path)
    if not isinstance(config, dict):
        raise Hand1000Error(f"{path}: not a JSON object; restore it from a copy")
    try:
        _check_numbers(path, "", config)
    except RecursionError:
        raise Hand1000Error(f"{path}: nested too deeply; restore it from a copy") from None
    return config


def _check_types(path: Path, model_class: Any) -> None:
    """Check a configuration of a diffusers class, which takes values of any type and fails when it is used."""
    config = check_config(path)
    if not hasattr(model_class, "register_to_config"):
        return
    for name, parameter in inspect.signature(model_class.__init__).parameters.items():
        value, default = config.get(name), parameter.default
        kinds = (int, float) if type(default) in (int, float) else (type(default),)
        if value is None or default is None or not isinstance(default, bool | int | float | str):
            continue
        if isinstance(value, list) and re.search("tuple|list", str(parameter.annotation), re.IGNORECASE):
            continue
        if type(value) not in kinds:
            raise Hand1000Error(f"{path}: {name} is {value!r:.60}, not like {default!r:.40}; restore it from a copy")


def _check_numbers(path: Path, name: str, value: object) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _check_numbers(path, str(key), item)
    elif isinstance(value, list):
        if len(value) > _MAX_LENGTH:
            raise Hand1000Error(f"{path}: {name[:60]} has {len(value)} entries; restore the file from a copy")
        for item in value:
            _check_numbers(path, name, item)
    elif isinstance(value, float) and not math.isfinite(value):
        raise Hand1000Error(f"{path}: {name[:60]} is {value}; restore the file from a copy")
    elif isinstance(value, int) and name != "seed" and "theta" not in name:
        limit = _MAX_LAYERS if _LAYER_COUNT.search(name) else _MAX_INTEGER
        if abs(value) > limit:
            raise Hand1000Error(f"{path}: {name[:60]} is out of range, more than {limit}; restore the file from a copy")


def _reports_shapes(model_class: Any) -> bool:
    """Whether the class reports tensors of other shapes; diffusers' classes raise an error that names the first."""
    return not hasattr(model_class, "register_to_config")


@contextmanager
def _without_reports() -> Iterator[None]:
    """Silence the tables of tensors that the libraries log, as every fault in them becomes an error, and their bars."""

    def is_no_report(record: logging.LogRecord) -> bool:
        return not re.search(r"LOAD REPORT|Some weights of", record.getMessage())

    # Where it is not imported, the model is not one of its classes.
    transformers: Any = sys.modules.get("transformers.utils.logging")
    has_bars = transformers is not None and transformers.is_progress_bar_enabled()
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    for logger in loggers:
        logger.addFilter(is_no_report)
    if has_bars:
        transformers.disable_progress_bar()
    try:
        yield
    finally:
        if has_bars:
            transformers.enable_progress_bar()
        for logger in loggers:
            logger.removeFilter(is_no_report)
