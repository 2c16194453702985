"""MLflow: the record of a run and the registered model."""
