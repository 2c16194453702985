"""The statements of a method comparison: each holds exactly if its interval allows it."""

import pytest

from hand1000.evaluation.conclusions import describe_scope, draw_conclusions
from hand1000.evaluation.methods import MethodResult, MethodResults
from tests.support.method_results import make_result, show


def compare(*leads: float, fid: float = 0.8, diversity: float = 9.0, memorized: float = 0.05) -> MethodResults:
    """Three gestures with a training for each lead in accuracy; plain fine-tuning has an FID of about 1."""

    def trainings(name: str, rates: list[float], distance: float, spread: float, share: float) -> list[MethodResult]:
        return [
            make_result(
                name,
                shown=show(rate, 200),
                seed=seed,
                fid=distance + 0.01 * seed,
                diversity=spread + 0.1 * seed,
                memorized=show(share, 200),
            )
            for seed, rate in enumerate(rates)
        ]

    plain = [0.5 + 0.02 * index for index in range(len(leads))]
    ours = [rate + lead for rate, lead in zip(plain, leads, strict=True)]
    return {
        gesture: {
            "sd_tuned": trainings("sd_tuned", plain, 1.0, 9.0, 0.05),
            "hand1000": trainings("hand1000", ours, fid, diversity, memorized),
        }
        for gesture in ("call", "four", "ok")
    }


def verdicts(results: MethodResults) -> list[str]:
    """The verdicts in the order of the claims: lead, FID-H, KID-H, FID, diversity, memorization."""
    return [claim.verdict for claim in draw_conclusions(results)]


def test_every_goal_holds_with_a_clear_lead() -> None:
    results = compare(0.19, 0.2, 0.21)
    assert verdicts(results) == ["holds"] * 6
    first = draw_conclusions(results)[0].text
    assert (
        first.startswith("Hand1000 leads SD fine-tuned by at least 0.10")
        and "this holds (difference +0.2, +0.1" in first
    )
    assert "3 gestures with 3 trainings each" in describe_scope(results)


@pytest.mark.parametrize("leads", [(0.02, 0.04, 0.06), (0.0, 0.15, 0.35)], ids=["small", "uncertain"])
def test_a_small_or_uncertain_lead_is_none(leads: tuple[float, ...]) -> None:
    assert verdicts(compare(*leads))[0] == "fails"


def test_worse_images_are_reported() -> None:
    assert verdicts(compare(0.2, 0.2, 0.2, fid=1.5, diversity=7.0)) == [
        *("holds", "fails", "fails", "fails", "fails", "holds")
    ]
    assert verdicts(compare(0.2, 0.2, 0.2, fid=1.0))[1:4] == ["open", "open", "holds"]


def test_fifty_memorized_images_do_not_win() -> None:
    claims = draw_conclusions(compare(0.2, 0.2, 0.2, memorized=0.25))
    assert [claim.verdict for claim in claims[-2:]] == ["fails", "fails"]
    assert "memorization rate of one is above 0.2" in claims[-1].text


def test_one_training_says_what_it_does_not_cover() -> None:
    results = compare(0.2)
    assert "do not cover the variance of training" in describe_scope(results)
    assert verdicts(results)[0] == "holds"
    single = {"call": results["call"]}
    assert set(verdicts(single)) <= {"open", "holds", "fails"} and verdicts(single)[1] == "open"


def test_nothing_is_concluded_without_both_methods() -> None:
    assert draw_conclusions({"call": {"hand1000": [make_result()]}}) == []
