"""Imagic (Kawar et al., 2023, arXiv 2210.09276): a picture is edited until it shows what a text says.

    e_tgt   the text's embedding                                   (B, L, D)
    e_opt   the embedding that reproduces the picture best         (B, L, D)
    eta     how far from e_opt to e_tgt the new picture is drawn

Hand1000 is compared with it by texts alone, so the picture is what the system under it draws for the same text and
seed, and the target is that text.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from PIL import Image

from hand1000.config.comparison import ImagicSettings
from hand1000.models.base_model import BaseModel
from hand1000.models.latents import encode_latents
from hand1000.pipelines.generation import GenerationRequest, ImageGenerator, generate
from hand1000.pipelines.pipeline_hand1000 import Hand1000Pipeline
from hand1000.training.context import TrainContext
from hand1000.training.precision import configure_unet
from hand1000.training.single_image import finetune_on_image, optimize_embeddings


def imagic_generator(
    pictures: ImageGenerator,
    pipeline: Hand1000Pipeline,
    settings: ImagicSettings,
    context: TrainContext,
) -> ImageGenerator:
    """The system that draws a picture, then edits it towards its own prompt.

    Args:
        pictures: draws what is edited.
        pipeline: whose UNet is tuned for each picture and put back; if it has a guide, that stays as it is.
        settings: steps and rates.
        context: Seed of the training noise, which is keyed by the picture's prompt and seed besides, and compute
            settings.
    """
    unet = pipeline.unet
    base = BaseModel(pipeline.vae, pipeline.text_encoder, pipeline.tokenizer, unet, pipeline.scheduler, "")
    configure_unet(unet, context.compute, frozen=False)
    start = {name: value.detach().cpu().clone() for name, value in unet.state_dict().items()}

    def edit(
        order: GenerationRequest, latents: torch.Tensor, target: torch.Tensor, optimised: torch.Tensor
    ) -> Image.Image:
        unet.requires_grad_(True)
        try:
            finetune_on_image(
                base,
                latents,
                optimised,
                _key(order),
                context,
                steps=settings.unet_steps,
                learning_rate=settings.unet_learning_rate,
                weight_decay=0.0,
                max_grad_norm=float("inf"),
            )
            eta = settings.target_weight
            drawn = generate(
                pipeline,
                [order.prompt],
                [order.seed],
                prompt_embeds=eta * target + (1 - eta) * optimised.to(target),
                guidance_scale=settings.guidance_scale,
                eta=settings.eta,
                num_inference_steps=settings.num_inference_steps,
            )
            return next(drawn)
        finally:
            unet.requires_grad_(False)
            unet.load_state_dict(start)

    def system(orders: Sequence[GenerationRequest]) -> Iterator[Image.Image]:
        latents = encode_latents(pipeline.vae, np.stack([np.asarray(one) for one in pictures(orders)]))
        target = pipeline.encode_prompt([order.prompt for order in orders], 1.0, torch.zeros(len(orders)))
        unet.requires_grad_(False)
        optimised, _ = optimize_embeddings(
            base,
            latents,
            target,
            [_key(order) for order in orders],
            context,
            steps=settings.embedding_steps,
            learning_rate=settings.embedding_learning_rate,
        )
        for index, order in enumerate(orders):
            one = slice(index, index + 1)
            yield edit(order, latents[one], target[one], optimised[one])

    return system


def _key(order: GenerationRequest) -> str:
    """What keys the draws of a picture's training."""
    return f"{order.seed} {order.prompt}"
