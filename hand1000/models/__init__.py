"""The base model and the fusion layer."""
