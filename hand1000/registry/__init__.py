"""MLflow: the record of a run, the registered model, its card and the report."""
