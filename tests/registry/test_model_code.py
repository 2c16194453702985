"""The registered model as MLflow loads and serves it."""

import base64
import io
import subprocess
import sys
import sysconfig

import pandas as pd

from hand1000.registry.connection import connect
from tests.support.registration import record_and_register


def pixels(image: str) -> bytes:
    """The pixels of a base64 PNG, whose text fields differ with the seed."""
    from PIL import Image

    return Image.open(io.BytesIO(base64.b64decode(image))).tobytes()


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
    assert pixels(first["image"][8]) != pixels(first["image"][9])
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
        "sampler": "ddim",
        "eta": 0.5,
        "num_inference_steps": 2,
    }


def test_attached_library_draws_the_same_without_the_package(runs, model_dir, tmp_path, monkeypatch):
    """An interpreter that cannot import `hand1000` loads the model and draws the bytes that this one draws."""
    import mlflow.artifacts
    import mlflow.pyfunc

    tracking = connect(runs)
    version = record_and_register(tracking, model_dir, "run-1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking.uri)
    folder = mlflow.artifacts.download_artifacts(version.uri, dst_path=str(tmp_path / "model"))
    script = (
        "import sys, importlib.util\n"
        "assert importlib.util.find_spec('hand1000') is None\n"
        "import mlflow.pyfunc, pandas as pd\n"
        "model = mlflow.pyfunc.load_model(sys.argv[1])\n"
        "image = model.predict(pd.DataFrame({'prompt': ['a hand']}), params={'seed': 5})['image'][0]\n"
        "import hand1000\n"
        "print(hand1000.__file__); print(image)\n"
    )
    site = sysconfig.get_paths()["purelib"]
    # Neither the folder of the tests nor an editable installation is on the path of an isolated interpreter with -S.
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.append({site!r})\n{script}", folder]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    library, image = done.stdout.split()[-2:]
    assert "library.zip" in library
    here = mlflow.pyfunc.load_model(folder).predict(pd.DataFrame({"prompt": ["a hand"]}), params={"seed": 5})
    assert image == here["image"][0]


def test_requirements_name_packages_of_an_index_only(runs, model_dir, monkeypatch):
    import mlflow.artifacts

    tracking = connect(runs)
    version = record_and_register(tracking, model_dir, "run-1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking.uri)
    requirements = mlflow.artifacts.load_text(f"{version.uri}/requirements.txt").split()
    assert not any(line.startswith("hand1000") for line in requirements)
    assert all("==" in line and "+" not in line for line in requirements)
