"""A file on an HTTP server: read from any position, or downloaded whole and resumed after an interruption.

A dropped connection, or a later process, continues with a range request (RFC 9110, section 14). fsspec's HTTP files
are seekable too, but neither check that the file is still the same (ETag) nor resume a download to disk; pooch does
not resume; huggingface_hub resumes its own URLs only.
"""

import contextlib
import http.client
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, Field, ValidationError

from hand1000 import __version__
from hand1000.core.errors import Hand1000Error, TransientError, one_line, translate_write_errors
from hand1000.core.retry import call_with_retry
from hand1000.storage.records import read_record, write_record

BytesCallback = Callable[[int, int], None]
"""Called with the number of bytes received so far and the size of the file."""

RETRY_DELAYS = (1.0, 2.0, 4.0, 8.0)
"""Seconds to wait before each retry. Every byte received starts the list from the beginning, so that a long file may
drop often."""

_TIMEOUT_SECONDS = 60.0
_CHUNK_BYTES = 1 << 20
# Reading through a gap up to this size is faster than a new request.
_MAX_GAP_BYTES = 1 << 20
_TRANSIENT_STATUS = frozenset({408, 429, 500, 502, 503, 504})
_REFUSALS = {
    401: "access denied; the server requires a sign-in or refuses this network",
    403: "access denied; the server requires a sign-in or refuses this network",
    404: "no such file; it may have moved",
    410: "no such file; it may have moved",
}

_NETWORK_ERRORS = (OSError, http.client.HTTPException)

T = TypeVar("T")


class RestartDownloadError(Exception):
    """The download cannot be continued: the file has changed, or the server cannot send a part of it."""


class FileVersion(BaseModel, extra="forbid", frozen=True):
    """Identifies one version of a file on a server."""

    url: str
    size: int = Field(ge=0)
    validator: str | None
    """A strong ETag or the time of the last change, if the server sends one."""


class HttpFile:
    """A file on a server as a seekable, readable file with one connection at a time.

    Sequential reads use the open connection, so that consecutive members of an archive arrive in one stream. Every
    method raises `Hand1000Error` if the server refuses or cannot be reached, and `RestartDownloadError`.

    Args:
        url: Address, http or https.
        remedy: What the user can do when the server fails, the end of an error's sentence.
        version: The version to read; None accepts any.
    """

    def __init__(self, url: str, *, remedy: str, version: FileVersion | None = None) -> None:
        self.url = url
        self.supports_ranges = True
        """Whether the server sends parts of the file; known after the first request."""
        self._remedy = remedy
        self._version = version
        self._position = 0
        self._response: http.client.HTTPResponse | None = None
        self._response_position = 0

    def connect(self, start: int = 0) -> FileVersion:
        """Request the file from byte `start` and return the server's version."""
        self._position = start
        return self._with_retry(lambda: self._open(start))

    def read(self, count: int = -1, /) -> bytes:
        """Read `count` bytes, fewer only at the end of the file, or all remaining bytes if it is negative."""
        chunks = []
        while count and (chunk := self.read1(count)):
            chunks.append(chunk)
            count = count if count < 0 else count - len(chunk)
        return b"".join(chunks)

    def read1(self, count: int = -1, /) -> bytes:
        """Read the bytes that have arrived, at most `count` and at least one before the end of the file."""
        left = max(0, self._size() - self._position)
        limit = min(left, _CHUNK_BYTES, left if count < 0 else count)
        return self._with_retry(partial(self._read_some, limit)) if limit else b""

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Set the position; no request is sent before the next `read`."""
        position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size()}[whence]
        if position < 0:
            raise OSError(f"{self.url}: has no byte {position}")  # As any file does; zipfile relies on it.
        self._position = position
        return position

    def tell(self) -> int:
        """Return the position of the next `read`."""
        return self._position

    def seekable(self) -> bool:
        """Return True; zipfile asks."""
        return True

    def close(self) -> None:
        """Close the connection; the next `read` opens another one."""
        if self._response is not None:
            self._response.close()
            self._response = None

    def _size(self) -> int:
        # One byte is enough to learn the size and whether the server supports ranges.
        return (self._version or self._with_retry(lambda: self._open(0, last=0))).size

    def _read_some(self, count: int) -> bytes:
        gap = self._position - self._response_position
        if self._response is None or not 0 <= gap <= _MAX_GAP_BYTES:
            self._open(self._position)
        elif gap:
            self._response_position += len(self._response.read(gap))
        if self._response is None or self._response_position != self._position:
            raise http.client.IncompleteRead(b"")
        if not (chunk := self._response.read1(count)):
            raise http.client.IncompleteRead(b"")
        self._position += len(chunk)
        self._response_position = self._position
        return chunk

    def _open(self, start: int, last: int | None = None) -> FileVersion:
        self.close()
        headers = {"User-Agent": f"hand1000/{__version__}", "Range": f"bytes={start}-{'' if last is None else last}"}
        if self._version and self._version.validator:
            headers["If-Range"] = self._version.validator
        request = urllib.request.Request(self.url, headers=headers)
        try:
            response = urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)
        except urllib.error.HTTPError as error:
            with error:
                if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                    raise RestartDownloadError from error
                raise
        first, version = self._parse_response(response)
        self.supports_ranges = response.status == http.HTTPStatus.PARTIAL_CONTENT
        # A server that ignores If-Range may send a part of another version.
        if first != start or self._version not in (None, version):
            response.close()
            raise RestartDownloadError
        self._version = version
        self._response, self._response_position = response, start
        return version

    def _parse_response(self, response: http.client.HTTPResponse) -> tuple[int, FileVersion]:
        """Return the position of the first byte of the response, and the file's version."""
        etag = response.headers["ETag"] or ""
        # If-Range accepts no weak ETag.
        validator = etag if etag.startswith('"') else response.headers["Last-Modified"]
        if response.status == http.HTTPStatus.PARTIAL_CONTENT:
            part = re.fullmatch(r"bytes ([0-9]{1,18})-[0-9]+/([0-9]{1,18})", response.headers["Content-Range"] or "")
            first, size = (part[1], part[2]) if part else (0, None)
        else:
            first, size = 0, response.headers["Content-Length"]
        if size is None or not re.fullmatch("[0-9]{1,18}", size):
            response.close()
            raise Hand1000Error(f"{self.url}: the server does not send the length of the file; {self._remedy}")
        return int(first), FileVersion(url=self.url, size=int(size), validator=validator)

    def _with_retry(self, action: Callable[[], T]) -> T:
        """Call `action`, again after a delay when the server or the network fails."""

        def attempt() -> T:
            try:
                return action()
            except _NETWORK_ERRORS as error:
                self.close()
                if isinstance(error, urllib.error.HTTPError) and error.code not in _TRANSIENT_STATUS:
                    reason = _REFUSALS.get(error.code, "the server refuses")
                    raise Hand1000Error(f"{self.url}: HTTP {error.code}: {reason}; {self._remedy}") from error
                raise

        try:
            return call_with_retry(attempt, RETRY_DELAYS, _NETWORK_ERRORS)
        except _NETWORK_ERRORS as error:
            if isinstance(error, urllib.error.HTTPError):
                reason = f"the server answers HTTP {error.code}; run the same command later"
            else:
                cause = one_line(getattr(error, "reason", error))
                reason = f"cannot be reached ({cause}); check the network and run the same command again"
            raise TransientError(f"{self.url}: {reason} to continue the download; or {self._remedy}") from error


def download(url: str, target: Path, *, remedy: str, on_start: BytesCallback, on_progress: BytesCallback) -> None:
    """Download the whole file to `target`, and continue where an earlier call stopped.

    An incomplete file has the name of `target` with `.part` at its end, and `.part.json` identifies its version: if
    the file has changed on the server since, the download starts again. An exception of `on_start` ends the call.

    Raises:
        Hand1000Error: The server refuses, cannot be reached or keeps changing the file, or the disk is full.
    """
    part = target.with_name(f"{target.name}.part")
    version_file = target.with_name(f"{target.name}.part.json")

    def attempt() -> None:
        try:
            _resume(url, part, version_file, remedy, on_start, on_progress)
        except RestartDownloadError:
            with translate_write_errors(part):
                part.unlink(missing_ok=True)
                version_file.unlink(missing_ok=True)
            raise

    call_with_restarts(attempt, url, remedy)
    with translate_write_errors(target):
        os.replace(part, target)
        version_file.unlink(missing_ok=True)


def call_with_restarts(action: Callable[[], T], url: str, remedy: str) -> T:
    """Call `action`, at most three times in all while it raises `RestartDownloadError`."""
    try:
        return call_with_retry(action, (0, 0), (RestartDownloadError,))
    except RestartDownloadError as error:
        reason = "the file changes on the server, or connections drop and the server sends it from the beginning only"
        raise Hand1000Error(f"{url}: started 3 times: {reason}; {remedy}") from error


def _resume(
    url: str, part: Path, version_file: Path, remedy: str, on_start: BytesCallback, on_progress: BytesCallback
) -> None:
    version = _load_version(version_file)
    received = part.stat().st_size if version and part.is_file() else 0
    with contextlib.closing(HttpFile(url, remedy=remedy, version=version)) as file:
        if version is None or received != version.size:
            version = file.connect(received)
        on_start(received, version.size)
        write_record(version_file, version)
        with translate_write_errors(part), open(part, "ab" if received else "wb") as output:
            file.seek(received)
            while chunk := file.read1(_CHUNK_BYTES):  # Written at once, so that a failure loses nothing.
                output.write(chunk)
                received += len(chunk)
                on_progress(received, version.size)
    if part.stat().st_size != version.size:
        raise RestartDownloadError


def _load_version(version_file: Path) -> FileVersion | None:
    """Return the version of an incomplete download; None if there is none or the file is damaged."""
    try:
        return FileVersion.model_validate(read_record(version_file, required=False))
    except ValidationError:
        return None
