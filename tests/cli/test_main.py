"""The command line as a user calls it."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from PIL import Image

import hand1000
from hand1000.cli import main as cli
from hand1000.cli.images import save_image
from hand1000.config.inheritance import PRESETS
from hand1000.config.inputs import load_config
from hand1000.config.settings import load_settings
from hand1000.gestures import PHRASES
from tests.support.short_demo import ROOT
from tests.support.tiny_models import save_gesture_model, save_tiny_base, save_tiny_model


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


def generate(model_dir: Path, out: Path, *options: str) -> int:
    return cli.main(["generate", "--model", str(model_dir), "--prompt", "a hand", "--out", str(out), *options])


def test_generate_writes_a_grid_of_images_with_their_own_seeds(tmp_path, model_dir, capsys):
    out = tmp_path / "new" / "grid.png"
    assert generate(model_dir, out, "--num", "5", "--seed", "7", "--separate", str(tmp_path / "each")) == 0
    output = capsys.readouterr()
    assert output.out == f"{out}\n" and "generated: 5/5" in output.err
    # Three columns of 32 px images with gaps of 4 px.
    grid = Image.open(out)
    assert grid.size == (3 * 36 + 4, 2 * 36 + 4)
    assert {path.name for path in (tmp_path / "each").iterdir()} == {f"{seed}.png" for seed in range(7, 12)}
    images = {seed: Image.open(tmp_path / "each" / f"{seed}.png").tobytes() for seed in range(7, 12)}
    assert len(set(images.values())) == 5
    assert grid.crop((4 + 36, 4 + 36, 36 + 36, 36 + 36)).tobytes() == images[11]

    again = tmp_path / "again"
    # Float sums may round otherwise in a batch of another size, so batches are left as they were.
    assert generate(model_dir, out, "--num", "4", "--seed", "7", "--separate", str(again)) == 0
    assert [Image.open(again / f"{seed}.png").tobytes() for seed in range(7, 11)] == list(images.values())[:4]


def test_generate_passes_its_settings_on(tmp_path, model_dir, monkeypatch):
    from hand1000.pipelines.pipeline_hand1000 import Hand1000Pipeline

    calls, plain = [], Hand1000Pipeline.__call__

    def spy(self, prompt, **settings):
        calls.append((prompt, settings))
        return plain(self, prompt, **settings)

    monkeypatch.setattr(Hand1000Pipeline, "__call__", spy)
    options = [
        "--num",
        "3",
        "--batch-size",
        "2",
        "--gesture",
        "four",
        "--mu",
        "0.5",
        "--guidance-scale",
        "4",
        "--autoguidance-scale",
        "1",
        "--autoguidance-interval",
        "0.25",
        "0.75",
        "--sampler",
        "unipc",
        "--eta",
        "0.5",
        "--steps",
        "3",
    ]
    assert generate(model_dir, tmp_path / "g.png", *options) == 0
    assert [prompt for prompt, _ in calls] == [["a hand"] * 2, ["a hand"]]
    for _, settings in calls:
        settings.pop("generator")
        assert set(settings.pop("gesture")) == {"four"}
        assert settings == {
            "mu": 0.5,
            "guidance_scale": 4.0,
            "autoguidance_scale": 1.0,
            "autoguidance_interval": [0.25, 0.75],
            "sampler": "unipc",
            "eta": 0.5,
            "num_inference_steps": 3,
        }


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["generate", "--model", "nowhere", "--prompt", "x"], "nowhere: no model there"),
        (["generate", "--model", "models:/a/1", "--prompt", "x"], "no MLflow here"),
        (["config", "show", "nothing"], "nothing: neither a preset"),
        (["evaluate", ".", ".", "--gesture", "wave"], "unknown gesture 'wave'"),
        (["evaluate", ".", ".", "--gesture", "call"], "no images of 'call'"),
    ],
)
def test_a_fault_is_one_line_and_status_2(arguments, fault, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert cli.main(arguments) == 2
    output = capsys.readouterr()
    assert output.out == "" and output.err.startswith("hand1000: error: ") and fault in output.err
    assert output.err.count("\n") == 1


def test_a_setting_out_of_range_is_named(tmp_path, model_dir, capsys):
    assert generate(model_dir, tmp_path / "g.png", "--mu", "1.5") == 2
    assert "hand1000: error: mu: 1.5 is out of range" in capsys.readouterr().err
    assert generate(model_dir, tmp_path / "g.png", "--autoguidance-interval", "0.8", "0.2") == 2
    assert "hand1000: error: autoguidance_interval: [0.8, 0.2] is out of range" in capsys.readouterr().err
    assert not (tmp_path / "g.png").exists()
    with pytest.raises(SystemExit) as ended:
        generate(model_dir, tmp_path / "g.png", "--num", "0")
    assert ended.value.code == 2


def test_a_prompt_is_refused_before_the_weights_are_loaded(tmp_path, capsys):
    folder = save_gesture_model(tmp_path / "model")
    for weights in folder.rglob("*.safetensors"):
        weights.unlink()
    command = ["generate", "--model", str(folder), "--out", str(tmp_path / "g.png"), "--prompt"]
    assert cli.main([*command, "a hand"]) == 2
    assert "prompt 'a hand': lacks the phrase of the gesture" in capsys.readouterr().err
    assert cli.main([*command, "a hand, making four fingers up hand gesture", "--gesture", "ok"]) == 2
    assert "gesture 'ok': this model knows four only" in capsys.readouterr().err
    assert cli.main([*command, "a hand, making four fingers up hand gesture"]) == 2
    assert "no safetensors file" in capsys.readouterr().err


def test_a_broken_model_is_one_line(tmp_path, capsys):
    (tmp_path / "model_index.json").write_text("{")
    assert generate(tmp_path, tmp_path / "g.png") == 2
    assert f"{tmp_path}/model_index.json: line 1: not JSON" in capsys.readouterr().err


def test_an_interrupt_ends_quietly(monkeypatch, capsys):
    def interrupted(source):
        raise KeyboardInterrupt

    monkeypatch.setattr("hand1000.config.inputs.load_config", interrupted)
    assert cli.main(["config", "show", "default"]) == 130
    assert capsys.readouterr().err == ""


def test_config_show_is_complete_and_can_be_read_back(tmp_path, capsys):
    preset = next(PRESETS.glob("*.yaml")).stem
    assert cli.main(["config", "show", preset]) == 0
    shown = tmp_path / "shown.yaml"
    shown.write_text(capsys.readouterr().out)
    assert load_settings(shown) == load_settings(preset)
    assert cli.main(["config", "check", str(shown)]) == 0

    broken = yaml.safe_load(shown.read_text())
    broken["stage2"]["lambda_"] = 1.5
    shown.write_text(yaml.safe_dump(broken))
    assert cli.main(["config", "check", str(shown)]) == 2
    assert "stage2.lambda_" in capsys.readouterr().err


def test_gestures_lists_each_with_its_phrase(capsys):
    assert cli.main(["gestures"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert dict(line.split(maxsplit=1) for line in lines) == PHRASES


def test_the_command_starts_without_the_heavy_libraries():
    heavy = ("torch", "diffusers", "mlflow", "mediapipe", "transformers", "PIL", "numpy")
    code = f"import sys, hand1000.cli.main; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_config_show_resolves_an_inputs_file(tmp_path, capsys):
    configs = Path(__file__).parents[2] / "workflows" / "configs"
    for config in ("demo", "retrain", "compare", "dataset"):
        assert cli.main(["config", "show", str(configs / f"{config}.yaml")]) == 0
        shown = tmp_path / "shown.yaml"
        shown.write_text(capsys.readouterr().out)
        assert "preset" not in shown.read_text() and load_config(shown) == load_config(configs / f"{config}.yaml")
        assert cli.main(["config", "check", str(shown)]) == 0
        assert capsys.readouterr().out == f"{shown}: valid\n"


def test_config_check_reads_the_index_of_a_local_base_model(tmp_path, capsys):
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusion3Pipeline"}')
    inputs = {"base_model": str(tmp_path), "settings": {"preset": "sd3", "generation": {"eta": 0.5}}}
    path = tmp_path / "inputs.yaml"
    path.write_text(yaml.safe_dump(inputs))
    assert cli.main(["config", "check", str(path)]) == 2
    assert f"{tmp_path}: generation.eta above 0 needs a diffusion model" in capsys.readouterr().err
    path.write_text(yaml.safe_dump(inputs | {"base_model": "owner/name@main"}))
    assert cli.main(["config", "check", str(path)]) == 0


@pytest.mark.parametrize("index", ["", "[]", '{"_class_name": "FluxPipeline"}'])
def test_config_check_refuses_a_damaged_base_model(tmp_path, capsys, index: str) -> None:
    path, model = tmp_path / "inputs.yaml", tmp_path / "model"
    save_tiny_base(model)
    capsys.readouterr()
    path.write_text(yaml.safe_dump({"base_model": str(model), "settings": {"preset": "default"}}))
    assert cli.main(["config", "check", str(path)]) == 0
    kept = (model / "model_index.json").read_text()
    (model / "model_index.json").write_text(index)
    assert cli.main(["config", "check", str(path)]) == 2
    (model / "model_index.json").write_text(kept)
    shutil.rmtree(model / "text_encoder")
    assert cli.main(["config", "check", str(path)]) == 2
    first, second = (line for line in capsys.readouterr().err.splitlines() if line.startswith("hand1000: error"))
    assert str(model) in first and f"{model}: its part text_encoder is missing" in second


def test_pretraining_takes_no_base_model(tmp_path, capsys):
    inputs = yaml.safe_load((Path(__file__).parents[2] / "workflows" / "configs" / "pretrain.yaml").read_text())
    path = tmp_path / "inputs.yaml"
    path.write_text(yaml.safe_dump(inputs | {"base_model": "owner/name"}))
    assert cli.main(["config", "check", str(path)]) == 2
    assert "pretraining makes a new model of Stable Diffusion 1.x; leave it out" in capsys.readouterr().err


def test_the_public_api_is_imported_when_used():
    code = "import sys, hand1000; print('torch' in sys.modules, 'yaml' in sys.modules, dir(hand1000))"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert output.startswith("False False") and "load_pipeline" in output
    for name in hand1000.__all__:
        assert getattr(hand1000, name) is not None
    assert set(hand1000.__all__) == {*hand1000._MODULES, "__version__"}
    with pytest.raises(AttributeError, match="no attribute 'draw'"):
        hand1000.draw  # noqa: B018


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (
            ["generate", "--prompt", "x", "--out", "grid.gif"],
            "grid.gif: the suffix names no image format; choose one of",
        ),
        (["generate", "--prompt", "x", "--out", "grid"], "grid: the suffix names no image format"),
        (["generate", "--prompt", "x", "--mu", "2"], "mu: 2.0 is out of range; choose 0 to 1"),
        (["generate", "--prompt", "x", "--steps", "0"], "num_inference_steps: 0 is out of range"),
        (["generate", "--prompt", "x", "--gesture", "wave"], "unknown gesture 'wave'"),
        (["export", "--to", "lora", "--out", "x.ckpt"], "x.ckpt: the file's name must end in .safetensors"),
        (["export", "--to", "diffusers", "--out", "x.safetensors"], "--to diffusers writes a folder"),
        (["export", "--to", "diffusers", "--out", "x", "--mu", "-1"], "mu: -1.0 is out of range"),
        (["export", "--to", "diffusers", "--out", "x", "--gesture", "wave"], "unknown gesture 'wave'"),
    ],
)
def test_values_are_checked_before_the_model(arguments, fault, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main([*arguments, "--model", "no-such-folder"]) == 2
    assert fault in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "kind"), [("a.png", "PNG"), ("a.JPG", "JPEG"), ("a.jpeg", "JPEG"), ("a.webp", "WEBP")]
)
def test_the_suffix_names_the_format(name, kind, tmp_path):
    path = tmp_path / "new" / name
    save_image(Image.new("RGB", (8, 8), "red"), path)
    with Image.open(path) as image:
        assert image.format == kind


def test_module_runs_as_the_command():
    command = [sys.executable, "-m", "hand1000.cli.main", "gestures"]
    assert "four" in subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_accounts_without_a_server_name_the_remedy(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert cli.main(["accounts", "--gesture", "four"]) == 2
    error = capsys.readouterr().err
    assert "accounts need an MLflow server; name it with --registry http(s)://..., or set MLFLOW_TRACKING_URI" in error


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["serve", "--model", "m", "--port", "70000"], "argument --port: 70000 is out of range; choose 0 to 65535"),
        (
            ["serve", "--model", "m", "--grace-seconds", "nan"],
            "--grace-seconds: nan is out of range; choose 0",
        ),
        (["gc", "--keep-days", "4000"], "argument --keep-days: 4000 is out of range; choose 0 to 3650"),
        (["gc", "--keep-days", "9" * 5000], "argument --keep-days: 9999"),
        (["config", "show", "x", "y\udcff\n\x1b[2J"], "unrecognized arguments: y\\\\udcff"),
        (["x" * 5000], "invalid choice: 'xxxx"),
    ],
)
def test_arguments_are_refused_in_one_short_line(arguments: list[str], fault: str, capsys) -> None:
    with pytest.raises(SystemExit) as error:
        cli.main(arguments)
    line = capsys.readouterr().err.splitlines()[-1]
    assert error.value.code == 2 and re.search(f": error: .*{fault}", line) and len(line) < 1600 and line.isprintable()


def test_names_that_are_not_utf8_are_printed_with_escapes(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/name\xe9.yaml"
    Path(os.fsdecode(path)).write_text("preset: demo")
    program = "import sys; from hand1000.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "config", "check", path]
    done = subprocess.run(command, capture_output=True, timeout=60, env=os.environ | {"PYTHONUTF8": "1"})
    assert (done.returncode, done.stderr) == (0, b"") and done.stdout.endswith(b"/name\\udce9.yaml: valid\n")
    Path(os.fsdecode(path)).write_text("preset: domo")
    done = subprocess.run(command, capture_output=True, timeout=60)
    assert done.returncode == 2 and b"/name\\udce9.yaml: " in done.stderr and len(done.stderr.splitlines()) == 1


def test_the_commands_start_without_the_packages_of_extras():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    packages = {
        re.split(r"[^A-Za-z0-9_-]", line)[0] for name in ("cluster", "demo", "heic", "serve") for line in extras[name]
    }
    distributions = packages_distributions()
    blocked = [module for module, owners in distributions.items() if packages & set(owners)]
    assert {"croniter", "flytekit", "fastapi"} <= set(blocked)
    code = f"import sys; sys.modules.update(dict.fromkeys({blocked!r})); from hand1000.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "schedules" in done.stdout, done.stderr
