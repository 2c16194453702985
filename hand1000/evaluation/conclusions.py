"""What a method comparison shows, in words: whether Hand1000 is worth more than plain fine-tuning."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from hand1000.config.comparison import METHODS
from hand1000.evaluation.methods import (
    MAX_MEMORIZED,
    OURS,
    PLAIN,
    MethodResults,
    better_value,
    estimate_lead,
    is_memorizing,
    is_repeated,
)
from hand1000.evaluation.paired import Better, Estimate

Verdict = Literal["holds", "fails", "open"]
"""Whether a claim holds; `open` if the interval allows both, or if there is none."""

MIN_LEAD, MIN_LOWER_END = 0.10, 0.05
"""Lead in gesture accuracy that is worth the effort, and what the lower end of its interval must exceed."""

_AHEAD = ("FID-H", "KID-H")
_NOT_BEHIND = ("FID", "intra-prompt distance", "memorization rate")


@dataclass(frozen=True)
class JudgedClaim:
    """A claim about two methods, whether it holds, and the difference that decides.

    Attributes:
        claim: The claim as a sentence without a full stop.
        verdict: Whether it holds.
        evidence: The difference with its interval, or why there is none.
    """

    claim: str
    verdict: Verdict
    evidence: str

    @property
    def text(self) -> str:
        """The conclusion as a sentence."""
        words = {"holds": "holds", "fails": "does not hold", "open": "is not decided"}
        return f"{self.claim}: this {words[self.verdict]} ({self.evidence})."


def draw_conclusions(results: MethodResults) -> list[JudgedClaim]:
    """Judge each claim about Hand1000 and plain fine-tuning by its 95 % interval; none if one of them is missing.

    With several trainings of each gesture, the mean is that of these gestures and the interval covers trainings and
    prompts. With one, it is Student's over the gestures.
    """
    if not {OURS, PLAIN} <= set(next(iter(results.values()))):
        return []
    return list(_judge(results))


def describe_scope(results: MethodResults) -> str:
    """What the intervals of `draw_conclusions` cover, as sentences."""
    trainings = max(len(trainings) for methods in results.values() for trainings in methods.values())
    gestures = f"{len(results)} gestures" if len(results) > 1 else "1 gesture"
    if is_repeated(results, OURS, PLAIN):
        return (
            f"{gestures} with {trainings} trainings each. The means are those of these gestures. The intervals cover "
            "the variance of training, of the noise that images are drawn from, and of the prompts; those of a metric "
            "of whole image sets, such as FID, hold for these prompts and real images."
        )
    text = f"{gestures} with 1 training each. The intervals of one gesture do not cover the variance of training."
    if len(results) > 1:
        text += " The conclusions rest on Student's interval over the gestures, each of which has its own models."
    return text


def _judge(results: MethodResults) -> Iterator[JudgedClaim]:
    ours, plain = METHODS[OURS], METHODS[PLAIN]
    lead = (
        f"{ours} leads {plain} by at least {MIN_LEAD:.2f} in gesture accuracy, with the interval's lower end above "
        f"{MIN_LOWER_END:.2f}"
    )
    yield _conclude(results, "gesture accuracy", lead, _judge_lead)
    for column in _AHEAD:
        yield _conclude(results, column, f"{ours} is ahead of {plain} in {column}", _judge_ahead)
    for column in _NOT_BEHIND:
        claim = f"{ours} is not behind {plain} in {column} by more than chance"
        yield _conclude(results, column, claim, _judge_not_behind)
    memorizing = sorted(
        gesture for gesture, methods in results.items() if is_memorizing(methods[OURS]) or is_memorizing(methods[PLAIN])
    )
    if memorizing:
        evidence = f"in {', '.join(memorizing)}, the memorization rate of one is above {MAX_MEMORIZED:g}"
        yield JudgedClaim(f"{ours} and {plain} draw new images", "fails", evidence)


def _conclude(
    results: MethodResults, column: str, claim: str, judge: Callable[[Estimate, Better], Verdict]
) -> JudgedClaim:
    estimate = estimate_lead(results, column)
    if estimate is None:
        return JudgedClaim(claim, "open", "a value is missing, or there is a single gesture with a single training")
    evidence = f"difference {estimate.value:+.3g}, {estimate.low:+.3g} to {estimate.high:+.3g}"
    return JudgedClaim(claim, judge(estimate, better_value(column)), evidence)


def _judge_lead(lead: Estimate, _: Better) -> Verdict:
    return "holds" if lead.value >= MIN_LEAD and lead.low > MIN_LOWER_END else "fails"


def _judge_ahead(difference: Estimate, better: Better) -> Verdict:
    return "holds" if difference.is_gain(better) else "fails" if difference.is_loss(better) else "open"


def _judge_not_behind(difference: Estimate, better: Better) -> Verdict:
    return "fails" if difference.is_loss(better) else "holds"
