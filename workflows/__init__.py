"""The pipelines as stories: what feeds what, with which inputs, and when."""
