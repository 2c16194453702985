"""Whether this process is one of Flyte's commands, which may end it, or a program that calls tasks as functions."""

import os


def is_command() -> bool:
    """Whether `pyflyte`, `pyflyte-execute` or torch's launcher runs the tasks of this process."""
    import click

    return click.get_current_context(silent=True) is not None or "TORCHELASTIC_RUN_ID" in os.environ
