"""What exists only to reproduce the authors' scripts."""
