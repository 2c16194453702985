"""Folders of pretrained models: local, on S3, or on the Hugging Face hub at a pinned revision."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from hand1000.core.errors import Hand1000Error
from hand1000.storage.sources import folder_digest, local_copy, open_source

PINNED_REVISIONS = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
    "stabilityai/stable-diffusion-xl-base-1.0": "462165984030d82259a11f4367a4eed129e94a7b",
    "stabilityai/stable-diffusion-3.5-medium": "b940f670f0eda2d07fbb75229e779da1ad11eb80",
    "Tongyi-MAI/Z-Image": "04cc4abb7c5069926f75c9bfde9ef43d49423021",
    "CompVis/stable-diffusion-v1-4": "133a221b8aa7292a167afc5127cb63fb5005638b",
    "Salesforce/blip2-opt-2.7b": "51572668da0eb669e01a189dc22abe6088589a24",
    "google/paligemma-3b-mix-224": "d1d8734c9c3ad0ccfeea4afc270faa356c2ba515",
}
"""The revisions of known hub ids that are given without one."""

WEIGHTS = ["*.json", "*.txt", "*.jinja", "*.safetensors"]
"""File patterns that are downloaded from a hub repository: never a pickle."""

IGNORED = [
    "safety_checker/*",
    "*.fp16.*",
    "*.fp16-*",
    "*.non_ema.*",
    # Weights that the repositories of Stable Diffusion hold a second time, of up to 12 GB each.
    "v1-5-*",
    "sd_xl_*",
    "vae_1_0/*",
    "sd3*",
    "text_encoders/*",
]
"""File patterns among these that no loader reads."""


def fetch_model_folder(source: str) -> Path:
    """Return a local folder with the model `source`, downloaded if necessary.

    Args:
        source: A folder, its `s3://` address, or a hub id: `owner/name` or `owner/name@revision`.

    Raises:
        Hand1000Error: The model does not exist, or the hub id has no pinned revision.
    """
    return _download_from_hub(source, WEIGHTS) if _is_hub_id(source) else local_copy(source)


def _download_from_hub(source: str, patterns: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError

    name, _, revision = _pinned(source).partition("@")
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns), ignore_patterns=IGNORED))
    except GatedRepoError as error:
        raise Hand1000Error(
            f"{source}: its publisher asks for an account; accept the terms at https://huggingface.co/{name}, then run "
            "`hf auth login` or set HF_TOKEN"
        ) from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise Hand1000Error(f"{source}: the hub has no such model, or cannot be reached ({reason})") from error


@contextlib.contextmanager
def open_model_file(source: str, name: str) -> Iterator[Path]:
    """Provide one small file of the model `source` until the context ends, without downloading its weights.

    Raises:
        Hand1000Error: The model or, in a bucket, the file does not exist, or the hub id has no pinned revision.
    """
    if _is_hub_id(source):
        yield _download_from_hub(source, [name]) / name
        return
    with open_source(source).local_path(name) as path:
        yield path


def model_identity(source: str) -> str:
    """Return the digest of the model's content, or the hub id with its revision; "" for no model."""
    if not source:
        return ""
    return _pinned(source) if _is_hub_id(source) else folder_digest(source)


def _is_hub_id(source: str) -> bool:
    return not (source.startswith(("s3://", ".", "/", "~")) or source.count("/") != 1 or Path(source).exists())


def _pinned(source: str) -> str:
    name, _, revision = source.partition("@")
    revision = revision or PINNED_REVISIONS.get(name, "")
    if not revision:
        raise Hand1000Error(f"{source}: pin the revision of the hub model, as in {name}@<commit>")
    return f"{name}@{revision}"
