"""No loader runs, asks about or unpickles what came with a model: every call of a loader is in one place."""

import ast
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from hand1000.core.errors import Hand1000Error
from hand1000.storage.pretrained import load_model, load_part
from tests.support.tiny_models import LATENT, fresh_base

ROOT = Path(__file__).parents[2]
PACKAGES = ("hand1000", "tasks", "workflows", "benchmarks", "models", "tests/stories")

OWN = {"GestureClassifier", "SmallExtractor", "Hand1000Pipeline"}
"""Classes of this project, which read JSON and safetensors alone."""

LOADERS = {"from_pretrained", "from_single_file", "load_lora_weights", "load_adapter", "load_textual_inversion"}
UNPICKLING = {("torch", "load"), ("pickle", "load"), ("pickle", "loads"), ("joblib", "load"), ("torch.hub", "load")}


def calls(path: Path) -> list[ast.Call]:
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]


def is_trusting(call: ast.Call) -> bool:
    """Whether a call of a library's loader does not say that the code of a model is not run."""
    if not isinstance(call.func, ast.Attribute) or call.func.attr not in LOADERS:
        return False
    if ast.unparse(call.func.value) in OWN:
        return False
    values = {keyword.arg: keyword.value for keyword in call.keywords}
    value = values.get("trust_remote_code")
    return not (isinstance(value, ast.Constant) and value.value is False)


def test_every_loader_of_a_library_refuses_the_models_code() -> None:
    sources = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    found = [(path, call) for path in sources for call in calls(path)]
    loaders = [item for item in found if isinstance(item[1].func, ast.Attribute) and item[1].func.attr in LOADERS]
    assert len(loaders) >= 2
    assert [f"{path}:{call.lineno}" for path, call in loaders if is_trusting(call)] == []
    libraries = {path.relative_to(ROOT) for path, call in loaders if ast.unparse(call.func.value) not in OWN}  # type: ignore[attr-defined]
    # The benchmark loads its peer, the stock pipeline, from this project's own model.
    assert libraries == {Path("hand1000/storage/pretrained.py"), Path("benchmarks/drawing.py")}


def test_no_pickle_is_ever_read() -> None:
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for call in calls(path):
                if isinstance(call.func, ast.Attribute):
                    name = (ast.unparse(call.func.value), call.func.attr)
                    assert name not in UNPICKLING, f"{path}:{call.lineno}"


def test_the_walk_finds_a_trusting_call() -> None:
    for text, expected in {
        "Model.from_pretrained(folder)": True,
        "Model.from_pretrained(folder, trust_remote_code=True)": True,
        "Model.from_pretrained(folder, trust_remote_code=trusts)": True,
        "Model.from_pretrained(folder, trust_remote_code=False)": False,
        "GestureClassifier.from_pretrained(folder)": False,
    }.items():
        (call,) = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call))
        assert is_trusting(call) is expected, text


def test_a_model_with_code_is_refused_without_a_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoImageProcessor, AutoModelForCausalLM, AutoTokenizer

    def fail(*_: object) -> str:
        raise AssertionError("a question at the terminal")

    monkeypatch.setattr("builtins.input", fail)
    (tmp_path / "code.py").write_text("raise AssertionError('the code of a model ran')")
    classes = {"AutoModelForCausalLM": "code.Model", "AutoTokenizer": ["code.Model", None], "AutoConfig": "code.Model"}
    config = {"model_type": "unknown", "auto_map": classes | {"AutoImageProcessor": "code.Model"}}
    for name in ("config.json", "tokenizer_config.json", "preprocessor_config.json"):
        (tmp_path / name).write_text(json.dumps(config))
    save_file({"weight": torch.zeros(2)}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    for load in (
        lambda: load_model(AutoModelForCausalLM, tmp_path, "a chat model"),
        lambda: load_part(AutoTokenizer, tmp_path, "a tokenizer"),
        lambda: load_part(AutoImageProcessor, tmp_path, "an image processor"),
    ):
        with pytest.raises(Hand1000Error, match="cannot be loaded as"):
            load()


def test_shards_are_checked_like_one_file(tmp_path: Path) -> None:
    from diffusers import UNet2DConditionModel

    fresh_base().unet.save_pretrained(tmp_path, max_shard_size="20KB")
    shards = sorted(tmp_path.glob("*.safetensors"))
    assert len(shards) > 1
    assert load_model(UNet2DConditionModel, tmp_path, "a UNet").config.sample_size == LATENT
    index = tmp_path / "diffusion_pytorch_model.safetensors.index.json"
    listing = index.read_text()
    for value in ("[]", "{}", '{"weight_map": {"a": "../a.safetensors"}}', '{"weight_map": {"a": "a.bin"}}'):
        index.write_text(value)
        with pytest.raises(Hand1000Error, match=r"index\.json: "):
            load_model(UNet2DConditionModel, tmp_path, "a UNet")
    index.write_text(listing)
    with safe_open(shards[1], "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    name = next(iter(tensors))
    save_file(tensors | {name: tensors[name] * float("nan")}, shards[1], metadata={"format": "pt"})
    with pytest.raises(Hand1000Error, match=f"{shards[1].name}: the tensor {name} has values that are NaN"):
        load_model(UNet2DConditionModel, tmp_path, "a UNet")
    shards[1].unlink()
    with pytest.raises(Hand1000Error, match=f"{shards[1].name}: no such file"):
        load_model(UNet2DConditionModel, tmp_path, "a UNet")


def test_a_folder_of_only_a_variant_names_the_remedy(tmp_path: Path) -> None:
    from diffusers import UNet2DConditionModel

    fresh_base().unet.save_pretrained(tmp_path, variant="fp16")
    with pytest.raises(Hand1000Error, match=r"only the variant fp16, \S+\.fp16\.safetensors; remove '\.fp16'"):
        load_model(UNet2DConditionModel, tmp_path, "a UNet")
    (weights,) = tmp_path.glob("*.safetensors")
    weights.rename(tmp_path / weights.name.replace(".fp16", ""))
    assert load_model(UNet2DConditionModel, tmp_path, "a UNet").config.sample_size == LATENT


def test_a_loader_shows_no_bar_of_its_own(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from transformers import CLIPTextConfig, CLIPTextModel
    from transformers.utils.logging import enable_progress_bar, is_progress_bar_enabled

    config = CLIPTextConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    CLIPTextModel(config).save_pretrained(tmp_path)
    enable_progress_bar()
    capfd.readouterr()
    load_model(CLIPTextModel, tmp_path, "a text encoder")
    assert capfd.readouterr().err == "" and is_progress_bar_enabled()


def test_a_folder_without_a_model_says_what_was_expected(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    with pytest.raises(Hand1000Error, match="as a chat model: it has no config.json"):
        load_model(AutoModelForCausalLM, tmp_path, "a chat model")
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(Hand1000Error, match="as a chat model: it holds an adapter"):
        load_model(AutoModelForCausalLM, tmp_path, "a chat model")
