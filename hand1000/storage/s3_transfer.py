"""Uploads and downloads of files of a bucket: several at the same time, large ones in parts, verified on the way.

An upload carries a checksum that the server verifies, so that botocore need not hash each request's body for its
signature. A download takes the sha256 of each file as its parts arrive.
"""

import base64
import os
import random
import threading
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from hand1000.core.retry import call_with_retry
from hand1000.storage.digests import FileEntry, StreamDigest, digest_bytes
from hand1000.storage.s3_client import encryption_args, s3_client
from hand1000.storage.s3_errors import translate_s3_errors

MAX_READS = 8
"""Number of requests for an object whose body breaks off."""

PART_BYTES = 16 << 20
"""Size of the parts of a large file; as many as there are threads are in memory during an upload."""

_THREADS = 8
_CHUNK_BYTES = 1 << 20
_MAX_PARTS = 10_000
# Answers of servers that know no checksums, other than ignoring them.
_UNKNOWN_CHECKSUM = {"NotImplemented", "InvalidRequest", "InvalidArgument"}


class TransferItem(NamedTuple):
    """A file of this machine and its key in the bucket."""

    path: Path
    key: str
    entry: FileEntry


class S3Transfer:
    """Moves files between this machine and a bucket.

    Args:
        bucket: Name of the bucket.
        client: boto3 client, which threads may share.
    """

    def __init__(self, bucket: str, client: Any) -> None:
        self._bucket, self._client = bucket, client
        self._checksums = True

    @cached_property
    def _unsigned(self) -> Any:
        """A client that does not hash bodies for its signatures, because they have checksums."""
        return s3_client(sign_payload=False)

    def put_bytes(self, key: str, data: bytes, sha256: str = "") -> None:
        """Write an object with its sha256 as metadata."""
        digest = sha256 or digest_bytes(data)
        arguments = {"Bucket": self._bucket, "Key": key, "Body": data, **_metadata(digest)}
        self._send("put_object", arguments, "ChecksumSHA256", base64.b64encode(bytes.fromhex(digest)).decode())

    def upload(self, items: Iterable[TransferItem]) -> None:
        """Upload files, several at the same time; of each, the metadata hold the sha256 of its entry.

        Raises:
            Exception: The first error of boto3; what is not complete by then is not stored.
        """
        uploads: list[_Upload] = []
        with _thread_pool() as pool:
            try:
                for item in items:
                    uploads.append(self._start_upload(pool, item))
                while uploads:
                    parts = [part.result() for part in uploads[0].parts]
                    if uploads[0].upload_id:
                        self._complete(uploads[0], parts)
                    del uploads[0]
            except BaseException:
                pool.shutdown(cancel_futures=True)
                for upload in uploads:
                    self._abort(upload)
                raise

    def download(self, items: Iterable[TransferItem]) -> set[str]:
        """Download files, several at the same time; each gets its name when it is complete.

        Returns:
            The names of the entries whose bytes have the size and the sha256 of the entry. The others are there too.

        Raises:
            Exception: The first error of boto3 or of the filesystem.
        """
        downloads = [_Download(item, self._bucket, self._client) for item in items]
        with _thread_pool() as pool:
            try:
                for part in [part for download in downloads for part in download.start(pool)]:
                    part.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                for download in downloads:
                    download.discard()
                raise
        return {download.item.entry.name for download in downloads if download.is_verified}

    def _put_file(self, item: TransferItem) -> None:
        self.put_bytes(item.key, item.path.read_bytes(), item.entry.sha256)

    def _start_upload(self, pool: ThreadPoolExecutor, item: TransferItem) -> "_Upload":
        if item.entry.size <= PART_BYTES:
            return _Upload(item, "", [pool.submit(self._put_file, item)])
        arguments = _metadata(item.entry.sha256)
        upload_id = self._client.create_multipart_upload(Bucket=self._bucket, Key=item.key, **arguments)["UploadId"]
        size = item.entry.size
        part_bytes = max(PART_BYTES, -(-size // (_MAX_PARTS * _CHUNK_BYTES)) * _CHUNK_BYTES)
        parts = [
            pool.submit(self._put_part, item, upload_id, number, slice(start, min(start + part_bytes, size)))
            for number, start in enumerate(range(0, size, part_bytes), start=1)
        ]
        return _Upload(item, upload_id, parts)

    def _put_part(self, item: TransferItem, upload_id: str, number: int, part: slice) -> dict[str, Any]:
        with open(item.path, "rb") as file:
            file.seek(part.start)
            data = file.read(part.stop - part.start)
        arguments = {
            "Bucket": self._bucket,
            "Key": item.key,
            "UploadId": upload_id,
            "PartNumber": number,
            "Body": data,
        }
        checksum = base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()
        response = self._send("upload_part", arguments, "ChecksumCRC32", checksum)
        return {"PartNumber": number, "ETag": response["ETag"]}

    def _send(self, operation: str, arguments: dict[str, Any], name: str, checksum: str) -> dict[str, Any]:
        """Send a body that the server verifies: by the checksum, or by the signature if it knows no checksums."""
        from botocore.exceptions import ClientError

        if self._checksums:
            try:
                response = getattr(self._unsigned, operation)(**arguments, **{name: checksum})
                if response.get(name):
                    return response
            except ClientError as error:
                if error.response.get("Error", {}).get("Code", "") not in _UNKNOWN_CHECKSUM:
                    raise
            self._checksums = False
        return getattr(self._client, operation)(**arguments)

    def _complete(self, upload: "_Upload", parts: list[dict[str, Any]]) -> None:
        self._client.complete_multipart_upload(
            Bucket=self._bucket, Key=upload.item.key, UploadId=upload.upload_id, MultipartUpload={"Parts": parts}
        )

    def _abort(self, upload: "_Upload") -> None:
        """Have the server remove the parts of an upload that is not completed."""
        if upload.upload_id:
            with suppress(Exception):
                self._client.abort_multipart_upload(Bucket=self._bucket, Key=upload.item.key, UploadId=upload.upload_id)


class _Upload(NamedTuple):
    item: TransferItem
    upload_id: str
    """Empty for a file of a single request."""
    parts: list[Future]


class _Download:
    """A file that arrives in parts, in any order, and is hashed in the order of its bytes.

    Attributes:
        is_verified: Whether the file is complete and has the size and sha256 of its entry.
    """

    def __init__(self, item: TransferItem, bucket: str, client: Any) -> None:
        self.item, self.is_verified = item, False
        self._client, self._object = client, {"Bucket": bucket, "Key": item.key}
        # Of a fixed name, so that another attempt takes over what a killed one left.
        self._temporary = item.path.with_name(f".{digest_bytes(os.fsencode(item.path.name))[:32]}.partial")
        self._file: int | None = None
        self._starts = range(0, item.entry.size, PART_BYTES) or range(1)
        self._arrived: set[int] = set()
        self._digest, self._hashing = StreamDigest(), False
        self._lock = threading.Lock()

    def start(self, pool: ThreadPoolExecutor) -> list[Future]:
        """Have the threads of `pool` fetch the parts; the one that has the last one gives the file its name."""
        return [pool.submit(self._fetch, start) for start in self._starts]

    def discard(self) -> None:
        """Remove an incomplete file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
            self._temporary.unlink(missing_ok=True)

    def _open(self) -> int:
        with self._lock:
            if self._file is None:
                self._file = os.open(self._temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o666)
            return self._file

    def _fetch(self, start: int) -> None:
        """Write the part from `start` to the file, and hash what is complete from the beginning on.

        The bytes of the part that comes next are hashed as they arrive, those of a later one are read again.
        """
        from botocore.exceptions import HTTPClientError, IncompleteReadError

        file, stop = self._open(), min(start + PART_BYTES, self.item.entry.size)
        position = start
        with self._lock:
            is_next = not self._hashing and self._digest.size == start
            self._hashing |= is_next

        def read() -> None:
            nonlocal position
            for chunk in self._read(position, stop) if position < stop or not stop else ():
                _write_at(file, chunk, position)
                if is_next:
                    self._digest.update(chunk)
                position += len(chunk)

        with translate_s3_errors(f"s3://{self._object['Bucket']}/{self.item.key}"):
            call_with_retry(read, read_delays(), (HTTPClientError, IncompleteReadError))
        self._hash(file, start, is_next=is_next)

    def _read(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield the bytes of a range; nothing, if the object ends before it."""
        from botocore.exceptions import ClientError

        whole = stop - start >= self.item.entry.size  # An empty object has no range.
        limits = {} if whole else {"Range": f"bytes={start}-{stop - 1}"}
        try:
            body = self._client.get_object(**self._object, **limits)["Body"]
        except ClientError as error:
            if error.response.get("Error", {}).get("Code", "") in ("InvalidRange", "416"):
                return
            raise
        with body:
            # The read after the last byte has botocore check that the body was complete.
            while (chunk := body.read(min(_CHUNK_BYTES, stop - start) or 1)) and start < stop:
                yield chunk
                start += len(chunk)

    def _hash(self, file: int, start: int, *, is_next: bool) -> None:
        """Note that a part is there; unless another thread is at it, hash what is complete from the beginning on."""
        with self._lock:
            self._arrived.add(start)
            if self._hashing and not is_next:
                return
            self._hashing = True
        hashed = -1
        while True:
            with self._lock:
                position = self._digest.size
                if position == hashed or position not in self._arrived:
                    self._hashing = False
                    is_complete = len(self._arrived) == len(self._starts)
                    break
            self._digest.update_from(file, position, min(position + PART_BYTES, self.item.entry.size))
            hashed = position
        if is_complete:
            self._finish(file)

    def _finish(self, file: int) -> None:
        self._file = None
        os.close(file)
        os.replace(self._temporary, self.item.path)
        entry = self.item.entry
        self.is_verified = (self._digest.size, self._digest.hexdigest()) == (entry.size, entry.sha256)


def _metadata(sha256: str) -> dict[str, Any]:
    return {"Metadata": {"sha256": sha256}, **encryption_args()}


def read_delays() -> Iterator[float]:
    """Return the seconds to wait before each further request for an object whose body broke off."""
    return (random.uniform(0, min(2.0**attempt / 4, 4.0)) for attempt in range(MAX_READS - 1))


def _write_at(file: int, data: bytes, position: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(file, view, position)
        view, position = view[count:], position + count


@contextmanager
def _thread_pool() -> Iterator[ThreadPoolExecutor]:
    pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="s3")
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
