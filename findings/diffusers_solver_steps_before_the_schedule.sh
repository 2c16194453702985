#!/usr/bin/env bash
# diffusers 0.42.1: DPMSolverMultistepScheduler takes a step too many, at timestep -1, for some numbers of "trailing" steps.
#
# numpy.arange over a fractional step ends one entry late where the fraction is rounded, so a sampling of 61 steps predicts 62
# times, the last time at a timestep that the noise schedule does not have. This is so for 62 of the numbers up to 1,000; 61 is
# the smallest. Source: schedulers/scheduling_dpmsolver_multistep.py, set_timesteps. Expected output:
#   60 steps: 60 timesteps, the last is 16
#   61 steps: 62 timesteps, the last is -1
#   62 of 1000 numbers of steps have a step too many
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "diffusers==0.42.1" "torch==2.13.0" "numpy==1.26.4"
cat > "$folder/steps.py" <<'PYTHON'
from diffusers import DPMSolverMultistepScheduler

scheduler = DPMSolverMultistepScheduler(timestep_spacing="trailing")


def timesteps(steps):
    scheduler.set_timesteps(steps)
    return scheduler.timesteps.tolist()


for steps in (60, 61):
    values = timesteps(steps)
    print(f"{steps} steps: {len(values)} timesteps, the last is {values[-1]}")
longer = sum(len(timesteps(steps)) > steps for steps in range(1, 1001))
print(f"{longer} of 1000 numbers of steps have a step too many")
PYTHON
cd "$folder"
output=$("$folder/venv/bin/python" steps.py 2>"$folder/errors") || { cat "$folder/errors" >&2; exit 1; }
echo "$output"
test "$output" = "60 steps: 60 timesteps, the last is 16
61 steps: 62 timesteps, the last is -1
62 of 1000 numbers of steps have a step too many"
