"""Prior preservation: images of the base model for captions without the gesture's phrase (Ruiz et al., 2022).

Trained beside the images of the gesture, they keep the tuned UNet from forgetting everything else.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from hand1000.core.progress import CheckpointStore, ProgressCallback
from hand1000.core.rng import derived_seed
from hand1000.models.conditioning import Conditioning
from hand1000.pipelines.generation import generate_latents
from hand1000.pipelines.pipeline_hand1000 import Hand1000Pipeline
from hand1000.storage.tensors import TensorRecord


@dataclass(frozen=True)
class Prior(TensorRecord, stem="prior", remedy="generate the class images again"):
    """Scaled latents of images of the base model, and the conditioning of their captions without a fusion."""

    latents: torch.Tensor  # (P, C, h, w)
    text_embeddings: torch.Tensor  # (P, L, D)
    pooled: torch.Tensor | None = None  # (P, width)
    lengths: torch.Tensor | None = None  # (P,)

    @property
    def conditioning(self) -> Conditioning:
        """The conditioning of the P captions."""
        return Conditioning(self.text_embeddings, self.pooled, self.lengths)


def generate_prior(
    pipeline: Hand1000Pipeline,
    captions: Sequence[str],
    count: int,
    *,
    seed: int,
    batch_size: int,
    checkpoint: CheckpointStore,
    on_progress: ProgressCallback,
) -> Prior:
    """Generate `count` images, at least 1, by the pipeline of the base model without a fusion.

    The captions are those without the gesture's phrase, used in turn. Resumes from `checkpoint`.
    """
    texts = [captions[index % len(captions)] for index in range(count)]
    seeds = [derived_seed(seed, "prior", index) for index in range(count)]
    latents = generate_latents(
        pipeline, texts, seeds, batch_size=batch_size, checkpoint=checkpoint, on_progress=on_progress
    )
    conditioning = pipeline.backbone.encode_text(texts).to("cpu", torch.float32)
    return Prior(latents.float(), conditioning.tokens, conditioning.pooled, conditioning.lengths)
