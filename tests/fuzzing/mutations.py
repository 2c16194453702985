"""Seeded damage to text, bytes and JSON values, for the makers of doors."""

import random
from typing import Any

ODD_NUMBERS: tuple[Any, ...] = (
    0, -1, 1, 2**31, 2**63, 2**64, -(2**63), 10**400, 0.0, -0.0, 1e-320, 1e308, float("inf"), float("-inf"),
    float("nan"),
)  # fmt: skip
ODD_TEXTS = (
    "", " ", "\n", "\0", "\x1b[31m", "\u202e", "\ufeff", "\ud800", "a\ud83d", "é" * 3, "🤚🏽", "../..", "/etc/hostname",
    "~", "%s%n", "{}", "{0}", "null", "true", "yes", "no", "1e9", "0x10", "0o7", "1_000", "١٢", "½", "NaN", "-", "--",
    "a" * 5000, "a\\b", "C:\\x", "http://", "s3://", "s3:///", "models:/", "hf://", "@", "a@b", "'", '"', "`", "$HOME",
    "*", "?", "[", "2026-02-30", "12:34:56", "\u2028", "Straße", "none", "~null",
)  # fmt: skip
ODD_BYTES = (b"\xff", b"\x00", b"\xfe\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\x1b[2J", b"\r", b"\xc0\xaf", b"\x85")


def odd_value(rng: random.Random, depth: int = 2) -> Any:
    """Return a value that a careful program does not expect."""
    kind = rng.randrange(7 if depth else 4)
    if kind == 0:
        return rng.choice(ODD_NUMBERS)
    if kind == 1:
        return rng.choice(ODD_TEXTS)
    if kind == 2:
        return rng.choice((None, True, False))
    if kind == 3:
        return rng.choice(([], {}, [[]], [{}], {"": ""}, [None], {"a": None}))
    if kind == 4:
        return [odd_value(rng, depth - 1) for _ in range(rng.randrange(4))]
    if kind == 5:
        return {rng.choice(ODD_TEXTS): odd_value(rng, depth - 1) for _ in range(rng.randrange(4))}
    nested: Any = rng.choice((0, "x"))
    for _ in range(rng.choice((3, 30, 60))):
        nested = [nested] if rng.random() < 0.5 else {"a": nested}
    return nested


def damage_value(rng: random.Random, value: Any) -> Any:
    """Return a copy of a JSON value in which one place is damaged: replaced, removed, renamed, repeated or nested."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        name = rng.choice(sorted(value, key=str))
        kind = rng.randrange(10)
        if kind == 0:
            return {key: item for key, item in value.items() if key != name}
        if kind == 1:
            return {_misspell(rng, key) if key == name else key: item for key, item in value.items()}
        if kind == 2:
            return value | {rng.choice(ODD_TEXTS): odd_value(rng)}
        return value | {name: damage_value(rng, value[name])}
    if isinstance(value, list) and value and rng.random() < 0.8:
        index = rng.randrange(len(value))
        kind = rng.randrange(6)
        if kind == 0:
            return value[:index] + value[index + 1 :]
        if kind == 1:
            return value * rng.choice((2, 3, 300))
        return value[:index] + [damage_value(rng, value[index])] + value[index + 1 :]
    if isinstance(value, str) and rng.random() < 0.3:
        return damage_text(rng, value)
    return odd_value(rng)


def damage_text(rng: random.Random, text: str) -> str:
    """Return a text with one or several places cut, repeated, swapped or replaced."""
    for _ in range(rng.choice((1, 1, 2, 5))):
        start = rng.randrange(len(text) + 1)
        end = min(len(text), start + rng.choice((0, 1, 1, 3, 20, 200)))
        kind = rng.randrange(5)
        middle = {
            0: "",
            1: text[start:end] * rng.choice((2, 5, 50)),
            2: rng.choice(ODD_TEXTS),
            3: "".join(rng.choice("{}[]:,-&*!|>'\"#%@`?\t\n 0aé") for _ in range(rng.randrange(1, 5))),
            4: text[start:end][::-1],
        }[kind]
        text = text[:start] + middle + text[end:]
    return text


def damage_bytes(rng: random.Random, data: bytes) -> bytes:
    """Return bytes that are cut, flipped, repeated, or have others put in."""
    for _ in range(rng.choice((1, 1, 2, 8))):
        start = rng.randrange(len(data) + 1)
        end = min(len(data), start + rng.choice((0, 1, 1, 4, 50, 1000)))
        kind = rng.randrange(5)
        if kind == 0 and rng.random() < 0.3:
            data = data[:start]
        elif kind == 1:
            data = data[:start] + rng.choice(ODD_BYTES) + data[end:]
        elif kind == 2:
            data = data[:start] + data[start:end] * rng.choice((2, 10)) + data[end:]
        elif kind == 3:
            data = data[:start] + bytes(rng.randrange(256) for _ in range(rng.randrange(1, 5))) + data[start:]
        elif start < len(data):
            data = data[:start] + bytes([data[start] ^ 1 << rng.randrange(8)]) + data[start + 1 :]
    return data


def _misspell(rng: random.Random, name: Any) -> str:
    text = str(name)
    index = rng.randrange(len(text) + 1)
    return rng.choice((text[:index] + text[index + 1 :], text[:index] + "x" + text[index:], text.upper(), f" {text}"))
