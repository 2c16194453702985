"""Teach Stable Diffusion hand gestures from 1,000 images each (Hand1000, AAAI 2025).

This module is the public API. Its names are imported when they are first used, so `import hand1000` stays fast.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hand1000.config.sampler import SamplerSettings
    from hand1000.config.settings import Settings, load_settings
    from hand1000.core.errors import Hand1000Error
    from hand1000.export.export import export_model
    from hand1000.gestures import gesture_phrase
    from hand1000.models.fusion import GestureFusion
    from hand1000.pipelines.generation import generate
    from hand1000.pipelines.pipeline_hand1000 import Hand1000Pipeline
    from hand1000.registry.load import load_pipeline
    from hand1000.serving.mlflow_model import MlflowModel

__version__ = "0.1.0"

__all__ = [
    "GestureFusion",
    "Hand1000Error",
    "Hand1000Pipeline",
    "MlflowModel",
    "SamplerSettings",
    "Settings",
    "__version__",
    "export_model",
    "generate",
    "gesture_phrase",
    "load_pipeline",
    "load_settings",
]

# diffusers looks up the classes of a saved pipeline by name in the top package, too.
_MODULES = {
    "GestureFusion": "hand1000.models.fusion",
    "Hand1000Error": "hand1000.core.errors",
    "Hand1000Pipeline": "hand1000.pipelines.pipeline_hand1000",
    "MlflowModel": "hand1000.serving.mlflow_model",
    "SamplerSettings": "hand1000.config.sampler",
    "Settings": "hand1000.config.settings",
    "export_model": "hand1000.export.export",
    "generate": "hand1000.pipelines.generation",
    "gesture_phrase": "hand1000.gestures",
    "load_pipeline": "hand1000.registry.load",
    "load_settings": "hand1000.config.settings",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'hand1000' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
