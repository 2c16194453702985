"""Former name of `hand1000.pipelines.generation`."""

from hand1000.pipelines.generation import generate as draw_seeded

__all__ = ["draw_seeded"]
