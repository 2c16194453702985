"""Features of real and generated images, extracted once."""

from pathlib import Path

import pytest

from hand1000.evaluation.features import ImageFeatures
from tests.support.evaluation import blank, extract
from tests.support.rendered_hands import rendered_hands, write_image_set


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> ImageFeatures:
    """Features of real images: palm, call, like, peace, rock."""
    folder = tmp_path_factory.mktemp("real")
    write_image_set(folder, rendered_hands())
    return extract(folder)


@pytest.fixture(scope="session")
def fake_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image set of generated images: palm, call twice, and a gray image that should show palm."""
    palm, call, *_ = rendered_hands()
    folder = tmp_path_factory.mktemp("fake")
    write_image_set(folder, [palm, call, call, blank(palm)])
    return folder


@pytest.fixture(scope="session")
def fake(fake_folder: Path) -> ImageFeatures:
    return extract(fake_folder)
