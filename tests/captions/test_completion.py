"""Completion of a caption by rule: the phrase of its gesture, once, at its end."""

import pytest

from hand1000.captions.completion import complete_caption
from hand1000.core.errors import Hand1000Error
from hand1000.gestures import PHRASES

FOUR = "making four fingers up hand gesture"


@pytest.mark.parametrize(
    ("caption", "completed"),
    [
        ("a photo of a man", f"a photo of a man, {FOUR}"),
        ("a photo of a man.", f"a photo of a man, {FOUR}"),
        ("  a photo\n of\ta  man \u2028", f"a photo of a man, {FOUR}"),
        ('"a photo of a man."', f"a photo of a man, {FOUR}"),
        ("\u201ca man\u2019s hand\u201d", f"a man\u2019s hand, {FOUR}"),
        ("a man's hand", f"a man's hand, {FOUR}"),
        ("a man\x00 with\x1b a hat", f"a man with a hat, {FOUR}"),
        (f"a man, {FOUR}", f"a man, {FOUR}"),
        (f"a man {FOUR}", f"a man {FOUR}"),
        (f"a man {FOUR}.", f"a man, {FOUR}"),
        (f"a man {FOUR} in a room", f"a man in a room, {FOUR}"),
        (f"a man, {FOUR}, {FOUR}", f"a man, {FOUR}"),
        ("a man Making  Four Fingers Up hand gesture", f"a man, {FOUR}"),
        (f"a man making ok sign hand gesture, {FOUR}", f"a man, {FOUR}"),
        ("a man making ok sign hand gesture and making closed fist hand gesture", f"a man, {FOUR}"),
        ("a man who is making ok sign hand gesture", f"a man, {FOUR}"),
        ("a man making ok sign hand gestures", f"a man, {FOUR}"),
        (f"a man giving a thumbs up, {FOUR}", f"a man, {FOUR}"),
        (f"a man is {FOUR}", f"a man is {FOUR}"),
        ("making making ok sign hand gesture ok sign hand gesture", f"a hand, {FOUR}"),
        ("someone to sit with and", f"someone to sit with and, {FOUR}"),
        ("a man in a band", f"a man in a band, {FOUR}"),
        ("", f"a hand, {FOUR}"),
        (" \"''\" .", f"a hand, {FOUR}"),
        (FOUR, f"a hand, {FOUR}"),
        (f", {FOUR}", f"a hand, {FOUR}"),
    ],
)
def test_a_caption_ends_with_the_phrase_once(caption, completed):
    assert complete_caption(caption, "four") == completed


@pytest.mark.parametrize(
    ("caption", "left"),
    [
        ("a man in a red shirt giving a thumbs up in front of a wall", "a man in a red shirt in front of a wall"),
        ("a woman making a peace sign with her fingers", "a woman"),
        ("a man making a stop sign with his hand", "a man"),
        ("a girl with her thumbs up", "a girl"),
        ("a man is smiling and giving a thumbs up to the camera", "a man is smiling"),
        ("a woman holding up three fingers", "a woman"),
        ("thumbs up by a man", "a man"),
        ("a man with his finger to his lips", "a man"),
        ("a close up of a hand making the ok sign", "a close up of a hand"),
        ("a woman doing the rock and roll sign in a kitchen", "a woman in a kitchen"),
        ("a person making a heart shape with their hands", "a person"),
        ("a person giving the middle finger", "a person"),
        ("a child with two fingers up in a room", "a child in a room"),
        ("a man pointing his finger at the camera", "a man"),
    ],
)
def test_words_of_other_gestures_are_removed(caption, left):
    assert complete_caption(caption, "four") == f"{left}, {FOUR}"


@pytest.mark.parametrize(
    "caption",
    [
        "a man standing next to a stop sign",
        "a woman holding up a phone",
        "a man wearing a heart shirt",
        "a man making a phone call",
        "a man holding a sign",
        "a man with one finger on the keyboard",
        "a woman with a peace sign tattoo",
        "a man raising his hand",
        "two people and a dog",
    ],
)
def test_words_that_name_no_gesture_stay(caption):
    assert complete_caption(caption, "four") == f"{caption}, {FOUR}"


@pytest.mark.parametrize("gesture", PHRASES)
def test_completion_replaces_other_phrases_and_is_idempotent(gesture):
    everything = "a woman " + " and ".join(PHRASES.values())
    completed = complete_caption(everything, gesture)
    assert completed == f"a woman, {PHRASES[gesture]}"
    assert complete_caption(completed, gesture) == completed


def test_the_error_names_an_unknown_gesture():
    with pytest.raises(Hand1000Error, match="'wave'"):
        complete_caption("a man", "wave")
