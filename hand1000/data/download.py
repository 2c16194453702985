"""Download of HaGRID from its public servers, into the layout that `hand1000.data.hagrid` reads.

An archive of one gesture is downloaded whole, unpacked and removed. From an archive of all gestures (annotations,
512 px images) only the members of the requested gestures are downloaded, if the server supports range requests.
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
from hand1000.storage.keys import find_key_fault, safe_join
from hand1000.storage.records import read_record, write_record

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
"""Server, which a mirror replaces, and path on it, by version and content.

Source: README.md of github.com/hukenovs/hagrid. Version 1 is the release of 18 gestures and 554,800 images
(2023-09-21), version 2 that of 33 gestures and 1,086,158 images (2024-09-24).
"""

SIZES = ("512", "full")
"""Shorter side in pixels, or the original Full HD."""

# Version 2 has the archives of version 1 for these gestures.
_UNCHANGED = frozenset(HAGRID_V1) - {"one", "rock"}
_WORK = ".download"
_SPLITS = ("train", "val", "test")
_IMAGE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*\.(jpe?g|png)", re.IGNORECASE)
# Far above HaGRID's own: images of 5 MB, annotations of 90 MB.
_MAX_IMAGE_BYTES, _MAX_ANNOTATION_BYTES = 100_000_000, 2_000_000_000
_REMEDY = "give a mirror with --base-url or HAND1000_HAGRID_URL"
# What zipfile and the decompressors raise on bytes that are not those of a zip file.
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, struct.error, ValueError)


@dataclass(frozen=True)
class _Archive:
    """A zip file on the server, of all gestures if `shared`, and the `gestures` to unpack from it."""

    name: str
    url: str
    gestures: tuple[str, ...]
    shared: bool
    annotations: bool

    def target(self, member: str) -> tuple[str, str] | None:
        """Return a member's gesture and its path in the dataset, or None for other files."""
        if find_key_fault(member):  # HaGRID has no such member.
            return None
        path = PurePosixPath(member)
        folder = path.parent.name
        if self.annotations:
            is_annotation = folder in _SPLITS and path.suffix == ".json"
            return (path.stem, f"annotations/{folder}/{path.name}") if is_annotation else None
        gesture = folder if self.shared else self.gestures[0]
        return (gesture, f"{gesture}/{path.name}") if _IMAGE_NAME.fullmatch(path.name) else None

    def count_files(self, out: Path, gesture: str) -> int:
        if self.annotations:
            return sum((out / "annotations" / split / f"{gesture}.json").is_file() for split in _SPLITS)
        with contextlib.suppress(FileNotFoundError):
            return sum(_IMAGE_NAME.fullmatch(entry.name) is not None for entry in os.scandir(out / gesture))
        return 0

    def done_file(self, out: Path, gesture: str) -> Path:
        """Return the file that marks a gesture as unpacked and has the number of its files."""
        return out / _WORK / f"{self.name}-{gesture}.done"


def fetch_hagrid(
    out: Path,
    gestures: Sequence[str],
    *,
    version: int,
    size: str,
    base_url: str | None,
    make_progress: Callable[[str], BytesCallback],
) -> None:
    """Download gestures of HaGRID into `out/<gesture>/` and `out/annotations/{train,val,test}/<gesture>.json`.

    Existing files are not downloaded again: the same call resumes after it was stopped or killed.

    Args:
        out: Folder of one version and size.
        gestures: HaGRID's names of the gestures.
        version: 1 or 2.
        size: One of `SIZES`.
        base_url: Mirror with the paths of `ADDRESSES`; None uses the public servers.
        make_progress: Returns the callback for the bytes of the named download or archive.

    Raises:
        Hand1000Error: HaGRID has no such gesture; `out` has another version or size, is full, not writable or in use;
            a server refuses or cannot be reached; or an archive is damaged.
    """
    for gesture in gestures:
        gesture_phrase(gesture)
        if version == 1 and gesture not in HAGRID_V1:
            raise Hand1000Error(f"{gesture}: not in version 1 of HaGRID; choose version 2 or: {', '.join(HAGRID_V1)}")
    if base_url is not None and not re.match("https?://[^/]", base_url):
        raise Hand1000Error(f"{base_url!r}: not a mirror's address; write it as https://host/path")
    with _lock(out):
        _require_same_source(out, version, size)
        for archive in _archives(tuple(dict.fromkeys(gestures)), version, size, base_url):
            _fetch(archive, out, make_progress)


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
def _lock(out: Path) -> Iterator[None]:
    """Lock the folder against other downloads; the lock of a killed process is released."""
    if out.exists() and not out.is_dir():
        raise Hand1000Error(f"{out}: not a folder; choose another")
    with translate_write_errors(out):
        (out / _WORK).mkdir(parents=True, exist_ok=True)
        descriptor = os.open(out / _WORK / "lock", os.O_WRONLY | os.O_CREAT, 0o666)
    try:
        with contextlib.suppress(OSError):  # A filesystem without locks excludes no one.
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Hand1000Error(f"{out}: another command downloads into it; wait for it to end") from None
        yield
    finally:
        os.close(descriptor)


def _require_same_source(out: Path, version: int, size: str) -> None:
    """Refuse a folder with another version or size, since nothing distinguishes their files."""
    source_file, source = out / _WORK / "source.json", f"version {version}, size {size}"
    existing = read_json(source_file) if source_file.is_file() else source
    # The annotations come first, so that every folder with data has a mark.
    if existing != source and any(source_file.parent.glob("*.done")):
        raise Hand1000Error(f"{out}: has {existing}, not {source}; choose another folder or delete this one")
    write_json(source_file, source)


def _fetch(archive: _Archive, out: Path, make_progress: Callable[[str], BytesCallback]) -> None:
    whole = out / _WORK / f"{archive.name}-{'all' if archive.shared else archive.gestures[0]}.zip"
    missing = [gesture for gesture in archive.gestures if not _is_done(archive, out, gesture)]
    title = f"{archive.name} {' '.join(missing)}"

    def require_space(have: int, size: int) -> None:
        # The images need about as much space as their zip file, which exists beside them for a while.
        _require_space(out, size - have + (0 if archive.shared else size), title)

    if missing and not (archive.shared and _unpack_from_server(archive, missing, out, make_progress(title))):
        if not whole.is_file():
            progress = make_progress(title)
            download(archive.url, whole, remedy=_REMEDY, on_start=require_space, on_progress=progress)
        try:
            with open(whole, "rb") as file:
                _unpack(archive, file, missing, out, make_progress(f"unpacked {title}"))
        except _ZIP_ERRORS as error:
            with translate_write_errors(whole):
                whole.unlink()
            damage = f"damaged ({one_line(error)}) and removed"
            raise Hand1000Error(f"{whole}: {damage}; run the same command to fetch it again, or {_REMEDY}") from error
    with translate_write_errors(whole):
        whole.unlink(missing_ok=True)


def _is_done(archive: _Archive, out: Path, gesture: str) -> bool:
    try:
        return (
            archive.count_files(out, gesture) >= read_record(archive.done_file(out, gesture), required=False)["files"]
        )
    except (KeyError, TypeError):  # There is no mark, or it is damaged.
        return False


def _unpack_from_server(archive: _Archive, gestures: Sequence[str], out: Path, on_progress: BytesCallback) -> bool:
    """Unpack the members without the rest of the archive; return False if the server supports no ranges."""

    def attempt() -> bool:
        with contextlib.closing(HttpFile(archive.url, remedy=_REMEDY)) as file:
            file.seek(0, os.SEEK_END)
            if file.supports_ranges:
                try:
                    _unpack(archive, file, gestures, out, on_progress)
                except _ZIP_ERRORS as error:
                    reason = f"damaged on the server ({one_line(error)})"
                    raise Hand1000Error(f"{archive.url}: {reason}; {_REMEDY}") from error
            return file.supports_ranges

    return call_with_restarts(attempt, archive.url, _REMEDY)


def _unpack(
    archive: _Archive, file: IO[bytes] | HttpFile, gestures: Sequence[str], out: Path, on_progress: BytesCallback
) -> None:
    """Unpack the members of `gestures`, in the archive's order, so that a server can send them in one stream."""
    max_bytes = _MAX_ANNOTATION_BYTES if archive.annotations else _MAX_IMAGE_BYTES
    counts = dict.fromkeys(gestures, 0)
    targets: dict[Path, zipfile.ZipInfo] = {}
    with zipfile.ZipFile(file) as members:
        for info in members.infolist():
            target = archive.target(info.filename)
            if not target or target[0] not in counts or info.is_dir() or stat.S_ISLNK(info.external_attr >> 16):
                continue
            if info.file_size > max_bytes:
                raise zipfile.BadZipFile(f"{info.filename} has {info.file_size} bytes, more than {max_bytes}")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise zipfile.BadZipFile(f"{info.filename} is compressed by method {info.compress_type}")
            gesture, path = target[0], safe_join(out, target[1])
            counts[gesture] += path not in targets
            targets[path] = info
        for gesture, count in counts.items():
            if not count:
                kind = "annotations" if archive.annotations else "images"
                raise zipfile.BadZipFile(f"it has no {kind} of {gesture}")
        missing = [
            (path, info)
            for path, info in targets.items()
            if not (path.is_file() and path.stat().st_size == info.file_size)
        ]
        total = sum(info.file_size for info in targets.values())
        have = total - sum(info.file_size for _, info in missing)
        _require_space(out, total - have, archive.name)
        for path, info in sorted(missing, key=lambda pair: pair[1].header_offset):
            _write_member(members, info, path)
            have += info.file_size
            on_progress(have, total)
    for gesture, count in counts.items():
        write_record(archive.done_file(out, gesture), {"files": count})


def _write_member(members: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> None:
    # Syncing each file takes long; an incomplete one is found by its size. The temporary name is fixed, so that the
    # next run overwrites what a killed process leaves; its dot hides it from readers of images.
    temporary = path.with_name(f".{path.name}.part")
    with translate_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with members.open(info) as source, open(temporary, "wb") as copy:
                shutil.copyfileobj(source, copy, 1 << 20)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _require_space(out: Path, needed: int, title: str) -> None:
    free = shutil.disk_usage(out).free
    if needed > free:
        raise Hand1000Error(
            f"{out}: {title} needs {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; "
            "free some or choose another folder"
        )
