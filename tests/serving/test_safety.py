"""The optional safety checker, with random weights: Stable Diffusion's own cannot be downloaded here."""

from pathlib import Path

import pytest
import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from transformers import CLIPConfig, CLIPImageProcessorPil

from hand1000.core.errors import Hand1000Error
from hand1000.serving.errors import RefusedImageError
from hand1000.serving.model import ServedModel
from hand1000.serving.safety import SafetyChecker
from tests.support.serving import PROMPTS, served_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checker whose threshold is between the scores of the images of seeds 0 and 1."""
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": 32, "patch_size": 8, "projection_dim": 8}
    torch.manual_seed(0)
    checker = StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, projection_dim=8)).eval()
    with torch.no_grad():
        checker.concept_embeds.normal_(std=1.0)
        checker.concept_embeds_weights.fill_(2.0)
        checker.special_care_embeds_weights.fill_(2.0)
    processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    model = served_model()
    scores = []
    for image in model.submit({"prompt": PROMPTS["four"], "num_images": 2}).future.result(60):
        pixels = processor(image, return_tensors="pt").pixel_values
        with torch.no_grad():
            embedding = checker.visual_projection(checker.vision_model(pixels)[1])
        scores.append(torch.nn.functional.cosine_similarity(embedding, checker.concept_embeds[:1]).item())
    model.worker.stop(10)
    assert abs(scores[0] - scores[1]) > 0.002
    # The checker rounds to three digits. It refuses what is above the threshold.
    if scores[1] < scores[0]:
        checker.concept_embeds.data[0] *= -1
        scores = [-score for score in scores]
    checker.concept_embeds_weights.data[0] = sum(scores) / 2
    checker.save_pretrained(tmp_path / "checker")
    processor.save_pretrained(tmp_path / "checker")
    return tmp_path / "checker"


def test_refused_images_are_named_and_never_sent(folder: Path) -> None:
    plain = served_model()
    model = ServedModel(plain.pipeline, plain.info, plain.limits, SafetyChecker(folder))
    accepted = model.submit({"prompt": PROMPTS["four"]})
    accepted.future.result(60)
    assert len(model.encode_images(accepted)) == 1
    both = model.submit({"prompt": PROMPTS["four"], "num_images": 2})
    both.future.result(60)
    with pytest.raises(RefusedImageError, match="refused the images of the seeds 1; choose another seed or prompt"):
        model.encode_images(both)
    for served in (plain, model):
        served.worker.stop(10)


def test_folder_without_a_checker_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Hand1000Error, match="cannot be loaded as a StableDiffusionSafetyChecker"):
        SafetyChecker(tmp_path)
