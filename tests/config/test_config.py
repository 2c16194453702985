"""Settings: inheritance from presets, the files that ship, and the sampler's checks."""

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from hand1000.config.base import FrozenSettings
from hand1000.config.caption_settings import DatasetSettings
from hand1000.config.comparison import ComparisonSettings
from hand1000.config.controlnet import ControlSettings
from hand1000.config.inheritance import PRESETS, list_presets
from hand1000.config.inputs import WorkflowInputs, load_config
from hand1000.config.pretraining import PretrainSettings
from hand1000.config.sampler import CALL_FIELDS, describe_range
from hand1000.config.settings import Settings, load_settings
from hand1000.config.sweep import SweepSettings
from hand1000.core.errors import Hand1000Error

CONFIGS = Path(__file__).parents[2] / "workflows" / "configs"


def test_settings_inherit_all_but_what_they_state() -> None:
    settings = Settings.model_validate({"preset": "fast", "stage3": {"steps": 1000, "lora": {"targets": ["to_q"]}}})
    fast = load_settings("fast")
    assert (settings.stage3.steps, settings.stage3.lora.targets, settings.stage3.lora.rank) == (1000, ["to_q"], 16)
    assert settings.with_overrides({"stage3.steps": 2000, "stage3.lora.targets": fast.stage3.lora.targets}) == fast
    assert Settings.model_validate_json('{"preset": "fast"}') == fast


def test_a_preset_inherits_from_a_preset() -> None:
    assert yaml.safe_load((PRESETS / "fast.yaml").read_text())["preset"] == "default"
    fast, default = load_settings("fast"), load_settings("default")
    assert fast.stage3.training_mode == "lora" and fast.data == default.data and fast.seed == default.seed


def test_resolved_settings_do_not_mention_their_preset() -> None:
    assert list_presets() == ["default", "demo", "fast", "paper"]
    for preset in list_presets():
        values = load_settings(preset).model_dump()
        assert list(values) == list(Settings.model_fields) and Settings.model_validate(values) == load_settings(preset)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"preset": "default", "stage3": {"lora": {"rang": 8}}}, r"stage3\.lora\.rang\n +Extra inputs"),
        ({"preset": "default", "stage4": {}}, r"stage4\n +Extra inputs"),
        ({"preset": "default", "stage3": {"steps": -1}}, r"stage3\.steps\n"),
        ({"preset": "default", "stage3": 7}, r"stage3\n"),
        ({"preset": "fastest"}, "unknown preset 'fastest'; choose one of default, demo, fast, paper"),
        ({"preset": ["fast"]}, "unknown preset"),
        ({"stage3": {"steps": 1}}, "seed\n +Field required"),
    ],
)
def test_a_fault_beside_a_preset_is_named_in_full(values: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Settings.model_validate(values)


@pytest.mark.parametrize(
    ("config", "settings"),
    [
        ("demo", load_settings("demo")),
        ("retrain", load_settings("demo")),
        ("sd15", load_settings("default")),
        ("fast", load_settings("fast")),
        ("paper", load_settings("paper")),
        ("compare", ComparisonSettings),
        ("controlnet", ControlSettings),
        ("dataset", DatasetSettings),
        ("pretrain", PretrainSettings),
        ("sweep", SweepSettings),
    ],
)
def test_the_shipped_inputs_files_are_valid(config: str, settings: Settings | type[FrozenSettings]) -> None:
    inputs = load_config(CONFIGS / f"{config}.yaml")
    assert isinstance(inputs, WorkflowInputs)
    if isinstance(settings, Settings):
        assert inputs.settings == settings
    else:
        assert type(inputs.settings) is settings


def test_a_dataset_inherits_what_it_shares_with_a_training() -> None:
    dataset = DatasetSettings.model_validate({"preset": "default", "data": {"test_images": 7}})
    default = load_settings("default")
    assert dataset.captioners == [default.captions.captioner] and dataset.completion == default.captions.completion
    assert dataset.data == default.data.model_copy(update={"test_images": 7})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settings": {"preset": "demo", "stage2": {"lambda": 1}}}, "settings.stage2.lambda: unknown field"),
        ({"settings": {"common": {"preset": "demo", "seed": -1}, "sweeps": {}}}, "settings.common.seed: "),
        ({"gesture": "wave"}, "gesture: .*unknown gesture 'wave'"),
        ({"shards": 0}, "shards: "),
        ({"image": 5}, "image: unknown field"),
        ({"settings": 5}, "settings: "),
    ],
)
def test_a_fault_in_an_inputs_file_is_named(changes: dict, message: str, tmp_path: Path) -> None:
    path = tmp_path / "inputs.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load((CONFIGS / "demo.yaml").read_text()) | changes))
    with pytest.raises(Hand1000Error, match=f"^{path}: {message}") as error:
        load_config(path)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_yaml_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: [")
    with pytest.raises(Hand1000Error, match="a.yaml: not YAML: [^\n]*$"):
        load_config(tmp_path / "a.yaml")
    with pytest.raises(Hand1000Error, match="b.yaml: neither a preset .default, demo, fast, paper. nor a file"):
        load_config(tmp_path / "b.yaml")


def test_a_call_overrides_the_models_sampler_settings() -> None:
    defaults = load_settings("demo").generation
    call = defaults.with_call_values(mu=0.25, eta=None, autoguidance_interval=(0.0, 0.5))
    assert (call.mu, call.eta, call.autoguidance_interval) == (0.25, defaults.eta, [0.0, 0.5])
    assert defaults.with_call_values(**dict.fromkeys(CALL_FIELDS)) == defaults


@pytest.mark.parametrize(
    ("name", "value", "choose"),
    [
        ("mu", 1.5, "0 to 1"),
        ("guidance_scale", float("nan"), "1 to 50"),
        ("autoguidance_scale", 0.5, "1 to 10"),
        ("autoguidance_interval", [0.5, 0.5], "two ends within 0 to 1, the lower first"),
        ("autoguidance_interval", [0.5, 1.5], "two ends"),
        ("autoguidance_interval", [0.5], "two ends"),
        ("eta", -1, "0 to 1"),
        ("num_inference_steps", 0, "1 to 1000"),
    ],
)
def test_a_sampler_setting_out_of_range_names_its_range(name: str, value: object, choose: str) -> None:
    assert choose in describe_range(name)
    with pytest.raises(Hand1000Error, match=f"^{name}: .* is out of range; choose {choose}"):
        load_settings("default").generation.with_call_values(**{name: value})
