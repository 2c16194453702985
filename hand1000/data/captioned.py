"""An image set's records with the captions that somebody wrote for them."""

from collections.abc import Sequence
from pathlib import Path

from hand1000.captions.captioners import read_captions
from hand1000.captions.completion import complete_caption
from hand1000.core.errors import Hand1000Error
from hand1000.data.imageset import ImageRecord


def with_captions(records: Sequence[ImageRecord], captions: Sequence[Path], captioner: str) -> list[ImageRecord]:
    """The records with what `captioner` wrote, completed with their gesture's phrase.

    Args:
        records: of an image set.
        captions: files of `write_captions`, of its shards in any order.
        captioner: who wrote them.

    Raises:
        Hand1000Error: an image has no caption.
    """
    found: dict[str, str] = {}
    for path in captions:
        found.update(read_captions(path))
    missing = [record.file_name for record in records if record.file_name not in found]
    if missing:
        raise Hand1000Error(f"{missing[0]}: no caption ({len(missing)} images lack one); caption all shards")
    return [
        record.model_copy(
            update={
                "caption": found[record.file_name],
                "text": complete_caption(found[record.file_name], record.gesture),
                "captioner": captioner,
            }
        )
        for record in records
    ]
