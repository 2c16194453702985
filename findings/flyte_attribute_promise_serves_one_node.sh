#!/usr/bin/env bash
# flytekit 1.16.31, local execution: a promise of an input's attribute can be passed to one node only.
#
# `seed = settings.seed` in a workflow looks like a value that any number of tasks may take. The first task that takes it
# resolves the attribute inside that very promise; for the second task, flytekit looks the attribute up again in the
# resolved value and raises FlytePromiseAttributeResolveException. Writing `settings.seed` once per task works. Compilation
# accepts both, so only a run shows it. Expected output:
#   separate: (4, 13)
#   shared: FlytePromiseAttributeResolveException
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "flytekit==1.16.31" "pydantic==2.12.5" "setuptools==80.9.0"
cat > "$folder/workflows.py" <<'PYTHON'
from flytekit import task, workflow
from pydantic import BaseModel


class Settings(BaseModel):
    seed: int = 3


@task
def add(seed: int) -> int:
    return 1 + seed


@task
def add_ten(seed: int) -> int:
    return 10 + seed


@workflow
def separate(settings: Settings) -> tuple[int, int]:
    return add(seed=settings.seed), add_ten(seed=settings.seed)


@workflow
def shared(settings: Settings) -> tuple[int, int]:
    seed = settings.seed
    return add(seed=seed), add_ten(seed=seed)


for run in (separate, shared):
    name = run.name.rpartition(".")[2]
    try:
        print(f"{name}: {tuple(run(settings=Settings()))}")
    except Exception as error:
        print(f"{name}: {type(error).__name__}")
PYTHON
cd "$folder"
output=$(HOME="$folder" "$folder/venv/bin/python" workflows.py 2>/dev/null)
echo "$output"
test "$output" = "separate: (4, 13)
shared: FlytePromiseAttributeResolveException"
