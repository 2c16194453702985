"""Datasets: readers of sources, selection, square crops, captioning, publication, and rendered sample data."""
