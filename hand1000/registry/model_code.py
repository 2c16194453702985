"""The registered model as MLflow runs it. This file is copied beside the weights and executed from there.

The input has a column `prompt`, the output a column `image`, a PNG in base64. This file uses the public API of the
package `hand1000` alone: the installed one, or where there is none, the one in `library.zip` beside this file.
"""

import sys
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

# Python looks into the last entry for what no other one has.
sys.path.append(str(Path(__file__).with_name("library.zip")))

from hand1000 import MlflowModel  # noqa: E402


class RegisteredHand1000(PythonModel):
    """A model that generates one image per row; row i has the seed `seed + i`, so requests are repeatable."""

    def load_context(self, context) -> None:
        """Load the weights from the folder `weights_dir` of the logged model; `model_config` may set limits, too."""
        # The context knows no path of the model, but this file was copied into its folder.
        self.model = MlflowModel.load(Path(__file__).parent, context.model_config)

    def predict(self, context, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Generate the images; see `hand1000.MlflowModel.predict`."""
        return self.model.predict(model_input, params)


set_model(RegisteredHand1000())
