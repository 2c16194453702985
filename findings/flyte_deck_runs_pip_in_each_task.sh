#!/usr/bin/env bash
# flytekit 1.16.31: a task with enable_deck=True starts `pip list` and `pip freeze` each time that it runs, also locally.
#
# The default deck_fields hold the list of installed packages, which flytekit makes in two child processes before the task
# can end. A task that has nothing to compute then takes as long as pip does. Naming deck_fields without DEPENDENCIES leaves
# both out. Source: flytekit/deck/renderer.py, PythonDependencyRenderer. Expected output:
#   default fields: pip list, pip freeze
#   named fields: nothing
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "flytekit==1.16.31" "setuptools==80.9.0"
cat > "$folder/decks.py" <<'PYTHON'
import sys

from flytekit import task
from flytekit.deck import DeckField

commands = []


def listen(event, arguments):
    if event == "subprocess.Popen" and "pip" in arguments[1]:
        commands.append(" ".join(arguments[1][2:4]))


sys.addaudithook(listen)


@task(enable_deck=True)
def with_default_fields() -> int:
    return 1


@task(enable_deck=True, deck_fields=(DeckField.INPUT, DeckField.OUTPUT))
def with_named_fields() -> int:
    return 1


for name, run in (("default", with_default_fields), ("named", with_named_fields)):
    commands.clear()
    run()
    print(f"{name} fields: {', '.join(command.removesuffix(' --format') for command in commands) or 'nothing'}")
PYTHON
cd "$folder"
output=$(FLYTE_SDK_LOGGING_LEVEL=50 "$folder/venv/bin/python" decks.py 2>"$folder/errors") || { cat "$folder/errors" >&2; exit 1; }
echo "$output"
test "$output" = "default fields: pip list, pip freeze
named fields: nothing"
