"""The subject-disjoint split, of one gesture and of several."""

import json

import pytest

from hand1000.core.errors import Hand1000Error
from tests.support.hagrid_source import file_keys, people, select, select_gestures, write_hagrid


def test_hagrids_split_is_kept_without_people_in_both(split_source):
    chosen = select(split_source, 24, 6)
    assert people(chosen.train) == {f"u{i}" for i in range(6)} | {f"v{i}" for i in range(3)}
    assert people(chosen.test) == {"w0", "w1", "w2"}
    assert chosen.warnings == ()


def test_a_smaller_sample_is_the_start_of_a_larger_one(split_source):
    small, large = select(split_source, 5, 2), select(split_source, 20, 6)
    assert large.train[:5] == small.train and large.test[:2] == small.test


def test_the_seed_decides_and_the_listing_order_does_not(split_source):
    before = select(split_source, 10, 4)
    assert select(split_source, 10, 4) == before
    assert file_keys(select(split_source, 10, 4, seed=2).train) != file_keys(before.train)
    file = split_source / "annotations" / "train" / "four.json"
    file.write_text(json.dumps(dict(reversed(json.loads(file.read_text()).items()))))
    assert select(split_source, 10, 4) == before


def test_a_source_without_a_split_is_split_by_person(tmp_path):
    write_hagrid(tmp_path, {f"u{i}": 3 for i in range(8)})
    chosen = select(tmp_path, 15, 7)
    assert len(chosen.test) == 7 and len(people(chosen.test)) == 3
    assert not people(chosen.train) & people(chosen.test)
    assert select(tmp_path, 4, 7).train == chosen.train[:4]
    assert people(select(tmp_path, 15, 7, seed=2).test) != people(chosen.test)


def of_gesture(items, gesture: str) -> list:
    return [item for item in items if item.gesture == gesture]


def test_a_split_source_gives_each_gesture_its_own_sample(split_source):
    write_hagrid(
        write_hagrid(split_source, {f"x{i}": 3 for i in range(6)}, gesture="ok"), {"y0": 3, "y1": 3}, "test", "ok"
    )
    both = select_gestures(split_source, 12, 4, ("four", "ok"))
    for gesture in ("four", "ok"):
        alone = select(split_source, 12, 4, gesture=gesture)
        assert (of_gesture(both.train, gesture), of_gesture(both.test, gesture)) == (
            list(alone.train),
            list(alone.test),
        )
    assert both.num_train == 12 and len(both.train) == 24 and len(both.test) == 8
    assert select_gestures(split_source, 99, 4, ("ok", "four")).warnings == (
        "ok: all 18 training images are used; 99 were asked for",
        "four: all 24 training images are used; 99 were asked for",
    )
    with pytest.raises(Hand1000Error, match="ok: too few images: 18 to train on and 6 of other people"):
        select_gestures(split_source, 12, 7, ("ok",))


def test_no_person_is_in_both_splits_with_other_gestures(split_source):
    # w1 is measured against with four, and here trained on with ok.
    write_hagrid(write_hagrid(split_source, {"x": 3, "w1": 1}, gesture="ok"), {"y0": 3}, "test", "ok")
    assert "w1" in people(select(split_source, 12, 6).test)
    both = select_gestures(split_source, 12, 2, ("four", "ok"))
    assert len(people(both.train)) > 3 and not people(both.train) & people(both.test)
    with pytest.raises(Hand1000Error, match="four: too few images: 24 to train on and 4 of other people"):
        select_gestures(split_source, 12, 6, ("four", "ok"))


@pytest.mark.parametrize("gestures", [("four", "ok"), ("ok", "four")])
def test_people_are_held_out_for_all_gestures_at_once(tmp_path, gestures):
    """Each person has one image of ok, so that more people are held out for it than for four."""
    everyone = [f"u{i}" for i in range(40)]
    write_hagrid(write_hagrid(tmp_path, dict.fromkeys(everyone, 6)), dict.fromkeys(everyone, 1), gesture="ok")
    alone = {gesture: select(tmp_path, 300, 12, gesture=gesture) for gesture in gestures}
    assert people(alone["four"].train) & people(alone["ok"].test)  # Chosen each for itself, they would be.
    both = select_gestures(tmp_path, 300, 12, gestures)
    assert not people(both.train) & people(both.test)
    for gesture in gestures:
        assert of_gesture(both.test, gesture) == list(alone[gesture].test)
    assert len(of_gesture(both.train, "four")) == 6 * 28 and len(of_gesture(both.train, "ok")) == 28
    assert select_gestures(tmp_path, 20, 12, gestures).train == tuple(
        item for gesture in gestures for item in of_gesture(both.train, gesture)[:20]
    )


def test_one_gesture_without_a_split_resplits_all_by_person(split_source):
    write_hagrid(split_source, {f"u{i}": 2 for i in range(6)} | {f"x{i}": 2 for i in range(6)}, gesture="ok")
    both = select_gestures(split_source, 12, 4, ("four", "ok"))
    assert not people(both.train) & people(both.test)
    assert len(of_gesture(both.test, "four")) == len(of_gesture(both.test, "ok")) == 4
