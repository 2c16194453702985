"""Z-Image: its parts, its conditioning and its predictions against the stock pipeline's."""

import copy
import json
from pathlib import Path

import pytest
import torch
from transformers import Qwen3ForCausalLM

from hand1000.captions.chat_tokenizer import CHAT_TOKENS, load_token_limit
from hand1000.core.errors import Hand1000Error
from hand1000.models.base_model import load_base_model, read_resolution
from hand1000.models.low_rank_fusion import LowRankFusion
from hand1000.models.z_image import ZImage
from tests.support.tiny_models import LATENT, TEXTS
from tests.support.tiny_zimage import Z_WIDTH, fresh_zimage, save_tiny_zimage, tiny_zimage_parts

LONG = "a red hand in front of " * 60


def test_the_tokens_are_those_that_enter_the_stock_transformer() -> None:
    base = fresh_zimage()
    texts = [*TEXTS, "", LONG]
    conditioning, stock = base.encode_text(texts), base.stock_pipeline()
    assert conditioning.tokens.shape == (4, CHAT_TOKENS, Z_WIDTH) and base.text_dim == Z_WIDTH
    assert conditioning.lengths is not None and conditioning.lengths[-1] == CHAT_TOKENS
    with torch.no_grad():
        hidden, null = stock.encode_prompt(list(texts), torch.device("cpu"))
        expected = [stock.transformer.cap_embedder[0](states) for states in [*hidden, null[0]]]
    assert conditioning.lengths.tolist() == [len(states) for states in expected[:-1]]
    for row, length, tokens in zip(conditioning.tokens, conditioning.lengths, expected, strict=False):
        assert torch.allclose(row[:length], tokens, atol=1e-5) and not row[length:].any()
    (empty,) = base.null_conditioning(conditioning[2:3]).tokens
    assert torch.allclose(empty[: len(expected[-1])], expected[-1], atol=1e-5)
    assert torch.equal(base.encode_text([TEXTS[1]]).tokens[0], conditioning.tokens[1])


def test_the_prediction_is_the_stock_transformers_velocity() -> None:
    base = fresh_zimage()
    latents, texts = torch.randn(2, *base.latent_shape, generator=torch.Generator().manual_seed(0)), TEXTS
    conditioning, stock, timesteps = base.encode_text(texts), base.stock_pipeline(), torch.tensor([900.0, 300.0])
    with torch.no_grad():
        prediction = base.predict(latents, timesteps, conditioning)
        hidden, _ = stock.encode_prompt(list(texts), torch.device("cpu"), do_classifier_free_guidance=False)
        frames = list(latents[:, :, None])
        expected = -torch.cat(stock.transformer(frames, (1000 - timesteps) / 1000, hidden, return_dict=False)[0], dim=1)
        single = base.predict(latents[:1], torch.tensor(900.0), conditioning[:1])
        whole = base.predict(latents[:1], timesteps[:1], conditioning[:1].with_tokens(conditioning.tokens[:1] + 1))
    assert torch.allclose(prediction, expected.movedim(1, 0), atol=1e-6)
    assert torch.allclose(single[0], prediction[0], atol=1e-6) and (whole[0] - prediction[0]).abs().max() > 1e-4


def test_tokens_after_a_text_change_nothing() -> None:
    base = fresh_zimage()
    conditioning, latents = base.encode_text(TEXTS), torch.randn(2, *base.latent_shape)
    assert conditioning.lengths is not None and len(set(conditioning.lengths.tolist())) == 2
    rest = torch.arange(CHAT_TOKENS) >= conditioning.lengths[:, None]
    other = conditioning.with_tokens(conditioning.tokens + 100 * rest[..., None])
    with torch.no_grad():
        first, second = (base.predict(latents, torch.tensor(500.0), value) for value in (conditioning, other))
    assert torch.equal(first, second)


def test_zeros_after_a_text_do_not_change_the_first_fusion() -> None:
    """They are more than nine tenths of the tokens."""
    conditioning, starts = fresh_zimage().encode_text(TEXTS[:1]), []
    assert conditioning.lengths is not None
    for tokens in (conditioning.tokens, conditioning.tokens[:, : conditioning.lengths[0]]):
        generator = torch.Generator().manual_seed(0)
        fusion = LowRankFusion(Z_WIDTH, ("four", "palm"), 0, 3)
        fusion.initialize(torch.randn(2, 63, generator=generator), tokens, generator)
        starts.append(fusion.state_dict())
    assert all(torch.allclose(value, starts[1][name], rtol=1e-4) for name, value in starts[0].items())


def test_a_stock_pipeline_leaves_the_backbone_as_it_was() -> None:
    base = fresh_zimage()
    names = {name: value.clone() for name, value in base.transformer.state_dict().items()}
    assert "cap_embedder.0.weight" in names and "cap_embedder.0.weight" not in dict(base.transformer.named_parameters())
    stock = base.stock_pipeline()
    assert stock.transformer is not base.transformer and stock.transformer.state_dict().keys() == names.keys()
    assert stock.transformer.x_pad_token is base.transformer.x_pad_token
    stock.transformer.half()
    assert type(base.transformer.cap_embedder[0]).__name__ == "MovedNorm"
    assert ZImage(**base.parts).transformer is base.transformer


def test_a_folder_is_loaded_as_it_was_saved(tmp_path: Path) -> None:
    folder = str(save_tiny_zimage(tmp_path))
    assert read_resolution(folder) == 2 * LATENT
    base = load_base_model(folder, denoiser_dtype=torch.bfloat16)
    assert isinstance(base, ZImage) and base.transformer.dtype == torch.bfloat16
    full = load_base_model(folder)
    conditioning, expected = full.encode_text(TEXTS), fresh_zimage().encode_text(TEXTS)
    assert torch.equal(conditioning.tokens, expected.tokens) and torch.equal(conditioning.lengths, expected.lengths)
    assert base.scheduler.config.shift == 6.0 and base.resolution == 2 * LATENT
    # The released text encoder is a whole language model.
    model = Qwen3ForCausalLM(full.text_encoder.config)
    model.model.load_state_dict(full.text_encoder.state_dict())
    model.save_pretrained(tmp_path / "text_encoder")
    again = load_base_model(folder).encode_text(TEXTS)
    assert torch.equal(again.tokens, expected.tokens)


def test_the_limit_counts_the_words_and_not_the_chat(tmp_path: Path) -> None:
    base = fresh_zimage()
    limit, read = base.token_limit, load_token_limit(save_tiny_zimage(tmp_path), "models/x")
    chat = "<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n"
    assert limit.marks == len(base.tokenizer(chat).input_ids) == base.encode_text([""]).lengths
    assert limit.count("left hand") - limit.marks == len(base.tokenizer("left hand").input_ids)
    assert (read.max_tokens, read.marks, read.count(TEXTS[0])) == (CHAT_TOKENS, limit.marks, limit.count(TEXTS[0]))
    assert limit.fits(TEXTS[0]) and not limit.fits(LONG) and limit.max_text_tokens == CHAT_TOKENS - limit.marks


def test_parts_that_do_not_fit_are_refused_in_one_line(tmp_path: Path) -> None:
    parts = tiny_zimage_parts()

    def changed(part: str, **config) -> ZImage:
        other = copy.deepcopy(parts[part])
        other.register_to_config(**config)
        return ZImage(**parts | {part: other}, source="models/x")

    wrong = {
        "cap_feat_dim is 48, but the hidden states of Qwen3 are 12": changed("transformer", cap_feat_dim=48),
        "in_channels is 5, but the autoencoder's latents are 4": changed("transformer", in_channels=5),
        "reads images or patches of another size; choose Z-Image": changed("transformer", siglip_feat_dim=8),
        "axes_lens is .512, 16, 16., too few for 512 tokens and": changed("transformer", axes_lens=[512, 16, 16]),
        "too few for 512 tokens and images of 128 px": changed("vae", sample_size=128),
        "shift_factor is None, not a number": changed("vae", shift_factor=None),
    }
    for message, base in wrong.items():
        with pytest.raises(Hand1000Error, match=f"^models/x: .*{message}"):
            base.check()
    ZImage(**parts).check(parts["transformer"])


def test_damaged_folders_are_refused_in_one_line(tmp_path: Path) -> None:
    folder = save_tiny_zimage(tmp_path)

    def refuse(file: str, message: str, **changes) -> None:
        path = folder / file
        former = path.read_text()
        path.write_text(json.dumps(json.loads(former) | changes))
        with pytest.raises(Hand1000Error, match=message) as error:
            load_base_model(str(folder))
        assert "\n" not in str(error.value)
        path.write_text(former)

    refuse("vae/config.json", "vae: sample_size is 18, not a multiple of 4", sample_size=18)
    refuse("vae/config.json", "vae: sample_size is 0; Hand1000 generates square images", sample_size=0)
    refuse("scheduler/scheduler_config.json", "sets use_dynamic_shifting", use_dynamic_shifting=True)
    refuse("scheduler/scheduler_config.json", "num_train_timesteps is 100, but Z-Image has", num_train_timesteps=100)
    refuse("transformer/config.json", "cannot be loaded as a transformer", axes_dims=[4, 2, 4])
    refuse("model_index.json", "'ZImageOmniPipeline', is not supported", _class_name="ZImageOmniPipeline")
    template = folder / "tokenizer" / "chat_template.jinja"
    former = template.read_text()
    for text, message in (("no prompt", "does not hold a prompt"), ("{% if %}", "cannot be loaded as a tokenizer")):
        template.write_text(text)
        with pytest.raises(Hand1000Error, match=message):
            load_base_model(str(folder))
    template.write_text(former)
    (folder / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(Hand1000Error, match="tokenizer of Qwen: no tokenizer.json or vocab.json; restore it"):
        load_base_model(str(folder))
