"""Sources by their addresses: a folder, an `s3://` prefix, or a dataset of the Hugging Face hub at a pinned commit."""

import re
from collections.abc import Iterator
from pathlib import Path

from hand1000.core.errors import Hand1000Error, one_line
from hand1000.data.formats import image_suffixes
from hand1000.data.sources.folders import TEXT_SUFFIXES
from hand1000.storage.sources import LocalSource, Source, open_source

_HUB_ID = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^@/]*))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_REMEDY = "a dataset of the hub is given as OWNER/NAME@COMMIT with the 40 digits of the commit"


def open_dataset(address: str | Path) -> Source:
    """Return the source at a folder, at an `s3://` prefix, or of a hub dataset, `owner/name@commit`.

    Of a hub dataset the files that a reader understands are downloaded into the hub's cache; none of its code runs.

    Raises:
        Hand1000Error: There is no such folder, the commit is not pinned, or the hub has no such dataset or cannot be
            reached.
    """
    text = str(address)
    match = None if text.startswith((".", "/", "~")) or Path(text).exists() else _HUB_ID.fullmatch(text)
    if match is None:
        return open_source(address)
    if not _COMMIT.fullmatch(match["revision"] or ""):
        raise Hand1000Error(f"{text}: no such folder; {_REMEDY}")
    return HubSource(match["name"], match["revision"])


class HubSource(LocalSource):
    """A dataset of the hub at one commit."""

    def __init__(self, name: str, revision: str) -> None:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        self._address = f"{name}@{revision}"
        suffixes = (*image_suffixes(), *TEXT_SUFFIXES, ".json", ".jsonl", ".csv", ".parquet", ".tar")
        patterns = [f"*{suffix}" for suffix in suffixes]
        try:
            folder = snapshot_download(name, revision=revision, repo_type="dataset", allow_patterns=patterns)
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
            reason = one_line(error)[:300]
            raise Hand1000Error(
                f"{self._address}: the hub has no such dataset, or cannot be reached ({reason}); "
                "correct the name, set HF_TOKEN for a private dataset, or check the network"
            ) from error
        super().__init__(Path(folder))
        self.root = self._address

    def list_links(self, folder: str) -> Iterator[tuple[str, bool]]:
        """Yield nothing: the hub's cache consists of links."""
        return iter(())

    def file_version(self, name: str) -> list[int | str]:
        """Return the dataset's address, which has the commit."""
        return [self._address]
