"""What MLflow's pages show of a run's origin: the program with its commit, and the datasets."""

import getpass
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import hand1000

if TYPE_CHECKING:
    from mlflow.entities import Dataset

COMMIT_VARIABLE = "HAND1000_COMMIT"
"""Environment variable that names the commit where the program does not run in its git repository."""

# The column of MLflow's database is as short.
_MAX_DIGEST = 36


@dataclass(frozen=True)
class LoggedDataset:
    """A dataset as MLflow records it.

    Attributes:
        name: What a person calls it, such as `four, test`.
        digest: Digest of its content, of which MLflow keeps the first 36 characters.
        source: Folder or `s3://` prefix of the images, or `sample` for rendered ones.
        num_images: Number of images.
    """

    name: str
    digest: str
    source: str
    num_images: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", self.digest[:_MAX_DIGEST])

    def to_mlflow(self) -> "Dataset":
        """Return MLflow's record of it."""
        from mlflow.entities import Dataset

        scheme = urlsplit(self.source).scheme
        source_type = scheme if scheme in ("s3", "http", "https") else "local"
        source = json.dumps({"uri": self.source})
        return Dataset(self.name, self.digest, source_type, source, profile=json.dumps({"num_images": self.num_images}))


@cache
def source_tags() -> dict[str, str]:
    """Return MLflow's tags for the program of this process: its name, user and commit."""
    tags = {
        "mlflow.source.type": "LOCAL",
        "mlflow.source.name": _program_name(),
        "mlflow.user": _user_name(),
    }
    repository = Path(hand1000.__file__).parents[1]
    commit = os.environ.get(COMMIT_VARIABLE) or _git(repository, "rev-parse", "HEAD")
    if commit:
        tags["mlflow.source.git.commit"] = commit
        if COMMIT_VARIABLE not in os.environ:
            tags["mlflow.source.git.dirty"] = str(bool(_git(repository, "status", "--porcelain", "-uno"))).lower()
    return tags


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # A container's user may have a number only.
        return "unknown"


def _program_name() -> str:
    """Return the workflow's file of `pyflyte run FILE WORKFLOW`, else the name of the program."""
    files = [argument for argument in sys.argv[1:] if argument.endswith(".py")]
    return next(iter(files), "") or Path(sys.argv[0]).name or "hand1000"


def _git(repository: Path, *command: str) -> str:
    """Return the output of a command of git, or "" outside a repository and without git."""
    # An installed package may lie inside another project's repository.
    if not (repository / ".git").exists():
        return ""
    try:
        return subprocess.run(
            ["git", "-C", str(repository), *command], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
