"""A model that version 0.1.0 registered: what MLflow keeps of it, and an image that it drew with that version."""

import base64
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

REGISTERED = Path(__file__).with_name("registered-0.1.0")
PROMPT = "a photo of a left hand in front of a blue wall, making"
"""What the text encoder of this model read of the prompt; version 0.1.0 cut prompts without a word."""
SEED = 5

MAX_DIFFERENCE = 2
"""Levels of 255 by which the rounding of another CPU may change a pixel."""


def difference_from_saved(image: Image.Image) -> int:
    """The largest difference of any pixel, 0..255, from the image that version 0.1.0 drew."""
    with Image.open(REGISTERED / "image.png") as saved:
        return int(np.abs(np.asarray(image, np.int16) - np.asarray(saved, np.int16)).max())


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the registered model: loading it writes bytecode beside its code."""
    return Path(shutil.copytree(REGISTERED, tmp_path_factory.mktemp("registered") / "model"))


def test_mlflow_runs_a_model_registered_by_version_0_1_0(registered: Path) -> None:
    import mlflow.pyfunc

    model = mlflow.pyfunc.load_model(str(registered))

    def draw(**params: float) -> Image.Image:
        images = model.predict(pd.DataFrame({"prompt": [PROMPT]}), params={"seed": SEED, "gesture": "four", **params})[
            "image"
        ]
        return Image.open(io.BytesIO(base64.b64decode(images[0])))

    assert difference_from_saved(draw()) <= MAX_DIFFERENCE
    # The saved image would show the loss of any of these.
    for param, neutral in {"autoguidance_scale": 1.0, "mu": 1.0, "guidance_scale": 1.0, "eta": 0.0}.items():
        assert difference_from_saved(draw(**{param: neutral})) > 10 * MAX_DIFFERENCE, param


def test_load_pipeline_draws_with_weights_of_version_0_1_0(registered: Path) -> None:
    from hand1000 import generate, load_pipeline

    for model in (registered, registered / "weights"):
        (image,) = generate(load_pipeline(model), [PROMPT], [SEED], gestures=["four"])
        assert difference_from_saved(image) <= MAX_DIFFERENCE


@pytest.mark.parametrize("name", ["GestureFusion", "FlatFusion"])
def test_both_fusions_of_version_0_1_0_are_found(name: str, tmp_path: Path) -> None:
    from hand1000.pipelines.model_folder import read_index

    index = json.loads((REGISTERED / "weights" / "model_index.json").read_text())
    (tmp_path / "model_index.json").write_text(json.dumps(index | {"fusion": [index["fusion"][0], name]}))
    found = read_index(tmp_path)
    assert found.parts["fusion"] == tmp_path / "fusion" and found.parts["guidance_unet"] == tmp_path / "guide"
    assert found.settings["fuse_null_prompt"] is True
