"""Prior preservation: images of the base model for captions without the gesture's phrase (Ruiz et al., 2022).

Trained beside the images of the gesture, they keep the tuned UNet from forgetting everything else.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from hand1000.core.progress import ProgressCallback
from hand1000.core.rng import derived_seed
from hand1000.models.encoding import encode_texts
from hand1000.pipelines.generation import generate_latents
from hand1000.pipelines.pipeline_hand1000 import Hand1000Pipeline
from hand1000.storage.tensors import TensorRecord


@dataclass(frozen=True)
class Prior(TensorRecord, stem="prior", remedy="generate the class images again"):
    """Images of the base model.

    Attributes:
        latents: Scaled latents, (P, C, h, w) float32.
        text_embeddings: Text embeddings e of their captions, (P, L, D) float32.
    """

    latents: torch.Tensor
    text_embeddings: torch.Tensor


def generate_prior(
    pipeline: Hand1000Pipeline,
    captions: Sequence[str],
    count: int,
    *,
    seed: int,
    batch_size: int,
    on_progress: ProgressCallback,
) -> Prior:
    """Generate `count` images of the base model.

    Args:
        pipeline: Pipeline of the base model, without a fusion.
        captions: Captions without the gesture's phrase, used in turn.
        count: Number of images, at least 1.
        seed: Random seed of the run.
        batch_size: Images generated at once.
        on_progress: Called with the number of finished images and the total.
    """
    texts = [captions[index % len(captions)] for index in range(count)]
    seeds = [derived_seed(seed, "prior", index) for index in range(count)]
    latents = generate_latents(pipeline, texts, seeds, batch_size=batch_size, on_progress=on_progress)
    embeddings = encode_texts(pipeline.text_encoder, pipeline.tokenizer, texts).float().cpu()
    return Prior(latents.float(), embeddings)
