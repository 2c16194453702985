"""The commands `hand1000 data`: HaGRID from its servers, a data set to the Hugging Face hub."""

import argparse
import os
from functools import partial
from pathlib import Path

MIRROR = "HAND1000_HAGRID_URL"
SHOWN = 20

_SIZE = """512: the shorter side is 512 pixels; all gestures lie in one archive (119 GB; version 1: 26 GB), of which
only those asked for are fetched, about 3.5 GB each (1.5 GB), unless the server gives no parts of files and sends all of
it. full: Full HD; an archive of 25 to 63 GB for each gesture, for a time beside its pictures (default: 512)"""


def add_data_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `data` and its actions to the commands of `hand1000`."""
    data = commands.add_parser("data", help="get HaGRID, check a folder, push a data set to the Hugging Face hub")
    actions = data.add_subparsers(required=True, metavar="ACTION")

    get = actions.add_parser(
        "get",
        help="fetch gestures of HaGRID",
        description="Fetch gestures of HaGRID with their annotations. The same command goes on after it was stopped.",
    )
    get.add_argument("--gesture", action="append", required=True, help="see `hand1000 gestures`; may be given again")
    get.add_argument("--out", type=Path, required=True, metavar="DIR", help="the `data` of a training afterwards")
    get.add_argument("--version", type=int, choices=(1, 2), default=2, help="18 gestures or 33 (default: 2)")
    get.add_argument("--size", choices=("512", "full"), default="512", help=_SIZE)
    get.add_argument(
        "--base-url",
        metavar="URL",
        default=os.environ.get(MIRROR) or None,
        help=f"of a mirror with the public servers' paths (default: {MIRROR}, else the public servers)",
    )
    get.set_defaults(run=_get)

    check = actions.add_parser("check", help="read every picture of a folder and tell what cannot be used")
    check.add_argument("source", metavar="DIR|s3://", help="HaGRID's layout, or one's own pictures")
    check.add_argument("--gesture", action="append", help="may be given again (default: every folder of that name)")
    check.set_defaults(run=_check)

    push = actions.add_parser("push", help="push a published data set to the hub")
    push.add_argument("folder", type=Path, metavar="DIR", help="what build_dataset published: train, test, README.md")
    push.add_argument("--repo", required=True, metavar="OWNER/NAME", help="a dataset repository, made if need be")
    push.add_argument(
        "--private", action="store_true", help="visible to those with access only (default: as the owner's settings)"
    )
    push.set_defaults(run=_push)


def _get(options: argparse.Namespace) -> None:
    from hand1000.core.progress import ProgressBar
    from hand1000.data.download import fetch_hagrid

    fetch_hagrid(
        options.out,
        options.gesture,
        version=options.version,
        size=options.size,
        base_url=options.base_url,
        progress=partial(ProgressBar, unit="B"),
    )
    print(options.out)


def _check(options: argparse.Namespace) -> None:
    from hand1000.config.settings import load_settings
    from hand1000.core.errors import Hand1000Error
    from hand1000.core.progress import ProgressBar
    from hand1000.data.check import check_source, list_gestures, report_lines
    from hand1000.storage.sources import open_source

    source = open_source(options.source)
    gestures = options.gesture or list_gestures(source)
    reports = [check_source(source, gesture, ProgressBar(gesture, unit=" images")) for gesture in gestures]
    print("\n".join(report_lines(reports, SHOWN)))
    unusable, images = sum(len(one.unusable) for one in reports), sum(one.images for one in reports)
    most = load_settings("default").data.max_unusable
    if unusable > most * images:
        raise Hand1000Error(
            f"{options.source}: {unusable} of {images} images cannot be used, more than data.max_unusable = {most} "
            "allows; repair or remove them"
        )


def _push(options: argparse.Namespace) -> None:
    from hand1000.data.hub import push_data_set

    print(push_data_set(options.folder, options.repo, private=options.private))
