"""Metrics of several models on the same prompts and seeds, from made features, and the gates that they pass or fail."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from hand1000.config.settings import load_settings
from hand1000.core.errors import Hand1000Error
from hand1000.data.imageset import ImageRecord
from hand1000.evaluation.exported import compare_export
from hand1000.evaluation.features import ImageFeatures
from hand1000.evaluation.gate_report import GateReport
from hand1000.evaluation.gates import evaluate_gates
from hand1000.evaluation.general import (
    compute_general_metrics,
    find_named_gesture,
    plan_general_images,
    plan_other_gesture_images,
)
from hand1000.evaluation.metrics import Metrics, compute_metrics
from hand1000.evaluation.paired_metrics import EvaluatedImages, PairedMetric, PairedMetrics, compare_models
from hand1000.gestures import PHRASES, gesture_phrase
from hand1000.hands.classifier import GestureClassifier

COLORS = {"red": (200, 20, 20), "blue": (20, 20, 200)}
CHAMPION = "models:/hand1000-call/1"


@dataclass(frozen=True)
class Model:
    """How good a made model is; each share is one of its images."""

    accuracy: dict[str, float] | float = 0.9
    detected: float = 1.0
    implausible: float = 0.0
    faithful: float = 0.95
    memorized: float = 0.0
    shift: float = 0.0
    spread: float = 1.0
    leaks: float = 0.05
    keeps: float = 0.8


class Maker:
    """Makes features of n images; each prompt names a color and occurs twice."""

    def __init__(self, hands: ImageFeatures) -> None:
        self.hands = {
            gesture: (hands.landmarks[list(hands.image_index).index(index)], bool(hands.is_right[index]))
            for index, gesture in enumerate(hands.gestures)
        }
        self.train = np.random.default_rng(5).normal(size=(80, 8)).astype(np.float32)

    def features(self, model: Model, seed: int, gestures: tuple[str, ...] = ("call",), n: int = 120) -> ImageFeatures:
        generator = np.random.default_rng(seed)
        targets = [gestures[index % len(gestures)] for index in range(n)]
        index = np.flatnonzero(generator.random(n) < model.detected)
        landmarks, is_right = [], []
        for image in index:
            accuracy = model.accuracy if isinstance(model.accuracy, float) else model.accuracy[targets[image]]
            shown = targets[image] if generator.random() < accuracy else "rock"
            points, right = self.hands[shown]
            landmarks.append(points + generator.normal(scale=0.001, size=(21, 3)))
            if generator.random() < model.implausible:
                landmarks[-1][8] += (landmarks[-1][8] - landmarks[-1][5]) * 4  # A very long index finger.
            is_right.append(right)
        words = [list(COLORS)[image // 2 % 2] for image in range(n)]
        colors = np.full((n, 3, 3), np.nan, np.float32)
        for image, word in enumerate(words):
            other = next(name for name in COLORS if name != word)
            colors[image, 0] = COLORS[word if generator.random() < model.faithful else other]
        features = model.shift + model.spread * generator.normal(size=(n, 8))
        copied = generator.random(n) < model.memorized
        features[copied] = self.train[: copied.sum()]
        return ImageFeatures(
            features=features.astype(np.float32),
            crop_features=(model.shift + generator.normal(size=(len(index), 8))).astype(np.float32),
            landmarks=np.array(landmarks, np.float32).reshape(-1, 21, 3),
            handedness_score=np.full(len(index), 0.9, np.float32),
            is_right=np.array(is_right, bool),
            image_index=index,
            palm_score=np.full(n, 0.9, np.float32),
            hand_presence=np.full(n, 0.9, np.float32),
            clip_similarity=np.zeros(0, np.float32),
            colors=colors,
            file_names=tuple(f"{image:06d}.png" for image in range(n)),
            gestures=tuple(targets),
            prompts=tuple(f"prompt {image // 2}" for image in range(n)),
            color_words=tuple((word, "", "") for word in words),
            extractor="made",
            extractor_sha256="0" * 64,
            resizer="none",
            min_detection_confidence=0.5,
        )

    def compare(self, gestures: tuple[str, ...] = ("call",), n: int = 120, **models: Model) -> PairedMetrics:
        """Compare base, tuned and perhaps champion, and their images of other prompts, which are as good."""
        classifier = GestureClassifier.from_pretrained()
        real = self.features(Model(accuracy=1.0, faithful=1.0), seed=0, gestures=gestures)
        evaluated, general, other = {}, {}, {}
        for seed, (name, model) in enumerate(({"base": Model(accuracy=0.0)} | models).items(), start=1):
            fake = self.features(model, seed, gestures, n)
            metrics = compute_metrics(real, fake, classifier=classifier, seed=1, train_features=self.train)
            evaluated[name] = EvaluatedImages(fake, metrics)
            fake = self.general(model, 10 + seed, n)
            general[name] = fake, compute_general_metrics(fake, real, classifier, gestures)
            fake = replace(fake, prompts=tuple(f"a hand, {gesture_phrase('palm')}" for _ in fake.prompts))
            other[name] = fake, compute_general_metrics(fake, real, classifier, gestures)
        return compare_models(real, evaluated, general, 1, other)

    def general(self, model: Model, seed: int, n: int = 120) -> ImageFeatures:
        """Images of prompts that do not ask for the gesture: some leak a `call`, others show a `palm` or not."""
        features = self.features(replace(model, accuracy=0.0), seed, ("palm",), n)
        landmarks, is_right = features.landmarks.copy(), features.is_right.copy()
        draws = np.random.default_rng(seed).random((2, n))
        for hand, image in enumerate(features.image_index):
            if draws[0, image] < model.leaks:
                landmarks[hand], is_right[hand] = self.hands["call"]
            elif draws[1, image] < model.keeps:
                landmarks[hand], is_right[hand] = self.hands["palm"]
        return replace(features, landmarks=landmarks, is_right=is_right)

    def judge(self, gestures: tuple[str, ...] = ("call",), n: int = 120, **models: Model) -> GateReport:
        """The gates of the preset for the demo, whose KID thresholds suit its extractor only."""
        changes = {"gates.kid_h.threshold": 0.5, "gates.general_kid.threshold": 0.5}
        changes |= {"gates.general_kid_h.threshold": 0.5, "gates.other_gesture_leak_rate.max_loss_to_base": 0.3}
        changes |= {"gates.general_leak_rate.max_loss_to_base": 0.2}
        gates = load_settings("demo").with_overrides(changes).gates
        return evaluate_gates(self.compare(gestures, n, **models), gates, CHAMPION if "champion" in models else "")


@pytest.fixture(scope="module")
def maker(real: ImageFeatures) -> Maker:
    return Maker(real)


def failed(report: GateReport) -> set[str]:
    return {result.title for result in report.failures}


def test_an_equally_good_model_passes_every_gate(maker: Maker) -> None:
    report = maker.judge(tuned=Model(), champion=Model())
    assert report.summary == f"passed: all {len(report.results)} gates, compared with {CHAMPION}"
    names = {result.name for result in report.results}
    assert names == {
        "gesture accuracy", "detection rate", "KID-H", "implausible hand rate", "memorization rate", "diversity",
        "color faithfulness", "general detection rate", "general color faithfulness", "general KID", "general KID-H",
        "general leak rate", "other-gesture accuracy", "other-gesture leak rate",
    }  # fmt: skip
    assert all(result.value is not None and result.low is not None for result in report.results)
    assert all(sum(result.name == name for result in report.results) >= 2 for name in names)
    assert maker.judge(tuned=Model()).summary.endswith("gates, without a champion to compare with")


@pytest.mark.parametrize(
    ("worse", "expected"),
    [
        ({"accuracy": 0.5}, {"gesture accuracy"}),
        ({"detected": 0.6}, {"detection rate", "gesture accuracy", "general detection rate"}),
        ({"implausible": 0.7}, {"implausible hand rate"}),
        ({"memorized": 0.5}, {"memorization rate"}),
        ({"spread": 0.2}, {"diversity"}),
        ({"faithful": 0.6}, {"color faithfulness", "general color faithfulness"}),
        ({"shift": 1.5}, {"KID-H", "general KID", "general KID-H"}),
        ({"leaks": 0.8}, {"general leak rate", "other-gesture leak rate", "other-gesture accuracy"}),
        ({"keeps": 0.2}, {"other-gesture accuracy"}),
    ],
)
def test_every_fault_fails_its_gates(maker: Maker, worse: dict[str, Any], expected: set[str]) -> None:
    report = maker.judge(tuned=Model(**worse), champion=Model())
    assert expected <= failed(report)
    # What else fails follows from the same fault: a hand of another gesture is unlike the real hands of this one.
    related = {"KID-H", "general KID", "diversity", "memorization rate", "gesture accuracy", "implausible hand rate"}
    related |= {"general KID-H", "other-gesture accuracy"}
    assert failed(report) - expected <= related


def test_each_of_two_gestures_has_to_pass(maker: Maker) -> None:
    accuracy = {"call": 0.0, "palm": 1.0}
    report = maker.judge(("call", "palm"), tuned=Model(accuracy=accuracy))
    assert failed(report) == {"gesture accuracy, call"}
    assert {result.gesture for result in report.results if result.name == "KID-H"} == {"call", "palm"}
    report = maker.judge(("call", "palm"), tuned=Model(accuracy=accuracy), champion=Model(accuracy=1.0))
    assert failed(report) == {"gesture accuracy, call"} and len(report.failures) == 2


def test_nothing_is_concluded_if_the_classifier_fails_on_real_images(maker: Maker) -> None:
    classifier = GestureClassifier.from_pretrained()
    bad, fake = maker.features(Model(accuracy=0.5), seed=0), maker.features(Model(), seed=1)
    metrics = compute_metrics(bad, fake, classifier=classifier, seed=1, min_classifier_accuracy=0.8)
    check = metrics.classifier_checks["call"]
    assert 0.3 < check.accuracy < 0.7 and check.interval[0] < check.accuracy < check.interval[1]
    assert check.reason in metrics.notes[0] and check.reason in metrics.classifier_summary
    compared = compare_models(bad, dict.fromkeys(("base", "tuned"), EvaluatedImages(fake, metrics)), {}, seed=1)
    assert find(compared, "gesture accuracy").undecided == check.reason and not find(compared, "KID-H").undecided
    report = evaluate_gates(compared, load_settings("default").gates, "")
    assert [gate.title for gate in report.undecided] == ["gesture accuracy"]
    # The same images allow a conclusion under a lower bound.
    metrics = compute_metrics(bad, fake, classifier=classifier, seed=1, min_classifier_accuracy=0.2)
    compared = compare_models(bad, dict.fromkeys(("base", "tuned"), EvaluatedImages(fake, metrics)), {}, seed=1)
    assert not find(compared, "gesture accuracy").undecided and not metrics.classifier_checks["call"].reason


def find(metrics: PairedMetrics, name: str) -> PairedMetric:
    (metric,) = metrics.find(name)
    return metric


def test_a_model_compared_with_itself_has_no_difference(maker: Maker) -> None:
    real, fake = maker.features(Model(), 0), maker.features(Model(), 1)
    metrics = compute_metrics(real, fake, classifier=GestureClassifier.from_pretrained(), seed=1)
    classifier = GestureClassifier.from_pretrained()
    same, general = EvaluatedImages(fake, metrics), (fake, compute_general_metrics(fake, real, classifier, {"call"}))
    models = ("base", "tuned", "champion")
    unchanged = dict.fromkeys(models, general)
    compared = compare_models(real, dict.fromkeys(models, same), unchanged, 1, unchanged)
    for metric in compared.metrics:
        assert all(difference.value == 0 for difference in metric.differences.values()), metric.name
        assert all(difference.low <= 0 <= difference.high for difference in metric.differences.values())
        assert all(p == 1 for p in metric.p_values.values())
    for name in ("general KID", "general KID-H"):
        distance = find(compared, name)
        assert distance.models["tuned"].value == pytest.approx(0, abs=1e-12) and distance.null is not None
    assert find(compared, "diversity").models["tuned"].value == 1
    assert not compared.find("memorization rate")  # There are no training images here.


def test_values_are_those_of_the_metrics(maker: Maker) -> None:
    real, fake = maker.features(Model(), 0), maker.features(Model(detected=0.8, shift=0.3), 1)
    classifier = GestureClassifier.from_pretrained()
    metrics = compute_metrics(real, fake, classifier=classifier, seed=1, train_features=maker.train)
    compared = compare_models(real, dict.fromkeys(("base", "tuned"), EvaluatedImages(fake, metrics)), {}, seed=1)
    values = {metric.name: metric.models["tuned"].value for metric in compared.metrics}
    assert metrics.kid_h is not None
    expected = {
        "gesture accuracy": metrics.gesture_accuracy,
        "detection rate": metrics.detection_rate,
        "KID-H": metrics.kid_h.value,
        "implausible hand rate": metrics.implausible_hand_rate,
        "KID": metrics.kid.value,
        "memorization rate": metrics.memorization_rate,
        "diversity": 1.0,
        "color faithfulness": metrics.color_faithfulness["wall"],
    }
    assert values == pytest.approx(expected)


def test_few_hands_are_not_compared(maker: Maker) -> None:
    report = maker.judge(tuned=Model(detected=0.05), champion=Model())
    assert any(note.startswith("KID-H is not compared with the champion: ") for note in report.notes)
    assert {"detection rate", "gesture accuracy"} <= failed(report)
    nothing = maker.judge(tuned=Model(detected=0.0), champion=Model())
    assert [str(gate) for gate in nothing.failures if gate.name == "KID-H"] == ["KID-H not measured, at most 0.5"]
    assert "KID-H is not compared with the champion: too few images or hands" in nothing.notes


def test_general_prompts_have_no_phrase_and_seeds_of_their_own() -> None:
    def record(name: str, caption: str, gesture: str) -> ImageRecord:
        return ImageRecord(file_name=name, caption=caption, gesture=gesture, user_id="u", source="0" * 64)

    prompts = [
        record("a.png", "a red wall, making phone call hand gesture", "call"),
        record("b.png", "a blue wall", "four"),
        record("c.png", "making phone call hand gesture", "call"),
    ]
    records = plan_general_images(prompts, 5, seed=7)
    expected = ["a red wall", "a blue wall", "a photo of a person", "a blue wall", "a red wall"]
    assert [record.text for record in records] == expected
    seeds = [record.seed for record in records]
    assert len(set(seeds)) == 5 and seeds == [record.seed for record in plan_general_images(prompts[:2], 5, seed=7)]
    assert [record.file_name for record in records][:2] == ["000000.png", "000001.png"]


def test_other_gestures_take_turns_in_the_prompts() -> None:
    prompts = [
        ImageRecord(
            file_name=f"{gesture}.png",
            text=f"a wall, {PHRASES[gesture]}",
            gesture=gesture,
            user_id="u",
            source="0" * 64,
        )
        for gesture in ("call", "like")
    ]
    records = plan_other_gesture_images(prompts, 40, seed=7)
    named = [find_named_gesture(record.text) for record in records]
    assert named[:2] == ["dislike", "fist"] and len(set(named)) == 16 and not {"call", "like", None} & set(named)
    # The trained gesture stays that of the record, which decides the fusion; the noise is not that of other prompts.
    assert [record.gesture for record in records][:3] == ["call", "like", "call"]
    assert {record.seed for record in records}.isdisjoint(record.seed for record in plan_general_images(prompts, 40, 7))
    assert all(record.text.startswith("a wall, making ") for record in records)


def test_every_phrase_names_its_gesture_alone() -> None:
    assert [find_named_gesture(f"a wall, {phrase}") for phrase in PHRASES.values()] == list(PHRASES)
    assert find_named_gesture("a wall") is None


def test_forgetting_is_counted_by_image(maker: Maker) -> None:
    report = maker.compare(tuned=Model(leaks=0.5, keeps=0.4))
    leaks, accuracy = find(report, "other-gesture leak rate"), find(report, "other-gesture accuracy")
    assert leaks.differences["base"].low > 0.2 and accuracy.differences["base"].high < -0.2
    assert max(leaks.p_values["base"], accuracy.p_values["base"]) < 1e-6
    assert find(report, "general leak rate").models["base"].value == pytest.approx(0.05, abs=0.05)


@pytest.mark.parametrize("gestures", [("call",), ("call", "like")])
def test_an_export_is_compared_with_the_first_images(maker: Maker, gestures: tuple[str, ...]) -> None:
    classifier = GestureClassifier.from_pretrained()
    real = maker.features(Model(accuracy=1.0), seed=0, gestures=gestures)
    tuned = maker.features(Model(detected=0.9), seed=1, gestures=gestures)
    export = maker.features(Model(accuracy=0.3, shift=1.0), seed=2, gestures=gestures, n=60)

    def compute(fake: ImageFeatures) -> Metrics:
        return compute_metrics(real, fake, classifier=classifier, seed=1)

    rows = compare_export(real, tuned, export, compute, seed=1)
    names = ["gesture accuracy", "detection rate", "KID-H", "implausible hand rate"]
    assert [row.name for row in rows] == names * len(gestures) and {row.n for row in rows} == {60 // len(gestures)}
    accuracy, kid = rows[0], rows[2]
    shown = [image.shows_target for image in compute(tuned).images[:60] if image.target_gesture == gestures[0]]
    assert accuracy.model == pytest.approx(np.mean(shown)) and accuracy.gesture == (
        gestures[0] if len(gestures) > 1 else None
    )
    for row, worse in ((accuracy, -1), (kid, 1)):
        assert row.model is not None and row.export is not None and row.difference is not None
        assert row.low is not None and row.high is not None and row.low < row.difference < row.high
        assert worse * row.difference > 0 and worse * (row.low if worse > 0 else row.high) > 0
    assert accuracy.difference == pytest.approx(accuracy.export - accuracy.model)
    with pytest.raises(Hand1000Error, match="other prompts"):
        compare_export(real, tuned, replace(export, prompts=export.prompts[::-1]), compute, seed=1)


def test_the_first_images_keep_their_hands(maker: Maker) -> None:
    everything = maker.features(Model(detected=0.5), seed=3)
    count = int(everything.image_index[20])  # The first image left out has a hand.
    first, hands = everything.first(count), everything.image_index < count
    assert len(first.features) == len(first.file_names) == count and hands.sum() == 20
    assert len(first.landmarks) == 20 and np.array_equal(first.landmarks, everything.landmarks[hands])
    metrics = compute_metrics(everything, first, classifier=GestureClassifier.from_pretrained(), seed=1)
    assert metrics.n_fake == count and metrics.hands_fake == 20
