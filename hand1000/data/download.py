"""HaGRID from its public addresses, unpacked into the layout that `hand1000.data.hagrid` reads.

An archive of one gesture is downloaded whole, unpacked and removed. Of an archive of all gestures (the annotations and
the 512 px copies) only the members of the gestures asked for are fetched, by range requests, where the server has them.
"""

import contextlib
import fcntl
import os
import re
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from hand1000.core.errors import Hand1000Error, one_line, translate_write_errors
from hand1000.gestures import HAGRID_V1, gesture_phrase
from hand1000.storage.files import read_json, write_json
from hand1000.storage.http import BytesCallback, HttpFile, call_with_restarts, download

_CLOUD = "https://rndml-team-cv.obs.ru-moscow-1.hc.sbercloud.ru/datasets/"
_FORMER = "https://n-ws-620xz-pd11.s3pd11.sbercloud.ru/b-ws-620xz-pd11-jux/"
_V1 = "hagrid/hagrid_dataset_new_554800/"
_V2 = "hagrid_v2/"

ADDRESSES: dict[tuple[int, str], tuple[str, str]] = {
    (1, "annotations"): (_FORMER, f"{_V1}annotations.zip"),
    (1, "512"): (_FORMER, f"{_V1}hagrid_dataset_512.zip"),
    (1, "full"): (_CLOUD, f"{_V1}hagrid_dataset/{{gesture}}.zip"),
    (2, "annotations"): (_CLOUD, f"{_V2}annotations_with_landmarks/annotations.zip"),
    (2, "512"): (_CLOUD, f"{_V2}hagridv2_512.zip"),
    (2, "full"): (_CLOUD, f"{_V2}hagrid_v2_zip/{{gesture}}.zip"),
}
"""By version and content: the server, which a mirror takes the place of, and the path on it.

From the README.md of github.com/hukenovs/hagrid: version 1 is the release of 18 gestures and 554,800 pictures
(2023-09-21), version 2 that of 33 and 1,086,158 (2024-09-24).
"""

SIZES = ("512", "full")
"""The shorter side in pixels, or as it was photographed (Full HD)."""

# Of these gestures version 2 has the archives of version 1.
_UNCHANGED = frozenset(HAGRID_V1) - {"one", "rock"}
_WORK = ".download"
_SPLITS = ("train", "val", "test")
_PICTURE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*\.(jpe?g|png)", re.IGNORECASE)
# Far above HaGRID's own: pictures of 5 MB, annotations of 90 MB.
_LARGEST_PICTURE, _LARGEST_ANNOTATION = 100_000_000, 2_000_000_000
_REMEDY = "give a mirror with --base-url or HAND1000_HAGRID_URL"
# All that zipfile and the decompressors raise for bytes that are not a zip file's.
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, struct.error, ValueError)


@dataclass(frozen=True)
class _Archive:
    """A zip file on the server and what is wanted of it; `name` tells it from the others in the work folder."""

    name: str
    url: str
    gestures: tuple[str, ...]
    shared: bool
    annotations: bool

    def target(self, member: str) -> tuple[str, str] | None:
        """The gesture that a member belongs to and its place in the folder; None: neither picture nor annotations."""
        path = PurePosixPath(member)
        # Whatever leads elsewhere is not HaGRID's; only plain last names become names of files here.
        if path.is_absolute() or ".." in path.parts or "\\" in member:
            return None
        folder = path.parent.name
        if self.annotations:
            one = folder in _SPLITS and path.suffix == ".json"
            return (path.stem, f"annotations/{folder}/{path.name}") if one else None
        gesture = folder if self.shared else self.gestures[0]
        return (gesture, f"{gesture}/{path.name}") if _PICTURE.fullmatch(path.name) else None

    def count(self, out: Path, gesture: str) -> int:
        """How many files of a gesture are there."""
        if self.annotations:
            return sum((out / "annotations" / split / f"{gesture}.json").is_file() for split in _SPLITS)
        with contextlib.suppress(FileNotFoundError):
            return sum(_PICTURE.fullmatch(entry.name) is not None for entry in os.scandir(out / gesture))
        return 0

    def done(self, out: Path, gesture: str) -> Path:
        """The mark that all of a gesture is unpacked; it says how many files that were."""
        return out / _WORK / f"{self.name}-{gesture}.done"


def fetch_hagrid(
    out: Path,
    gestures: Sequence[str],
    *,
    version: int,
    size: str,
    base_url: str | None,
    progress: Callable[[str], BytesCallback],
) -> None:
    """Fetch gestures of HaGRID into `out/<gesture>/` and `out/annotations/{train,val,test}/<gesture>.json`.

    What is there already is not fetched again: the same call goes on after it was stopped or killed, adds further
    gestures, and does nothing when all are there.

    Args:
        out: the folder, made if need be; one of version and size.
        gestures: HaGRID's names.
        version: 1 or 2.
        size: one of `SIZES`.
        base_url: a mirror that has the paths of `ADDRESSES`; None: the public servers.
        progress: given what is fetched or unpacked, returns what is told of its bytes.

    Raises:
        Hand1000Error: HaGRID has no such gesture; `out` holds another version or size, is full, may not be written or
            is being fetched into; a server refuses or cannot be reached; an archive is damaged.
    """
    for gesture in gestures:
        gesture_phrase(gesture)
        if version == 1 and gesture not in HAGRID_V1:
            raise Hand1000Error(f"{gesture}: not in version 1 of HaGRID; choose version 2 or: {', '.join(HAGRID_V1)}")
    if base_url is not None and not re.match("https?://[^/]", base_url):
        raise Hand1000Error(f"{base_url!r}: not a mirror's address; write it as https://host/path")
    with _alone(out):
        _keep_to_one_source(out, version, size)
        for archive in _archives(tuple(dict.fromkeys(gestures)), version, size, base_url):
            _fetch(archive, out, progress)


def _archives(gestures: tuple[str, ...], version: int, size: str, base_url: str | None) -> Iterator[_Archive]:
    def at(version: int, content: str, gesture: str = "") -> str:
        server, path = ADDRESSES[version, content]
        return f"{(base_url or server).rstrip('/')}/{path.format(gesture=gesture)}"

    name = f"v{version}-annotations"
    yield _Archive(name, at(version, "annotations"), gestures, shared=True, annotations=True)
    if size == "full":
        for gesture in gestures:
            url = at(1 if gesture in _UNCHANGED else version, size, gesture)
            yield _Archive(f"v{version}-full", url, (gesture,), shared=False, annotations=False)
    else:
        yield _Archive(f"v{version}-{size}", at(version, size), gestures, shared=True, annotations=False)


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Keep other processes from fetching into the folder at the same time; a process that is killed lets go of it."""
    if out.exists() and not out.is_dir():
        raise Hand1000Error(f"{out}: not a folder; choose another")
    with translate_write_errors(out):
        (out / _WORK).mkdir(parents=True, exist_ok=True)
        lock = os.open(out / _WORK / "lock", os.O_WRONLY | os.O_CREAT, 0o666)
    try:
        with contextlib.suppress(OSError):  # On a filesystem without locks nobody is kept out.
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Hand1000Error(f"{out}: another command fetches into it; wait for it to end") from None
        yield
    finally:
        os.close(lock)


def _keep_to_one_source(out: Path, version: int, size: str) -> None:
    """Pictures of two sizes, or annotations of two versions, in one folder would be told apart by nobody."""
    note, source = out / _WORK / "source.json", f"version {version}, size {size}"
    there = read_json(note) if note.is_file() else source
    # The annotations come first, so nothing that matters is there without a mark.
    if there != source and any(note.parent.glob("*.done")):
        raise Hand1000Error(f"{out}: holds {there}, not {source}; choose another folder or delete this one")
    write_json(note, source)


def _fetch(archive: _Archive, out: Path, progress: Callable[[str], BytesCallback]) -> None:
    whole = out / _WORK / f"{archive.name}-{'all' if archive.shared else archive.gestures[0]}.zip"
    missing = [gesture for gesture in archive.gestures if not _is_done(archive, out, gesture)]
    if missing:
        what = f"{archive.name} {' '.join(missing)}"
        if not (archive.shared and _unpack_from_server(archive, missing, out, progress(what))):
            if not whole.is_file():
                download(
                    archive.url,
                    whole,
                    remedy=_REMEDY,
                    # Pictures and their zip file are of about the same size, and for a time both are there.
                    on_start=lambda have, size: _require_space(
                        out, size - have + (0 if archive.shared else size), what
                    ),
                    on_progress=progress(what),
                )
            _unpack_file(archive, whole, missing, out, progress(f"unpacked {what}"))
    with translate_write_errors(whole):
        whole.unlink(missing_ok=True)


def _is_done(archive: _Archive, out: Path, gesture: str) -> bool:
    try:
        return archive.count(out, gesture) >= read_json(archive.done(out, gesture))["files"]
    except (Hand1000Error, KeyError, TypeError):  # No mark, or one that was damaged.
        return False


def _unpack_from_server(archive: _Archive, gestures: Sequence[str], out: Path, show: BytesCallback) -> bool:
    """Unpack the members without the rest of the archive; False: the server gives no parts of files."""

    def attempt() -> bool:
        with contextlib.closing(HttpFile(archive.url, remedy=_REMEDY)) as file:
            file.seek(0, os.SEEK_END)
            if file.supports_ranges:
                try:
                    _unpack(archive, file, gestures, out, show)
                except _DAMAGED as error:
                    reason = f"damaged on the server ({one_line(error)})"
                    raise Hand1000Error(f"{archive.url}: {reason}; {_REMEDY}") from error
            return file.supports_ranges

    return call_with_restarts(attempt, archive.url, _REMEDY)


def _unpack_file(archive: _Archive, whole: Path, gestures: Sequence[str], out: Path, show: BytesCallback) -> None:
    try:
        with open(whole, "rb") as file:
            _unpack(archive, file, gestures, out, show)
    except _DAMAGED as error:
        with translate_write_errors(whole):
            whole.unlink()
        raise Hand1000Error(
            f"{whole}: damaged ({one_line(error)}) and removed; run the same command to fetch it again, or {_REMEDY}"
        ) from error


def _unpack(
    archive: _Archive, file: IO[bytes] | HttpFile, gestures: Sequence[str], out: Path, show: BytesCallback
) -> None:
    with zipfile.ZipFile(file) as members:
        targets = {}
        for info in members.infolist():
            if info.is_dir() or stat.S_ISLNK(info.external_attr >> 16):
                continue
            found = archive.target(info.filename)
            if found and found[0] in gestures:
                targets[out / found[1]] = (found[0], info)
        counts = {gesture: sum(of == gesture for of, _ in targets.values()) for gesture in gestures}
        what = "annotations" if archive.annotations else "pictures"
        for gesture, count in counts.items():
            if not count:
                raise zipfile.BadZipFile(f"holds no {what} of {gesture}")
        _write_members(members, {target: info for target, (_, info) in targets.items()}, archive, out, show)
    for gesture, count in counts.items():
        write_json(archive.done(out, gesture), {"files": count})


def _write_members(
    members: zipfile.ZipFile, targets: dict[Path, zipfile.ZipInfo], archive: _Archive, out: Path, show: BytesCallback
) -> None:
    largest = _LARGEST_ANNOTATION if archive.annotations else _LARGEST_PICTURE
    for info in targets.values():
        if info.file_size > largest:
            raise zipfile.BadZipFile(f"{info.filename} has {info.file_size} bytes, more than {largest}")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise zipfile.BadZipFile(f"{info.filename} is compressed by method {info.compress_type}")
    absent = [(target, info) for target, info in targets.items() if not _is_there(target, info.file_size)]
    total = sum(info.file_size for info in targets.values())
    have = total - sum(info.file_size for _, info in absent)
    _require_space(out, total - have, archive.name)
    # In their order in the archive, so that they come from a server in one stream.
    for target, info in sorted(absent, key=lambda pair: pair[1].header_offset):
        # Not made durable one by one, which takes long: a cut one is seen by its size. The name is always the same, so
        # that what a killed process leaves is written over; for its dot nobody takes it for a picture.
        temporary = target.with_name(f".{target.name}.part")
        with translate_write_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with members.open(info) as source, open(temporary, "wb") as copy:
                    shutil.copyfileobj(source, copy, 1 << 20)
                os.replace(temporary, target)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        have += info.file_size
        show(have, total)


def _is_there(target: Path, size: int) -> bool:
    try:
        return target.stat().st_size == size
    except FileNotFoundError:
        return False


def _require_space(out: Path, needed: int, what: str) -> None:
    free = shutil.disk_usage(out).free
    if needed > free:
        raise Hand1000Error(
            f"{out}: {what} needs {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; "
            "free some or choose another folder"
        )
