"""Thin Flyte tasks, one file a stage: image, resources, cache, retries, a call into the library."""

import os

# Flyte's local cache keeps paths in the home directory and does not see that an artifact root was deleted; the
# results under the root serve laptop and cluster alike (docs/architecture.md).
os.environ.setdefault("FLYTE_LOCAL_CACHE_ENABLED", "false")
