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
    unsent = actions.add_parser("unsent", help="list the records of runs that wait for MLflow, or send them")
    unsent.add_argument("--root", default="artifacts", metavar="DIR|s3://", help="artifact root (default: artifacts)")
    unsent.add_argument("--send", action="store_true", help="send them now")
    add_registry_option(unsent)
    unsent.set_defaults(run=_list_unsent)


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


def _list_unsent(options: argparse.Namespace) -> None:
    from hand1000.cli.gc import connect_registry
    from hand1000.core.tables import Table
    from hand1000.registry.recorder import send_waiting
    from hand1000.registry.unsent import REFUSED, Outbox
    from hand1000.storage.artifacts import open_store

    store = open_store(options.root)
    outbox = Outbox(store.backend)
    if options.send:
        tracking = connect_registry(options.registry, store.root)
        print(f"sent {send_waiting(outbox, tracking)} records to MLflow at {tracking.redacted_uri}")
    rows = [
        (row.run_key, row.stage or "the run itself", row.records, f"{row.since:%Y-%m-%d %H:%M}")
        for row in outbox.waiting_runs()
    ]
    if rows:
        print(Table(("run", "stage", "records", "since (UTC)"), rows, numeric=[2]).text())
        print("the next run of this root sends them, or `hand1000 registry unsent --send`")
    else:
        print(f"{outbox.address}: no records wait for MLflow")
    if refused := sum(1 for _ in store.backend.list_files(REFUSED)):
        print(f"{store.root}/{REFUSED}: {refused} records that MLflow refused; read them, then remove the folder")
