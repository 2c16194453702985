"""The commands `hand1000 data`: download HaGRID, check a source, push a dataset to the hub, forget people."""

import argparse
import os
from functools import partial
from pathlib import Path

from hand1000.cli.forget import add_forget_command

MIRROR = "HAND1000_HAGRID_URL"

_SIZE_HELP = """512: the shorter side has 512 pixels. All gestures are in one archive (119 GB; version 1: 26 GB), of
which only the requested ones are downloaded, about 3.5 GB each (1.5 GB), unless the server does not support ranges.
full: Full HD, an archive of 25 to 63 GB per gesture, which needs its space beside the images (default: 512)"""


def add_data_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `data` and its actions to the commands of `hand1000`."""
    data = commands.add_parser("data", help="download HaGRID, check images, push a dataset to the hub, forget people")
    actions = data.add_subparsers(required=True, metavar="ACTION")

    get = actions.add_parser(
        "get",
        help="download gestures of HaGRID",
        description="Download gestures of HaGRID with their annotations. The same command resumes a stopped download.",
    )
    get.add_argument("--gesture", action="append", required=True, help="see `hand1000 gestures`; repeatable")
    get.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder, the `data` of a training")
    get.add_argument("--version", type=int, choices=(1, 2), default=2, help="18 gestures or 33 (default: 2)")
    get.add_argument("--size", choices=("512", "full"), default="512", help=_SIZE_HELP)
    get.add_argument(
        "--base-url",
        metavar="URL",
        default=os.environ.get(MIRROR) or None,
        help=f"mirror with the public servers' paths (default: {MIRROR}, else the public servers)",
    )
    get.set_defaults(run=_get)

    check = actions.add_parser("check", help="read every image of a source and report what cannot be used")
    check.add_argument("source", metavar="DIR|s3://|OWNER/NAME@COMMIT", help="any layout of docs/data.md")
    check.add_argument("--gesture", action="append", help="repeatable (default: every folder with a gesture's name)")
    check.add_argument(
        "--bbox-format",
        choices=("relative", "pixels"),
        default="relative",
        help="what boxes in metadata files are, as data.bbox_format (default: relative)",
    )
    check.add_argument("--html", type=Path, metavar="FILE", help="also write a page with thumbnails")
    check.set_defaults(run=_check)

    push = actions.add_parser("push", help="push a published dataset to the hub")
    push.add_argument("folder", type=Path, metavar="DIR", help="output of build_dataset: train, test, README.md")
    push.add_argument("--repo", required=True, metavar="OWNER/NAME", help="dataset repository, created if necessary")
    push.add_argument("--private", action="store_true", help="make it private (default: the owner's settings)")
    push.set_defaults(run=_push)

    add_forget_command(actions)


def _get(options: argparse.Namespace) -> None:
    from hand1000.core.progress import ProgressBar
    from hand1000.data.download import fetch_hagrid

    fetch_hagrid(
        options.out,
        options.gesture,
        version=options.version,
        size=options.size,
        base_url=options.base_url,
        make_progress=partial(ProgressBar, unit="B"),
    )
    print(options.out)


def _check(options: argparse.Namespace) -> None:
    from hand1000.config.settings import load_settings
    from hand1000.core.errors import Hand1000Error
    from hand1000.core.progress import ProgressBar
    from hand1000.data.check import check_source, list_gestures
    from hand1000.data.check_report import report_lines
    from hand1000.data.sources.opening import open_dataset

    source = open_dataset(options.source)
    gestures = options.gesture or list_gestures(source)
    reports = [
        check_source(
            source,
            gesture,
            ProgressBar(gesture, unit=" images"),
            bbox_format=options.bbox_format,
            single_gesture=len(gestures) == 1,
        )
        for gesture in gestures
    ]
    print("\n".join(report_lines(reports)))
    if options.html:
        from hand1000.reports.data_check import write_data_page

        write_data_page(options.html, options.source, reports)
        print(f"page: {options.html}")
    max_unusable = load_settings("default").data.max_unusable
    for report in reports:
        try:
            report.require_usable(max_unusable)
        except Hand1000Error as error:
            raise Hand1000Error(f"{options.source}: {report.gesture}: {error}; repair or remove them") from error


def _push(options: argparse.Namespace) -> None:
    from hand1000.data.hub import push_dataset

    print(push_dataset(options.folder, options.repo, private=options.private))
