"""Names and phrases of the gestures."""

import pytest

from hand1000.core.errors import Hand1000Error
from hand1000.gestures import PHRASES, find_gesture_in_prompt, group_by_gesture, parse_gestures, slug
from hand1000.pipelines.generation import GenerationRequest
from tests.support.mixed_dataset import GESTURES


def test_gestures_are_separated_by_commas() -> None:
    assert parse_gestures("four") == ("four",) and parse_gestures("ok,call,four") == ("ok", "call", "four")
    for text, fault in (("four,ok,four", "four is repeated"), ("four, ok", "' ok'"), ("four,", "''"), ("", "''")):
        with pytest.raises(Hand1000Error, match=fault):
            parse_gestures(text)
    assert slug(("call", "four")) == "call-four"
    everything = slug(tuple(PHRASES))
    assert everything.startswith("33-gestures-") and everything != slug(tuple(reversed(PHRASES)))


def test_the_phrase_in_a_prompt_selects_the_gesture() -> None:
    known = ("four", "ok", "thumb_index")
    for gesture in known:
        assert find_gesture_in_prompt(f"A man,\n  {PHRASES[gesture].upper()} at night", known) == gesture
    assert find_gesture_in_prompt("a red hand", ("four",)) == "four"
    with pytest.raises(
        Hand1000Error, match="contains the phrase of none of this model's gestures, four, ok, thumb_index"
    ):
        find_gesture_in_prompt("a red hand", known)
    with pytest.raises(Hand1000Error, match="the phrase of four and of ok of"):
        find_gesture_in_prompt(f"{PHRASES['ok']}, {PHRASES['four']}", known)
    # Each phrase names its gesture alone.
    assert all(find_gesture_in_prompt(phrase, tuple(PHRASES)) == gesture for gesture, phrase in PHRASES.items())


def test_items_are_grouped_by_gesture() -> None:
    orders = [GenerationRequest(str(index), "", index, gesture) for index, gesture in enumerate(GESTURES)]
    groups = group_by_gesture(orders)
    assert list(groups) == ["four", "ok"] and [[one.seed for one in own] for own in groups.values()] == [[0, 3], [1, 2]]
