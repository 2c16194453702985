"""Folders that a run reads but did not make: a base model, a person's own images, here or on S3."""

from functools import cache
from pathlib import Path

from hand1000.core.errors import Hand1000Error, translate_write_errors
from hand1000.storage.digests import digest_json, tree_manifest
from hand1000.storage.node_cache import node_cached_dir
from hand1000.storage.s3 import s3_client, translate_s3_errors


@cache
def local_copy(source: str) -> Path:
    """The folder `source`, or a copy of the `s3://` prefix that this process, or this node, downloads once.

    Raises:
        Hand1000Error: there is no such folder, or nothing below the prefix.
    """
    if not source.startswith("s3://"):
        folder = Path(source).expanduser()
        if not folder.is_dir():
            raise Hand1000Error(f"{source}: no such folder")
        return folder
    bucket, prefix, objects = _listed(source)
    client = s3_client()

    def fill(into: Path) -> None:
        for key, size, _ in objects:
            path = into / key.removeprefix(prefix)
            if path.is_file() and path.stat().st_size == size:
                continue
            with translate_write_errors(into), translate_s3_errors(f"s3://{bucket}/{key}"):
                path.parent.mkdir(parents=True, exist_ok=True)
                client.download_file(bucket, key, str(path))

    return node_cached_dir(folder_digest(source), fill)


@cache
def folder_digest(source: str) -> str:
    """What tells the content of `source` from any other: of a folder its files' sha256, of a prefix its listing."""
    if source.startswith("s3://"):
        return digest_json(_listed(source)[2])
    return tree_manifest(local_copy(source)).digest


def _listed(source: str) -> tuple[str, str, list[tuple[str, int, str]]]:
    """Bucket, prefix with its slash, and (key, size, entity tag) of the objects below it."""
    bucket, _, prefix = source.removeprefix("s3://").partition("/")
    prefix = f"{prefix.rstrip('/')}/" if prefix else ""
    with translate_s3_errors(source):
        pages = s3_client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        objects = [(item["Key"], item["Size"], item["ETag"]) for page in pages for item in page.get("Contents", [])]
    if not objects:
        raise Hand1000Error(f"{source}: nothing lies there")
    return bucket, prefix, objects
