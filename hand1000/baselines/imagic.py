"""Imagic (Kawar et al., 2023, arXiv 2210.09276): an image is edited until it shows what a text says.

Notation:
    e_tgt   embedding of the text                                         (B, L, D)
    e_opt   embedding that reproduces the image best                      (B, L, D)
    eta     position of the edited image's embedding from e_opt to e_tgt

The comparison has no input images. The image to be edited is therefore the source method's for the same prompt and
seed, and the target text is that prompt.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from PIL import Image

from hand1000.config.comparison import ImagicSettings
from hand1000.models.conditioning import Conditioning
from hand1000.pipelines.generation import GenerationRequest, ImageGenerator, generate
from hand1000.pipelines.pipeline_hand1000 import Hand1000Pipeline
from hand1000.training.context import TrainContext
from hand1000.training.precision import configure_denoiser
from hand1000.training.single_image import FinetuneOptions, finetune_on_image, optimize_embeddings


def imagic_generator(
    source: ImageGenerator, pipeline: Hand1000Pipeline, settings: ImagicSettings, context: TrainContext
) -> ImageGenerator:
    """Return the generator that edits another generator's images towards their own prompts.

    The pipeline's denoiser is fine-tuned on each image and then reset; a guidance denoiser stays as it is. The training
    noise depends on the seed of `context` and on the image's own prompt and seed.
    """
    base, denoiser = pipeline.backbone, pipeline.backbone.denoiser
    configure_denoiser(denoiser, context.compute, frozen=False)
    original_weights = {name: value.detach().cpu().clone() for name, value in denoiser.state_dict().items()}

    def edit(
        request: GenerationRequest, latents: torch.Tensor, target: Conditioning, optimized: torch.Tensor
    ) -> Image.Image:
        """Fine-tune the denoiser on one image, draw it between its two embeddings (1, L, D), and reset it."""
        denoiser.requires_grad_(True)
        try:
            finetune_on_image(
                base,
                latents,
                target.with_tokens(optimized),
                _noise_key(request),
                context,
                FinetuneOptions(settings.unet_steps, settings.unet_learning_rate),
            )
            eta = settings.target_weight
            images = generate(
                pipeline,
                [request.prompt],
                [request.seed],
                prompt_embeds=eta * target.tokens + (1 - eta) * optimized.to(target.tokens),
                guidance_scale=settings.guidance_scale,
                sampler="ddim",
                eta=settings.eta,
                num_inference_steps=settings.num_inference_steps,
            )
            return next(images)
        finally:
            denoiser.requires_grad_(False)
            denoiser.load_state_dict(original_weights)

    def edit_images(requests: Sequence[GenerationRequest]) -> Iterator[Image.Image]:
        """Edit the source's image of each request; the embeddings are optimized together, the denoiser for each."""
        latents = base.encode_images(np.stack([np.asarray(image) for image in source(requests)]))
        prompts = [request.prompt for request in requests]
        target = pipeline.encode_prompt(prompts, 1.0, torch.zeros(len(requests)))
        denoiser.requires_grad_(False)
        optimized, _ = optimize_embeddings(
            base,
            latents,
            target,
            [_noise_key(request) for request in requests],
            context,
            steps=settings.embedding_steps,
            learning_rate=settings.embedding_learning_rate,
        )
        for index, request in enumerate(requests):
            row = slice(index, index + 1)
            yield edit(request, latents[row], target[row], optimized[row])

    return edit_images


def _noise_key(request: GenerationRequest) -> str:
    """Key of an image's training noise."""
    return f"{request.seed} {request.prompt}"
