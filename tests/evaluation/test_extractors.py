"""Feature extractors: the small one, Inception (a stand-in), DINOv2 and CLIP (random weights of the real classes)."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    BitImageProcessorPil,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    Dinov2Config,
    Dinov2Model,
)

from hand1000.config.settings import EvaluationSettings, load_settings
from hand1000.core.errors import Hand1000Error
from hand1000.evaluation.extractors import InceptionExtractor, SmallExtractor, load_extractor
from hand1000.evaluation.features import extract_features
from hand1000.evaluation.identity import EvaluatorSource
from hand1000.evaluation.metrics import compute_metrics
from hand1000.hands.classifier import GestureClassifier
from hand1000.storage.digests import digest_file
from tests.support.rendered_hands import render_hand, rendered_hands, write_image_set

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 8, "image_size": 32}


class InceptionStandIn(torch.nn.Module):
    """A replacement of Inception with the same interface: its features are the mean color."""

    def forward(self, img: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        assert img.shape[2] == 299 and return_features
        return img.to(torch.float32).mean(dim=(2, 3)).repeat(1, 4)


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inception") / "inception.pt"
    with pytest.warns(DeprecationWarning, match=r"torch\.jit\.script"):
        torch.jit.script(InceptionStandIn()).save(path)
    return path


def evaluation_settings(source: str, sha256: str) -> EvaluationSettings:
    update = {"feature_extractor": source, "feature_extractor_sha256": sha256}
    return load_settings("default").evaluation.model_copy(update=update)


def test_inception_is_loaded_only_with_its_digest(stand_in: Path, tmp_path: Path) -> None:
    extractor = load_extractor(evaluation_settings(str(stand_in), digest_file(stand_in)))
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


def test_the_small_extractor_distinguishes_images(tmp_path: Path) -> None:
    extractor = load_extractor(evaluation_settings("small", ""))
    images = np.stack([hand.pixels for hand in rendered_hands()])
    features = extractor(images)
    assert features.shape == (len(images), 128) and features.dtype == np.float32
    assert np.allclose(extractor(images[1:2])[0], features[1], atol=1e-4)
    noisy = np.clip(images + np.random.default_rng(0).normal(0, 1, images.shape), 0, 255).astype(np.uint8)
    apart = np.linalg.norm(features[:, None] - extractor(noisy)[None], axis=2)
    assert (apart.argmin(axis=1) == np.arange(len(images))).all()
    extractor.save_pretrained(tmp_path)
    loaded = SmallExtractor.from_pretrained(tmp_path)
    assert np.array_equal(loaded(images), features) and loaded.sha256 == extractor.sha256
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(Hand1000Error, match="cannot be loaded as a feature extractor"):
        SmallExtractor.from_pretrained(tmp_path)


@pytest.fixture(params=["dinov2", "clip"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A model's folder behind the name of its kind, as the settings have it."""
    torch.manual_seed(0)
    if request.param == "clip":
        CLIPVisionModelWithProjection(
            CLIPVisionConfig(**SIZES, intermediate_size=32, projection_dim=12)
        ).save_pretrained(tmp_path / "model")
        CLIPImageProcessorPil().save_pretrained(tmp_path / "model")
    else:
        Dinov2Model(Dinov2Config(**SIZES)).save_pretrained(tmp_path / "model")
        BitImageProcessorPil().save_pretrained(tmp_path / "model")
    return f"{request.param}:{tmp_path / 'model'}"


def identify(settings: EvaluationSettings) -> list[str]:
    return EvaluatorSource(settings).cache_key_fields()["extractor"]


def test_identity_is_that_of_the_loaded_evaluator(source: str, stand_in: Path, tmp_path: Path) -> None:
    settings = load_settings("default").evaluation
    for extractor_settings in (
        evaluation_settings("small", ""),
        evaluation_settings(str(stand_in), digest_file(stand_in)),
        settings.model_copy(update={"feature_extractor": source}),
    ):
        extractor = load_extractor(extractor_settings)
        assert identify(extractor_settings) == [extractor.name, extractor.sha256, extractor.resizer]
    fields = EvaluatorSource(settings.model_copy(update={"feature_extractor": "small"})).cache_key_fields()
    assert fields["classifier"][0] == GestureClassifier.from_pretrained().sha256
    GestureClassifier.from_pretrained().save_pretrained(tmp_path / "mine")
    mine = settings.model_copy(update={"feature_extractor": "small", "gesture_classifier": str(tmp_path / "mine")})
    assert EvaluatorSource(mine).cache_key_fields()["classifier"] not in ([], fields["classifier"])
    assert fields["min_detection_confidence"] == settings.min_detection_confidence and fields["clip"] == ""


def test_configuration_without_a_size_is_refused(source: str) -> None:
    settings = load_settings("default").evaluation.model_copy(update={"feature_extractor": source})
    (Path(source.partition(":")[2]) / "config.json").write_text('{"image_size": "big"}')
    with pytest.raises(Hand1000Error, match="image_size is 'big'"):
        identify(settings)


def test_foundation_models_give_features_and_metrics(source: str, tmp_path: Path) -> None:
    settings = load_settings("default").evaluation.model_copy(update={"feature_extractor": source})
    extractor = load_extractor(settings)
    images = np.random.default_rng(0).integers(0, 255, (3, 48, 48, 3), dtype=np.uint8)
    features = extractor(images)
    assert features.shape == (3, extractor.num_features) and features.dtype == np.float32
    assert np.allclose(extractor(images[1:2]), features[1:2], atol=1e-5) and not np.allclose(features[0], features[1])

    for name, numbers in (("real", range(3)), ("fake", range(3, 6))):
        write_image_set(tmp_path / name, [render_hand("palm", number) for number in numbers])
    real, fake = (
        extract_features(tmp_path / name, extractor=extractor, min_detection_confidence=0.5)
        for name in ("real", "fake")
    )
    metrics = compute_metrics(real, fake, classifier=GestureClassifier.from_pretrained(), seed=0)
    assert metrics.fid > 0 and metrics.extractor == source.partition(":")[0]
    assert (metrics.cmmd is not None) == (metrics.extractor == "clip")


def test_another_network_is_refused(tmp_path: Path) -> None:
    SmallExtractor.from_pretrained().save_pretrained(tmp_path)
    settings = load_settings("default").evaluation
    with pytest.raises(Hand1000Error, match="cannot be loaded as dinov2"):
        load_extractor(settings.model_copy(update={"feature_extractor": f"dinov2:{tmp_path}"}))
