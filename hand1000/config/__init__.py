"""Validated settings of every workflow, and the presets."""
