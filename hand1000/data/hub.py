"""Upload of a published dataset to the Hugging Face hub."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from hand1000.core.errors import Hand1000Error, one_line
from hand1000.data.imageset import read_image_set
from hand1000.data.publish import CARD, SPLITS

# The files that `build_dataset` publishes; any other file in the folder is not uploaded.
_PUBLISHED_FILES = [*(f"{split}/*" for split in SPLITS), CARD, "*.json", "captions.html"]
_REMEDIES = {
    401: "the hub refuses the token; correct HF_TOKEN or sign in again with `hf auth login`",
    403: "the token has no right to write there; use one that has, or another repository",
    404: "no such owner, or the token has no right to see it; correct the name",
}


def push_dataset(folder: Path, repo: str, *, private: bool) -> str:
    """Upload the dataset in `folder` to a dataset repository of the hub, in one commit.

    The token is HF_TOKEN or that of `hf auth login`. The same commit removes images of an earlier upload that are no
    longer in the dataset: `datasets` leaves out an image that no line names without a word, so they would lie there
    unseen.

    Args:
        folder: Folder that `hand1000.data.publish.publish_dataset` wrote.
        repo: Repository `OWNER/NAME`, which is created if it does not exist.
        private: Whether only people with access see it. If False, a new repository follows the owner's settings
            (public for people), and an existing one stays as it is.

    Returns:
        The address of the commit.

    Raises:
        Hand1000Error: `folder` has no published dataset, `repo` is public although `private` is set, or the hub
            refuses or cannot be reached.
    """
    counts = {split: len(read_image_set(folder / split)) for split in SPLITS}
    if not (folder / CARD).is_file():
        raise Hand1000Error(f"{folder / CARD}: no such file; push a dataset that build_dataset has published")
    for split, count in counts.items():
        if not count:
            raise Hand1000Error(f"{folder / split}: has no images; push a dataset with images in both splits")

    from huggingface_hub import HfApi

    with _translate_hub_errors(repo):
        api = HfApi(token=True)  # Required: without it, the client may send none.
        api.create_repo(repo, repo_type="dataset", private=private or None, exist_ok=True)
        if private and not api.repo_info(repo, repo_type="dataset").private:
            raise Hand1000Error(f"{repo}: exists and is public; make it private on the hub, or name another")
        commit = api.upload_folder(
            repo_id=repo,
            repo_type="dataset",
            folder_path=folder,
            allow_patterns=_PUBLISHED_FILES,
            delete_patterns=_PUBLISHED_FILES,
            commit_message=f"{counts['train']} training images, {counts['test']} test images",
        )
    return commit.commit_url


@contextlib.contextmanager
def _translate_hub_errors(repo: str) -> Iterator[None]:
    """Turn the hub's errors about `repo` into one line, which never contains the token."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError, LocalTokenNotFoundError

    try:
        yield
    except LocalTokenNotFoundError as error:
        raise Hand1000Error(f"{repo}: no token for the hub; set HF_TOKEN or sign in with `hf auth login`") from error
    except HFValidationError as error:
        raise Hand1000Error(f"{repo}: not a repository's name; write it as OWNER/NAME") from error
    except HfHubHTTPError as error:
        code = error.response.status_code
        message = " ".join((error.server_message or "").split())
        remedy = _REMEDIES.get(code, "the hub refuses; try again later")
        raise Hand1000Error(f"{repo}: HTTP {code}: {remedy}{f' ({message})' if message else ''}") from error
    except (HTTPError, OSError) as error:
        remedy = "check the network and HF_ENDPOINT"
        raise Hand1000Error(f"{repo}: the hub cannot be reached ({one_line(error)}); {remedy}") from error
