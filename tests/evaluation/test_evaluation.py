"""The evaluation: distances against closed forms, extractors, and the measures on rendered pictures."""

import http.server
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.linalg import sqrtm

from hand1000.config.settings import EvaluationSettings
from hand1000.core.errors import Hand1000Error
from hand1000.core.progress import ProgressCallback, noop_callback
from hand1000.evaluation.base_vs_tuned import (
    compare_metrics,
    compare_rates_by_gesture,
    comparison_text,
    gesture_rates_table,
    metrics_table,
)
from hand1000.evaluation.distances import frechet_distance, kernel_distance
from hand1000.evaluation.extractors import InceptionExtractor, SmallExtractor, load_extractor
from hand1000.evaluation.features import ImageFeatures, extract_features
from hand1000.evaluation.hand_crops import crop_hands, resize
from hand1000.evaluation.metrics import Metrics, compute_metrics
from hand1000.hands.classifier import GestureClassifier
from hand1000.hands.detector import Hand
from hand1000.paper.metrics import paper_fid, paper_kid
from hand1000.storage.digests import digest_file
from tests.support.rendered_hands import RenderedHand, rendered_hands, write_image_set


def _generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def _white(n: int, d: int) -> np.ndarray:
    """n samples whose mean is exactly 0 and whose covariance is exactly the identity."""
    x = _generator(5).normal(size=(n, d))
    x -= x.mean(axis=0)
    return x @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T))).T


# Distances.


def test_frechet_distance_is_that_of_the_gaussians() -> None:
    x, scale, shift = _white(300, 6), np.array([0.5, 1.0, 2.0, 3.0, 1.0, 0.1]), np.arange(6) / 3
    # Between N(0, 1) and N(m, s^2) in each axis: m^2 + (1 - s)^2.
    assert frechet_distance(x, np.zeros((9, 6))) == pytest.approx(6.0, abs=1e-9)
    expected = np.sum(shift**2) + np.sum((1 - scale) ** 2)
    assert frechet_distance(x, x * scale + shift) == pytest.approx(expected, abs=1e-9)
    rotation = np.linalg.qr(_generator().normal(size=(6, 6)))[0]
    assert frechet_distance(x @ rotation, (x * scale + shift) @ rotation) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("n", "m"), [(60, 40), (20, 15), (40, 15), (31, 30)])
def test_frechet_distance_is_the_formula_with_sqrtm(n: int, m: int) -> None:
    d = 30
    mix = _generator(1).normal(size=(d, d))
    x, y = _generator(2).normal(size=(n, d)), _generator(3).normal(size=(m, d)) @ mix + 0.3
    s, t = np.cov(x.T), np.cov(y.T)
    expected = np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(s + t - 2 * sqrtm(s @ t).real)
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-4)
    assert frechet_distance(y, x) == pytest.approx(frechet_distance(x, y), rel=1e-10)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_is_the_same_below_and_above_the_dimension() -> None:
    """Further axes that hold nothing change n >= d into n < d, not the distance."""
    x, y = _generator(1).normal(size=(40, 8)), _generator(2).normal(size=(30, 8)) + 1
    wide = np.pad(x, ((0, 0), (0, 92))), np.pad(y, ((0, 0), (0, 92)))
    assert frechet_distance(*wide) == pytest.approx(frechet_distance(x, y), rel=1e-10)


def _kid_by_loops(x: np.ndarray, y: np.ndarray) -> float:
    def k(a: np.ndarray, b: np.ndarray) -> float:
        return (float(a @ b) / len(a) + 1) ** 3

    def within(z: np.ndarray) -> float:
        return np.mean([k(z[i], z[j]) for i in range(len(z)) for j in range(len(z)) if i != j])

    return within(x) + within(y) - 2 * np.mean([k(a, b) for a in x for b in y])


def test_kernel_distance_is_its_definition() -> None:
    x, y = _generator(1).normal(size=(7, 4)), _generator(2).normal(size=(5, 4)) + 0.5
    estimate = kernel_distance(x, y, _generator(), 50)
    assert estimate.value == pytest.approx(_kid_by_loops(x, y), rel=1e-12)
    assert kernel_distance(y, x, _generator(), 50).value == pytest.approx(estimate.value, rel=1e-12)


def test_kernel_distance_of_equal_distributions_is_nothing_on_average() -> None:
    draws = [
        kernel_distance(*_generator(seed).normal(size=(2, 20, 5)), _generator(seed), 2).value for seed in range(600)
    ]
    assert abs(np.mean(draws)) < 3 * np.std(draws) / np.sqrt(len(draws))
    assert min(draws) < 0


def test_kernel_distances_interval_holds_the_truth_nineteen_times_in_twenty() -> None:
    """x = 0 and y = a (+1 or -1, evenly) in one dimension: E k(y, y') = 1 + 3 a^4, E k(x, .) = 1."""
    a, trials = 1.2, 200
    truth = 3 * a**4
    held = 0
    for seed in range(trials):
        generator = _generator(seed)
        y = a * generator.choice([-1.0, 1.0], size=(60, 1)) * generator.uniform(0.9, 1.1, size=(60, 1))
        truth = 3 * (a**2 * (1 + 0.2**2 / 12)) ** 2
        estimate = kernel_distance(np.zeros((60, 1)), y + 1e-12, generator, 200)
        held += estimate.low <= truth <= estimate.high
    assert held / trials > 0.9
    x, y = _generator(1).normal(size=(80, 5)), _generator(2).normal(size=(80, 5)) + 0.5
    first, second = (kernel_distance(x, y, _generator(4), 300) for _ in range(2))
    assert first == second and 0 < first.low < first.value < first.high < 2 * first.value


def test_the_authors_arithmetic_differs_from_ours_as_their_scripts_do() -> None:
    draws = np.random.default_rng(0)
    x, y = draws.normal(size=(300, 8)), draws.normal(0.3, 1.2, size=(300, 8))
    # With more pictures than dimensions the root is real: then their FID is everybody's.
    assert paper_fid(x, y) == pytest.approx(frechet_distance(x, y), rel=1e-6)
    # Of equal numbers of up to 1,000 each part is the whole: the biased estimate, which is larger than the unbiased.
    biased = paper_kid(x, y, draws)
    likeness = [((a @ b.T / 8 + 1) ** 3).mean() for a, b in ((x, x), (y, y), (x, y))]
    assert biased == pytest.approx(likeness[0] + likeness[1] - 2 * likeness[2])
    assert biased > kernel_distance(x, y, draws).value + 0.01
    # With fewer the root of a singular matrix comes out complex, and a small number is added for each dimension.
    few, others = draws.normal(size=(10, 40)), draws.normal(size=(10, 40))
    assert paper_fid(few, others) == pytest.approx(frechet_distance(few, others), abs=0.05)


def test_distances_refuse_what_has_none() -> None:
    for x, y in [(np.zeros((1, 3)), np.zeros((4, 3))), (np.zeros((4, 3)), np.zeros((4, 2)))]:
        with pytest.raises(ValueError, match="at least 2"):
            frechet_distance(x, y)
        with pytest.raises(ValueError, match="at least 2"):
            kernel_distance(x, y, _generator())


# Pictures.


def _hand(x: float, y: float, width: float, height: float) -> Hand:
    points = np.full((21, 3), (x, y, 0.0), np.float32)
    points[1, :2] = x + width, y + height
    return Hand(points, 0.9, True)


def test_each_hand_is_cropped_on_its_own_and_within_the_picture() -> None:
    image = np.zeros((100, 100, 3), np.uint8)
    image[..., 0], image[..., 1] = np.arange(100), np.arange(100)[:, None]
    crops = crop_hands(image, [_hand(0.4, 0.5, 0.2, 0.1), _hand(0.9, 0.95, 0.2, 0.1), _hand(-0.5, -0.5, 2, 2)], 26)
    # A box of 20 x 10 pixels around (50, 55) gives a square of 26 pixels around it, here at its own size.
    assert np.array_equal(crops[0], image[42:68, 37:63])
    assert np.array_equal(crops[1], image[74:, 74:])
    assert crops.shape == (3, 26, 26, 3) and crops[2, -1, -1, 0] > 90 and crops[2, 0, 0, 0] < 10
    assert crop_hands(image, [], 26).shape == (0, 26, 26, 3)


@pytest.mark.parametrize("size", [24, 64, 150])
def test_pictures_are_resized_as_pillow_does_it_in_floating_point(size: int) -> None:
    image = _generator().integers(0, 256, (64, 64, 3), np.uint8)
    channels = [
        np.asarray(Image.fromarray(image[..., index].astype(np.float32)).resize((size, size), Image.Resampling.BICUBIC))
        for index in range(3)
    ]
    resized = resize(image[None], size)[0].numpy()
    assert resized.shape == (3, size, size)
    assert np.abs(resized - np.stack(channels).clip(0, 255)).max() < 0.1


class _StandIn(torch.nn.Module):
    """Stands in for the download of the Inception: the same call, a mean colour for features."""

    def forward(self, img: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        assert img.shape[2] == 299 and return_features
        return img.to(torch.float32).mean(dim=(2, 3)).repeat(1, 4)


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inception") / "inception.pt"
    with pytest.warns(DeprecationWarning, match=r"torch\.jit\.script"):
        torch.jit.script(_StandIn()).save(path)
    return path


def _evaluation(source: str, sha256: str) -> EvaluationSettings:
    return EvaluationSettings(
        feature_extractor=source, feature_extractor_sha256=sha256, clip="", min_detection_confidence=0.5
    )


def test_inception_is_loaded_from_a_file_with_its_digest_only(stand_in: Path, tmp_path: Path) -> None:
    extractor = load_extractor(_evaluation(str(stand_in), digest_file(stand_in)))
    images = np.full((40, 20, 20, 3), (10, 20, 30), np.uint8)
    assert np.allclose(extractor(images), np.tile([10, 20, 30], (40, 4)), atol=1e-3)
    assert (extractor.num_features, extractor.sha256) == (12, digest_file(stand_in))
    with pytest.raises(Hand1000Error, match="sha256 is empty.*executes its code"):
        InceptionExtractor(str(stand_in), "")
    with pytest.raises(Hand1000Error, match="not the pinned 00"):
        InceptionExtractor(str(stand_in), "0" * 64)
    with pytest.raises(Hand1000Error, match="no such file"):
        InceptionExtractor(str(tmp_path / "none.pt"), "0" * 64)
    other = tmp_path / "other.pt"
    other.write_bytes(b"no network")
    with pytest.raises(Hand1000Error, match=r"other\.pt: not the Inception network"):
        InceptionExtractor(str(other), digest_file(other))


@pytest.fixture
def served(stand_in: Path) -> Iterator[tuple[str, list[str]]]:
    """The stand-in's URL, and the requests that came."""
    requests: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(stand_in.parent))

        def log_message(self, *args: object) -> None:
            requests.append(self.path)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", requests
        server.shutdown()


def test_inception_is_downloaded_once_and_checked(
    served: tuple[str, list[str]], stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAND1000_CACHE", str(tmp_path))
    url, requests = served
    for _ in range(2):
        extractor = InceptionExtractor(f"{url}/inception.pt", digest_file(stand_in))
        assert extractor.num_features == 12
    assert len(requests) == 1
    with pytest.raises(Hand1000Error, match="not the pinned 00"):
        InceptionExtractor(f"{url}/inception.pt", "0" * 64)
    with pytest.raises(Hand1000Error, match="HTTP 404"):
        InceptionExtractor(f"{url}/none.pt", "0" * 64)
    assert [path.name for path in (tmp_path / "extractors").iterdir()] == [f"{digest_file(stand_in)}.pt"]


def test_the_shipped_extractor_tells_pictures_apart(tmp_path: Path) -> None:
    extractor = load_extractor(_evaluation("small", ""))
    images = np.stack([picture.pixels for picture in rendered_hands()])
    features = extractor(images)
    assert features.shape == (len(images), 128) and features.dtype == np.float32
    assert np.allclose(extractor(images[1:2])[0], features[1], atol=1e-4)
    noisy = np.clip(images + _generator().normal(0, 1, images.shape), 0, 255).astype(np.uint8)
    apart = np.linalg.norm(features[:, None] - extractor(noisy)[None], axis=2)
    assert (apart.argmin(axis=1) == np.arange(len(images))).all()
    extractor.save_pretrained(tmp_path)
    loaded = SmallExtractor.from_pretrained(tmp_path)
    assert np.array_equal(loaded(images), features) and loaded.sha256 == extractor.sha256
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(Hand1000Error, match="not a feature extractor"):
        SmallExtractor.from_pretrained(tmp_path)


def test_a_distorted_hand_is_further_from_a_whole_one_the_more_it_is_distorted() -> None:
    from hand1000.evaluation.train_extractor import CORRUPTIONS, corrupt

    extractor = SmallExtractor.from_pretrained()
    images = np.stack([picture.pixels for picture in rendered_hands()])
    features = extractor(images)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    for index, corruption in enumerate(CORRUPTIONS):
        distances = []
        for amount in (0.0, 0.4, 1.0):
            amounts = torch.zeros(len(images), len(CORRUPTIONS))
            amounts[:, index] = amount
            bad = corrupt(pixels, amounts, torch.Generator().manual_seed(1)).round().to(torch.uint8)
            distances.append(np.linalg.norm(extractor(bad.permute(0, 2, 3, 1).numpy()) - features, axis=1).mean())
        assert 5 * distances[0] < distances[1] and 1.5 * distances[1] < distances[2], corruption


# Measures.


def _blank(picture: RenderedHand) -> RenderedHand:
    return replace(picture, pixels=np.full_like(picture.pixels, 120))


def _extract(folder: Path, on_progress: ProgressCallback = noop_callback) -> ImageFeatures:
    return extract_features(
        folder, extractor=SmallExtractor.from_pretrained(), min_detection_confidence=0.5, on_progress=on_progress
    )


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ImageFeatures, Path, ImageFeatures]:
    """Real pictures (palm, call, like, peace, rock), and generated ones: palm, two call, and a grey one."""
    root = tmp_path_factory.mktemp("sets")
    palm, call, *_ = rendered_hands()
    write_image_set(root / "real", rendered_hands())
    write_image_set(root / "fake", [palm, call, call, _blank(palm)])
    return root / "real", _extract(root / "real"), root / "fake", _extract(root / "fake")


def _measure(
    real: ImageFeatures, fake: ImageFeatures, gesture: str | None = "call", classifier: GestureClassifier | None = None
) -> Metrics:
    return compute_metrics(
        real, fake, classifier=classifier or GestureClassifier.from_pretrained(), seed=1, gesture=gesture
    )


def test_each_picture_is_judged_and_those_without_a_hand_count(
    observed: tuple[Path, ImageFeatures, Path, ImageFeatures],
) -> None:
    _, real, _, fake = observed
    metrics = _measure(real, fake)
    assert (metrics.n_real, metrics.n_fake, metrics.hands_real, metrics.hands_fake) == (5, 4, 5, 3)
    assert (metrics.detection_rate, metrics.gesture_accuracy) == (0.75, 0.5)
    assert (metrics.real_detection_rate, metrics.real_gesture_accuracy) == (1.0, 0.2)
    assert metrics.hand_conf == pytest.approx(fake.handedness_score.mean())
    assert metrics.implausible_hand_rate is None and "5 hands in the real images" in metrics.notes[0]
    assert [image.predicted_gesture for image in metrics.images] == ["palm", "call", "call", None]
    assert [image.num_hands for image in metrics.images] == [1, 1, 1, 0]
    probabilities = [image.target_probability for image in metrics.images]
    assert probabilities[1] > 0.5 > probabilities[0] > probabilities[3] == 0
    assert metrics.fid == pytest.approx(frechet_distance(real.features, fake.features))
    assert metrics.kid.value == pytest.approx(_kid_by_loops(*(s.features.astype(float) for s in (real, fake))))
    assert metrics.fid_h == pytest.approx(frechet_distance(real.crop_features, fake.crop_features))
    assert metrics.kid_h is not None and metrics.kid.low <= metrics.kid.value <= metrics.kid.high
    assert Metrics.model_validate_json(metrics.model_dump_json()) == metrics


def test_each_picture_is_judged_by_its_own_gesture(observed: tuple[Path, ImageFeatures, Path, ImageFeatures]) -> None:
    _, real, _, fake = observed
    metrics = _measure(real, fake, None)
    assert metrics.gesture == "call,palm"
    assert [image.target_gesture for image in metrics.images] == ["palm", "call", "call", "palm"]
    assert (metrics.detection_rate, metrics.gesture_accuracy, metrics.real_gesture_accuracy) == (0.75, 0.75, 1.0)
    call, palm = (metrics.by_gesture[gesture] for gesture in ("call", "palm"))
    assert (call.n_fake, call.gesture_accuracy, call.detection_rate, call.n_real) == (2, 1.0, 1.0, 1)
    assert (palm.n_fake, palm.gesture_accuracy, palm.detection_rate, palm.real_gesture_accuracy) == (2, 0.5, 0.5, 1.0)
    # One gesture for all is what its measures are without a division.
    alone = _measure(real, fake)
    assert list(alone.by_gesture) == ["call"] and alone.by_gesture["call"].gesture_accuracy == alone.gesture_accuracy
    # Of the real pictures none shows this one, and the classifier does not know it.
    unknown = _measure(real, replace(fake, gestures=("palm", "grip", "call", "palm")), None)
    assert unknown.gesture_accuracy is None
    assert unknown.notes[0] == "gesture_accuracy: the classifier does not know grip"
    assert unknown.by_gesture["grip"].n_real == 0 and unknown.by_gesture["grip"].real_detection_rate is None
    assert unknown.by_gesture["palm"].gesture_accuracy == 0.5


def test_several_gestures_have_a_table_of_their_own(observed: tuple[Path, ImageFeatures, Path, ImageFeatures]) -> None:
    _, real, _, fake = observed
    base, tuned = (
        _measure(real, replace(fake, gestures=("call", "palm", "call", "palm")), None),
        _measure(real, fake, None),
    )
    call, palm = compare_rates_by_gesture(base, tuned)
    assert (call.gesture, call.accuracy, call.detection, call.n) == ("call", (0.5, 1.0, 1.0), (1.0, 1.0, 1.0), 2)
    assert (palm.accuracy, palm.detection) == ((0.0, 0.5, 1.0), (0.5, 0.5, 1.0))
    assert compare_rates_by_gesture(_measure(real, fake), _measure(real, fake)) == []
    plain = comparison_text(base, tuned).splitlines()
    assert plain[-3].split()[0] == "gesture" and plain[-2].split() == ["call", "0.5", "1", "1", "1", "1", "1", "2"]
    assert (
        "| palm | 0 | 0.5 | 1 | 0.5 | 0.5 | 1 | 2 |"
        in gesture_rates_table(compare_rates_by_gesture(base, tuned)).markdown()
    )


def test_crops_are_features_of_the_hands_in_their_pictures(
    observed: tuple[Path, ImageFeatures, Path, ImageFeatures],
) -> None:
    extractor = SmallExtractor.from_pretrained()
    _, real, _, fake = observed
    assert fake.image_index.tolist() == [0, 1, 2] and fake.file_names == ("000.png", "001.png", "002.png", "003.png")
    crop = crop_hands(rendered_hands()[1].pixels, [Hand(real.landmarks[1], 1.0, True)], 64)
    assert np.allclose(extractor(crop)[0], real.crop_features[1], atol=1e-4)
    assert np.allclose(extractor(rendered_hands()[1].pixels[None])[0], real.features[1], atol=1e-4)


def test_saved_features_give_the_same_metrics(
    observed: tuple[Path, ImageFeatures, Path, ImageFeatures], tmp_path: Path
) -> None:
    _, real, _, fake = observed
    real.save(tmp_path)
    loaded = ImageFeatures.load(tmp_path)
    assert _measure(loaded, fake) == _measure(real, fake)
    with pytest.raises(Hand1000Error, match="the same way"):
        _measure(replace(real, min_detection_confidence=0.9), fake)
    (tmp_path / "image_features.safetensors").write_bytes(b"broken")
    with pytest.raises(Hand1000Error, match="not valid image_features.*extract them again"):
        ImageFeatures.load(tmp_path)


def test_each_image_is_decoded_once(
    observed: tuple[Path, ImageFeatures, Path, ImageFeatures], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, fake_set, fake = observed
    opened: list[str] = []
    decode = Image.open
    monkeypatch.setattr(Image, "open", lambda path, *args: opened.append(Path(path).name) or decode(path, *args))
    steps: list[tuple[int, int]] = []
    _extract(fake_set, lambda done, total, _: steps.append((done, total)))
    assert sorted(opened) == list(fake.file_names) and steps[-1] == (4, 4)


def test_a_model_that_draws_no_hand_has_metrics(
    observed: tuple[Path, ImageFeatures, Path, ImageFeatures], tmp_path: Path
) -> None:
    _, real, _, fake = observed
    picture = rendered_hands()[0]
    write_image_set(tmp_path, [_blank(picture), replace(_blank(picture), pixels=picture.pixels // 8 + 100)][:1] * 2)
    metrics = _measure(real, _extract(tmp_path))
    assert (metrics.detection_rate, metrics.gesture_accuracy, metrics.hand_conf) == (0.0, 0.0, None)
    assert metrics.fid_h is metrics.kid_h is None and "0 in the generated" in metrics.notes[0]
    unknown = _measure(real, fake, "grip")
    assert unknown.gesture_accuracy is None and "does not know grip" in unknown.notes[0]
    write_image_set(tmp_path / "one", [picture])
    with pytest.raises(Hand1000Error, match="1 images"):
        _extract(tmp_path / "one")


def test_both_models_stand_side_by_side(observed: tuple[Path, ImageFeatures, Path, ImageFeatures]) -> None:
    _, real, _, fake = observed
    base, tuned = _measure(real, fake), _measure(real, real)
    rows = {row.name: row for row in compare_metrics(base, tuned)}
    assert rows["FID"].better == rows["KID-H"].better == "lower"
    assert rows["HAND-CONF"].better == rows["gesture accuracy"].better == "higher"
    assert (rows["FID"].base, rows["FID"].tuned) == (base.fid, tuned.fid)
    assert (rows["FID-H"].n_base, rows["FID-H"].n_tuned) == (3, 5)
    plain = comparison_text(base, tuned)
    head, first, *_, last = plain.splitlines()
    assert first.split()[:4] == ["FID", "↓", f"{base.fid:.4g}", f"{tuned.fid:.4g}"]
    assert last.split()[:5] == ["gesture", "accuracy", "↑", "0.5", "0.2"]
    # Numbers are aligned to the right.
    assert head.index("tuned") + 5 == last.index("0.2") + 3
    markdown = metrics_table(compare_metrics(base.model_copy(update={"fid_h": None}), tuned)).markdown()
    assert markdown.splitlines()[1] == "| --- | ---: | ---: | ---: | --- |"
    assert f"| FID-H ↓ | – | {tuned.fid_h:.4g} | 3 / 5 |" in markdown
    with pytest.raises(Hand1000Error, match="n_real"):
        comparison_text(base, tuned.model_copy(update={"n_real": 6}))


# The extractor's recipe.


def test_landmarks_stay_on_the_hand_in_a_new_frame() -> None:
    from hand1000.evaluation.train_extractor import random_crop

    places = _generator().uniform(0.3, 0.7, (16, 21, 2)).astype(np.float32)
    images = torch.zeros(16, 3, 96, 96)
    axis = (torch.arange(96) + 0.5) / 96
    for index, (x, y) in enumerate(places[:, 0]):  # A soft spot at the first landmark.
        images[index] = 255 * torch.exp(-((axis - x) ** 2 + (axis[:, None] - y) ** 2) / (2 * 0.03**2))
    moved, landmarks, mirrored = random_crop(images, torch.from_numpy(places), torch.Generator().manual_seed(0))
    assert 3 < mirrored.sum() < 13
    inside = ((landmarks[:, 0] > 0.1) & (landmarks[:, 0] < 0.9)).all(dim=1)
    assert inside.sum() > 8
    for picture, (x, y) in zip(moved[inside], landmarks[inside, 0], strict=True):
        weights = picture[0] / picture[0].sum()
        assert float((weights.sum(dim=0) * axis).sum()) == pytest.approx(float(x), abs=0.03)
        assert float((weights.sum(dim=1) * axis).sum()) == pytest.approx(float(y), abs=0.03)


def test_the_recipe_repeats_itself_and_standardises_its_features() -> None:
    from hand1000.evaluation.train_extractor import train_extractor
    from hand1000.hands.rendered import RenderedHands

    pictures = rendered_hands()
    facts = [
        {"skin": "tan", "sleeve": "red", "wall": "blue", "light": "dim", "handedness": "right" if one.right else "left"}
        for one in pictures
    ]
    hands = RenderedHands(
        np.stack([resize(one.pixels[None], 64)[0].permute(1, 2, 0).byte().numpy() for one in pictures]),
        [one.gesture for one in pictures],
        np.stack([one.landmarks for one in pictures]).astype(np.float32),
        facts,
    )
    first, second, other = (train_extractor(hands, seed=seed, steps=3, batch_size=8)[0] for seed in (1, 1, 2))
    features = first(hands.images)
    assert np.array_equal(features, second(hands.images)) and not np.allclose(features, other(hands.images))
    assert np.allclose(features.mean(axis=0), 0, atol=1e-3) and np.allclose(features.std(axis=0, ddof=1), 1, atol=1e-2)
