"""Where a run's work is kept: atomic files, content digests, S3 and the artifact store."""

from hand1000.storage.artifacts import ArtifactStore, Checkpoint, open_store

__all__ = ["ArtifactStore", "Checkpoint", "open_store"]
