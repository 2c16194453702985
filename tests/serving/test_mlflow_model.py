"""The registered model through MLflow: what it refuses, its bounds, and equal bytes under load."""

import base64
import contextlib
import io
import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from hand1000.core.errors import Hand1000Error
from hand1000.registry.connection import connect
from hand1000.serving.mlflow_model import MlflowModel
from tests.support.mlflow_server import free_port, serving
from tests.support.registration import record_and_register
from tests.support.serving import GESTURES, PROMPTS, Answer, post
from tests.support.short_demo import ROOT
from tests.support.tiny_pipelines import pipeline_of

PROMPT = PROMPTS["four"]


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the registered tiny model of two gestures; MLflow's variable names its registry."""
    folder = tmp_path_factory.mktemp("registered")
    pipeline_of(*GESTURES, strong=True).save_pretrained(folder / "model")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        tracking = connect(folder / "runs")
        version = record_and_register(tracking, folder / "model", "run-1")
        patch.setenv("MLFLOW_TRACKING_URI", tracking.uri)
        yield version.uri


@pytest.fixture(scope="module")
def model(registered: str):
    import mlflow.pyfunc

    return mlflow.pyfunc.load_model(registered)


@contextlib.contextmanager
def mlflow_serving(uri: str, log: Path, *options: str, **config: int) -> Iterator[str]:
    address = f"http://127.0.0.1:{free_port()}"
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "models",
        "serve",
        "--model-uri",
        uri,
        "--env-manager",
        "local",
        *options,
    ]
    environment = {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "MLFLOW_PYFUNC_INFERENCE_CONFIG": json.dumps(config),
    }
    with serving([*command, "--port", address.rpartition(":")[2]], f"{address}/ping", log, environment):
        yield f"{address}/invocations"


@pytest.fixture(scope="module")
def server(registered: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address for invocations of a server with batches of two and room for two requests."""
    log = tmp_path_factory.mktemp("log") / "log"
    with mlflow_serving(registered, log, "--timeout", "2", batch_size=2, max_queue=2) as url:
        yield url


def invoke(url: str, prompt: str = PROMPT, rows: int = 1, **params: object) -> Answer:
    return post(url, {"dataframe_split": {"columns": ["prompt"], "data": [[prompt]] * rows}, "params": params})


def image_of(answer: Answer) -> bytes:
    assert answer.status == 200, answer.body
    return base64.b64decode(answer.json["predictions"][0]["image"])


FAULTS: list[tuple[dict, dict, str]] = [
    ({}, {"steps": 5}, "steps: unknown; did you mean num_inference_steps? accepted: gesture, seed, mu"),
    ({"negative_prompt": "x"}, {}, "negative_prompt: unknown column; send the column prompt, and settings as params"),
    ({}, {"seed": None}, "seed: null; give an integer, 0 to 2147483647"),
    ({}, {"num_inference_steps": True}, "num_inference_steps"),
    ({}, {"num_inference_steps": 8.5}, "num_inference_steps"),
    ({}, {"mu": True}, "mu"),
    ({}, {"mu": 1.5}, "mu: 1.5 is not accepted; give a number, 0 to 1"),
    ({"prompt": "a hand"}, {}, "prompt 0 'a hand': contains the phrase of none"),
    ({"prompt": "red " * 12 + PROMPT}, {}, "reads 14 tokens, which end before the phrase"),
    ({"prompt": 5}, {}, "prompt"),
    ({}, {"num_images": 2}, "num_images: unknown; accepted: gesture, seed, mu"),
]


@pytest.mark.parametrize(("columns", "params", "fault"), FAULTS)
def test_fault_is_answered_by_400(server: str, columns: dict, params: dict, fault: str) -> None:
    row = {"prompt": PROMPT, **columns}
    for data in (
        {"dataframe_records": [row]},
        {"dataframe_split": {"columns": list(row), "data": [list(row.values())]}},
        {"inputs": {name: [value] for name, value in row.items()}},
        {"inputs": [row]},
        {"instances": [row]},
    ):
        answer = post(server, {**data, "params": params})
        assert answer.status == 400 and fault in answer.json["message"], (data, answer)


def test_every_format_of_a_valid_request_gives_the_same_image(server: str) -> None:
    formats = [
        {"dataframe_split": {"columns": ["prompt"], "data": [[PROMPT]]}},
        {"dataframe_records": [{"prompt": PROMPT}]},
        {"inputs": {"prompt": [PROMPT]}},
        {"inputs": [{"prompt": PROMPT}]},
        {"instances": [{"prompt": PROMPT}]},
    ]
    params = {"seed": 3, "mu": 1, "autoguidance_interval": [0.25, 0.75]}
    images = {image_of(post(server, {**data, "params": params})) for data in formats}
    assert len(images) == 1
    image = Image.open(io.BytesIO(images.pop()))
    assert image.size == (32, 32) and image.text["seed"] == "3" and image.text["model"].startswith("models:/m-")


def test_csv_with_an_unknown_column_is_refused(server: str) -> None:
    answer = post(server, f'prompt,steps\n"{PROMPT}",5\n'.encode(), **{"Content-Type": "text/csv"})
    assert answer.status == 400 and "steps: unknown column" in answer.json["message"]


def test_threads_get_the_bytes_that_each_would_get_alone(server: str) -> None:
    requests = [
        {"prompt": PROMPTS[GESTURES[index % 2]], "seed": index, "num_inference_steps": 2 + index % 3}
        for index in range(16)
    ]

    def draw(request: dict) -> bytes:
        while (answer := invoke(server, **request)).status == 503:
            pass
        return image_of(answer)

    alone = [draw(request) for request in requests]
    assert len(set(alone)) == len(requests)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(draw, requests)) == alone


def test_full_queue_is_answered_by_503_and_slow_request_by_504(server: str) -> None:
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda seed: invoke(server, rows=4, seed=seed, num_inference_steps=1000), range(6)))
    statuses = [answer.status for answer in answers]
    assert set(statuses) == {503, 504} and statuses.count(503) >= 2
    refused = next(answer for answer in answers if answer.status == 503)
    assert refused.json["error_code"] == "TEMPORARILY_UNAVAILABLE" and "the queue is full" in refused.json["message"]
    # The work on them has ended, so a short request is answered in time.
    image_of(invoke(server))


def test_python_callers_may_use_numpy_and_get_the_index_back(model) -> None:
    rows = pd.DataFrame({"prompt": [PROMPT, PROMPTS["ok"]]}, index=[7, 9])
    params = {"seed": np.int64(5), "autoguidance_interval": np.array([0.0, 1.0]), "mu": np.float64(0.5)}
    images = model.predict(rows, params=params)
    assert list(images.columns) == ["image"] and list(images.index) == [7, 9]
    assert images.equals(model.predict(rows, params={"seed": 5, "mu": 0.5}))


@pytest.mark.parametrize("data", [pd.DataFrame({"prompt": [PROMPT], "steps": [5]}), [{"prompt": PROMPT, "steps": 5}]])
def test_python_callers_get_the_same_refusals(model, data: object) -> None:
    from mlflow.exceptions import MlflowException

    with pytest.raises(MlflowException, match="steps: unknown column") as raised:
        model.predict(data)
    assert raised.value.error_code == "INVALID_PARAMETER_VALUE"
    with pytest.raises(MlflowException, match="steps: unknown; did you mean num_inference_steps"):
        model.predict(pd.DataFrame({"prompt": [PROMPT]}), params={"steps": 5})


def test_a_limit_out_of_range_is_refused_at_load(registered: str) -> None:
    import mlflow.pyfunc

    from hand1000 import Hand1000Error

    with pytest.raises(Hand1000Error, match="model_config: batch_size"):
        mlflow.pyfunc.load_model(registered, model_config={"batch_size": 0})


def test_an_mlflow_whose_call_cannot_be_read_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from mlflow.pyfunc import PyFuncModel

    monkeypatch.setattr(PyFuncModel, "predict", lambda self, rows, options: rows)
    with pytest.raises(Hand1000Error, match=r"MLflow 3\.\d+\..*no arguments `data` and `params`.*install mlflow 3\.17"):
        MlflowModel.load(tmp_path, {})
