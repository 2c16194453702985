"""Thin Flyte tasks, one file per stage: each declares its pod and calls the library."""

import atexit
import os
import shutil

from hand1000.core.interruption import install_handlers
from tasks.command import is_command, quiet_checkpoint_finalizers, shorten_flyte_errors

# Flyte's local cache keeps paths in the home directory and does not see that an artifact root was deleted; the
# results under the root serve laptop and cluster alike (docs/architecture.md).
os.environ.setdefault("FLYTE_LOCAL_CACHE_ENABLED", "false")
if is_command():
    install_handlers(exits=True, replace=True)
    shorten_flyte_errors()
    quiet_checkpoint_finalizers()


def _remove_flytes_folders(process: int) -> None:
    """Flytekit makes temporary folders when it is imported and leaves them; nothing that lasts is in them."""
    from flytekit import FlyteContextManager
    from flytekit.configuration import Config
    from flytekit.core.data_persistence import flyte_tmp_dir

    if os.getpid() == process:  # A forked child inherits the hook, not the folders.
        sandbox = FlyteContextManager.current_context().file_access.local_sandbox_dir
        for folder in (flyte_tmp_dir, Config.local_sandbox_path, sandbox):
            shutil.rmtree(folder, ignore_errors=True)


atexit.register(_remove_flytes_folders, os.getpid())
