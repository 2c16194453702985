"""A published data set on the Hugging Face hub."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from hand1000.core.errors import Hand1000Error, one_line
from hand1000.data.imageset import read_image_set
from hand1000.data.publish import CARD, SPLITS

# What `build_dataset` publishes; whatever else lies in the folder stays at home.
_PUBLISHED = [*(f"{split}/*" for split in SPLITS), CARD, "*.json", "captions.html"]
_REFUSED = {
    401: "the hub refuses the token; correct HF_TOKEN or sign in anew with `hf auth login`",
    403: "the token may not write there; give one that has the right to write, or another repository",
    404: "no such owner, or the token may not see it; correct the name",
}


def push_data_set(folder: Path, repo: str, *, private: bool) -> str:
    """Make the hub's dataset repository hold the data set in `folder`, in one commit.

    The token is HF_TOKEN or that of the hub's own sign-in. Images of an earlier push that are no longer in the set are
    removed by the same commit, since an imagefolder's metadata must name every image.

    Args:
        folder: as `hand1000.data.publish.publish_data_set` writes it.
        repo: `OWNER/NAME`; made if there is none.
        private: whether only those with access see it; if False, a new one is as the owner's settings have it (public
            for people), and an existing one stays as it is.

    Returns:
        The address of the commit.

    Raises:
        Hand1000Error: `folder` is no published data set, `repo` is public though `private` was asked for, or the hub
            refuses or cannot be reached.
    """
    counts = {split: len(read_image_set(folder / split)) for split in SPLITS}
    if not (folder / CARD).is_file():
        raise Hand1000Error(f"{folder / CARD}: no such file; push a data set that build_dataset has published")
    for split, count in counts.items():
        if not count:
            raise Hand1000Error(f"{folder / split}: holds no images; push a data set with images in both splits")

    from huggingface_hub import HfApi

    with _explained(repo):
        api = HfApi(token=True)  # As it is found, but never without one.
        api.create_repo(repo, repo_type="dataset", private=private or None, exist_ok=True)
        if private and not api.repo_info(repo, repo_type="dataset").private:
            raise Hand1000Error(f"{repo}: exists and is public; make it private on the hub, or name another")
        commit = api.upload_folder(
            repo_id=repo,
            repo_type="dataset",
            folder_path=folder,
            allow_patterns=_PUBLISHED,
            delete_patterns=_PUBLISHED,
            commit_message=f"{counts['train']} images to train on, {counts['test']} to measure against",
        )
    return commit.commit_url


@contextlib.contextmanager
def _explained(repo: str) -> Iterator[None]:
    """Turn the hub's errors about `repo` into one line; none of them holds the token."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError, LocalTokenNotFoundError

    try:
        yield
    except LocalTokenNotFoundError as error:
        raise Hand1000Error(f"{repo}: no token for the hub; set HF_TOKEN or sign in with `hf auth login`") from error
    except HFValidationError as error:
        raise Hand1000Error(f"{repo}: not a repository's name; write it as OWNER/NAME") from error
    except HfHubHTTPError as error:
        code = error.response.status_code
        told = " ".join((error.server_message or "").split())
        remedy = _REFUSED.get(code, "the hub refuses; try again later")
        raise Hand1000Error(f"{repo}: HTTP {code}: {remedy}{f' ({told})' if told else ''}") from error
    except (HTTPError, OSError) as error:
        told = one_line(error)
        raise Hand1000Error(f"{repo}: the hub cannot be reached ({told}); check the network and HF_ENDPOINT") from error
