"""What is particular to Flyte's commands, which may end their process, in contrast to programs that call tasks."""

import logging
import os
import sys

from hand1000.core.interruption import Interrupted


def is_command() -> bool:
    """Whether `pyflyte`, `pyflyte-execute` or torch's launcher runs the tasks of this process."""
    import click

    return click.get_current_context(silent=True) is not None or "TORCHELASTIC_RUN_ID" in os.environ


def shorten_flyte_errors() -> None:
    """Make `pyflyte` end with one line and status 2 at invalid inputs, instead of its box with a traceback.

    Flyte reads the inputs before it calls a task, so that no task can do this.
    """
    from flytekit import loggers
    from flytekit.clis.sdk_in_container import utils
    from pydantic import ValidationError

    from hand1000.config.base import format_validation_error
    from hand1000.core.errors import Hand1000Error, escape_unprintable, explain_system_error

    print_exception = utils.pretty_print_exception
    loggers.logger.addFilter(_is_no_signal)

    def print_line(error: Exception, verbosity: int = 1) -> None:
        if stopped := _find_signal(error):
            print(f"hand1000: {stopped}", file=sys.stderr)
            raise SystemExit(stopped.exit_status)
        text = None
        if isinstance(error, ValidationError):
            text = format_validation_error(error, "inputs")
        elif fault := error if isinstance(error, Hand1000Error) else explain_system_error(error, ".", at_place=False):
            text = str(fault)
        if text is None:
            print_exception(error, verbosity)
        else:
            print(f"hand1000: error: {escape_unprintable(text)}", file=sys.stderr)
            raise SystemExit(2)

    utils.pretty_print_exception = print_line


def _find_signal(error: BaseException | None) -> Interrupted | None:
    """Return the signal that torch's launcher got, where Flyte raised an error of its own for it."""
    while error is not None:
        if type(error).__name__ == "SignalException" and hasattr(error, "sigval"):
            return Interrupted(error.sigval)
        error = error.__cause__ or error.__context__
    return None


def _is_no_signal(record: logging.LogRecord) -> bool:
    return not record.exc_info or _find_signal(record.exc_info[1]) is None


def quiet_checkpoint_finalizers() -> None:
    """Let Flyte drop a checkpoint for whose folder there was no space, instead of a traceback below our line."""
    from flytekit.core.checkpointer import SyncCheckpoint

    clean_up = SyncCheckpoint.__del__

    def clean_up_folder(checkpoint: SyncCheckpoint) -> None:
        if hasattr(checkpoint, "_td"):
            clean_up(checkpoint)

    SyncCheckpoint.__del__ = clean_up_folder  # type: ignore[method-assign]
