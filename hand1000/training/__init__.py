"""Training: Stages II and III, the small base model and the ControlNet."""
