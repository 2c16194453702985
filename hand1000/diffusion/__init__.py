"""The diffusion model: its loader, the fusion, Stages II and III, the pipeline, and the pretraining of a small base."""
