"""The MLflow run that a workflow run is recorded in."""

from hand1000.config.settings import Settings
from tasks.context import cluster_task, open_tracker


@cluster_task(cache=False)
def start_run(gesture: str, images: int, data: str, base_model: str, settings: Settings, root: str) -> str:
    """Get or create the parent run of these inputs, and its key: the same inputs are the same run."""
    from hand1000.gestures import parse_gestures, slug
    from hand1000.storage.digests import digest_json
    from hand1000.storage.hub import model_identity

    gestures = parse_gestures(gesture)
    settings.stage2.check_gestures(gestures)
    inputs = {
        "gesture": gesture,
        "images": images,
        "data": data,
        "base_model": base_model,
        "settings": settings.model_dump(mode="json"),
    }
    key = f"{slug(gestures)}-{digest_json([inputs, model_identity(base_model)])[:12]}"
    open_tracker(key, root).log_params(inputs)
    return key


@cluster_task(cache=False)
def shard_indices(shards: int) -> list[int]:
    """0 to shards - 1, what the map tasks run over."""
    return list(range(shards))
