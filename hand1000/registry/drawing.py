"""Pictures from a pipeline, each with its own seed."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

MAX_SEED = 2**31 - 1


def draw_seeded(
    pipeline, prompts: Sequence[str], seed: int, *, batch_size: int = 4, **settings: float | int | None
) -> Iterator["Image.Image"]:
    """Draw one picture a prompt; picture i starts from the noise of seed + i, whatever the batch.

    Args:
        pipeline: a `Hand1000Pipeline`.
        prompts: any number of them.
        seed: of the first picture.
        batch_size: how many are drawn at a time; memory grows with it.
        settings: `mu`, `guidance_scale`, `num_inference_steps`; None means the model's own.

    Raises:
        Hand1000Error: a setting out of range.
    """
    import torch

    for start in range(0, len(prompts), batch_size):
        batch = list(prompts[start : start + batch_size])
        generators = [torch.Generator("cpu").manual_seed(seed + start + i) for i in range(len(batch))]
        yield from pipeline(batch, generator=generators, **settings).images
