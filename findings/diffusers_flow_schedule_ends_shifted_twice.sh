#!/usr/bin/env bash
# diffusers 0.42.1: FlowMatchEulerDiscreteScheduler samples another schedule than the one that it is made with.
#
# The constructor shifts 1/T .. 1 and keeps the smallest shifted noise level as `sigma_min`. `set_timesteps` spaces its levels
# down to that one and shifts all of them, so the last level is shifted twice: with Stable Diffusion 3's shift of 3 the 1,000
# steps end at 0.0089 and not at 0.0030. Levels that are handed over as `sigmas` are shifted too, so a schedule does not survive
# being set to its own levels. Source: schedulers/scheduling_flow_match_euler_discrete.py. Expected output:
#   made: 1.0000, 0.7507, 0.0030
#   set to 1000 steps: 1.0000, 0.7515, 0.0089
#   set to its own levels: 1.0000, 0.9007, 0.0263
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "diffusers==0.42.1" "torch==2.13.0" "numpy==1.26.4"
cat > "$folder/levels.py" <<'PYTHON'
from diffusers import FlowMatchEulerDiscreteScheduler

scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.0)


def levels():
    sigmas = scheduler.sigmas.tolist()[:1000]
    return ", ".join(f"{sigmas[index]:.4f}" for index in (0, 499, 999))


print(f"made: {levels()}")
scheduler.set_timesteps(1000)
print(f"set to 1000 steps: {levels()}")
scheduler.set_timesteps(sigmas=scheduler.sigmas.tolist()[:1000])
print(f"set to its own levels: {levels()}")
PYTHON
cd "$folder"
output=$("$folder/venv/bin/python" levels.py 2>"$folder/errors") || { cat "$folder/errors" >&2; exit 1; }
echo "$output"
test "$output" = "made: 1.0000, 0.7507, 0.0030
set to 1000 steps: 1.0000, 0.7515, 0.0089
set to its own levels: 1.0000, 0.9007, 0.0263"
