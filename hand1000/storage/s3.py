"""Amazon S3 and servers that speak its protocol: listing, and the storage backend; `s3_client` has the settings."""

import contextlib
import tempfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from hand1000.core.errors import Hand1000Error, TransientError, one_line, translate_write_errors
from hand1000.core.retry import call_with_retry
from hand1000.storage.digests import (
    OTHER_BYTES,
    DamagedError,
    Manifest,
    StoredFile,
    describe_damage,
    digest_bytes,
)
from hand1000.storage.keys import safe_join
from hand1000.storage.s3_client import s3_client
from hand1000.storage.s3_errors import MissingKeyError, translate_s3_errors
from hand1000.storage.s3_transfer import S3Transfer, TransferItem, read_delays
from hand1000.storage.scratch import process_scratch
from hand1000.storage.verification import find_damage

# Object in a tree that a reader found damaged.
_SUSPECT = ".suspect"


class S3Object(NamedTuple):
    """An object below an `S3Location`; a listing that is not recursive also has folders, whose names end in `/`."""

    name: str
    size: int = 0
    etag: str = ""
    modified: float = 0.0
    """Seconds since 1970 of the last write."""


class S3Location:
    """The objects below `s3://bucket/prefix`, by names relative to it.

    Raises:
        Hand1000Error: The URL names no bucket.
    """

    def __init__(self, url: str) -> None:
        self.root = url.rstrip("/")
        self._bucket, _, prefix = self.root.removeprefix("s3://").partition("/")
        self._prefix = f"{prefix}/" if prefix else ""
        if not url.startswith("s3://") or not self._bucket:
            raise Hand1000Error(f"{url!r}: not an S3 URL; write it as s3://bucket/prefix")

    @cached_property
    def client(self) -> Any:
        """The boto3 client."""
        return s3_client()

    @cached_property
    def _transfer(self) -> S3Transfer:
        return S3Transfer(self._bucket, self.client)

    @cached_property
    def scratch_dir(self) -> Path:
        """This process's temporary folder on this machine."""
        return process_scratch(None)

    def _key(self, name: str) -> str:
        return self._prefix + name

    def _url(self, name: str) -> str:
        return f"s3://{self._bucket}/{self._key(name)}"

    def list_objects(self, start: str = "", *, recursive: bool = True) -> Iterator[S3Object]:
        """Yield the objects whose names begin with `start`; without `recursive` only up to the next `/`."""
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._key(start), **({} if recursive else {"Delimiter": "/"})
        )
        with translate_s3_errors(self._url(start)):
            remaining = iter(pages)
            while (objects := self._next_page(remaining, start)) is not None:
                yield from objects

    def _next_page(self, pages: Iterator[dict[str, Any]], start: str) -> list[S3Object] | None:
        """Return the objects of the next page of a listing, None after the last one.

        Raises:
            TransientError: The server's answer is no listing, as that of a proxy or of another service.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            page = next(pages, None)
            if page is None:
                return None
            folders = [
                S3Object(folder["Prefix"].removeprefix(self._prefix)) for folder in page.get("CommonPrefixes", [])
            ]
            files = [
                S3Object(
                    item["Key"].removeprefix(self._prefix),
                    int(item["Size"]),
                    item["ETag"],
                    item["LastModified"].timestamp(),
                )
                for item in page.get("Contents", [])
            ]
        except (BotoCoreError, ClientError):
            raise
        except Exception as error:  # botocore's parsers raise what their conversions raise.
            reason = f"the answer is not a listing of S3 ({one_line(error)[:200]})"
            raise TransientError(f"{self._url(start)}: {reason}; check AWS_ENDPOINT_URL_S3") from error
        return folders + files

    def download(self, name: str, target: Path) -> None:
        """Copy an object to the file `target`."""
        with translate_write_errors(target), translate_s3_errors(self._url(name)):
            target.parent.mkdir(parents=True, exist_ok=True)
            self.client.download_file(self._bucket, self._key(name), str(target))


class S3Backend(S3Location):
    """The storage backend that is a prefix of a bucket; each object's metadata holds the sha256 of its bytes."""

    lists_late = True

    def read(self, key: str) -> bytes | None:
        """Return the bytes at `key`, or None; raise `DamagedError` if their sha256 is not that of the metadata."""
        try:
            with translate_s3_errors(self._url(key)):
                response, data = self._get_object_with_retry(key)
        except MissingKeyError:
            return None
        if response["Metadata"].get("sha256", digest_bytes(data)) != digest_bytes(data):
            raise DamagedError(f"{self._url(key)}: its bytes are not those that were written")
        return data

    def _get_object_with_retry(self, key: str) -> tuple[dict[str, Any], bytes]:
        """Return the response to a GET and its body; boto3 does not retry a body that breaks off."""
        from botocore.exceptions import HTTPClientError, IncompleteReadError

        def get() -> tuple[dict[str, Any], bytes]:
            response = self.client.get_object(Bucket=self._bucket, Key=self._key(key))
            return response, response["Body"].read()

        return call_with_retry(get, read_delays(), (HTTPClientError, IncompleteReadError))

    def write(self, key: str, data: bytes) -> None:
        """See `LocalBackend`."""
        with translate_s3_errors(self._url(key)):
            self._transfer.put_bytes(self._key(key), data)

    def mark_used(self, key: str, data: bytes) -> None:
        """See `LocalBackend`; the object is written again, because S3 has no other way to renew its time."""
        with contextlib.suppress(Hand1000Error):
            self.write(key, data)

    def list_files(self, key: str) -> Iterator[StoredFile]:
        """See `LocalBackend`."""
        for item in self.list_objects(key):
            if item.name == key or item.name.startswith(f"{key}/"):
                yield StoredFile(item.name, item.size, item.modified)

    def remove(self, key: str) -> None:
        """See `LocalBackend`."""
        names = [item.name for item in self.list_objects(key) if item.name == key or item.name.startswith(f"{key}/")]
        for start in range(0, len(names), 1000):  # The limit of one request.
            batch = {"Objects": [{"Key": self._key(name)} for name in names[start : start + 1000]], "Quiet": True}
            with translate_s3_errors(self._url(key)):
                response = self.client.delete_objects(Bucket=self._bucket, Delete=batch)
            for refusal in response.get("Errors", []):
                url, code = f"s3://{self._bucket}/{refusal.get('Key')}", refusal.get("Code")
                raise Hand1000Error(f"{url}: not deleted: {code}; the access key needs s3:DeleteObject here")

    def file_sizes(self, key: str) -> dict[str, int]:
        """See `LocalBackend`."""
        folder = f"{key}/" if key else ""
        return {item.name.removeprefix(folder): item.size for item in self.list_objects(folder)}

    def find_damage(self, key: str, manifest: Manifest) -> str:
        """See `LocalBackend`; only sizes are compared, unless a reader has reported the tree."""
        sizes = self.file_sizes(key)
        for entry in manifest.files:
            size = sizes.get(entry.name)
            # A server may list late what was just written; a request for the object itself shows it.
            size = self._object_size(f"{key}/{entry.name}") if size != entry.size else size
            if size != entry.size:
                return f"{entry.name}: {'missing' if size is None else describe_damage(size, entry.size)}"
        if _SUSPECT in sizes:
            damaged = self._find_other_bytes(key, manifest)
            if damaged:
                return f"{damaged}: {OTHER_BYTES}"
            with contextlib.suppress(Hand1000Error):
                self.remove(f"{key}/{_SUSPECT}")
        return ""

    def verify_tree(self, key: str, manifest: Manifest) -> bool:
        """See `LocalBackend`; every object is read."""
        return not self._find_other_bytes(key, manifest)

    def report_damage(self, key: str) -> None:
        """Mark the tree at `key`, so that `find_damage` reads its bytes from now on, if the bucket is writable."""
        with contextlib.suppress(Hand1000Error):
            self.write(f"{key}/{_SUSPECT}", b"")

    def _object_size(self, key: str) -> int | None:
        try:
            with translate_s3_errors(self._url(key)):
                return self.client.head_object(Bucket=self._bucket, Key=self._key(key))["ContentLength"]
        except MissingKeyError:
            return None

    def _find_other_bytes(self, key: str, manifest: Manifest) -> str:
        """Return the first object of a tree whose bytes are not those of the manifest, or "", by reading them."""
        with tempfile.TemporaryDirectory(dir=self.scratch_dir) as folder:
            try:
                self.get_tree(key, manifest, Path(folder))
            except MissingKeyError:
                names = (entry.name for entry in manifest.files)
                return next((name for name in names if self._object_size(f"{key}/{name}") is None), "a file")
            return find_damage(Path(folder), manifest)

    def put_tree(self, directory: Path, key: str, manifest: Manifest) -> None:
        """See `LocalBackend`; files are uploaded in parallel."""
        items = (
            TransferItem(directory / entry.name, self._key(f"{key}/{entry.name}"), entry) for entry in manifest.files
        )
        with translate_s3_errors(self._url(key)):
            self._transfer.upload(items)

    def get_tree(self, key: str, manifest: Manifest, target: Path) -> set[str]:
        """See `LocalBackend`; files are downloaded in parallel, and each gets its name when it is complete.

        They are verified on the way.
        """
        with translate_s3_errors(self._url(key)), translate_write_errors(target):
            items = [
                TransferItem(safe_join(target, entry.name), self._key(f"{key}/{entry.name}"), entry)
                for entry in manifest.files
            ]
            for folder in {target, *(item.path.parent for item in items)}:
                folder.mkdir(parents=True, exist_ok=True)
            return self._transfer.download(items)

    def link_tree(self, key: str, manifest: Manifest, target: Path) -> None:
        """See `LocalBackend`: a bucket's objects cannot be linked."""

    def describe_kept_copies(self) -> list[str]:
        """See `LocalBackend`: the versions of objects, if the bucket keeps them."""
        url = f"s3://{self._bucket}"
        try:
            with translate_s3_errors(url):
                state = self.client.get_bucket_versioning(Bucket=self._bucket).get("Status", "")
        except Hand1000Error as error:
            return [f"{url}: unknown whether the bucket keeps versions of removed objects: {error}"]
        if not state:
            return []
        return [f"{url}: versioning is {state.lower()}; delete the versions of removed objects, or let them expire"]

    def local_path(self, key: str) -> Path | None:
        """Return None: a bucket is not a folder."""
        return None
