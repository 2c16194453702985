"""Rendered sample data: images of hands with true annotations, in HaGRID's layout."""

from hand1000.data.render.captions import describe, vocabulary, with_gesture
from hand1000.data.render.dataset import RENDERER_VERSION, default_cache, render_dataset

__all__ = ["RENDERER_VERSION", "default_cache", "describe", "render_dataset", "vocabulary", "with_gesture"]
