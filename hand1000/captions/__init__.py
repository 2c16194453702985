"""Captions of images: where they come from, and their completion with the gesture's phrase."""
