"""The command `hand1000`: generate, export, configurations and gestures; the other commands have modules of their own.

Libraries that take seconds to import are imported by the commands that need them.
"""

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hand1000.cli.accounts import add_accounts_command
from hand1000.cli.classifier import add_classifier_commands
from hand1000.cli.data import add_data_commands
from hand1000.cli.demo import add_demo_command
from hand1000.cli.evaluate import add_evaluate_command
from hand1000.cli.gc import add_gc_command
from hand1000.cli.options import CommandParser, add_model_options, integer_type
from hand1000.cli.registry import add_registry_commands
from hand1000.cli.remote import add_remote_commands
from hand1000.cli.review import add_review_commands
from hand1000.cli.schedules import add_schedules_commands
from hand1000.cli.serve import add_serve_command
from hand1000.core.errors import Hand1000Error, translate_system_errors
from hand1000.core.interruption import Interrupted, handle_signals
from hand1000.core.text import shorten

if TYPE_CHECKING:
    from PIL import Image

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

MAX_IMAGES = 1000
_MAX_ERROR = 2000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0 on success; 2 after a line on standard error that names the input at fault; 130 after SIGINT, 143 after
        SIGTERM.
    """
    # A file's name may have bytes that no text has, which a command prints like any other.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    options = _build_parser().parse_args(arguments)
    with handle_signals():
        try:
            with translate_system_errors(Path.cwd()):
                options.run(options)
        except Hand1000Error as error:
            print(f"hand1000: error: {shorten(str(error), _MAX_ERROR)}", file=sys.stderr)
            return 2
        except Interrupted as error:
            return error.exit_status
        except KeyboardInterrupt:
            return 130
    return 0


def _build_parser() -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = CommandParser(
        prog="hand1000", description="Generate images of people who make a hand gesture."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_generate_command(commands)
    _add_export_command(commands)
    _add_config_commands(commands)
    commands.add_parser("gestures", help="list the gestures and their phrases").set_defaults(run=_print_gestures)
    add_evaluate_command(commands)
    add_classifier_commands(commands)
    add_data_commands(commands)
    add_serve_command(commands)
    add_demo_command(commands)
    add_remote_commands(commands)
    add_schedules_commands(commands)
    add_registry_commands(commands)
    add_accounts_command(commands)
    add_gc_command(commands)
    add_review_commands(commands)
    return parser


def _add_generate_command(commands: "Commands") -> None:
    generate = commands.add_parser("generate", help="generate images with a model")
    add_model_options(generate)
    generate.add_argument(
        "--prompt", required=True, help="the prompt, with the gesture's phrase (see `hand1000 gestures`)"
    )
    generate.add_argument("--gesture", help="gesture, if the model knows several (default: inferred from the prompt)")
    generate.add_argument("--num", type=integer_type(1, MAX_IMAGES), default=8, help="number of images (default: 8)")
    generate.add_argument(
        "--out", type=Path, default=Path("grid.png"), help="grid of all images, .png, .jpg or .webp (default: grid.png)"
    )
    generate.add_argument("--separate", type=Path, metavar="DIR", help="also write each image to DIR/SEED.png")
    generate.add_argument(
        "--seed", type=integer_type(0, 2**31 - 1), default=0, help="seed of the first image; each next image adds 1"
    )
    generate.add_argument(
        "--batch-size", type=integer_type(1, 256), default=4, help="number of images at a time (default: 4)"
    )
    _add_sampler_options(generate)
    generate.set_defaults(run=_generate)


def _add_sampler_options(command: argparse.ArgumentParser) -> None:
    """Add an option for each sampler setting that a call may override."""
    from hand1000.config.sampler import CALL_FIELDS, SamplerSettings, describe_range

    for name in CALL_FIELDS:
        description = (SamplerSettings.model_fields[name].description or "").rstrip(".")
        is_interval = name == "autoguidance_interval"
        command.add_argument(
            "--steps" if name == "num_inference_steps" else f"--{name.replace('_', '-')}",
            dest=name,
            type={"num_inference_steps": int, "sampler": str}.get(name, float),
            nargs=2 if is_interval else None,
            metavar=("LOW", "HIGH") if is_interval else None,
            help=f"{description}; {describe_range(name)} (default: the model's)",
        )


def _add_export_command(commands: "Commands") -> None:
    export = commands.add_parser("export", help="write a model as plain Stable Diffusion for other programs")
    add_model_options(export)
    export.add_argument(
        "--to",
        required=True,
        choices=("diffusers", "single-file", "lora", "lora-diffusers"),
        help="a folder, or one .safetensors file; a LoRA has kohya's names, or diffusers'",
    )
    export.add_argument("--out", required=True, type=Path, help="the folder or file, which must not exist yet")
    export.add_argument("--gesture", help="gesture to fold into the weights, if the model knows several")
    export.add_argument("--mu", type=float, help="weight of the text embedding, 0 to 1 (default: the model's)")
    export.add_argument(
        "--dtype", choices=("float32", "float16"), default="float32", help="type of the weights (default: float32)"
    )
    export.set_defaults(run=_export)


def _add_config_commands(commands: "Commands") -> None:
    config = commands.add_parser("config", help="show or check settings")
    actions = config.add_subparsers(required=True, metavar="ACTION")
    show = actions.add_parser("show", help="print a preset, a settings file or a workflow's inputs file completely")
    show.add_argument("source", metavar="PRESET|FILE")
    show.set_defaults(run=_show_config)
    check = actions.add_parser("check", help="check that a settings file or a workflow's inputs file is valid")
    check.add_argument("source", metavar="FILE", type=Path)
    check.set_defaults(run=_check_config)


def _generate(options: argparse.Namespace) -> None:
    from hand1000.cli.images import check_image_path, save_image
    from hand1000.config.sampler import CALL_FIELDS, check_call_values
    from hand1000.gestures import gesture_phrase
    from hand1000.registry.load import load_model_folder

    # What needs no weights is checked first: loading them may take minutes.
    settings = {name: getattr(options, name) for name in CALL_FIELDS}
    check_call_values(**settings)
    check_image_path(options.out)
    if options.gesture:
        gesture_phrase(options.gesture)
    folder = load_model_folder(options.model, registry=options.registry)
    # These take seconds to import, so they follow the check of the address.
    import math

    from hand1000.pipelines.model_folder import check_prompt_of_folder, check_sampler_of_folder
    from hand1000.pipelines.pipeline_hand1000 import load_pipeline

    check_prompt_of_folder(folder, options.prompt, options.gesture)
    check_sampler_of_folder(folder, options.sampler, options.eta)
    pipeline = load_pipeline(folder)
    pipeline.check_prompts([options.prompt], options.gesture)  # Warns of words that are not read.
    from hand1000.core.progress import ProgressBar
    from hand1000.pipelines.generation import generate, make_image_grid

    on_progress = ProgressBar("generated", unit=" images")
    images: list[Image.Image] = []
    for image in generate(
        pipeline,
        [options.prompt] * options.num,
        range(options.seed, options.seed + options.num),
        gestures=[options.gesture] * options.num if options.gesture else None,
        batch_size=options.batch_size,
        **settings,
    ):
        images.append(image)
        on_progress(len(images), options.num)
    if options.separate:
        for seed, image in enumerate(images, options.seed):
            save_image(image, options.separate / f"{seed}.png")
    save_image(make_image_grid(images, columns=math.ceil(math.sqrt(len(images)))), options.out)
    print(options.out)


def _export(options: argparse.Namespace) -> None:
    from hand1000.export.target import check_target
    from hand1000.registry.load import load_model_folder

    check_target(options.to, options.out, mu=options.mu, gesture=options.gesture)
    folder = load_model_folder(options.model, registry=options.registry)
    from hand1000.export.export import export_model
    from hand1000.export.measured import read_export_metrics

    measured = read_export_metrics(folder)
    asked = {"mu": options.mu, "gesture": options.gesture, "precision": options.dtype}
    export_model(folder, options.to, options.out, **asked, measured=measured)
    print(options.out)


def _show_config(options: argparse.Namespace) -> None:
    import yaml

    from hand1000.config.inputs import load_config

    values = load_config(options.source).model_dump(mode="json", exclude_unset=True)
    print(yaml.safe_dump(values, sort_keys=False), end="")


def _check_config(options: argparse.Namespace) -> None:
    from hand1000.config.inputs import WorkflowInputs, load_config
    from hand1000.config.settings import Settings

    config = load_config(options.source)
    if isinstance(config, WorkflowInputs) and isinstance(config.settings, Settings):
        base_model = config.base_model or ""
        # A base model elsewhere is checked when the run starts: this needs no network.
        if base_model and Path(base_model).is_dir():
            from hand1000.models.backbone import required_features
            from hand1000.models.base_model import check_features, read_resolution

            check_features(base_model, required_features(config.settings))
            read_resolution(base_model)
    print(f"{options.source}: valid")


def _print_gestures(_: argparse.Namespace) -> None:
    from hand1000.gestures import PHRASES

    width = max(map(len, PHRASES))
    for gesture, phrase in PHRASES.items():
        print(f"{gesture:{width}}  {phrase}")


if __name__ == "__main__":
    sys.exit(main())
