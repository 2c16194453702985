"""Where a source has HaGRID's annotations and images, in either version."""

import posixpath
from dataclasses import dataclass
from pathlib import PurePosixPath

from hand1000.data.formats import is_image
from hand1000.gestures import PHRASES
from hand1000.storage.sources import Source

ANNOTATION_FOLDERS = {
    "annotations/train": "train",
    "annotations/val": "train",
    "annotations/test": "test",
    "ann_train_val": "train",
    "ann_subsample": "train",
    "ann_test": "test",
}
"""The folders of annotation files, in the order in which they are read, and the split that each belongs to."""

IMAGE_FOLDERS = ("{gesture}", "train_val_{gesture}")
"""The folders of the images of a gesture, in the source or in a folder of it."""

_MAX_FOLDERS = 3


@dataclass(frozen=True)
class HagridLayout:
    """Where a source has HaGRID: the folders of its annotations, and what is before their names."""

    prefix: str
    folders: tuple[str, ...]

    @classmethod
    def find(cls, source: Source) -> "HagridLayout | None":
        """Return the layout of `source`, or of one of its folders if it has few; None if no gesture has annotations."""
        top = source.list_folders()
        for prefix in ("", *(folder for folder in top if len(top) <= _MAX_FOLDERS)):
            present = top if not prefix else source.list_folders(prefix)
            names = [name for name in ANNOTATION_FOLDERS if name.partition("/")[0] in present]
            layout = cls(prefix, tuple(posixpath.join(prefix, name) for name in names))
            if layout.list_annotated(source):
                return layout
        return None

    def split(self, folder: str) -> str:
        """Return the split that the annotations in `folder` belong to."""
        return ANNOTATION_FOLDERS[posixpath.relpath(folder, self.prefix or ".")]

    def list_annotated(self, source: Source) -> set[str]:
        """Return the gestures with annotations."""
        files = (PurePosixPath(file) for folder in self.folders for file in source.list_files(folder))
        return {file.stem for file in files if file.suffix == ".json"} & set(PHRASES)

    def list_gestures(self, source: Source) -> set[str]:
        """Return the gestures with annotations and images."""

        def has_images(gesture: str) -> bool:
            folders = self.image_folders(source, gesture)
            return any(is_image(file) for folder in folders for file in source.list_files(folder))

        return set(filter(has_images, self.list_annotated(source)))

    def image_folders(self, source: Source, gesture: str) -> list[str]:
        """Return the folders that may have the images of `gesture`."""
        others = [name for name in source.list_folders(self.prefix) if name not in PHRASES]
        parents = [self.prefix, *(posixpath.join(self.prefix, name) for name in others)]
        return [posixpath.join(parent, name.format(gesture=gesture)) for parent in parents for name in IMAGE_FOLDERS]
