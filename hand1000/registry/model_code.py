"""The registered model as MLflow runs it. This file is copied beside the weights and executed from there.

The input has a column `prompt`, the output a column `image`, a PNG in base64. The machine needs the package `hand1000`,
of which this file uses the public API alone.
"""

import base64
import io
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

from hand1000 import Hand1000Error, generate, load_pipeline

MAX_ROWS = 256
MAX_PROMPT = 2000
MAX_SEED = 2**31 - 1


class RegisteredHand1000(PythonModel):
    """A model that generates one image per row; row i has the seed `seed + i`, so requests are repeatable."""

    def load_context(self, context) -> None:
        """Load the weights from the folder `weights_dir` of the logged model."""
        # The context knows no path of the model, but this file was copied into its folder.
        self.pipeline = load_pipeline(Path(__file__).parent / context.model_config["weights_dir"])

    def predict(self, context, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Generate the images.

        Args:
            context: MLflow's context, which is only used for loading.
            model_input: DataFrame with the column `prompt`, 1 to 256 rows of 1 to 2000 characters.
            params: `gesture` for a model that knows several ("" infers it from the phrase in the prompt), `seed` (0 to
                2^31-1), and the fields of `hand1000.SamplerSettings` but `fuse_null_prompt`, with its bounds.

        Returns:
            DataFrame with the column `image`, one base64 PNG per row, and the index of `model_input`.

        Raises:
            MlflowException: INVALID_PARAMETER_VALUE (a server answers 400), naming the input at fault.
        """
        settings = dict(params or {})
        seed = settings.pop("seed", 0)
        gesture = settings.pop("gesture", "")
        prompts = list(model_input["prompt"])
        _check(prompts, seed)
        seeds = range(int(seed), int(seed) + len(prompts))
        gestures = [gesture] * len(prompts) if gesture else None
        try:
            images = generate(self.pipeline, prompts, seeds, gestures=gestures, **settings)
            encoded = [_base64_png(image) for image in images]
        except Hand1000Error as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error
        return pd.DataFrame({"image": encoded}, index=model_input.index)


def _check(prompts: list, seed: int) -> None:
    if not 1 <= len(prompts) <= MAX_ROWS:
        raise MlflowException.invalid_parameter_value(f"{len(prompts)} prompts; send 1 to {MAX_ROWS} per request")
    for row, prompt in enumerate(prompts):
        if not isinstance(prompt, str) or not prompt.strip() or len(prompt) > MAX_PROMPT:
            raise MlflowException.invalid_parameter_value(f"prompt {row}: give a text of 1 to {MAX_PROMPT} characters")
    if not 0 <= seed <= MAX_SEED:
        raise MlflowException.invalid_parameter_value(f"seed: {seed} is out of range; choose 0 to {MAX_SEED}")


def _base64_png(image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


set_model(RegisteredHand1000())
