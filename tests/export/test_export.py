"""Exported models: the stock pipeline generates the same images as `Hand1000Pipeline`."""

import copy
import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel

from hand1000.cli.main import main
from hand1000.config.settings import LoraSettings
from hand1000.core.errors import Hand1000Error
from hand1000.export.export import export_model
from hand1000.export.fold import affine_fusion, fold_fusion
from hand1000.export.lora import check_precision, constant_direction
from hand1000.export.measured import ExportMetric, ExportMetrics
from hand1000.export.sampler import explain_unmeasured, export_sampler
from hand1000.export.single_file import UNET, VAE, text_encoder_weights, unet_weights, vae_weights
from hand1000.gestures import PHRASES
from hand1000.models.fusion import GestureFusion, double_fusion
from hand1000.models.stable_diffusion import StableDiffusion
from hand1000.pipelines.pipeline_hand1000 import Hand1000Pipeline, load_pipeline
from hand1000.training.checkpoint import trainable_parameters
from hand1000.training.lora import add_adapter, merge_adapter, save_adapter
from tests.support.tiny_models import TEXTS, TOKENS, WIDTH, save_tiny_model, tiny_base
from tests.support.tiny_pipelines import pipeline_of

EQUAL = 1e-5
"""Largest difference of two equal images before they are rounded to bytes; their range is about 3."""

HALF = 4e-3
"""Largest difference when the weights are rounded to float16; rounding the UNet alone makes 2e-3."""


@pytest.fixture
def tuned() -> Hand1000Pipeline:
    base = tiny_base()
    generator = torch.Generator().manual_seed(1)
    fusion = GestureFusion(WIDTH, ("four",)).initialize(torch.randn(1, 63, generator=generator), generator)
    with torch.no_grad():
        fusion.linear.weight.add_(0.3 * torch.randn(fusion.linear.weight.shape, generator=generator))
        fusion.linear.bias.add_(torch.randn(WIDTH, generator=generator))
    pipeline = Hand1000Pipeline(base, fusion, mu=0.4, guidance_scale=2.5, eta=0.6, num_inference_steps=4)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def call_settings(pipeline: Hand1000Pipeline) -> dict[str, float]:
    """The pipeline's own settings."""
    return {name: pipeline.config[name] for name in ("mu", "guidance_scale", "eta", "num_inference_steps")}


def decoded_images(pipeline, **settings) -> np.ndarray:
    """The images of two prompts as the decoder returns them, before they are rounded to bytes."""
    outputs: list[torch.Tensor] = []
    hook = pipeline.vae.decoder.register_forward_hook(lambda _, __, output: outputs.append(output))
    try:
        generators = [torch.Generator().manual_seed(seed) for seed in (7, 8)]
        pipeline(TEXTS, generator=generators, num_inference_steps=4, **settings)
    finally:
        hook.remove()
    return torch.cat(outputs).numpy()


def stock_images(stock: StableDiffusionPipeline) -> np.ndarray:
    stock.set_progress_bar_config(disable=True)
    # The stock pipeline assumes 512 pixels.
    size = stock.unet.config.sample_size * stock.vae_scale_factor
    return decoded_images(stock, guidance_scale=2.5, eta=0.6, height=size, width=size)


def test_affine_map_equals_double_fusion(tuned: Hand1000Pipeline) -> None:
    embeddings = torch.randn(2, 5, WIDTH, generator=torch.Generator().manual_seed(2))
    matrix, shift = affine_fusion(tuned, 0.4, "four")
    with torch.no_grad():
        expected = double_fusion(embeddings, tuned.fusion, 0.4, torch.zeros(2, dtype=torch.long))
    assert torch.allclose((embeddings.double() @ matrix.T + shift).float(), expected, atol=1e-5)


@pytest.mark.parametrize("mu", [0.4, 1.0])
def test_stock_pipeline_generates_equal_images_from_both_forms(tuned, tmp_path, mu) -> None:
    before = {name: value.clone() for name, value in tuned.unet.state_dict().items()}
    expected = decoded_images(tuned, mu=mu)
    assert np.abs(decoded_images(tuned, mu=1.4 - mu) - expected).max() > 0.01  # else the fusion has no effect

    tuned.save_pretrained(tmp_path / "model")
    export_model(tmp_path / "model", "diffusers", tmp_path / "folder", mu=mu)
    folder = StableDiffusionPipeline.from_pretrained(tmp_path / "folder", safety_checker=None)
    assert np.abs(stock_images(folder) - expected).max() < EQUAL

    export_model(tmp_path / "model", "single-file", tmp_path / "model.safetensors", mu=mu)
    single = StableDiffusionPipeline.from_single_file(
        str(tmp_path / "model.safetensors"), config=str(tmp_path / "folder"), safety_checker=None, local_files_only=True
    )
    # The file holds only weights; the sampler's settings come from the folder.
    single.scheduler = DDIMScheduler.from_config(folder.scheduler.config)
    assert np.abs(stock_images(single) - expected).max() < EQUAL
    assert all(torch.equal(value, before[name]) for name, value in tuned.unet.state_dict().items())
    for card in (tmp_path / "folder" / "README.md", tmp_path / "model.md"):
        assert "making four fingers up hand gesture" in card.read_text() and f"mu = {mu:g}" in card.read_text()


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "dpmpp_2m_sde", "unipc"])
def test_stock_pipeline_samples_as_the_model_does(tuned, tmp_path, sampler) -> None:
    """An export has the model's own sampler, and the card of a file says how to make it."""
    tuned.register_to_config(sampler=sampler)
    expected = decoded_images(tuned)
    assert np.abs(decoded_images(tuned, sampler="ddim") - expected).max() > 0.01
    tuned.save_pretrained(tmp_path / "model")
    export_model(tmp_path / "model", "diffusers", tmp_path / "folder")
    stock = StableDiffusionPipeline.from_pretrained(tmp_path / "folder", safety_checker=None)
    assert np.abs(stock_images(stock) - expected).max() < EQUAL
    export_model(tmp_path / "model", "single-file", tmp_path / "model.safetensors")
    (line,) = [line for line in (tmp_path / "model.md").read_text().splitlines() if "pipeline.scheduler = " in line]
    assert eval(line.split(" = ", 1)[1], vars(diffusers)).to_json_string() == stock.scheduler.to_json_string()  # noqa: S307 (our own text)


def test_keys_and_shapes_are_those_of_stable_diffusion_1() -> None:
    """diffusers' own converter restores all keys and shapes of the real architecture, without weights."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
        )
    for component, weights, convert, count in (
        (unet, unet_weights(unet), convert_ldm_unet_checkpoint, 686),
        (vae, vae_weights(vae), convert_ldm_vae_checkpoint, 248),
    ):
        assert len(weights) == count  # as in the released v1 checkpoints
        restored = convert(weights, component.config)
        assert {name: value.shape for name, value in restored.items()} == {
            name: value.shape for name, value in component.state_dict().items()
        }
    shapes = {name: tuple(value.shape) for name, value in (unet_weights(unet) | vae_weights(vae)).items()}
    for name, shape in {
        UNET + "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (320, 768),
        UNET + "input_blocks.3.0.op.weight": (320, 320, 3, 3),
        UNET + "middle_block.1.proj_in.weight": (1280, 1280, 1, 1),
        UNET + "output_blocks.2.1.conv.weight": (1280, 1280, 3, 3),
        UNET + "output_blocks.5.2.conv.bias": (1280,),
        UNET + "output_blocks.11.0.skip_connection.weight": (320, 640, 1, 1),
        VAE + "encoder.down.0.downsample.conv.weight": (128, 128, 3, 3),
        VAE + "decoder.mid.attn_1.q.weight": (512, 512, 1, 1),
        VAE + "decoder.up.3.upsample.conv.bias": (512,),
        VAE + "decoder.up.0.block.0.nin_shortcut.weight": (128, 256, 1, 1),
    }.items():
        assert shapes.get(name) == shape, name


def test_text_encoders_have_the_keys_of_their_release() -> None:
    """diffusers' own converters restore all keys and shapes of both real text encoders, without weights."""
    sizes = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    with torch.device("meta"):
        clip = CLIPTextModel(CLIPTextConfig(**sizes))
        sizes = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16}
        open_clip = CLIPTextModel(CLIPTextConfig(hidden_act="gelu", **sizes))
    for encoder, convert, key, shape in (
        (clip, convert_ldm_clip_checkpoint, "transformer.text_model.embeddings.position_embedding.weight", (77, 768)),
        (
            open_clip,
            lambda weights: convert_open_clip_checkpoint(open_clip, weights),
            "model.transformer.resblocks.22.attn.in_proj_weight",
            (3072, 1024),
        ),
    ):
        weights = text_encoder_weights(encoder)
        assert weights["cond_stage_model." + key].shape == shape
        restored = {name.removeprefix("text_model."): value.shape for name, value in convert(weights).items()}
        assert restored == {
            name.removeprefix("text_model."): value.shape for name, value in encoder.state_dict().items()
        }


def test_a_file_of_stable_diffusion_2_draws_equal_images(tuned, tmp_path) -> None:
    """Its text encoder is OpenCLIP's, of which the projections are held one below the other."""
    config = tuned.text_encoder.config.to_dict() | {"hidden_act": "gelu", "num_hidden_layers": 2}
    torch.manual_seed(3)
    tuned.text_encoder = CLIPTextModel(CLIPTextConfig(**config)).eval()
    tuned.save_pretrained(tmp_path / "model")
    export_model(tmp_path / "model", "single-file", tmp_path / "four.safetensors")
    assert "cond_stage_model.model.transformer.resblocks.1.mlp.c_fc.weight" in load_file(tmp_path / "four.safetensors")
    export_model(tmp_path / "model", "diffusers", tmp_path / "folder")
    single = StableDiffusionPipeline.from_single_file(
        str(tmp_path / "four.safetensors"), config=str(tmp_path / "folder"), safety_checker=None, local_files_only=True
    )
    single.scheduler = DDIMScheduler.from_config(tuned.scheduler.config)
    assert np.abs(stock_images(single) - decoded_images(tuned)).max() < EQUAL


def test_a_singular_fusion_is_folded_exactly(tuned, tmp_path) -> None:
    """The gesture then replaces every word, and A has no inverse."""
    with torch.no_grad():
        tuned.fusion.linear.weight[:, :WIDTH] = -torch.eye(WIDTH)
    assert not affine_fusion(tuned, 0.5, "four")[0].any()
    tuned.save_pretrained(tmp_path / "model")
    export_model(tmp_path / "model", "diffusers", tmp_path / "out", mu=0.5)
    stock = StableDiffusionPipeline.from_pretrained(tmp_path / "out", safety_checker=None)
    assert np.abs(stock_images(stock) - decoded_images(tuned, mu=0.5)).max() < EQUAL


def test_a_fold_holds_the_weights_once(tuned) -> None:
    unet, text = tuned.unet, {name: value.clone() for name, value in tuned.text_encoder.state_dict().items()}
    stock = fold_fusion(tuned, 0.4, "four")
    assert stock.unet is unet and stock.text_encoder is tuned.text_encoder
    assert all(torch.equal(value, text[name]) for name, value in tuned.text_encoder.state_dict().items())


def save_with_adapter(tuned: Hand1000Pipeline, folder: Path, targets: list[str]) -> StableDiffusionPipeline:
    """Save `tuned` with a merged adapter of random weights; return its base model as the stock pipeline."""
    generator = torch.Generator().manual_seed(3)
    components = {"vae": tuned.vae, "tokenizer": tuned.tokenizer, "scheduler": tuned.scheduler}
    text_encoder = copy.deepcopy(tuned.text_encoder)
    norm = getattr(text_encoder, "text_model", text_encoder).final_layer_norm
    norm.weight.data += 0.3 * torch.randn(WIDTH, generator=generator)
    norm.bias.data += 0.3 * torch.randn(WIDTH, generator=generator)
    unet = copy.deepcopy(tuned.unet)
    add_adapter(unet, LoraSettings(rank=2, alpha=3, targets=targets), seed=0)
    for parameter in trainable_parameters(unet).values():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    save_adapter(unet, "unet", folder / "lora")
    merge_adapter(unet)
    options = {name: tuned.config[name] for name in ("mu", "guidance_scale", "eta", "num_inference_steps")}
    base = StableDiffusion(**components, text_encoder=text_encoder, unet=unet)
    model = Hand1000Pipeline(base, tuned.fusion, **options)
    model.save_pretrained(folder)
    unused = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return StableDiffusionPipeline(**components, text_encoder=text_encoder, unet=copy.deepcopy(tuned.unet), **unused)


@pytest.mark.parametrize("targets", [["to_q", "to_k", "to_v", "to_out.0"], ["conv1", "ff.net.2"]])
def test_base_model_with_lora_generates_equal_images(tuned, tmp_path, targets) -> None:
    base = save_with_adapter(tuned, tmp_path / "model", targets)
    pipeline = load_pipeline(tmp_path / "model")
    export_model(tmp_path / "model", "lora", tmp_path / "four.safetensors")
    expected = decoded_images(pipeline)
    assert np.abs(stock_images(base) - expected).max() > 0.01
    base.load_lora_weights(tmp_path / "four.safetensors")
    assert np.abs(stock_images(base) - expected).max() < EQUAL
    names = load_file(tmp_path / "four.safetensors").keys()
    layer = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
    assert {f"{layer}.lora_down.weight", f"{layer}.lora_up.weight", f"{layer}.alpha"} <= names
    assert "load_lora_weights" in (tmp_path / "four.md").read_text()


def test_impossible_lora_is_rejected(tuned, tmp_path) -> None:
    tuned.save_pretrained(tmp_path / "full")
    with pytest.raises(Hand1000Error, match="all weights of this model were trained"):
        export_model(tmp_path / "full", "lora", tmp_path / "four.safetensors")
    save_with_adapter(tuned, tmp_path / "model", ["to_q"])
    norm = torch.nn.LayerNorm(WIDTH)
    with pytest.raises(Hand1000Error, match=r"too small for a LoRA in float32.*choose --to diffusers or single-file"):
        check_precision(norm, "float32")


def test_the_guard_of_a_lora_weighs_its_rounding(tuned, tmp_path) -> None:
    """Rounding errors of half precision in the images rise with v's length; the guard refuses the noticeable ones."""
    base = save_with_adapter(tuned, tmp_path / "model", ["to_q", "to_out.0"])
    pipeline = load_pipeline(tmp_path / "model")
    errors = {}
    for scale in (1.0, 0.005):
        for encoder in (base.text_encoder, pipeline.text_encoder):
            getattr(encoder, "text_model", encoder).final_layer_norm.bias.data *= scale
        pipeline.save_pretrained(tmp_path / "model")
        export_model(tmp_path / "model", "lora", tmp_path / f"{scale}.safetensors")
        weights = {key: value.half() for key, value in load_file(tmp_path / f"{scale}.safetensors").items()}
        base.load_lora_weights(weights)
        errors[scale] = np.abs(stock_images(base) - decoded_images(pipeline)).max()
        base.unload_lora_weights()
    assert errors[1.0] < HALF < 2 * HALF < errors[0.005]
    with pytest.raises(Hand1000Error, match=r"too small for a LoRA in float16: .*choose --dtype float32"):
        export_model(tmp_path / "model", "lora", tmp_path / "half.safetensors", precision="float16")
    assert "Use it in float32" in (tmp_path / "0.005.md").read_text()
    assert "Use it in float32" not in (tmp_path / "1.0.md").read_text()


@pytest.mark.parametrize("form", ["diffusers", "single-file", "lora"])
def test_an_export_in_half_precision_is_half_as_large(tuned, tmp_path, form) -> None:
    save_with_adapter(tuned, tmp_path / "model", ["to_q"])
    sizes = []
    for precision in ("float32", "float16"):
        out = tmp_path / f"{precision}.safetensors" if form != "diffusers" else tmp_path / precision
        export_model(tmp_path / "model", form, out, precision=precision)
        files = [out] if out.is_file() else [out / "unet" / "diffusion_pytorch_model.safetensors"]
        sizes.append(sum(value.nbytes for file in files for value in load_file(file).values()))
    assert sizes[1] * 2 == sizes[0]


def test_outputs_of_a_layer_norm_are_on_one_plane() -> None:
    norm = torch.nn.LayerNorm(WIDTH)
    torch.nn.init.uniform_(norm.weight, 0.5, 2.0)
    torch.nn.init.normal_(norm.bias)
    outputs = norm(10 * torch.randn(7, WIDTH)).double()
    assert torch.allclose(outputs @ constant_direction(norm), torch.ones(7, dtype=torch.float64), atol=1e-5)


def test_command_writes_a_file_and_reports_errors(tuned, tmp_path: Path, capsys) -> None:
    tuned.save_pretrained(tmp_path / "model")
    out = tmp_path / "below" / "four.safetensors"
    command = ["export", "--model", str(tmp_path / "model"), "--to", "single-file", "--out"]
    assert main([*command, str(out)]) == 0 and capsys.readouterr().out.strip() == str(out)
    names = load_file(out).keys()
    assert any(name.startswith("cond_stage_model.transformer.text_model.final_layer_norm") for name in names)

    plain = save_tiny_model(tmp_path / "plain")
    for arguments, message in (
        ([*command, str(out)], "exists already"),
        ([*command, str(tmp_path / "x.ckpt")], "must end in .safetensors"),
        ([*command, str(tmp_path / "x.safetensors"), "--mu", "2"], "mu: 2.0 is out of range"),
        ([*command[:2], str(plain), *command[3:], str(tmp_path / "x.safetensors")], "has no fusion"),
    ):
        assert main(arguments) == 2
        assert message in capsys.readouterr().err


def test_one_of_several_gestures_is_folded(tmp_path: Path, capsys) -> None:
    pipeline = pipeline_of("four", "ok", strong=True)
    text = torch.randn(2, TOKENS, WIDTH, generator=torch.Generator().manual_seed(1))
    for index, gesture in enumerate(("four", "ok")):
        matrix, shift = affine_fusion(pipeline, 0.3, gesture)
        expected = double_fusion(text, pipeline.fusion, 0.3, torch.tensor([index, index]))
        assert torch.allclose((text.double() @ matrix.T + shift).float(), expected, atol=1e-4)
    pipeline.save_pretrained(tmp_path / "model")
    for gesture, fault in ((None, "this model knows four, ok; choose the one"), ("like", "knows four, ok only")):
        with pytest.raises(Hand1000Error, match=fault):
            export_model(tmp_path / "model", "diffusers", tmp_path / "out", gesture=gesture)
    command = ["export", "--model", str(tmp_path / "model"), "--to", "diffusers", "--out", str(tmp_path / "out")]
    assert main(command) == 2 and "choose the one to fold in" in capsys.readouterr().err
    assert main([*command, "--gesture", "ok"]) == 0
    assert PHRASES["ok"] in (tmp_path / "out" / "README.md").read_text()


def test_card_states_what_an_export_lacks_and_steps_that_agree(tuned, tmp_path: Path) -> None:
    """Of 1,000 timesteps diffusers takes 45 trailing steps otherwise than the schedule does; 50 it takes as we do."""
    tuned.register_to_config(num_inference_steps=45, autoguidance_scale=4.0)
    tuned.save_pretrained(tmp_path / "model")
    export_model(tmp_path / "model", "single-file", tmp_path / "four.safetensors")
    card = (tmp_path / "four.md").read_text()
    assert "num_inference_steps=50)" in card and "Hand1000 takes 45 steps" in card
    assert "The text encoder reads 14 tokens, of which the phrase has 6" in card
    assert "autoguidance with a scale of 4" in card and "do not hold for this export" in card
    # The sampler of the card is ours.
    (line,) = [line for line in card.splitlines() if "pipeline.scheduler = " in line]
    scheduler = eval(line.split(" = ", 1)[1], {"DDIMScheduler": DDIMScheduler})  # noqa: S307 (our own text)
    assert scheduler.to_json_string() == tuned.scheduler.to_json_string()


def test_an_export_draws_what_is_measured(tuned, tmp_path: Path) -> None:
    weaker = copy.deepcopy(tuned.unet)
    with torch.no_grad():
        for weights in weaker.parameters():
            weights.mul_(0.9)
    guided = Hand1000Pipeline(tuned.backbone, tuned.fusion, weaker, **call_settings(tuned))
    guided.register_to_config(autoguidance_scale=3.0)
    guided.set_progress_bar_config(disable=True)
    sampler = export_sampler(guided)
    assert sampler.pop("num_inference_steps") == 4 and explain_unmeasured(guided) == ""
    guided.save_pretrained(tmp_path / "model")
    export_model(tmp_path / "model", "diffusers", tmp_path / "out")
    stock = stock_images(StableDiffusionPipeline.from_pretrained(tmp_path / "out", safety_checker=None))
    assert np.abs(stock - decoded_images(guided, **sampler)).max() < EQUAL
    assert np.abs(stock - decoded_images(guided)).max() > 0.01


def test_what_needs_no_measurement_is_explained(tuned) -> None:
    assert explain_unmeasured(tuned) == "The model has no autoguidance, so an export generates the same images."
    tuned.register_to_config(autoguidance_scale=3.0)
    assert explain_unmeasured(tuned) == ""
    tuned.register_to_config(fuse_null_prompt=False)
    assert "cannot be folded" in explain_unmeasured(tuned)
    tuned.fusion = None
    assert "plain Stable Diffusion already" in explain_unmeasured(tuned)


def test_the_card_states_what_was_measured_of_its_gesture(tuned, tmp_path: Path) -> None:
    tuned.register_to_config(autoguidance_scale=4.0)
    tuned.save_pretrained(tmp_path / "model")
    rows = [
        ExportMetric(
            name="gesture accuracy", gesture=gesture, better="higher", n=24, model=0.75, export=value, difference=-0.5,
            low=-0.7, high=-0.2,
        )
        for gesture, value in (("four", 0.25), ("ok", 0.125))
    ]  # fmt: skip
    measured = ExportMetrics(mu=0.4, metrics=tuple(rows))

    def card(name: str, measured: ExportMetrics | None, mu: float | None = None) -> str:
        export_model(tmp_path / "model", "diffusers", tmp_path / name, mu=mu, measured=measured)
        return (tmp_path / name / "README.md").read_text()

    text = card("measured", measured)
    assert "the first 24 test prompts of the gesture" in text and "ok ↑" not in text
    assert "| gesture accuracy, four ↑ | 0.75 | 0.25 | -0.5 | -0.7 to -0.2 | 24 |" in text
    assert "measured at mu = 0.4 only, not at this export's 0.9" in card("other", measured, mu=0.9)
    assert "loses was not measured" in card("none", None)


def test_a_phrase_longer_than_the_window_cannot_be_exported(tuned, tmp_path: Path) -> None:
    tuned.tokenizer = copy.deepcopy(tuned.tokenizer)
    tuned.tokenizer.model_max_length = 7
    tuned.save_pretrained(tmp_path / "model")
    with pytest.raises(Hand1000Error, match="the phrase 'making four .* 8 tokens, .* reads 7"):
        export_model(tmp_path / "model", "diffusers", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_folder_has_the_files_and_names_of_transformers_4(tuned, tmp_path: Path) -> None:
    tuned.save_pretrained(tmp_path / "model")
    export_model(tmp_path / "model", "diffusers", tmp_path / "out")
    vocabulary = json.loads((tmp_path / "out" / "tokenizer" / "vocab.json").read_text())
    assert vocabulary == tuned.tokenizer.get_vocab()
    merges = (tmp_path / "out" / "tokenizer" / "merges.txt").read_text().splitlines()
    model = json.loads((tmp_path / "model" / "tokenizer" / "tokenizer.json").read_text())["model"]
    assert merges[0].startswith("#version") and [tuple(line.split(" ")) for line in merges[1:]] == [
        tuple(merge) for merge in model["merges"]
    ]
    weights = load_file(tmp_path / "out" / "text_encoder" / "model.safetensors")
    assert weights and all(name.startswith("text_model.") for name in weights)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_stock_programs_of_both_generations_draw_the_same(tuned, tmp_path: Path) -> None:
    """transformers 4.57 and diffusers 0.35 in an environment of their own, which needs a package index."""
    tuned.save_pretrained(tmp_path / "model")
    export_model(tmp_path / "model", "diffusers", tmp_path / "out")
    np.save(tmp_path / "expected.npy", decoded_images(tuned))
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    versions = ("transformers==4.57.6", "diffusers==0.35.2", "tokenizers==0.22.1", "huggingface-hub==0.35.3")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", *versions], check=True)
    # Everything else, torch above all, is that of this environment.
    (packages,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (packages / "rest.pth").write_text(sysconfig.get_path("purelib"))
    script = Path(__file__).parents[1] / "support" / "stock_images.py"
    done = subprocess.run(
        [python, script, tmp_path / "out", tmp_path / "expected.npy"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    versions_used, difference = done.stdout.splitlines()
    assert versions_used == "transformers 4.57.6, diffusers 0.35.2" and float(difference) < 1e-4
