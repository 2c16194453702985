"""Where the pictures come from: image sets, sources and their crop, and the rendered sample data."""
