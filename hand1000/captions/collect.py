"""Captioning that goes on where it was, and never looks at an image twice."""

from collections.abc import Callable, Sequence
from pathlib import Path

from hand1000.captions.captioners import Captioner
from hand1000.storage.cache import KeyValueCache


def collect_captions(
    captioner: Captioner,
    images: Sequence[Path],
    digests: Sequence[str],
    known: Sequence[str | None],
    *,
    ledger: KeyValueCache,
    batch_size: int,
    progress: Callable[[int, int], None],
) -> list[str]:
    """A caption an image: those of the ledger, and the captioner's of the others, which the ledger then holds.

    Args:
        captioner: whose ledger it is; another captioner, or another revision, has another.
        images: the files.
        digests: of their content; images of equal content are captioned once.
        known: the caption that came with each image, if one did.
        ledger: captions by digest.
        batch_size: images captioned, and kept, at a time.
        progress: is given (done, total) different images.
    """
    captions = ledger.read()
    first = {digest: index for index, digest in reversed(list(enumerate(digests)))}
    # By digest: the same images make the same batches, whatever their names and order.
    missing = [first[digest] for digest in sorted(first) if digest not in captions]
    for start in range(0, len(missing), batch_size):
        batch = missing[start : start + batch_size]
        written = captioner.caption([images[index] for index in batch], [known[index] for index in batch])
        new = {digests[index]: text for index, text in zip(batch, written, strict=True)}
        ledger.add(new)
        captions |= new
        progress(len(first) - len(missing) + start + len(batch), len(first))
    return [str(captions[digest]) for digest in digests]
