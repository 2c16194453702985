"""Former name of `hand1000.pipelines.pipeline_hand1000`."""

from hand1000.pipelines.pipeline_hand1000 import load_pipeline

__all__ = ["load_pipeline"]
