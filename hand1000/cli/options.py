"""Options that several commands share."""

import argparse
from collections.abc import Callable
from typing import NoReturn

from hand1000.core.text import MAX_MESSAGE, shorten


def add_model_options(command: argparse.ArgumentParser) -> None:
    """Add `--model`, and the `--registry` in which a registered one is looked up."""
    command.add_argument(
        "--model",
        required=True,
        help="models:/NAME/VERSION, models:/NAME@ALIAS, a folder, s3://..., or OWNER/NAME@REVISION of the hub",
    )
    add_registry_option(command)


def add_registry_option(command: argparse.ArgumentParser) -> None:
    """Add `--registry`, the address that `hand1000.registry.connection.connect` takes."""
    command.add_argument(
        "--registry",
        metavar="ADDRESS",
        help="MLflow of the models: a folder with mlflow.db, or http(s)://... (default: MLFLOW_TRACKING_URI, else "
        "artifacts)",
    )


class CommandParser(argparse.ArgumentParser):
    """A parser whose error is the usage and one printable line of bounded length, whatever the arguments are."""

    def error(self, message: str) -> NoReturn:
        """Print the usage and the error, and exit with status 2."""
        super().error(shorten(message, MAX_MESSAGE))


def integer_type(low: int, high: int) -> Callable[[str], int]:
    """Return a type for argparse: an integer in low..high."""

    def integer(text: str) -> int:
        if not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text} is out of range; choose {low} to {high}")
        return int(text)

    return integer


def number_type(low: float, high: float) -> Callable[[str], float]:
    """Return a type for argparse: a number in low..high."""

    def number(text: str) -> float:
        if not low <= float(text) <= high:
            raise argparse.ArgumentTypeError(f"{text} is out of range; choose {low:g} to {high:g}")
        return float(text)

    return number
