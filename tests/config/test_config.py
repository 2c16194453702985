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
from hand1000.core.documents import read_yaml
from hand1000.core.errors import Hand1000Error

CONFIGS = Path(__file__).parents[2] / "workflows" / "configs"


def test_settings_inherit_all_but_what_they_state() -> None:
    settings = Settings.model_validate({"preset": "fast", "stage3": {"steps": 1000, "lora": {"targets": ["to_q"]}}})
    fast = load_settings("fast")
    assert (settings.stage3.steps, settings.stage3.lora.targets, settings.stage3.lora.rank) == (1000, ["to_q"], 16)
    assert settings.with_overrides({"stage3.steps": 2000, "stage3.lora.targets": fast.stage3.lora.targets}) == fast
    assert Settings.model_validate_json('{"preset": "fast"}') == fast


def test_changes_of_settings_stay_as_they_were_given() -> None:
    changes = {"gates.diversity": {"threshold": 0, "max_loss": 1}, "gates.diversity.threshold": 0.5}
    gate = load_settings("demo").with_overrides(changes).gates.diversity
    assert gate.threshold == 0.5 and changes["gates.diversity"] == {"threshold": 0, "max_loss": 1}


def test_a_preset_inherits_from_a_preset() -> None:
    assert yaml.safe_load((PRESETS / "fast.yaml").read_text())["preset"] == "default"
    fast, default = load_settings("fast"), load_settings("default")
    assert fast.stage3.training_mode == "lora" and fast.data == default.data and fast.seed == default.seed


def test_resolved_settings_do_not_mention_their_preset() -> None:
    assert list_presets() == ["default", "demo", "fast", "paper", "sd3", "sdxl", "zimage"]
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
        ("stages", SweepSettings),
        ("stages-short", SweepSettings),
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
    with pytest.raises(Hand1000Error, match="a.yaml: line 1, column 5: not YAML: [^\n]*$"):
        load_config(tmp_path / "a.yaml")
    with pytest.raises(
        Hand1000Error, match="b.yaml: neither a preset .default, demo, fast, paper, sd3, sdxl, zimage. nor a file"
    ):
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
        ("sampler", "plms", "one of ddim, dpmpp_2m, dpmpp_2m_sde, unipc"),
        ("eta", -1, "0 to 1"),
        ("num_inference_steps", 0, "1 to 1000"),
    ],
)
def test_a_sampler_setting_out_of_range_names_its_range(name: str, value: object, choose: str) -> None:
    assert choose in describe_range(name)
    with pytest.raises(Hand1000Error, match=f"^{name}: .* is out of range; choose {choose}"):
        load_settings("default").generation.with_call_values(**{name: value})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("preset: demo\npreset: fast", "line 2, column 1: not YAML: preset is given several times; give it once"),
        ("a: &a [*a]", "line 1, column 8: not YAML: an alias within its own anchor"),
        ("a: &a {<<: *a}", "line 1, column 12: not YAML: an alias within its own anchor"),
        ("<<: 5", "line 1, column 5: not YAML: expected a mapping or list of mappings for merging, but found scalar"),
        ("[" * 60, "line 1, column 51: not YAML: more than 50 levels"),
        ("a: 2026-02-30", "line 1, column 4: not YAML: '2026-02-30' is no timestamp; quote it if it is a text"),
        ("a: !!set {b}", "line 1, column 4: not YAML: could not determine a constructor"),
        ("a: \x00", "not YAML: special characters are not allowed, at character 3"),
        ("", "empty; state its fields$"),
        ("# nothing", "empty; state its fields$"),
        ("5", "settings: fields are expected, each as NAME: VALUE .got 5.$"),
        ("x" * 300_000, "longer than 256 KiB"),
        ("x" * 200_000 + ": 1", "line 1, column 200001: not YAML"),
        ("preset: demo\nseed: " + "9" * 6000, "line 2, column 7: not YAML: '9999.* is no int"),
        ("preset: demo\ngeneration: {mu: yes}", "generation.mu: a number is expected; YAML reads yes, .* .got True.$"),
        ("preset: demo\nstage2: {lambdx_: 1}", "stage2.lambdx_: unknown field; .*; did you mean lambda_. .got 1.$"),
        ("common: {preset: demo}\nhand_refiner: {controlnet: x}", "imagic: missing; state it$"),
        ("common: {preset: demo}\nimajic: {}\nhand_refiner: {}", "imajic: unknown .*; did you mean imagic. .got {}.$"),
    ],
)
def test_malformed_settings_are_refused_at_their_place(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(Hand1000Error, match=f"^{tmp_path}/a.yaml: {message}") as error:
        load_config(tmp_path / "a.yaml")
    assert str(error.value).isprintable() and len(str(error.value)) < 1000


def test_aliases_and_merges_expand_within_bounds(tmp_path: Path) -> None:
    lines = ["a0: &a0 [0, 0, 0, 0, 0, 0, 0, 0, 0]", *(f"a{n}: &a{n} [{f'*a{n - 1}, ' * 9}]" for n in range(1, 9))]
    (tmp_path / "laughs.yaml").write_text("\n".join(lines))
    with pytest.raises(Hand1000Error, match="laughs.yaml: line 6, .*more than 200,000 values"):
        load_config(tmp_path / "laughs.yaml")
    (tmp_path / "merge.yaml").write_text("x: &x {seed: 7}\ny: &y {<<: *x, a: 1}\nz: {<<: [*y, *x], seed: 8, b: *x}")
    assert read_yaml(tmp_path / "merge.yaml")["z"] == {"seed": 8, "a": 1, "b": {"seed": 7}}


def test_a_message_is_short_whatever_the_input(tmp_path: Path) -> None:
    for text in (f"preset: {'x' * 200_000}", f"? {'y' * 1000}\n: 1", "preset: demo\nseed: [" + "1, " * 50_000 + "]"):
        (tmp_path / "a.yaml").write_text(text)
        with pytest.raises(Hand1000Error) as error:
            load_config(tmp_path / "a.yaml")
        assert len(str(error.value)) < 1200
