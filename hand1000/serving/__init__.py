"""Serving of an accepted model: one core for the HTTP server, MLflow's model code and the page to try it on."""
