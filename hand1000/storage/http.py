"""A file on an HTTP server: read from any place in it, or fetched whole.

A dropped connection goes on where it was (RFC 9110, section 14: range requests), and so does a process that was killed.
"""

import contextlib
import http.client
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hand1000 import __version__
from hand1000.core.errors import Hand1000Error, TransientError, one_line, translate_write_errors
from hand1000.storage.files import read_json, write_json

Progress = Callable[[int, int], None]
"""Told how many bytes are there and how many there will be."""

PAUSES = (1.0, 2.0, 4.0, 8.0)
"""Seconds to wait before each further attempt. Whatever arrives starts them anew, so a long file may drop often."""

RESTARTS = 3
"""How often a file is begun that changes on the server, or that it gives from the beginning only."""

_TIMEOUT = 60.0
_PIECE = 1 << 20
# A gap that is sooner read over than asked anew for.
_GAP = 1 << 20
_PASSING = frozenset({408, 429, 500, 502, 503, 504})
_REFUSED = {
    401: "access denied; the server wants a sign-in or refuses this network",
    403: "access denied; the server wants a sign-in or refuses this network",
    404: "no such file; it may have moved",
    410: "no such file; it may have moved",
}

T = TypeVar("T")


class RestartDownload(Exception):
    """What was begun cannot be gone on with: the file has changed, or the server gives it from the beginning only."""


class State(BaseModel):
    """Which state of a file a server has."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str
    size: int = Field(ge=0)
    mark: str | None
    """A strong ETag or the time of the last change, where the server tells one."""


class HttpFile:
    """A file on a server as a seekable file that may be read, one connection at a time.

    Reading on uses the connection that is open, so that members of an archive that follow one another come in one
    stream. Every method raises `Hand1000Error` if the server refuses or cannot be reached, and `RestartDownload`.

    Args:
        url: its address, http or https.
        remedy: what the user can do where the server fails, the end of an error's sentence.
        state: which state of it was begun; None: whatever there is.
    """

    def __init__(self, url: str, *, remedy: str, state: State | None = None) -> None:
        self.url = url
        self.in_parts = True
        """Whether the server gives parts of it; known once it is connected."""
        self._remedy = remedy
        self._state = state
        self._position = 0
        self._answer: http.client.HTTPResponse | None = None
        self._at = 0

    def connect(self, start: int = 0) -> State:
        """Ask for the file from byte `start` and say which state of it the server has."""
        self._position = start
        return self._persist(lambda: self._open(start))

    def read(self, count: int = -1, /) -> bytes:
        """`count` bytes from here, fewer only at the end of the file; all the rest if it is negative."""
        pieces = []
        while count and (piece := self.read1(count)):
            pieces.append(piece)
            count = count if count < 0 else count - len(piece)
        return b"".join(pieces)

    def read1(self, count: int = -1, /) -> bytes:
        """The same, but only as many bytes as have arrived, at least one before the end of the file."""
        left = max(0, self._size() - self._position)
        wanted = min(left, _PIECE, left if count < 0 else count)
        return self._persist(partial(self._read_some, wanted)) if wanted else b""

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to a place; nothing is asked of the server before the next `read`."""
        place = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size()}[whence]
        if place < 0:
            raise OSError(f"{self.url}: has no byte {place}")  # As of any file; zipfile expects it.
        self._position = place
        return place

    def tell(self) -> int:
        """The place where the next `read` begins."""
        return self._position

    def seekable(self) -> bool:
        """True, as zipfile asks."""
        return True

    def close(self) -> None:
        """End the connection; the next `read` opens another."""
        if self._answer is not None:
            self._answer.close()
            self._answer = None

    def _size(self) -> int:
        # One byte: a server without ranges is found out, and one with them sends no more than is needed.
        return (self._state or self._persist(lambda: self._open(0, last=0))).size

    def _read_some(self, count: int) -> bytes:
        gap = self._position - self._at
        if self._answer is None or not 0 <= gap <= _GAP:
            self._open(self._position)
        elif gap:
            self._at += len(self._answer.read(gap))
        if self._answer is None or self._at != self._position or not (piece := self._answer.read1(count)):
            raise http.client.IncompleteRead(b"")
        self._position += len(piece)
        self._at = self._position
        return piece

    def _open(self, start: int, last: int | None = None) -> State:
        self.close()
        headers = {"User-Agent": f"hand1000/{__version__}", "Range": f"bytes={start}-{'' if last is None else last}"}
        if self._state and self._state.mark:
            headers["If-Range"] = self._state.mark
        try:
            answer = urllib.request.urlopen(urllib.request.Request(self.url, headers=headers), timeout=_TIMEOUT)
        except urllib.error.HTTPError as error:
            with error:
                if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                    raise RestartDownload from error
                raise
        first, state = self._understood(answer)
        self.in_parts = answer.status == http.HTTPStatus.PARTIAL_CONTENT
        # Servers that do not know If-Range answer with a part of another state.
        if first != start or self._state not in (None, state):
            answer.close()
            raise RestartDownload
        self._state = state
        self._answer, self._at = answer, start
        return state

    def _understood(self, answer: http.client.HTTPResponse) -> tuple[int, State]:
        """The first byte that an answer gives, and of which state."""
        etag = answer.headers["ETag"] or ""
        mark = etag if etag.startswith('"') else answer.headers["Last-Modified"]  # A weak one may not be in If-Range.
        if answer.status == http.HTTPStatus.PARTIAL_CONTENT:
            part = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answer.headers["Content-Range"] or "")
            first, size = (part[1], part[2]) if part else (0, None)
        else:
            first, size = 0, answer.headers["Content-Length"]
        if size is None:
            answer.close()
            raise Hand1000Error(f"{self.url}: the server does not say how long the file is; {self._remedy}")
        return int(first), State(url=self.url, size=int(size), mark=mark)

    def _persist(self, action: Callable[[], T]) -> T:
        """Do it, again after a pause where the server or the network fails."""
        for pause in (*PAUSES, None):
            try:
                return action()
            except urllib.error.HTTPError as error:
                if error.code not in _PASSING:
                    reason = _REFUSED.get(error.code, "the server refuses")
                    raise Hand1000Error(f"{self.url}: HTTP {error.code}: {reason}; {self._remedy}") from error
                reason = f"the server answers HTTP {error.code}; run the same command later"
                cause: Exception = error
            except (OSError, http.client.HTTPException) as error:
                told = one_line(getattr(error, "reason", error))
                reason = f"cannot be reached ({told}); check the network and run the same command again"
                cause = error
            self.close()
            if pause is not None:
                time.sleep(pause)
        raise TransientError(f"{self.url}: {reason}, which goes on where this one was; or {self._remedy}") from cause


def download(url: str, target: Path, *, remedy: str, before: Callable[[int, int], None], progress: Progress) -> None:
    """Fetch the whole file to `target`, going on where an earlier call was when it stopped.

    Until it is whole it lies beside `target` with `.part` at its name, and which state of it that is in `.part.json`:
    a file that has changed on the server since then is begun anew.

    Args:
        url: its address.
        target: where it will lie.
        remedy: as `HttpFile` has it.
        before: called with the file's bytes and those that are there already; an error of it ends the call.
        progress: called as bytes arrive.

    Raises:
        Hand1000Error: the server refuses, cannot be reached or changes the file time and again, or the disk is full.
    """
    part = target.with_name(f"{target.name}.part")
    note = target.with_name(f"{target.name}.part.json")
    for _ in range(RESTARTS):
        try:
            _resume(url, part, note, remedy, before, progress)
        except RestartDownload:
            with translate_write_errors(part):
                part.unlink(missing_ok=True)
                note.unlink(missing_ok=True)
        else:
            with translate_write_errors(target):
                os.replace(part, target)
                note.unlink(missing_ok=True)
            return
    raise Hand1000Error(restarts_message(url, remedy))


def restarts_message(url: str, remedy: str) -> str:
    """What is told when the last of `RESTARTS` has failed."""
    return (
        f"{url}: begun {RESTARTS} times: the file changes on the server, or connections drop and the server gives it "
        f"from the beginning only; {remedy}"
    )


def _resume(
    url: str, part: Path, note: Path, remedy: str, before: Callable[[int, int], None], progress: Progress
) -> None:
    state = _load_state(note)
    have = part.stat().st_size if state and part.is_file() else 0
    with contextlib.closing(HttpFile(url, remedy=remedy, state=state)) as file:
        if state is None or have != state.size:
            state = file.connect(have)
        before(state.size, have)
        write_json(note, state)
        with translate_write_errors(part), open(part, "ab" if have else "wb") as out:
            file.seek(have)
            while piece := file.read1(_PIECE):  # What has arrived is kept, whatever comes then.
                out.write(piece)
                have += len(piece)
                progress(have, state.size)
    if part.stat().st_size != state.size:
        raise RestartDownload


def _load_state(note: Path) -> State | None:
    """The state that was begun; None if there is none, or its note is damaged."""
    try:
        return State.model_validate(read_json(note))
    except (Hand1000Error, ValidationError):
        return None
