"""The commands `hand1000 review notify`: notifications about candidates and champions."""

import argparse
import os

from hand1000.cli.options import add_registry_option


def add_notify_commands(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `notify` and its actions to those of `hand1000 review`."""
    notify = actions.add_parser("notify", help="let an MLflow server call a URL about candidates and champions")
    commands = notify.add_subparsers(required=True, metavar="ACTION")
    add = commands.add_parser("add", help="add a webhook, signed with the secret in HAND1000_WEBHOOK_SECRET")
    add.add_argument("url", metavar="https://...", help="address that the server calls")
    add.set_defaults(run=_add)
    listing = commands.add_parser("list", help="list the webhooks")
    listing.set_defaults(run=_list)
    remove = commands.add_parser("remove", help="remove a webhook")
    remove.set_defaults(run=_remove)
    test = commands.add_parser("test", help="let the server send an example, and print the answer's status")
    test.set_defaults(run=_test)
    for command in (remove, test):
        command.add_argument("id", help="see `hand1000 review notify list`")
    for command in (add, listing, remove, test):
        add_registry_option(command)


def _add(options: argparse.Namespace) -> None:
    from hand1000.registry.connection import connect
    from hand1000.registry.webhooks import SECRET_VARIABLE, add_webhook

    tracking = connect(registry=options.registry, create=False)
    print(add_webhook(tracking, options.url, os.environ.get(SECRET_VARIABLE, "")).webhook_id)


def _list(options: argparse.Namespace) -> None:
    from hand1000.core.tables import Table
    from hand1000.registry.connection import connect
    from hand1000.registry.webhooks import list_webhooks

    webhooks = list_webhooks(connect(registry=options.registry, create=False))
    rows = [(webhook.webhook_id, webhook.url, ", ".join(map(str, webhook.events))) for webhook in webhooks]
    print(Table(("id", "url", "events"), rows).text() if rows else "no webhooks\n", end="")


def _remove(options: argparse.Namespace) -> None:
    from hand1000.registry.connection import connect
    from hand1000.registry.webhooks import remove_webhook

    remove_webhook(connect(registry=options.registry, create=False), options.id)
    print(f"{options.id} is removed")


def _test(options: argparse.Namespace) -> None:
    from hand1000.registry.connection import connect
    from hand1000.registry.webhooks import call_webhook

    print(f"status {call_webhook(connect(registry=options.registry, create=False), options.id)}")
