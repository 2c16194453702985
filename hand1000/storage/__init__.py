"""Storage of a run's results: atomic files, content digests, S3 and the artifact store."""

from hand1000.storage.artifacts import ArtifactStore, open_store

__all__ = ["ArtifactStore", "open_store"]
