"""The command `hand1000`."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hand1000.cli.data import add_data_commands
from hand1000.cli.evaluate import add_evaluate_command
from hand1000.cli.remote import add_remote_commands
from hand1000.core.errors import Hand1000Error

if TYPE_CHECKING:
    from PIL import Image

MAX_PICTURES = 1000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0 when done; 2 after a line on stderr that names the input at fault; 130 when interrupted.
    """
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except Hand1000Error as error:
        print(f"hand1000: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hand1000", description="Draw people who make a hand gesture, correctly.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    generate = commands.add_parser("generate", help="draw pictures with a model")
    generate.add_argument(
        "--model", required=True, help="models:/NAME/VERSION, models:/NAME@ALIAS, a folder, or s3://..."
    )
    generate.add_argument("--prompt", required=True, help="should hold the gesture's phrase, see `hand1000 gestures`")
    generate.add_argument("--gesture", help="of a model that knows several (default: whose phrase the prompt holds)")
    generate.add_argument("--num", type=_whole(1, MAX_PICTURES), default=8, help="how many pictures (default: 8)")
    generate.add_argument("--out", type=Path, default=Path("grid.png"), help="all in one PNG (default: grid.png)")
    generate.add_argument("--separate", type=Path, metavar="DIR", help="also each picture as DIR/SEED.png")
    generate.add_argument("--seed", type=_whole(0, 2**31 - 1), default=0, help="of the first; the next has the next")
    generate.add_argument(
        "--mu", type=float, help="weight of the text against the gesture, 0 to 1 (default: the model's)"
    )
    generate.add_argument("--guidance-scale", type=float, help="1 to 50 (default: the model's)")
    generate.add_argument("--autoguidance-scale", type=float, help="1 to 10 (default: the model's)")
    generate.add_argument("--eta", type=float, help="fresh noise in each step, 0 to 1 (default: the model's)")
    generate.add_argument("--steps", type=int, help="of the sampler, 1 to 1000 (default: the model's)")
    generate.add_argument("--batch-size", type=_whole(1, 256), default=4, help="drawn at a time (default: 4)")
    generate.set_defaults(run=_generate)

    export = commands.add_parser("export", help="write a model as plain Stable Diffusion, for other programs")
    export.add_argument("--model", required=True, help="as for generate")
    export.add_argument(
        "--to", required=True, choices=("diffusers", "single-file", "lora"), help="a folder, or one .safetensors"
    )
    export.add_argument("--out", required=True, type=Path, help="the folder or file; must not exist yet")
    export.add_argument("--gesture", help="which one is folded in, of a model that knows several")
    export.add_argument("--mu", type=float, help="fixed in the result, 0 to 1 (default: the model's)")
    export.set_defaults(run=_export)

    config = commands.add_parser("config", help="show or check a configuration")
    actions = config.add_subparsers(required=True, metavar="ACTION")
    show = actions.add_parser("show", help="print a preset or a file as complete YAML")
    show.add_argument("source", metavar="PRESET|FILE")
    show.set_defaults(run=_config_show)
    check = actions.add_parser("check", help="say whether a file is complete and within its bounds")
    check.add_argument("source", metavar="FILE", type=Path)
    check.set_defaults(run=_config_check)

    commands.add_parser("gestures", help="list the gestures and their phrases").set_defaults(run=_gestures)

    add_evaluate_command(commands)
    add_data_commands(commands)
    add_remote_commands(commands)
    return parser


def _whole(low: int, high: int) -> Callable[[str], int]:
    """A type for argparse: a whole number in low..high."""

    def number(text: str) -> int:
        if not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text} is out of range; choose {low} to {high}")
        return int(text)

    return number


def _generate(options: argparse.Namespace) -> None:
    from hand1000.registry.load import load_model_folder

    folder = load_model_folder(options.model)
    # After the address is known to lead somewhere: these take seconds to import.
    import math

    from hand1000.core.progress import ProgressBar
    from hand1000.pipelines.generation import generate, make_image_grid
    from hand1000.pipelines.pipeline_hand1000 import load_pipeline

    on_progress = ProgressBar("generated")
    pictures = []
    drawing = generate(
        load_pipeline(folder),
        [options.prompt] * options.num,
        range(options.seed, options.seed + options.num),
        gestures=[options.gesture] * options.num if options.gesture else None,
        batch_size=options.batch_size,
        mu=options.mu,
        guidance_scale=options.guidance_scale,
        autoguidance_scale=options.autoguidance_scale,
        eta=options.eta,
        num_inference_steps=options.steps,
    )
    for picture in drawing:
        pictures.append(picture)
        on_progress(len(pictures), options.num)
    if options.separate:
        for index, picture in enumerate(pictures):
            _save(picture, options.separate / f"{options.seed + index}.png")
    _save(make_image_grid(pictures, columns=math.ceil(math.sqrt(len(pictures)))), options.out)
    print(options.out)


def _save(image: "Image.Image", path: Path) -> None:
    import io

    from hand1000.storage.files import write_bytes

    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    write_bytes(path, buffer.getvalue())


def _export(options: argparse.Namespace) -> None:
    from hand1000.registry.load import load_model_folder

    folder = load_model_folder(options.model)
    from hand1000.export.export import export_model

    export_model(folder, options.to, options.out, mu=options.mu, gesture=options.gesture)
    print(options.out)


def _config_show(options: argparse.Namespace) -> None:
    import yaml

    from hand1000.config.settings import load_settings

    print(yaml.safe_dump(load_settings(options.source).model_dump(mode="json"), sort_keys=False), end="")


def _config_check(options: argparse.Namespace) -> None:
    from hand1000.config.settings import load_settings

    load_settings(options.source)
    print(f"{options.source}: complete and within its bounds")


def _gestures(_: argparse.Namespace) -> None:
    from hand1000.gestures import PHRASES

    width = max(map(len, PHRASES))
    for gesture, phrase in PHRASES.items():
        print(f"{gesture:{width}}  {phrase}")
