"""Prior preservation: what the base model draws for captions without the gesture's phrase (Ruiz et al., 2022).

Trained on beside the gesture's images, they keep the tuned UNet from forgetting everything else.
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
    """The base model's own pictures.

    Attributes:
        latents: scaled, (P, C, h, w), float32.
        text_embeddings: e of their captions, (P, L, D), float32.
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
    """Draw `count` pictures of the base model.

    Args:
        pipeline: of the base model, without a fusion.
        captions: without the gesture's phrase; taken in turn.
        count: at least 1.
        seed: of the run.
        batch_size: drawn at a time.
        on_progress: Called with the numbers of images done and in total.
    """
    texts = [captions[index % len(captions)] for index in range(count)]
    seeds = [derived_seed(seed, "prior", index) for index in range(count)]
    latents = generate_latents(pipeline, texts, seeds, batch_size=batch_size, on_progress=on_progress)
    embeddings = encode_texts(pipeline.text_encoder, pipeline.tokenizer, texts).float().cpu()
    return Prior(latents.float(), embeddings)
