"""Decisions of reviewers, on an embedded MLflow and on a server."""

import contextlib
import threading

import pytest

from hand1000.core.errors import Hand1000Error
from hand1000.gestures import PHRASES
from hand1000.registry.connection import shell_command
from hand1000.registry.decisions import ModelPair
from hand1000.registry.load import load_model_folder
from hand1000.registry.review import history, list_candidates, promote, reject, review_commands, rollback, state_of
from hand1000.registry.review_state import read_model
from tests.support.reviews import register

GESTURES = iter(PHRASES)


@pytest.fixture
def review(tracking, tmp_path):
    """The connection, and a function that registers candidates of a gesture that no other test uses."""
    gesture = next(GESTURES) if tracking.lock_file is None else "four"

    class Review:
        def __init__(self):
            self.tracking, self.gesture, self.pair = tracking, gesture, ModelPair.of([gesture])

        def register(self, number, **options):
            return register(tracking, tmp_path, number, gesture=gesture, **options)

        def address(self, number):
            return f"{gesture}/{number}"

        def aliases(self):
            return dict(read_model(tracking, self.pair).aliases)

        def states(self):
            candidates = list_candidates(tracking, gesture)
            return {candidate.version.version: candidate.state for candidate in candidates}

    return Review()


def test_first_promotion_copies_no_bytes_and_keeps_who_when_why(review):
    candidate = review.register(1)
    decision = promote(review.tracking, candidate.uri, who="ada", why="first model")
    assert (decision.action, decision.candidate, decision.version, decision.champion_before) == ("promote", 1, 1, None)
    assert history(review.tracking, review.gesture) == (decision,)
    assert (decision.who, decision.why, decision.override) == ("ada", "first model", False)
    assert review.aliases() == {"champion": 1}
    champion = f"models:/{review.pair.name}@champion"
    client = review.tracking.client
    locations = [
        client.get_model_version_download_uri(name, "1") for name in (review.pair.name, review.pair.candidates)
    ]
    assert locations[0] == locations[1]
    assert (load_model_folder(champion, registry=review.tracking) / "number.txt").read_text() == f"{review.gesture} 1"
    assert review.states() == {1: "approved"}
    # What MLflow's page shows.
    assert client.get_model_version(review.pair.candidates, "1").tags["hand1000.state"] == "approved"


def test_states_follow_the_decisions(review):
    review.register(1)
    promote(review.tracking, review.address(1), who="ada")
    champion = f"models:/{review.pair.name}/1"
    for number in (2, 3, 4):
        review.register(number, champion=champion)
    review.register(5, champion=champion, verdict="failed")
    reject(review.tracking, review.address(2), who="ada", why="six fingers")
    assert review.states() == {1: "approved", 2: "rejected", 3: "pending", 4: "pending", 5: "pending"}
    promote(review.tracking, review.address(4), who="bob")
    assert review.aliases() == {"champion": 2, "previous": 1}
    # The reviewer preferred 4 to 3; 5 is newer.
    assert review.states() == {1: "superseded", 2: "rejected", 3: "superseded", 4: "approved", 5: "pending"}
    decision = rollback(review.tracking, review.gesture, who="bob", why="hands are blurred")
    assert (decision.candidate, decision.version, decision.champion_before) == (1, 1, 2)
    assert review.aliases() == {"champion": 1, "previous": 2}
    assert review.states() == {1: "approved", 2: "rejected", 3: "superseded", 4: "superseded", 5: "pending"}
    assert [decision.action for decision in history(review.tracking, review.gesture)] == [
        "promote",
        "reject",
        "promote",
        "rollback",
    ]
    assert state_of(review.tracking, review.address(2)) == "rejected"


def test_a_second_rollback_undoes_the_first(review):
    for number in (1, 2):
        review.register(number)
        promote(review.tracking, review.address(number), who="ada", expected_champion="any")
    rollback(review.tracking, review.gesture, who="ada")
    rollback(review.tracking, review.gesture, who="ada")
    assert review.aliases() == {"champion": 2, "previous": 1}
    with pytest.raises(Hand1000Error, match="version 2 is the champion; versions to go back to: 1"):
        rollback(review.tracking, review.gesture, who="ada", to=2)
    rollback(review.tracking, review.gesture, who="ada", to=1)
    assert review.aliases() == {"champion": 1, "previous": 2}


def test_failed_gates_need_an_override_with_a_reason(review):
    review.register(1, verdict="failed")
    with pytest.raises(Hand1000Error, match="failed: gesture accuracy 0.1.*--override"):
        promote(review.tracking, review.address(1), who="ada")
    assert not read_model(review.tracking, review.pair).decisions
    decision = promote(review.tracking, review.address(1), who="ada", override="only one there is")
    assert decision.override and decision.why == "only one there is"
    assert review.states() == {1: "approved"}


def test_rejected_candidates_need_an_override(review):
    review.register(1)
    reject(review.tracking, review.address(1), who="ada", why="blurred")
    with pytest.raises(Hand1000Error, match="already rejected by ada on .*: blurred"):
        reject(review.tracking, review.address(1), who="bob", why="blurred")
    with pytest.raises(Hand1000Error, match="rejected by ada on .*: blurred; .*--override"):
        promote(review.tracking, review.address(1), who="bob")
    assert promote(review.tracking, review.address(1), who="bob", override="not blurred").override


def test_promotion_refuses_another_champion_than_expected(review):
    for number in (1, 2):
        review.register(number)
    promote(review.tracking, review.address(1), who="ada")
    # The gates compared candidate 2 with nothing.
    command = shell_command(review.tracking, "review", "compare", review.address(2))
    with pytest.raises(Hand1000Error, match=f"champion is 1, not none; look at `{command}`, then add --champion 1"):
        promote(review.tracking, review.address(2), who="ada")
    with pytest.raises(Hand1000Error, match="the champion is 1, not 7"):
        promote(review.tracking, review.address(2), who="ada", expected_champion=7)
    assert promote(review.tracking, review.address(2), who="ada", expected_champion=1).champion_before == 1
    with pytest.raises(Hand1000Error, match="it is the champion already, version 2"):
        promote(review.tracking, review.address(2), who="ada", expected_champion=2)
    with pytest.raises(Hand1000Error, match="it is the champion, version 2; roll back first"):
        reject(review.tracking, review.address(2), who="ada", why="blurred")


def test_promoting_again_reuses_the_copy(review):
    for number in (1, 2):
        review.register(number)
        promote(review.tracking, review.address(number), who="ada", expected_champion="any")
    assert promote(review.tracking, review.address(1), who="ada", expected_champion=2).version == 1


def test_changed_weights_are_refused(review):
    candidate = review.register(1)
    folder = load_model_folder(candidate.uri, registry=review.tracking)
    location = review.tracking.client.get_model_version_download_uri(candidate.name, "1")
    if review.tracking.lock_file is not None:
        (folder / "number.txt").write_text("2")
    else:
        # The downloaded copy is intact; the server's files are not.
        changed = folder.parent / "number.txt"
        changed.write_text("2")
        model_id = location.removeprefix("mlflow-artifacts:/").split("/")[2]
        review.tracking.client.log_model_artifact(model_id, str(changed), "weights")
    with pytest.raises(Hand1000Error, match="registered"):
        promote(review.tracking, candidate.uri, who="ada")
    assert not read_model(review.tracking, review.pair).decisions


class Killed(BaseException):
    """The end of the process, which no handler catches."""


@pytest.mark.parametrize(
    ("tracking", "call"),
    [*(("embedded", call) for call in range(6)), *(("server", call) for call in (0, 4, 6, 8))],
    indirect=["tracking"],
)
def test_an_interrupted_promotion_is_completed_or_undone(review, call, monkeypatch):
    review.register(1)
    review.register(2)
    promote(review.tracking, review.address(1), who="ada")
    client, calls = type(review.tracking.client), []
    with monkeypatch.context() as patch:
        # The process dies before its n-th write.
        for name in ("create_model_version", "set_registered_model_alias", "set_registered_model_tag"):
            original = getattr(client, name)

            def write(self, *args, original=original, **kwargs):
                calls.append(args)
                if len(calls) > call:
                    raise Killed
                return original(self, *args, **kwargs)

            patch.setattr(client, name, write)
        patch.setattr("hand1000.registry.review_lock._Claim.withdraw", lambda _: None)
        with contextlib.suppress(Killed):
            promote(review.tracking, review.address(2), who="ada", expected_champion=1)
    monkeypatch.setattr("hand1000.registry.review_lock.EXPIRY_SECONDS", 0.5)
    decided = len(read_model(review.tracking, review.pair).decisions) == 2
    reject(review.tracking, review.register(3).uri, who="bob", why="blurred")
    model = read_model(review.tracking, review.pair)
    assert not model.unfinished and not model.abandoned
    assert model.aliases == ({"champion": 2, "previous": 1} if decided else {"champion": 1})
    assert set(model.versions) == ({1, 2} if decided else {1})
    if not decided:
        promote(review.tracking, review.address(2), who="ada", expected_champion=1)
    assert review.states() == {1: "superseded", 2: "approved", 3: "rejected"}


@pytest.mark.parametrize("tracking", ["server"], indirect=True)
def test_a_claim_that_nobody_can_read_expires(review, monkeypatch):
    review.register(1)
    promote(review.tracking, review.address(1), who="ada")
    for number, value in enumerate(["{", "[]", '{"ticket": 1e999, "who": ""}', "[" * 3000]):
        review.tracking.client.set_registered_model_tag(review.pair.name, f"hand1000.lock.{number}", value)
    monkeypatch.setattr("hand1000.registry.review_lock.EXPIRY_SECONDS", 0.5)
    reject(review.tracking, review.register(2).uri, who="bob", why="blurred")
    assert review.states() == {1: "approved", 2: "rejected"}


def test_of_promotions_at_the_same_time_one_wins(review):
    for number in range(1, 5):
        review.register(number)
    outcomes, barrier = [], threading.Barrier(4)

    def decide(number):
        barrier.wait()
        try:
            outcomes.append(promote(review.tracking, review.address(number), who=f"reviewer {number}"))
        except Hand1000Error as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=decide, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [outcome for outcome in outcomes if not isinstance(outcome, str)]
    losers = [outcome for outcome in outcomes if isinstance(outcome, str)]
    assert len(winners) == 1 and len(losers) == 3
    assert all("the champion is 1, not none" in line and "\n" not in line for line in losers)
    model = read_model(review.tracking, review.pair)
    assert len(model.decisions) == 1 and model.aliases == {"champion": 1}
    assert model.candidate_of(1) == winners[0].candidate and set(model.versions) == {1}
    assert not [key for key in model.tags if key.startswith("hand1000.lock.")]


def test_an_alias_that_was_moved_by_hand_is_the_champion(review):
    for number in (1, 2):
        review.register(number)
        promote(review.tracking, review.address(number), who="ada", expected_champion="any")
    review.tracking.client.set_registered_model_alias(review.pair.name, "champion", "1")
    assert review.states() == {1: "approved", 2: "superseded"}
    reject(review.tracking, review.address(2), who="ada", why="blurred")
    assert review.aliases()["champion"] == 1


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("nowhere/1", "unknown gesture"),
        ("{gesture}", "names no version"),
        ("{gesture}/9", "no such candidate"),
        ("models:/hand1000-{gesture}/1", "a version of the reviewer's model"),
        ("s3://bucket/1", "not a candidate"),
    ],
)
def test_wrong_addresses(review, address, message):
    with pytest.raises(Hand1000Error, match=message):
        promote(review.tracking, address.format(gesture=review.gesture), who="ada")


def test_reasons_and_names_are_checked(review):
    candidate = review.register(1)
    for who, why in (("", "bad"), ("a\nb", "bad"), ("ada", ""), ("ada", "REASON"), ("ada", "x" * 1001)):
        with pytest.raises(Hand1000Error, match="reviewer|reason"):
            reject(review.tracking, candidate.uri, who=who, why=why)
    why = '„Finger“ fehlt | "quoted" <b>'
    assert reject(review.tracking, candidate.uri, who="Ada Ö", why=why) == history(review.tracking, review.gesture)[0]


def test_reasons_hold_no_control_characters(review):
    candidate = review.register(1)
    assert reject(review.tracking, candidate.uri, who="ada", why="\x1b[31mred\a\nhand").why == "\\x1b[31mred\\x07 hand"


def test_commands_for_a_page():
    commands = review_commands("models:/hand1000-four-candidates/3", 2, "/a b/artifacts")
    assert commands.promote == (
        "hand1000 review promote models:/hand1000-four-candidates/3 --champion 2 --registry '/a b/artifacts'"
    )
    assert commands.reject.endswith("--reason REASON --registry '/a b/artifacts'")
    assert commands.rollback == "hand1000 review rollback hand1000-four --registry '/a b/artifacts'"
    failed = review_commands("models:/hand1000-four-candidates/3", None, verdict="failed")
    assert failed.promote.endswith("candidates/3 --champion none --override REASON")
