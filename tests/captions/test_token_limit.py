"""The text encoder's window: captions that are fitted to it, and prompts that are not."""

import json
import shutil
from pathlib import Path

import pytest

from hand1000.captions.token_limit import TokenLimit, check_prompt, describe_shortened, fit_caption, load_tokenizer
from hand1000.core.errors import Hand1000Error
from hand1000.gestures import PHRASES

FOUR = PHRASES["four"]
BASE = Path(__file__).parents[2] / "models" / "small-base"
LONG = " ".join(f"word{number}" for number in range(200))
WORDS = TokenLimit(lambda text: len(text.split()) + 2, 12)
"""Counts a token for each word: the phrase has six, so that four more fit."""


@pytest.mark.parametrize(
    ("text", "fitted"),
    [
        (f"a b c d, {FOUR}", f"a b c d, {FOUR}"),
        (f"a  b ;, {FOUR}", f"a  b ;, {FOUR}"),
        (f"a b c d e f, {FOUR}", f"a b c d, {FOUR}"),
        (f"a b c d, e f, {FOUR}", f"a b c d, {FOUR}"),
        (f"a b c d e {FOUR} on a wall", f"a, {FOUR} on a wall"),
        (f"a {FOUR} g h i j k l", f"{FOUR} g h i j"),
        (" ".join("abcdefghijklm"), "a b c d e f g h i j"),
        (FOUR, FOUR),
    ],
)
def test_captions_lose_words_before_the_phrase_first(text: str, fitted: str) -> None:
    assert fit_caption(text, FOUR, WORDS) == fitted


def test_a_phrase_that_no_window_holds_is_an_error() -> None:
    with pytest.raises(Hand1000Error, match="has 8 tokens, .* of which the text encoder reads 7"):
        fit_caption(f"a, {FOUR}", FOUR, TokenLimit(WORDS.count, 7))


def test_long_captions_of_two_gestures_stay_different() -> None:
    limit = TokenLimit.of(load_tokenizer(BASE, "base"))
    fitted = {
        gesture: fit_caption(f"{LONG}, {PHRASES[gesture]}", PHRASES[gesture], limit) for gesture in ("four", "ok")
    }
    for gesture, text in fitted.items():
        assert limit.fits(text) and text.startswith("word0 word1") and text.endswith(PHRASES[gesture])


def test_the_window_is_that_of_tokenizer_and_text_encoder(tmp_path: Path) -> None:
    for part in ("tokenizer", "text_encoder"):
        shutil.copytree(BASE / part, tmp_path / part)
    path = tmp_path / "tokenizer" / "tokenizer_config.json"
    config = json.loads(path.read_text())
    del config["model_max_length"]
    path.write_text(json.dumps(config))
    assert load_tokenizer(tmp_path, "base").model_max_length == 48
    path.write_text(json.dumps(config | {"model_max_length": 20}))
    assert load_tokenizer(tmp_path, "base").model_max_length == 20
    (tmp_path / "text_encoder" / "config.json").unlink()
    with pytest.raises(Hand1000Error, match="no such file"):
        load_tokenizer(tmp_path, "base")


def test_prompts_whose_phrase_is_not_read_are_refused() -> None:
    assert check_prompt(f"a b c d,  {FOUR.upper()}", FOUR, WORDS) == 0
    assert check_prompt(f"a, {FOUR} on a blue wall", FOUR, WORDS) == 1
    assert check_prompt("a hand", FOUR, WORDS) == 0 and check_prompt(LONG, "", WORDS, need_phrase=True) == 190
    with pytest.raises(Hand1000Error, match=r"'a b c d e f, making .*reads 10 tokens, .* by 2 tokens or more"):
        check_prompt(f"a b c d e f, {FOUR}", FOUR, WORDS)
    with pytest.raises(Hand1000Error, match=r"'a b c': lacks the phrase of the gesture; add 'making four"):
        check_prompt("a  b\nc", FOUR, WORDS, need_phrase=True)
    with pytest.raises(Hand1000Error, match=r"prompt 'word0 .*\.\.\.': the text encoder reads"):
        check_prompt(f"{LONG}, {FOUR}", FOUR, WORDS)


def test_shortening_by_the_named_tokens_is_enough() -> None:
    limit = TokenLimit.of(load_tokenizer(BASE, "base"))
    words = ["wall"] * 60
    with pytest.raises(Hand1000Error) as error:
        check_prompt(f"{' '.join(words)}, {FOUR}", FOUR, limit)
    excess = int(str(error.value).split(" by ")[1].split()[0])
    assert check_prompt(f"{' '.join(words[excess:])}, {FOUR}", FOUR, limit) == 0
    with pytest.raises(Hand1000Error, match="by 1 tokens"):
        check_prompt(f"{' '.join(words[excess - 1 :])}, {FOUR}", FOUR, limit)


def test_shortened_captions_are_counted_and_named() -> None:
    line = describe_shortened([f"{index}.png" for index in range(8)], 20, 77)
    assert line.startswith("8 of 20 captions were shortened") and line.endswith(
        "0.png, 1.png, 2.png, 3.png, 4.png, ..."
    )
