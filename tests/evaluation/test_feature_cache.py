"""Features that are recalled when the same images are evaluated again."""

from pathlib import Path

import numpy as np
import pytest

from hand1000.config.settings import load_settings
from hand1000.data.imageset import read_image_set
from hand1000.evaluation.evaluator import Evaluator
from hand1000.evaluation.features import ImageFeatures
from hand1000.storage.artifacts import ArtifactStore, open_store
from hand1000.storage.cache import remove_cached_keys
from hand1000.storage.digests import digest_file
from tests.support.evaluation import blank
from tests.support.rendered_hands import rendered_hands, write_image_set


@pytest.fixture(scope="module")
def evaluator() -> Evaluator:
    return Evaluator.from_settings(load_settings("demo").evaluation)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two hands and an image without one."""
    palm, call, *_ = rendered_hands()
    folder = tmp_path_factory.mktemp("set")
    write_image_set(folder, [palm, blank(palm), call])
    return folder


@pytest.fixture(scope="module")
def extracted(evaluator: Evaluator, folder: Path) -> ImageFeatures:
    return evaluator.extract(folder)


@pytest.fixture
def store(tmp_path: Path, evaluator: Evaluator, folder: Path) -> ArtifactStore:
    """A root that has seen the images."""
    store = open_store(str(tmp_path / "root"))
    evaluator.extract(folder, store=store)
    return store


def assert_equal(left: ImageFeatures, right: ImageFeatures) -> None:
    for name, value in vars(left).items():
        other = getattr(right, name)
        if isinstance(value, np.ndarray):
            assert value.dtype == other.dtype and value.shape == other.shape and value.tobytes() == other.tobytes(), (
                name
            )
        else:
            assert value == other, name


def count_steps(evaluator: Evaluator, folder: Path, store: ArtifactStore, **options: object) -> int:
    steps: list[int] = []
    evaluator.extract(folder, lambda done, *_: steps.append(done), store=store, **options)
    return len(steps)


def test_recalled_features_are_the_extracted_ones(evaluator, folder, extracted, store) -> None:
    steps: list[int] = []
    recalled = evaluator.extract(folder, lambda done, *_: steps.append(done), store=store)
    assert steps == [] and len(recalled.landmarks) == 2
    assert_equal(recalled, extracted)


def test_prompts_of_recalled_images_are_the_present_ones(evaluator, folder, store, extracted) -> None:
    records = [record.model_copy(update={"text": "a blue wall"}) for record in read_image_set(folder)]
    recalled = evaluator.extract(folder, records=records, store=store)
    assert recalled.prompts == ("a blue wall",) * 3 != extracted.prompts


def test_other_settings_or_images_are_extracted(evaluator, folder, store, tmp_path: Path) -> None:
    settings = load_settings("demo").evaluation.model_copy(update={"min_detection_confidence": 0.6})
    assert count_steps(Evaluator.from_settings(settings), folder, store) == 3
    palm, call, *_ = rendered_hands()
    write_image_set(tmp_path / "fewer", [palm, blank(palm)])
    assert count_steps(evaluator, tmp_path / "fewer", store) == 2
    write_image_set(tmp_path / "twice", [palm, palm])
    assert [count_steps(evaluator, tmp_path / "twice", store) for _ in range(2)] == [2, 2]


def test_a_forgotten_or_damaged_image_is_extracted_again(evaluator, folder, extracted, store) -> None:
    image = digest_file(folder / extracted.file_names[0])
    remove_cached_keys(store.backend, {image})
    assert count_steps(evaluator, folder, store) == 3 and count_steps(evaluator, folder, store) == 0
    for file in (Path(store.root) / "caches").rglob("*.json"):
        file.unlink()
    cache = next((Path(store.root) / "caches/image_features").iterdir()).name
    store.key_value_cache("image_features", cache).add(
        {digest_file(folder / name): {"features": "!"} for name in extracted.file_names}
    )
    assert count_steps(evaluator, folder, store) == 3


def test_keys_of_the_user_name_the_entries(evaluator, folder, store) -> None:
    keys = [character * 64 for character in "abc"]
    assert count_steps(evaluator, folder, store, keys=keys) == 3
    assert count_steps(evaluator, folder, store, keys=keys) == 0
    remove_cached_keys(store.backend, {keys[1]})
    assert count_steps(evaluator, folder, store, keys=keys) == 3
