"""The commands `hand1000 schedules list` and `check`: the scheduled retrainings and when they run."""

import argparse
import datetime

from hand1000.cli.options import integer_type

_NO_RUN = "-"


def add_schedules_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `schedules list` and `schedules check` to the commands of `hand1000`."""
    from hand1000.config.schedules import FILE

    schedules = commands.add_parser("schedules", help="list or check the scheduled retrainings")
    actions = schedules.add_subparsers(required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="print each gesture's schedule with its next runs, in UTC")
    listing.add_argument(
        "--runs", type=integer_type(1, 20), default=3, metavar="N", help="number of next runs of each row (default: 3)"
    )
    listing.set_defaults(run=_list)
    check = actions.add_parser("check", help="check that Flyte's scheduler runs every row")
    check.set_defaults(run=_check)
    for command in (listing, check):
        command.add_argument("file", nargs="?", default=FILE, metavar="FILE", help=f"default: {FILE}")


def _list(options: argparse.Namespace) -> None:
    from hand1000.config.schedules import read_schedules
    from hand1000.core.tables import Table

    now = datetime.datetime.now(datetime.UTC)
    rows = []
    for row in read_schedules(options.file).rows:
        runs = [f"{run:%a %Y-%m-%d %H:%M}" for run in row.next_runs(now, options.runs)] if row.active else [_NO_RUN]
        rows.append([row.gesture, "yes" if row.active else "no", row.cron, ", ".join(runs)])
    print(Table(["gesture", "active", "cron", "next runs (UTC)"], rows).text(), end="")


def _check(options: argparse.Namespace) -> None:
    from hand1000.config.schedules import read_schedules

    print(f"{options.file}: valid, {len(read_schedules(options.file).rows)} rows")
