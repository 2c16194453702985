"""Results of models, kept by key as they come, so that a stopped run continues and no key is computed twice."""

from collections.abc import Callable, Sequence

from pydantic import JsonValue

from hand1000.core.progress import ProgressCallback
from hand1000.storage.cache import KeyValueCache


def compute_missing(
    keys: Sequence[str],
    compute: Callable[[list[int]], Sequence[JsonValue]],
    *,
    cache: KeyValueCache,
    batch_size: int,
    on_progress: ProgressCallback,
) -> list[JsonValue]:
    """Return one value per key: from the cache, or computed in batches that the cache keeps at once.

    `compute` returns the values of the keys with the given indices. Equal keys are computed once.
    """
    values = cache.read()
    first_index = {key: index for index, key in reversed(list(enumerate(keys)))}
    # Sorted by key, so that the same inputs form the same batches, whatever their order.
    missing = [first_index[key] for key in sorted(first_index) if key not in values]
    for start in range(0, len(missing), batch_size):
        batch = missing[start : start + batch_size]
        computed = {keys[index]: value for index, value in zip(batch, compute(batch), strict=True)}
        cache.add(computed)
        values |= computed
        on_progress(len(first_index) - len(missing) + start + len(batch), len(first_index), {})
    return [values[key] for key in keys]
