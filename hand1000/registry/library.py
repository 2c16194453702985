"""The library beside a registered model, so that an environment without `hand1000` can load it."""

import zipfile
from pathlib import Path

LIBRARY = "library.zip"
"""File beside `model_code.py`, which Python imports from directly."""

_PACKAGE = Path(__file__).parents[1]
_TIME = (1980, 1, 1, 0, 0, 0)


def pack_library(target: Path) -> None:
    """Write the package's Python files to a zip file; equal code gives equal bytes.

    The shipped networks, presets and templates are left out: generation needs none of them.
    """
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(_PACKAGE.rglob("*.py")):
            name = path.relative_to(_PACKAGE.parent).as_posix()
            archive.writestr(zipfile.ZipInfo(name, _TIME), path.read_bytes(), zipfile.ZIP_DEFLATED)
