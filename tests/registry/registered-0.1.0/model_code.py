"""The registered model as MLflow runs it: this file is copied beside the weights and executed from there.

In: a column `prompt`. Out: a column `image`, PNG in base64. The machine needs the package `hand1000` installed.
"""

import base64
import io
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

from hand1000.diffusion.generate import draw_seeded
from hand1000.diffusion.pipeline import load_pipeline
from hand1000.errors import Hand1000Error

MAX_ROWS = 256
MAX_PROMPT = 2000
MAX_SEED = 2**31 - 1


class RegisteredHand1000(PythonModel):
    """Draws one picture a row; row i has the seed `seed + i`, so a request repeated gives the same pictures."""

    def load_context(self, context) -> None:
        """Load the weights from the folder `weights_dir` of the logged model."""
        # The context knows no path of the model, but this file was copied into its folder.
        self.pipeline = load_pipeline(Path(__file__).parent / context.model_config["weights_dir"])

    def predict(self, context, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Draw.

        Args:
            context: MLflow's; unused after loading.
            model_input: DataFrame with the column `prompt`, 1 to 256 rows of 1 to 2000 characters.
            params: `gesture` (of a model that knows several; "" is the one whose phrase a prompt holds),
                `seed` (0..2^31-1), `mu` (0..1), `guidance_scale` (1..50),
                `autoguidance_scale` (1..10), `eta` (0..1), `num_inference_steps` (1..1000).

        Returns:
            DataFrame with the column `image`, a base64 PNG a row, and the index of `model_input`.

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
            drawn = draw_seeded(self.pipeline, prompts, seeds, gestures=gestures, **settings)
            images = [_base64_png(image) for image in drawn]
        except Hand1000Error as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error
        return pd.DataFrame({"image": images}, index=model_input.index)


def _check(prompts: list, seed: int) -> None:
    if not 1 <= len(prompts) <= MAX_ROWS:
        raise MlflowException.invalid_parameter_value(f"{len(prompts)} prompts; send 1 to {MAX_ROWS} a request")
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
