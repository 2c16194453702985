"""The page to try a model: the same prompt and seed by base model, champion and candidate, side by side.

A request passes the check of the served model, so that the page accepts what a server would. It loads nothing from
other hosts and reports nothing to anyone.
"""

import html
import io
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hand1000.config.serving import ServingLimits
from hand1000.core.errors import Hand1000Error
from hand1000.gestures import gesture_phrase
from hand1000.serving.image_request import MAX_SEED
from hand1000.serving.model import ModelInfo, ServedModel
from hand1000.storage.scratch import process_scratch

if TYPE_CHECKING:
    import gradio
    from PIL import Image

    from hand1000.pipelines.pipeline_hand1000 import Hand1000Pipeline

FROM_PROMPT = "from the prompt"
"""Choice of the gesture that the prompt's phrase names."""

MAX_STEPS = 200
MAX_WAITING = 16

_FIELDS = ("prompt", "gesture", "mu", "guidance_scale", "num_inference_steps", "seed")
"""The inputs of the page by their names in a request."""

_STYLE = """
footer {display: none !important}
.columns .image-frame {width: 100%}
.columns .image-frame img {width: 100%; height: auto; max-height: min(640px, 55vh); object-fit: contain}
.columns .caption {min-height: 3.2em; overflow-wrap: anywhere}
"""


@dataclass(frozen=True)
class Column:
    """A model of the page and its heading."""

    title: str
    model: ServedModel


def get_base(pipeline: "Hand1000Pipeline") -> "Hand1000Pipeline | None":
    """Return the base model that a model contains for autoguidance, or None if it contains none."""
    from hand1000.pipelines.pipeline_hand1000 import Hand1000Pipeline

    if pipeline.guidance_denoiser is None:
        return None
    settings = pipeline.sampler_settings().model_dump() | {"autoguidance_scale": 1.0}
    return Hand1000Pipeline(pipeline.backbone.with_denoiser(pipeline.guidance_denoiser), **settings)


def load_base(address: str, like: "Hand1000Pipeline") -> "Hand1000Pipeline":
    """Return a base model with the sampler's settings of `like`, on the same device.

    Raises:
        Hand1000Error: There is no base model at `address`, or it cannot be loaded.
    """
    from hand1000.models.base_model import load_base_model
    from hand1000.pipelines.pipeline_hand1000 import build_pipeline

    settings = like.sampler_settings().model_dump() | {"autoguidance_scale": 1.0}
    return build_pipeline(load_base_model(address, like.backbone.device), **settings)


def make_column(title: str, pipeline: "Hand1000Pipeline", info: ModelInfo, limits: ServingLimits) -> Column:
    """Return the column of a model."""
    return Column(title, ServedModel(pipeline, info, limits))


def draw(column: Column, values: dict[str, Any]) -> "Image.Image":
    """Draw one image with a column's model.

    Args:
        column: The column.
        values: Fields of a request; a gesture, which a model without fusion does not know, is left out for one.

    Raises:
        Hand1000Error: The request is not accepted, or not finished in time.
    """
    from PIL import Image

    model = column.model
    own = values if model.parser.gestures else {name: value for name, value in values.items() if name != "gesture"}
    job = model.submit(own)
    try:
        job.future.result(model.limits.timeout_seconds)
    except FutureTimeoutError:
        error = Hand1000Error(f"not finished within {model.limits.timeout_seconds:.0f} s; choose fewer steps")
        job.fail(error)
        raise error from None
    return Image.open(io.BytesIO(model.encode_images(job)[0]))


def build_page(columns: Sequence[Column]) -> "gradio.Blocks":
    """Build the page.

    Args:
        columns: The models, the one to try last; its settings are the first values of the sliders.
    """
    gradio = _import_gradio()
    tried = columns[-1].model
    gestures = list(dict.fromkeys(gesture for column in columns for gesture in column.model.parser.gestures))
    defaults = tried.parser.body_model.model_fields
    phrase = gesture_phrase(gestures[0]) if gestures else "waving"

    def draw_all(*values: Any) -> Iterator[list[Any]]:
        """Yield the images and captions so far, after each column."""
        request = _clean(dict(zip(_FIELDS, values, strict=True)))
        images: list[Any] = [None] * len(columns)
        captions = [""] * len(columns)
        for index, column in enumerate(columns):
            captions[index] = _caption("drawing ...")
            yield [*images, *captions]
            try:
                images[index] = draw(column, request)
                captions[index] = _caption(f"{column.model.info.version}, seed {request['seed']}")
            except Hand1000Error as error:
                captions[index] = _caption(f"not drawn: {error}")
            yield [*images, *captions]

    with gradio.Blocks(title="hand1000", analytics_enabled=False, fill_width=True) as page:
        gradio.Markdown("# hand1000\nOne prompt and one seed, drawn by each model.")
        with gradio.Row():
            prompt = gradio.Textbox(
                f"a photo of a hand, {phrase}",
                label="Prompt, with the phrase of the gesture",
                max_length=tried.limits.max_prompt_length,
                lines=2,
                scale=3,
                min_width=260,
            )
            gesture = gradio.Dropdown(
                [FROM_PROMPT, *gestures], value=FROM_PROMPT, label="Gesture", scale=1, min_width=220
            )
        with gradio.Row():
            mu = _slider(gradio, "mu: 1 is text alone", (0, 1, 0.05), defaults["mu"].default)
            guidance = _slider(gradio, "Guidance scale", (1, 50, 0.5), defaults["guidance_scale"].default)
            steps = _slider(gradio, "Steps", (1, MAX_STEPS, 1), min(defaults["num_inference_steps"].default, MAX_STEPS))
            seed = gradio.Number(0, label="Seed", minimum=0, maximum=MAX_SEED, precision=0)
        with gradio.Row():
            start = gradio.Button("Draw", variant="primary")
            again = gradio.Button("Draw with the next seed")
        images, captions = [], []
        with gradio.Row(elem_classes="columns"):
            for column in columns:
                with gradio.Column(min_width=200):
                    image = gradio.Image(label=column.title, format="png", interactive=False, type="pil", buttons=[])
                    images.append(image)
                    captions.append(gradio.HTML(_caption(column.model.info.version), elem_classes="caption"))
        inputs, outputs = [prompt, gesture, mu, guidance, steps, seed], [*images, *captions]
        gradio.on([start.click, prompt.submit], draw_all, inputs, outputs, api_name=False)
        again.click(lambda value: min(int(value or 0) + 1, MAX_SEED), seed, seed, api_name=False).then(
            draw_all, inputs, outputs, api_name=False
        )
    # One after another: the models share parts, and a machine has one accelerator.
    page.queue(default_concurrency_limit=1, max_size=MAX_WAITING, api_open=False)
    return page


def launch_page(page: "gradio.Blocks", host: str, port: int, *, block: bool = True) -> str:
    """Serve the page and return its address; with `block`, return only at an interrupt.

    Raises:
        Hand1000Error: The port is taken, or the host is not one of this machine.
    """
    gradio = _import_gradio()
    fonts = ["system-ui", "sans-serif"]
    try:
        _, url, _ = page.launch(
            server_name=host,
            server_port=port,
            share=False,
            quiet=True,
            ssr_mode=False,
            enable_monitoring=False,
            footer_links=[],
            css=_STYLE,
            # Gradio's own themes load fonts from Google.
            theme=gradio.themes.Default(font=fonts, font_mono=["ui-monospace", "monospace"]),
            prevent_thread_lock=True,
        )
    except OSError as error:
        raise Hand1000Error(
            f"demo: cannot listen on {host}:{port}: {error}; choose another --port or --host"
        ) from error
    print(f"page        {url}", flush=True)
    if block:
        page.block_thread()
    return str(url)


def _caption(text: str) -> str:
    """A line below an image. The text may repeat the prompt, so that it is escaped."""
    return f"<p>{html.escape(text)}</p>"


def _slider(gradio: Any, label: str, bounds: tuple[float, float, float], value: float) -> Any:
    low, high, step = bounds
    return gradio.Slider(low, high, value=value, step=step, label=label, buttons=[])


def _clean(values: dict[str, Any]) -> dict[str, Any]:
    """Turn what the browser sends into the types of a request; an emptied field is left out."""
    fields = {name: value for name, value in values.items() if value is not None}
    if fields.get("gesture") == FROM_PROMPT:
        del fields["gesture"]
    floats = [name for name in ("num_inference_steps", "seed") if isinstance(fields.get(name), float)]
    return {"seed": 0, **fields, **{name: int(fields[name]) for name in floats}}


def check_gradio() -> None:
    """Raise a Hand1000Error if Gradio is not installed, before anything is loaded."""
    _import_gradio()


def _import_gradio() -> Any:
    # Read at import: nothing is reported, and uploads and images go where they vanish with this process.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ.setdefault("GRADIO_TEMP_DIR", str(process_scratch(None)))
    try:
        import gradio
    except ModuleNotFoundError as error:
        raise Hand1000Error(f"demo: {error.name} is missing; pip install 'hand1000[demo]'") from error
    return gradio
