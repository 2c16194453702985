"""Captions of images: captioners, completion with the gesture's phrase, and metrics."""
