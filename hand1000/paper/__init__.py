"""Training loop and metrics that reproduce the authors' scripts."""
