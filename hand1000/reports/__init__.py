"""The pages and cards that people read."""
