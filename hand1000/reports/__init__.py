"""HTML pages and the model card, rendered from the templates in `templates/`."""
