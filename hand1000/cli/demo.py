"""The command `hand1000 demo`: a page in the browser to try a model beside its base model and the champion."""

import argparse
from typing import TYPE_CHECKING

from hand1000.cli.options import add_model_options, integer_type

if TYPE_CHECKING:
    from hand1000.serving.playground import Column

NONE = "none"
PORT = 7860
MAX_PORT = 65_535


def add_demo_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `demo` to the commands of `hand1000`."""
    demo = commands.add_parser("demo", help="open a page to try a model beside its base model and the champion")
    add_model_options(demo)
    demo.add_argument(
        "--champion",
        metavar="MODEL",
        help="model to draw beside it, or `none` (default: the champion of a registered candidate)",
    )
    demo.add_argument(
        "--base",
        metavar="MODEL",
        help="base model, a diffusers folder or hub id, or `none` (default: the one inside the model, if it has one)",
    )
    demo.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine alone)"
    )
    port = integer_type(1, MAX_PORT)
    demo.add_argument("--port", type=port, default=PORT, help=f"port to listen on (default: {PORT})")
    demo.set_defaults(run=_open)


def _open(options: argparse.Namespace) -> None:
    from hand1000.serving.playground import build_page, check_gradio, launch_page

    check_gradio()
    launch_page(build_page(load_columns(options)), options.host, options.port)


def load_columns(options: argparse.Namespace) -> "list[Column]":
    """Return the columns of the page, the model to try last."""
    from hand1000.config.serving import ServingLimits
    from hand1000.serving.model import ModelInfo, load_served_model
    from hand1000.serving.playground import Column, get_base, load_base, make_column

    limits, registry = ServingLimits(), options.registry
    tried = load_served_model(options.model, registry=registry, limits=limits)
    columns = []
    if options.base is None:
        base = get_base(tried.pipeline)
        if base is not None:
            columns.append(make_column("base", base, ModelInfo("the base model inside the candidate", ""), limits))
    elif options.base != NONE:
        base = load_base(options.base, tried.pipeline)
        columns.append(make_column("base", base, ModelInfo(options.base, ""), limits))
    champion = options.champion or _find_champion(tried.info.version, registry)
    if champion and champion != NONE:
        columns.append(Column("champion", load_served_model(champion, registry=registry, limits=limits)))
    return [*columns, Column("candidate", tried)]


def _find_champion(version: str, registry: str | None) -> str:
    """Return the champion that a candidate would replace, "" for none or for a model that is no candidate."""
    from hand1000.registry.connection import connect
    from hand1000.registry.load import find_version
    from hand1000.registry.versions import GESTURE, candidate_name, find_champion

    if not version.startswith("models:/"):
        return ""
    tracking = connect(registry=registry, create=False)
    candidate = find_version(version, registry=tracking)
    gestures = candidate.tags.get(GESTURE, "").split(",")
    if candidate.name != candidate_name(gestures):
        return ""
    champion = find_champion(tracking, gestures)
    return champion.uri if champion else ""
