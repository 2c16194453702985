"""Several image sets, such as the shards of one, seen as one."""

from collections.abc import Sequence
from pathlib import Path

from hand1000.data.imageset import read_image_set, write_metadata


def merge_image_sets(parts: Sequence[Path], into: Path) -> Path:
    """Make `into` an image set of all pictures of `parts`, by links: nothing is copied.

    The order of the lines is that of the file names, so that 1 and 3 shards give the same set.
    """
    into.mkdir(parents=True, exist_ok=True)
    records = []
    for part in parts:
        for record in read_image_set(part):
            (into / record.file_name).symlink_to((part / record.file_name).resolve())
            records.append(record)
    write_metadata(into, records)
    return into
