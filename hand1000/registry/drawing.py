"""Pictures from a model's folder, each with its own seed."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hand1000.errors import Hand1000Error

if TYPE_CHECKING:
    from PIL import Image

    from hand1000.diffusion.pipeline import Hand1000Pipeline

MAX_SEED = 2**31 - 1


def load_pipeline(folder: Path) -> "Hand1000Pipeline":
    """The pipeline of a model's folder, on the accelerator if there is one, silent while it draws.

    Raises:
        Hand1000Error: the folder holds something else, or a file of it is missing or broken.
    """
    import torch

    from hand1000.diffusion.pipeline import Hand1000Pipeline

    try:
        pipeline = Hand1000Pipeline.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    except Exception as error:
        # diffusers raises OSError, ValueError, TypeError and safetensors' own, by what is wrong with which file.
        raise Hand1000Error(f"{folder}: no model of Hand1000: {' '.join(str(error).split())}") from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to("cuda" if torch.cuda.is_available() else "cpu")


def draw_seeded(
    pipeline: "Hand1000Pipeline",
    prompts: Sequence[str],
    seed: int,
    *,
    mu: float | None = None,
    guidance_scale: float | None = None,
    num_inference_steps: int | None = None,
    batch_size: int = 4,
) -> Iterator["Image.Image"]:
    """Draw one picture a prompt; picture i starts from the noise of seed + i, whatever the batch.

    Args:
        pipeline: from `load_pipeline`.
        prompts: any number of them.
        seed: of the first picture, 0..2^31-1.
        mu, guidance_scale, num_inference_steps: as in the pipeline; None means the model's own.
        batch_size: how many are drawn at a time; memory grows with it.

    Raises:
        Hand1000Error: a setting out of range.
    """
    import torch

    for start in range(0, len(prompts), batch_size):
        batch = list(prompts[start : start + batch_size])
        generators = [torch.Generator("cpu").manual_seed(seed + start + i) for i in range(len(batch))]
        yield from pipeline(
            batch,
            mu=mu,
            guidance_scale=guidance_scale,
            num_inference_steps=num_inference_steps,
            generator=generators,
        ).images
