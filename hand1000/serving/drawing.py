"""Drawing of images in batches of one fixed size, so that an image's bytes do not depend on its neighbors."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from hand1000.serving.image_request import ImageSpec

if TYPE_CHECKING:
    from PIL import Image

    from hand1000.pipelines.pipeline_hand1000 import Hand1000Pipeline

ImageDrawer = Callable[[Sequence[ImageSpec], Callable[[], None]], "list[Image.Image]"]
"""Draws a batch of images of equal settings; calls the second argument after each step, which may raise to end it."""


def make_drawer(pipeline: "Hand1000Pipeline", batch_size: int) -> ImageDrawer:
    """Return the function that draws up to `batch_size` images, in batches of exactly `batch_size`.

    The sums of a convolution are rounded in another order for another size of the batch, but not for another position
    in it or for other neighbors. So a smaller batch is filled up with its last image, and the copies are dropped.
    """
    from hand1000.pipelines.generation import generate

    pipeline.set_progress_bar_config(disable=True)

    def draw(specs: Sequence[ImageSpec], on_step: Callable[[], None]) -> "list[Image.Image]":
        """Return the images of at most `batch_size` specs, in their order."""
        filled = [*specs, *[specs[-1]] * (batch_size - len(specs))]

        def end_step(_: object, __: int, ___: int, tensors: dict[str, Any]) -> dict[str, Any]:
            on_step()
            return tensors

        images = generate(
            pipeline,
            [spec.prompt for spec in filled],
            [spec.seed for spec in filled],
            gestures=[spec.gesture for spec in filled] if pipeline.fusion is not None else None,
            batch_size=batch_size,
            callback_on_step_end=end_step,
            **dict(specs[0].settings),
        )
        return list(images)[: len(specs)]

    return draw
