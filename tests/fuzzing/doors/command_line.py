"""The door of the command line: any arguments to any command."""

import contextlib
import io
import os
import random
from pathlib import Path

from hand1000.cli.main import main
from tests.fuzzing.harness import Door, RefusedError
from tests.fuzzing.mutations import ODD_TEXTS, damage_text

COMMANDS = (
    "generate --model m --prompt p --num 2 --seed 1 --steps 3 --mu 0.5 --autoguidance-interval 0 1 --out x.png",
    "export --model m --to lora --out x --mu 0.5 --gesture four",
    "config show demo",
    "config check x.yaml",
    "gestures",
    "schedules list x.yaml --runs 3",
    "schedules check x.yaml",
    "evaluate real fake --gesture four --prompts p.txt --train t --config default --out m.json",
    "data check folder --gesture four --bbox-format pixels --html x.html",
    "data push folder --repo a/b",
    "data forget --user-id p --root r --dry-run",
    "serve --model m --host 127.0.0.1 --port 0 --grace-seconds 1 --max-queue 2 --timeout-seconds 1 --safety-checker d",
    "demo --model m --port 1 --base b --champion none",
    "launch four",
    "review list --registry r",
    "review show four/1 --registry r",
    "review promote four/1 --reason x --registry r",
    "review history four --registry r",
    "registry show --registry r",
    "gc --root r --keep-days 3 --dry-run --registry r",
)
# A name of the network would be asked for; these doors are tried with servers of their own.
_NETWORK = ("http:", "s3:", "hf:", "@")


def _make_arguments(rng: random.Random) -> list[str]:
    arguments = rng.choice(COMMANDS).split()
    for _ in range(rng.choice((1, 1, 2, 3))):
        index = rng.randrange(len(arguments))
        kind = rng.randrange(4)
        if kind == 0:
            del arguments[index]
        elif kind == 1:
            arguments.insert(index, rng.choice(ODD_TEXTS))
        elif kind == 2:
            arguments[index] = damage_text(rng, arguments[index])
        else:
            arguments[index] = rng.choice(ODD_TEXTS)
        arguments = arguments or ["gestures"]
    # The system passes no NUL, and bytes that are not UTF-8 as half surrogates.
    arguments = [
        argument.replace("\0", "").replace("\ud800", "\udcff").replace("\ud83d", "\udce9") for argument in arguments
    ]
    return [argument for argument in arguments if not any(part in argument for part in _NETWORK)]


def _call(arguments: list[str], folder: Path) -> None:
    output = io.TextIOWrapper(io.BytesIO(), "utf-8")
    errors = io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace")  # As the interpreter opens it.
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            code = main(arguments)
    except SystemExit as error:
        code = int(error.code or 0)
    finally:
        os.chdir("/")
    errors.seek(0)
    lines = errors.read().splitlines()
    if code == 0:
        return
    if code != 2 or not lines or ": error: " not in lines[-1]:
        raise AssertionError(f"status {code}: {lines[-1:]}")
    if lines[0].startswith("usage: "):  # argparse prints its usage before the one line.
        lines = lines[-1:]
    raise RefusedError("\n".join(lines))


DOORS = [Door("command line", _make_arguments, _call)]
