"""The commands `hand1000 registry`: what an MLflow holds, and its copy to another one."""

import argparse
from shlex import quote
from typing import TYPE_CHECKING

from hand1000.cli.options import add_registry_option

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add_registry_commands(commands: "Commands") -> None:
    """Add `registry show` and `registry copy`."""
    registry = commands.add_parser("registry", help="show an MLflow, or copy it to another one")
    actions = registry.add_subparsers(required=True, metavar="ACTION")
    show = actions.add_parser("show", help="list the models, and print the command of MLflow's pages")
    add_registry_option(show)
    show.set_defaults(run=_show)
    copy = actions.add_parser(
        "copy", help="copy runs and models with all that belongs to them; a second copy adds what is new"
    )
    copy.add_argument("source", metavar="FROM", help="a folder with mlflow.db, or http(s)://...")
    copy.add_argument("target", metavar="TO", help="a folder, which need not exist yet, or http(s)://...")
    copy.set_defaults(run=_copy)


def _show(options: argparse.Namespace) -> None:
    from hand1000.core.tables import Table
    from hand1000.registry.connection import connect, read_pages

    tracking = connect(registry=options.registry, create=False)
    with tracking.readable_errors():
        rows = [
            (
                model.name,
                ", ".join(str(version.version) for version in model.latest_versions) or "none",
                ", ".join(f"{alias} {number}" for alias, number in sorted(model.aliases.items())),
            )
            for model in read_pages(tracking.client.search_registered_models)
        ]
    print(f"MLflow at {tracking.redacted_uri}\n")
    print(Table(("model", "newest version", "aliases"), rows).text() if rows else "no models yet")
    page = f"mlflow ui --backend-store-uri {quote(tracking.uri)}" if tracking.lock_file else tracking.redacted_uri
    print(f"\npages\n  {page}")


def _copy(options: argparse.Namespace) -> None:
    from hand1000.registry.connection import connect
    from hand1000.registry.copy_models import copy_registry

    source = connect(registry=options.source, create=False)
    print(f"copied  {copy_registry(source, connect(registry=options.target))}")
