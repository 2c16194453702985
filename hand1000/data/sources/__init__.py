"""Readers of the layouts in which people have images, described in docs/data.md."""
