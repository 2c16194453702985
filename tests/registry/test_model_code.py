"""The registered model as MLflow loads and serves it."""

import base64
import io
import math

import pandas as pd
import pytest

from hand1000.registry.connection import connect
from tests.support.mlflow_server import free_port, serving
from tests.support.registration import record_and_register
from tests.support.tiny_models import WIDTH


@pytest.fixture(scope="session")
def tiny_python_model(model_dir):
    from hand1000.models.fusion import GestureFusion
    from hand1000.pipelines.pipeline_hand1000 import Hand1000Pipeline
    from hand1000.registry.model_code import RegisteredHand1000

    model = RegisteredHand1000()
    model.pipeline = Hand1000Pipeline.from_pretrained(model_dir)
    model.pipeline.register_modules(fusion=GestureFusion(WIDTH, ("four", "ok")))
    return model


def test_registered_model_generates_images(runs, model_dir, monkeypatch):
    import mlflow.pyfunc
    from PIL import Image

    tracking = connect(runs)
    version = record_and_register(tracking, model_dir, "run-1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking.uri)
    model = mlflow.pyfunc.load_model(version.uri)
    prompts = pd.DataFrame({"prompt": ["one", "two", "two"]}, index=[7, 8, 9])
    first = model.predict(prompts, params={"seed": 5})
    assert list(first.columns) == ["image"] and list(first.index) == [7, 8, 9]
    assert Image.open(io.BytesIO(base64.b64decode(first["image"][7]))).size == (32, 32)
    assert model.predict(prompts, params={"seed": 5}).equals(first)
    assert first["image"][8] != first["image"][9]
    assert model.predict(prompts, params={"seed": 6})["image"][8] == first["image"][9]
    assert model.predict(prompts, params={"seed": 5, "guidance_scale": 9.0})["image"][7] != first["image"][7]
    defaults = {param.name: param.default for param in model.metadata.get_params_schema().params}
    assert defaults == {
        "gesture": "",
        "seed": 0,
        "mu": 0.6,
        "guidance_scale": 2.0,
        "autoguidance_scale": 1.0,
        "autoguidance_interval": [0.0, 1.0],
        "eta": 0.5,
        "num_inference_steps": 2,
    }


def test_mlflow_serves_the_registered_model(runs, model_dir, tmp_path, monkeypatch):
    import json
    import sys
    import urllib.request

    from PIL import Image

    tracking = connect(runs)
    version = record_and_register(tracking, model_dir, "run-1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking.uri)
    address = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", version.uri, "--env-manager", "local"]
    with serving([*command, "--port", address.rpartition(":")[2]], f"{address}/ping", tmp_path / "log"):
        body = {"dataframe_records": [{"prompt": "a hand"}], "params": {"seed": 3, "num_inference_steps": 1}}
        body["params"]["autoguidance_interval"] = [0.25, 0.75]
        request = urllib.request.Request(
            f"{address}/invocations", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            (row,) = json.load(answer)["predictions"]
    assert Image.open(io.BytesIO(base64.b64decode(row["image"]))).size == (32, 32)


@pytest.mark.parametrize(
    ("prompts", "params", "fault"),
    [
        (["a"], {"mu": 1.5}, "mu: 1.5 is out of range"),
        (["a"], {"gesture": "like"}, "gesture 'like': this model knows four, ok only"),
        (["a"], {"gesture": ""}, "contains the phrase of none of this model's gestures, four, ok"),
        (["a"], {"guidance_scale": math.nan}, "guidance_scale"),
        (["a"], {"num_inference_steps": 0}, "num_inference_steps: 0"),
        (["a"], {"autoguidance_interval": [0.5, 0.5]}, "autoguidance_interval: .* the lower first"),
        (["a"], {"seed": -1}, "seed: -1"),
        (["a", " "], {}, "prompt 1: give a text"),
        (["a" * 2001], {}, "prompt 0: give a text"),
        (["a"] * 257, {}, "257 prompts"),
    ],
)
def test_registered_model_rejects_invalid_input(model_dir, tiny_python_model, prompts, params, fault):
    from mlflow.exceptions import MlflowException

    with pytest.raises(MlflowException, match=fault) as raised:
        tiny_python_model.predict(None, pd.DataFrame({"prompt": prompts}), params)
    assert raised.value.get_http_status_code() == 400
