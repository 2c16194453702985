"""Storage of a run's results: atomic files, content digests, S3 and the artifact store."""
