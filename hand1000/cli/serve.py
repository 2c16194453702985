"""The command `hand1000 serve`: an HTTP server for one model."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from hand1000.cli.options import add_model_options, integer_type, number_type
from hand1000.config.serving import ServingLimits
from hand1000.core.errors import Hand1000Error

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add_serve_command(commands: "Commands") -> None:
    """Add `serve`, with an option for each field of `ServingLimits`."""
    serve = commands.add_parser("serve", help="serve a model over HTTP")
    add_model_options(serve)
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    port = integer_type(0, 65_535)
    serve.add_argument("--port", type=port, default=8000, help="port to listen on, 0 to 65535 (default: 8000)")
    serve.add_argument(
        "--safety-checker", type=Path, metavar="DIR", help="folder of a StableDiffusionSafetyChecker (default: none)"
    )
    serve.add_argument(
        "--grace-seconds",
        type=number_type(0, 86_400),
        default=30.0,
        help="seconds that accepted requests have to finish after SIGTERM (default: 30)",
    )
    for name, field in ServingLimits.model_fields.items():
        serve.add_argument(
            f"--{name.replace('_', '-')}",
            type=type(field.default),
            default=field.default,
            help=f"{(field.description or '').rstrip('.')} (default: {field.default:g})",
        )
    serve.set_defaults(run=_serve)


def _serve(options: argparse.Namespace) -> None:
    from hand1000.config.base import validate_settings

    limits = validate_settings(
        ServingLimits, {name: getattr(options, name) for name in ServingLimits.model_fields}, "serve"
    )
    try:
        from hand1000.serving.server import run_server
    except ModuleNotFoundError as error:
        raise Hand1000Error(f"serve: {error.name} is missing; pip install 'hand1000[serve]'") from error
    from hand1000.serving.model import load_served_model

    model = load_served_model(
        options.model, registry=options.registry, limits=limits, safety_checker=options.safety_checker
    )
    run_server(model, options.host, options.port, options.grace_seconds)
