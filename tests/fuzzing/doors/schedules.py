"""Doors of scheduled retrainings: the file, and the times in it."""

import random
from pathlib import Path

from hand1000.config.cron import parse_cron
from hand1000.config.schedules import read_schedules
from tests.fuzzing.doors.settings import REPOSITORY, make_yaml
from tests.fuzzing.harness import Door, RefusedError
from tests.fuzzing.mutations import ODD_TEXTS, damage_text

FILES = [REPOSITORY / "workflows/schedules.yaml"]
PARTS = ("*", "?", "0", "7", "31", "60", "mon", "L", "R", "5#2", "*/0", "*/70", "1-", "3-1", "1/9", ",", "+5", "1,,2")
GOOD = ("0 1 * * 1", "*/5 1-3 1,15 jan-mar ?", "30 22 * * mon-fri", "@daily", "5/10 0 31 12 sun")


def _make_cron(rng: random.Random) -> str:
    kind = rng.randrange(4)
    if kind == 0:
        return rng.choice(ODD_TEXTS)
    if kind == 1:
        return " ".join(rng.choice(PARTS) for _ in range(rng.choice((5, 5, 5, 5, 1, 4, 6))))
    return damage_text(rng, rng.choice(GOOD))


def _read_file(data: bytes, folder: Path) -> None:
    path = folder / "schedules.yaml"
    path.write_bytes(data)
    read_schedules(path)


def _parse(text: str, _: Path) -> None:
    try:
        parse_cron(text)
    except ValueError as error:
        raise RefusedError(error) from error


DOORS = [
    Door("schedules file", lambda rng: make_yaml(rng, FILES), _read_file),
    Door("cron expression", _make_cron, _parse),
]
